//! `diffbir models` without any network.

mod common;

use assert_cmd::Command;
use burn::tensor::TensorData;
use common::{diffbir, save, zeros_of};
use diffbir_models::rrdb::RrdbConfig;
use diffbir_models::scunet::ScuNetConfig;
use diffbir_models::srvgg::SrvggConfig;
use diffbir_models::swinir::SwinIrConfig;
use diffbir_nn::checkpoint::Checkpoint;
use diffbir_nn::params::{RandomInit, build, keys_of};
use diffbir_nn::{Device, Params};
use predicates::prelude::*;
use predicates::str::contains;
use std::path::Path;
use tempfile::TempDir;

fn models(folder: &Path, arguments: &[&str]) -> assert_cmd::assert::Assert {
    let mut command = Command::cargo_bin("diffbir").expect("the binary is built");
    command.env("DIFFBIR_MODELS", folder.join("models")).env("HF_HUB_CACHE", folder.join("hub"));
    command.arg("models").args(arguments).assert()
}

/// Real-ESRGAN restores by its name, without stage 2.
#[test]
fn engines_are_models_by_name() {
    let folder = TempDir::new().unwrap();
    let here = folder.path();
    let input = save(here, "a.png");
    let restore = |arguments: &[&str]| {
        let mut command = diffbir();
        command.env("DIFFBIR_MODELS", here.join("models")).arg("restore").arg(&input);
        command.args(["-o", here.join("out.png").to_str().unwrap(), "--existing", "overwrite"]);
        command.args(arguments).assert()
    };
    let missing =
        contains("realesr-general-x4v3.pth is not here: `diffbir models pull realesr-general-x4v3`");
    restore(&["--model", "realesr-general-x4v3"]).code(2).stderr(missing);
    std::fs::create_dir(here.join("models")).unwrap();
    // Values follow from the seed, and both files have the same names.
    let file = |seed| {
        let mut random = RandomInit { seed };
        let network = |params: &Params| SrvggConfig::general_x4v3().build(params);
        let (network, keys) = build(&mut random, &Device::flex(), network).unwrap();
        Checkpoint::from_tensors(keys.tensors(&network)).to_safetensors(true).unwrap()
    };
    std::fs::write(here.join("models/realesr-general-x4v3.safetensors"), file(1)).unwrap();
    restore(&["--engine", "realesr-general-x4v3"]).success().stderr(contains("realesr-general-x4v3"));
    let whole = std::fs::read(here.join("out.png")).unwrap();
    restore(&["--model", "realesr-general-x4v3", "--denoise", "0.5"])
        .code(2)
        .stderr(contains("realesr-general-wdn-x4v3.pth is not here"));
    std::fs::write(here.join("models/realesr-general-wdn-x4v3.safetensors"), file(2)).unwrap();
    restore(&["--model", "realesr-general-x4v3", "--denoise", "1"]).success();
    assert!(std::fs::read(here.join("out.png")).unwrap() == whole);
    restore(&["--model", "realesr-general-x4v3", "--denoise", "0.5"]).success();
    assert!(std::fs::read(here.join("out.png")).unwrap() != whole);
    // As a stage 1 of the built-in model it gives what it gives alone, where that stops after stage 1.
    let behind = ["--model", "nano", "--stage1", "realesr-general-x4v3", "--stage1-only"];
    restore(&behind).success();
    assert!(std::fs::read(here.join("out.png")).unwrap() == whole);
    let less = [&behind[..], &["--denoise", "0.5"]].concat();
    restore(&less).success();
    let mixed = std::fs::read(here.join("out.png")).unwrap();
    restore(&["--model", "realesr-general-x4v3", "--denoise", "0.5"]).success();
    assert!(std::fs::read(here.join("out.png")).unwrap() == mixed && mixed != whole);
    restore(&["--stage1", "nothing"]).code(2).stderr(contains("--stage1 nothing: is neither an engine"));
    restore(&["--denoise", "0.5"]).code(2).stderr(contains("it goes with --model realesr-general-x4v3"));
    restore(&["--denoise", "1.5"]).code(2).stderr(contains("it must be from 0 to 1"));
    models(here, &["list"]).success().stdout(
        contains("realesr-general-x4v3  2 of 2 files here").and(contains("realesrgan-x2plus  0 of 1")),
    );
}

/// SCUNet's hash is published, so zeros under its name are told; BSRNet's is not.
#[test]
fn a_file_that_is_not_the_published_one_is_told_where_it_is_used() {
    let folder = TempDir::new().unwrap();
    let here = folder.path();
    let (store, input) = (here.join("models"), save(here, "a.png"));
    std::fs::create_dir(&store).unwrap();
    let scunet = store.join("scunet_color_real_psnr.pth");
    std::fs::write(&scunet, zeros_of(|params| ScuNetConfig::official().build(params))).unwrap();
    let restore = |task: &str| {
        let mut command = diffbir();
        command.env("DIFFBIR_MODELS", &store).args(["restore", "--stage1-only", "--device", "cpu"]);
        command.args(["--model", "v2", "--task", task, "--upscale", "1", "--existing", "overwrite"]);
        command.arg(&input).assert().success()
    };
    let warning = "scunet_color_real_psnr.pth: is not the file that its authors published";
    restore("denoise").stderr(contains(warning).count(1));
    // So is one that is named by itself, and one that is about to be pulled.
    let mut command = diffbir();
    command.env("DIFFBIR_MODELS", &store).args([
        "restore",
        "--device",
        "cpu",
        "--existing",
        "overwrite",
        "--model",
    ]);
    command
        .arg(&scunet)
        .arg(&input)
        .args(["--upscale", "1"])
        .assert()
        .success()
        .stderr(contains(warning).count(1));
    models(here, &["pull", "scunet_color_real_psnr.pth"])
        .code(1)
        .stderr(contains("scunet_color_real_psnr.pth: is here and is another file (it has SHA-256"));
    let hashes = std::fs::read_to_string(store.join("hashes.json")).unwrap();
    assert!(hashes.contains("scunet_color_real_psnr.pth"));
    // What is known of it is believed as long as size and time are the same.
    let known = hashes.split("\"sha256\": \"").nth(1).unwrap()[..64].to_string();
    let published = diffbir::catalog::file("scunet_color_real_psnr.pth").unwrap().sha256.unwrap();
    std::fs::write(store.join("hashes.json"), hashes.replace(&known, published)).unwrap();
    restore("denoise").stderr(contains(warning).not());
}

/// A published stage 1 is a model of its own, whatever it is called.
#[test]
fn a_published_stage_1_is_a_model() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("any.safetensors");
    let sizes = SrvggConfig::general_x4v3();
    std::fs::write(&file, zeros_of(|params| sizes.build(params))).unwrap();
    let described = contains("model `srvggnetcompact`, stage 1 only").and(contains("general-x4v3"));
    diffbir().arg("info").arg(&file).assert().success().stdout(described);
    let (input, output) = (save(folder.path(), "a.png"), folder.path().join("b.png"));
    let mut command = diffbir();
    command.args(["restore", "--device", "cpu", "--model"]).arg(&file).arg(&input).arg("-o").arg(&output);
    command.assert().success();
    // With all weights zero it enlarges by repeating pixels, and no level is lost in writing.
    let [read, written] = [&input, &output].map(|path| image::open(path).unwrap().into_rgb8());
    assert_eq!(written.dimensions(), (64, 48));
    assert!(written.enumerate_pixels().all(|(x, y, pixel)| pixel == read.get_pixel(x / 4, y / 4)));
}

#[test]
fn info_describes_folders_and_files_of_several_networks() {
    let folder = TempDir::new().unwrap();
    let here = folder.path();
    let write = |file: &Path, tensors: &[&str]| {
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        let tensors = tensors.iter().map(|name| (name.to_string(), TensorData::new(vec![0f32], [1])));
        std::fs::write(file, Checkpoint::from_tensors(tensors.collect()).to_safetensors(false).unwrap())
            .unwrap();
    };
    let info = |path: &Path| diffbir().arg("info").arg(path).assert();
    let unet = "down_blocks.0.resnets.0.conv1.weight";
    let vae = "decoder.mid_block.resnets.0.conv1.weight";
    let text = "text_model.encoder.layers.0.self_attn.q_proj.weight";
    let library = here.join("library");
    write(&library.join("unet/diffusion_pytorch_model.safetensors"), &[unet]);
    info(&library).code(1).stderr(contains("is a folder, neither of a training run"));
    write(&library.join("vae/diffusion_pytorch_model.safetensors"), &[vae]);
    write(&library.join("text_encoder/model.safetensors"), &[text]);
    info(&library).success().stdout(
        contains("library: Stable Diffusion as the diffusers library keeps it\n")
            .and(contains("vae/diffusion_pytorch_model.safetensors: weights of autoencoder in the names"))
            .and(contains("text_encoder/model.safetensors: weights of text encoder"))
            .and(contains(
                "unet/diffusion_pytorch_model.safetensors: lacks the tensor `time_embedding.linear_1.bias`",
            ))
            .and(contains("text_encoder/model.safetensors: lacks the tensor `text_model.embeddings")),
    );
    let original = here.join("original.ckpt");
    write(&original, &["model.diffusion_model.time_embed.0.weight"]);
    let told = "not as it is published: ";
    info(&original).success().stdout(
        contains(told)
            .and(contains("original.ckpt: lacks the tensor `model.diffusion_model.time_embed.0.bias`")),
    );
    let all = here.join("all.safetensors");
    write(&all, &[unet, vae]);
    info(&all).success().stdout(contains("weights of UNet in the names").and(contains("and of autoencoder")));
}

#[test]
fn info_tells_what_is_wrong_with_a_network() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("mine.safetensors");
    let keys = keys_of(|params| SrvggConfig::general_x4v3().build(params)).unwrap();
    let tensors = keys.entries().iter().filter(|entry| entry.key != "body.3.weight").map(|entry| {
        let zeros = vec![0f32; entry.shape.iter().product()];
        (entry.key.clone(), TensorData::new(zeros, entry.shape.clone()))
    });
    std::fs::write(&file, Checkpoint::from_tensors(tensors.collect()).to_safetensors(true).unwrap()).unwrap();
    let fault = "not as it is published: ";
    let told = contains(fault).and(contains("mine.safetensors: lacks the tensor `body.3.weight`"));
    diffbir().arg("info").arg(&file).assert().success().stdout(told);
    // Whole numbers where weights are needed, and where nothing is needed.
    for (key, told) in [
        ("body.3.weight", "`body.3.weight` is stored in numbers that are no weights"),
        ("strange", "holds 1 tensors that the network does not know, first `strange`"),
    ] {
        let names = keys.entries().iter().map(|entry| (entry.key.clone(), entry.shape.clone()));
        let names = names
            .chain([("strange".to_string(), vec![2])])
            .filter(|(name, _)| key == "strange" || name != "strange");
        let tensors = names.map(|(name, shape)| {
            let zeros = vec![0f32; shape.iter().product()];
            (name, TensorData::new(zeros, shape))
        });
        let mut bytes = Checkpoint::from_tensors(tensors.collect()).to_safetensors(false).unwrap();
        let find = |bytes: &[u8], text: &str| {
            bytes.windows(text.len()).position(|at| at == text.as_bytes()).unwrap()
        };
        let at = find(&bytes, &format!("\"{key}\""));
        let at = at + find(&bytes[at..], "F32");
        bytes[at] = b'I';
        std::fs::write(&file, bytes).unwrap();
        diffbir().arg("info").arg(&file).assert().success().stdout(contains(told));
        let output = folder.path().join("out.png");
        let restore = diffbir()
            .arg("restore")
            .arg(save(folder.path(), "a.png"))
            .arg("--model")
            .arg(&file)
            .arg("-o")
            .arg(&output)
            .assert();
        restore.code(2).stderr(contains(told));
        assert!(!output.exists());
    }
    let strange = Checkpoint::from_tensors([("a".into(), TensorData::new(vec![0f32], [1]))].into());
    std::fs::write(&file, strange.to_safetensors(true).unwrap()).unwrap();
    diffbir().arg("info").arg(&file).assert().success().stdout(contains(fault).not());
    let onnx = folder.path().join("mine.onnx");
    std::fs::write(&onnx, b"no network").unwrap();
    diffbir().arg("info").arg(&onnx).assert().code(1).stderr(contains("mine.onnx: is not a whole ONNX file"));
}

#[test]
fn what_a_network_computes_may_be_missing_and_is_told() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("cleaner.safetensors");
    let keys = keys_of(|params| SwinIrConfig::official().build(params)).unwrap();
    let tensors = |with_computed: bool| {
        let entries = keys.entries().iter().filter(move |entry| entry.is_read() || with_computed);
        let tensors = entries.map(|entry| {
            let zeros = vec![0f32; entry.shape.iter().product()];
            (entry.key.clone(), TensorData::new(zeros, entry.shape.clone()))
        });
        Checkpoint::from_tensors(tensors.collect()).to_safetensors(true).unwrap()
    };
    let told = "lacks 72 tensors that its file should hold, first `layers.0.residual_group.blocks.0.attn.relative_position_index`";
    std::fs::write(&file, tensors(false)).unwrap();
    diffbir().arg("info").arg(&file).assert().success().stdout(contains(told));
    let mut restore = diffbir();
    restore.args(["restore", "--stage1-only", "--upscale", "1", "--model"]).arg(&file);
    restore.arg(save(folder.path(), "a.png")).assert().success().stderr(contains(told));
    std::fs::write(&file, tensors(true)).unwrap();
    diffbir().arg("info").arg(&file).assert().success().stdout(contains("lacks").not());
}

#[test]
fn files_are_listed_found_and_imported() {
    let folder = TempDir::new().unwrap();
    let here = folder.path();
    models(here, &["list"])
        .success()
        .stdout(contains("nano  built in").and(contains("v2.1  0 of 4 files here")));
    models(here, &["list"]).success().stdout(contains("lpips-vgg  0 of 2 files here: LPIPS with VGG-16"));
    models(here, &["path", "niqe"]).code(2).stderr(contains("models pull niqe_pris_params.npz"));
    models(here, &["path"]).success().stdout(contains("models"));
    models(here, &["path", "BSRNet.pth"]).code(2).stderr(contains("models pull BSRNet.pth"));
    models(here, &["pull", "v3"]).code(2).stderr(contains("v2.1, v2, v1"));
    models(here, &["verify"]).success().stderr(contains("none of these files is here"));

    // A file whose hash nobody published is taken at its word if its tensors are the network's.
    let own = here.join("mine.pth");
    std::fs::write(&own, b"weights").unwrap();
    let file = own.clone();
    let own = own.to_str().unwrap();
    models(here, &["import", own]).code(2).stderr(contains("--name"));
    models(here, &["import", own, "--name", "BSRNet.pth"]).code(2).stderr(contains("mine.pth"));
    std::fs::write(&file, zeros_of(|params| ScuNetConfig::official().build(params))).unwrap();
    let refused = contains("mine.pth: lacks the tensor `conv_first.weight`");
    models(here, &["import", own, "--name", "BSRNet.pth"]).code(2).stderr(refused);
    assert!(!here.join("models").exists());
    let weights = zeros_of(|params| RrdbConfig::official().build(params));
    std::fs::write(&file, &weights).unwrap();
    models(here, &["import", own, "--name", "BSRNet.pth"]).success();
    assert!(std::fs::read(here.join("models/BSRNet.pth")).unwrap() == weights);
    models(here, &["list"]).success().stdout(contains("v2  1 of 5 files here"));
    models(here, &["verify"]).success().stdout(contains("BSRNet.pth: here; no hash of it is known"));
    std::fs::write(here.join("models/BSRNet.pth"), b"<html>").unwrap();
    models(here, &["verify"]).code(1).stdout(contains("BSRNet.pth: WRONG"));
    // What cannot be imported keeps nobody else out.
    let known = here.join("BSRNet.pth");
    std::fs::write(&known, &weights).unwrap();
    std::fs::write(here.join("models/BSRNet.pth"), b"").unwrap();
    models(here, &["import", own, known.to_str().unwrap()])
        .code(1)
        .stderr(contains("the catalog knows no mine.pth"));
    assert!(std::fs::read(here.join("models/BSRNet.pth")).unwrap() == weights);
    // The same tensors in the other format keep its name.
    std::fs::remove_file(here.join("models/BSRNet.pth")).unwrap();
    let copy = here.join("BSRNet.safetensors");
    std::fs::write(&copy, &weights).unwrap();
    models(here, &["import", copy.to_str().unwrap()]).success().stderr(contains("models/BSRNet.safetensors"));
    models(here, &["path", "BSRNet.pth"]).success().stdout(contains("models/BSRNet.safetensors"));
    models(here, &["path", "BSRNet.safetensors"]).success().stdout(contains("models/BSRNet.safetensors"));
    std::fs::write(here.join("models/BSRNet.pth"), b"").unwrap();
    let both = contains("models/BSRNet.pth: is here too, and is what is used");
    models(here, &["import", copy.to_str().unwrap()]).success().stderr(both);
    std::fs::remove_file(here.join("models/BSRNet.pth")).unwrap();
    // A metric's file has no other format.
    models(here, &["import", copy.to_str().unwrap(), "--name", "niqe_pris_params.npz"])
        .code(2)
        .stderr(contains("is not the file it should be"));
    models(here, &["verify"]).success().stdout(contains("names and shapes of all tensors are right"));
    #[cfg(unix)]
    {
        let pipe = here.join("v2.pth");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        models(here, &["import", pipe.to_str().unwrap()]).code(2).stderr(contains("is a pipe or a device"));
    }

    // One with a known hash is not.
    let refused = contains("is not the file it should be").and(contains("49477de7"));
    models(here, &["import", own, "--name", "DiffBIR_v2.1.pt"]).code(2).stderr(refused);
    assert!(!here.join("models/DiffBIR_v2.1.pt").exists());
    std::fs::write(here.join("models/DiffBIR_v2.1.pt"), b"weights").unwrap();
    models(here, &["verify", "v2.1"]).code(1).stdout(contains("DiffBIR_v2.1.pt: WRONG"));

    // What lies in the hub's cache is used there.
    let snapshot = here.join("hub/models--lxq007--DiffBIR-v2/snapshots/abc");
    std::fs::create_dir_all(&snapshot).unwrap();
    std::fs::write(snapshot.join("v2.pth"), b"weights").unwrap();
    models(here, &["path", "v2.pth"]).success().stdout(contains("snapshots"));
}

/// For programs, all that is known of a file.
#[test]
fn files_are_told_with_licences_hashes_and_addresses() {
    let folder = TempDir::new().unwrap();
    let here = folder.path();
    std::fs::create_dir(here.join("models")).unwrap();
    std::fs::write(here.join("models/RealESRNet_x4plus.pth"), b"weights").unwrap();
    let told = models(here, &["list", "--json"]).success().get_output().stdout.clone();
    let files: serde_json::Value = serde_json::from_slice(&told).unwrap();
    let file =
        |name: &str| files.as_array().unwrap().iter().find(|file| file["name"] == name).unwrap().clone();
    let net = file("RealESRNet_x4plus.pth");
    assert_eq!(net["of"], serde_json::json!(["realesrnet-x4plus"]));
    assert!(net["licence"].as_str().unwrap().starts_with("BSD-3-Clause"));
    assert!(net["sha256"].as_str().unwrap().starts_with("a820b9bd"));
    assert!(net["addresses"].as_array().unwrap().len() > 1);
    assert!(net["path"].as_str().unwrap().ends_with("models/RealESRNet_x4plus.pth"));
    assert!(file("parsing_parsenet.pth")["path"].is_null());
    let line = contains("RealESRNet_x4plus.pth").and(contains("hash known; BSD-3-Clause"));
    models(here, &["list"]).success().stdout(line);
}
