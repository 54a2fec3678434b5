//! `diffbir train` on folders as they are.

mod common;

use common::{diffbir, names, picture, save};
use diffbir_nn::checkpoint::Checkpoint;
use predicates::prelude::*;
use predicates::str::contains;
use std::path::Path;
use tempfile::TempDir;

/// One step of stage 1.
fn train(data: &Path, output: &Path) -> assert_cmd::assert::Assert {
    let mut command = diffbir();
    command.args(["train", "stage1", "--steps", "1", "--batch", "1", "--data"]).arg(data);
    command.arg("--output").arg(output).assert()
}

#[test]
fn unsuitable_pictures_are_named_and_left_out() {
    let folder = TempDir::new().unwrap();
    let (data, output) = (folder.path().join("data"), folder.path().join("run"));
    save(&data, "small.png");
    for name in ["text.png", "photo.HEIC"] {
        std::fs::write(data.join(name), b"\0\0\0\x18ftypheic\0\0\0\0").unwrap();
    }
    let left_out = || {
        contains("small.png: has 16 x 12 pixels, but 128 x 128 are needed: left out")
            .and(contains("text.png: HEIC is not supported"))
            .and(contains("photo.HEIC: HEIC is not supported"))
            .and(contains("left out").count(3))
    };
    train(&data, &output)
        .code(2)
        .stderr(left_out().and(contains("data: no picture of at least 128 x 128 pixels can be read")));
    assert!(!output.exists());
    picture(130, 140).save(data.join("good.png")).unwrap();
    train(&data, &output).success().stderr(left_out().and(contains("step 1: loss")));
    assert!(names(&output).contains(&"stage1.safetensors".into()));
}

#[test]
fn a_missing_folder_is_one_error_with_one_cause() {
    let folder = TempDir::new().unwrap();
    let missing = folder.path().join("nofolder");
    let told =
        train(&missing, &folder.path().join("run")).code(2).stderr(contains("nofolder: cannot be read"));
    let told = String::from_utf8(told.get_output().stderr.clone()).unwrap();
    let cause = std::fs::read_dir(&missing).unwrap_err().to_string();
    assert_eq!(told.matches(&cause).count(), 1, "{told}");
}

#[test]
fn a_model_without_stage_2_refuses_what_only_stage_2_heeds() {
    let folder = TempDir::new().unwrap();
    let (data, output) = (folder.path().join("data"), folder.path().join("run"));
    std::fs::create_dir(&data).unwrap();
    picture(130, 140).save(data.join("good.png")).unwrap();
    train(&data, &output).success();
    let model = folder.path().join("own.safetensors");
    let pack = |flags: &[&str]| {
        diffbir().args(["models", "pack"]).arg(&output).args(flags).arg("-o").arg(&model).assert()
    };
    for flags in [["--fidelity", "0.3"], ["--cfg-scale", "2"], ["--s-noise", "1.1"]] {
        pack(&flags).code(2).stderr(contains(flags[0]).and(contains("has no stage 2")));
    }
    assert!(!model.exists());
    pack(&["--name", "custom"])
        .success()
        .stderr(contains("own.safetensors: ").and(contains("weights in f16")));
    pack(&[]).code(2).stderr(contains("exists already"));
    diffbir().args(["models", "pack"]).arg(&data).arg("-o").arg(folder.path().join("no")).assert().code(2);
    let input = save(folder.path(), "a.png");
    // The run itself is the same model.
    let [one, other] = [&model, &output].map(|model| {
        let result = folder.path().join("b.png");
        let mut command = diffbir();
        command
            .args(["restore", "--device", "cpu", "--existing", "overwrite", "--model"])
            .arg(model)
            .arg(&input);
        command.arg("-o").arg(&result).assert().success();
        image::open(result).unwrap().into_rgb8()
    });
    let apart = one.iter().zip(other.iter()).map(|(a, b)| a.abs_diff(*b)).max();
    assert!(apart <= Some(1), "half precision alone lies between them: {apart:?}");
    let restore = |flags: &[&str]| {
        diffbir().args(["restore", "--device", "cpu", "--model"]).arg(&model).arg(&input).args(flags).assert()
    };
    // What is given counts, even where it says the default.
    let of_stage2 = "--steps 5;--sampler ddim;--s-churn 1;--s-tmin 1;--s-tmax 1;--s-noise 1;--eta 0;--order 2;\
        --start-point-type noise;--better-start;--fidelity 0.5;--cfg-scale 2;--rescale-cfg;--prompt a;\
        --negative-prompt b;--strength 1;--noise-aug 0;--seed 1;--seed-mode each;--noise torch-cpu;--samples 1;\
        --batch-size 2;--color-fix none;--vae-encoder-tiled;--vae-decoder-tiled;--cldm-tiled";
    for line in of_stage2.split(';') {
        let flags: Vec<&str> = line.split(' ').collect();
        let reason = format!("{}: custom has no stage 2, which alone heeds it", flags[0]);
        restore(&flags).code(2).stderr(contains(reason));
    }
    restore(&[]).success().stderr(contains("has no stage 2: it cleans and enlarges"));
}

/// What a run of stage 2 is on says how it samples; packed, it is found by its name.
#[test]
fn a_run_samples_as_what_it_began_with_and_has_a_name_once_imported() {
    let folder = TempDir::new().unwrap();
    let (data, output, file) =
        (folder.path().join("data"), folder.path().join("own"), folder.path().join("own.safetensors"));
    std::fs::create_dir(&data).unwrap();
    picture(130, 140).save(data.join("good.png")).unwrap();
    let mut command = diffbir();
    command.args(["train", "stage2", "--autoencoder", "nano", "--stage1", "nano", "--unet", "nano"]);
    command.args(["--steps", "1", "--batch", "1", "--set", "data.side_cells=8", "--data"]).arg(&data);
    command.arg("--output").arg(&output).assert().success();
    let mut command = diffbir();
    command
        .args(["models", "pack"])
        .arg(&output)
        .args(["--s-noise", "0.9", "-o"])
        .arg(&file)
        .assert()
        .success();
    let bytes = std::fs::read(&file).unwrap();
    let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    let config = header.metadata().as_ref().unwrap()["diffbir"].clone();
    let config: serde_json::Value = serde_json::from_str(&config).unwrap();
    let sampling = &config["stage2"]["sampling"];
    assert_eq!(
        ["fidelity", "cfg_scale", "s_noise"].map(|name| sampling[name].as_f64().unwrap()),
        [0.3, 2.0, 0.9],
        "the built-in model's, but for what was asked for"
    );

    let store = folder.path().join("models");
    let models = |arguments: &[&str]| {
        let mut command = diffbir();
        command.env("DIFFBIR_MODELS", &store).arg("models").args(arguments).assert()
    };
    let import = ["import", file.to_str().unwrap()];
    models(&[&import[..], &["--name", "v2"]].concat()).code(2).stderr(contains("v2 is another model's name"));
    models(&[&import[..], &["--name", "../x"]].concat()).code(2).stderr(contains("cannot be called"));
    let cut = folder.path().join("cut.safetensors");
    std::fs::write(&cut, &bytes[..bytes.len() / 2]).unwrap();
    models(&["import", cut.to_str().unwrap()]).code(2).stderr(contains("cut.safetensors: is not a whole"));
    models(&import).success().stderr(contains("own.safetensors"));
    models(&import).code(2).stderr(contains("exists already"));
    models(&["list"]).success().stdout(contains("own  yours"));
    let input = save(folder.path(), "a.png");
    let mut command = diffbir();
    command.env("DIFFBIR_MODELS", &store).args(["restore", "--device", "cpu", "--model", "own"]).arg(&input);
    command.arg("-o").arg(folder.path().join("b.png")).assert().success().stderr(contains("with own on cpu"));
}

/// One step is what such a model takes, through the decoder that learned with it.
#[test]
fn a_decoder_that_learned_goes_into_the_model() {
    let folder = TempDir::new().unwrap();
    let of = |name: &str| folder.path().join(name);
    let (data, output, file) = (of("data"), of("own"), of("own.safetensors"));
    std::fs::create_dir(&data).unwrap();
    picture(130, 140).save(data.join("good.png")).unwrap();
    let mut command = diffbir();
    command.args(["train", "stage2", "--autoencoder", "nano", "--stage1", "nano", "--unet", "nano"]);
    command.args([
        "--together-with",
        "nano",
        "--steps",
        "1",
        "--rate",
        "1",
        "--batch",
        "1",
        "--set",
        "data.side_cells=8",
    ]);
    command.args(["--set", "one_step.timestep=333", "--set", "one_step.decoder=true", "--set", "loss.l1=1"]);
    command.arg("--data").arg(&data).arg("--output").arg(&output).assert().success();
    let mut command = diffbir();
    command.args(["models", "pack"]).arg(&output).arg("-o").arg(&file).assert().success();
    let run = Checkpoint::open(&output.join("stage2.safetensors")).unwrap();
    let packed = Checkpoint::open(&file).unwrap();
    let before = Checkpoint::from_static(diffbir::NANO, "nano").unwrap();
    let config: serde_json::Value = serde_json::from_str(&packed.metadata["diffbir"]).unwrap();
    let sampling = &config["stage2"]["sampling"];
    let fidelity = sampling["fidelity"].as_f64().unwrap();
    assert!(sampling["steps"] == 1 && (fidelity - 2.0 / 3.0).abs() < 1e-3, "{sampling}");
    // The bias of its last layer.
    let [run, packed, before] = [run, packed, before].map(|file| {
        let decoder = file.part("autoencoder").part("decoder");
        let (name, ..) = decoder.entries().find(|(_, shape, ..)| shape[..] == [3]).unwrap();
        decoder.get(name).unwrap().unwrap().1
    });
    let apart = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(apart(&run, &packed) < 1e-4 && apart(&run, &before) > 2e-4, "{run:?} {packed:?} {before:?}");
    let input = save(folder.path(), "a.png");
    let mut command = diffbir();
    command.args(["restore", "--device", "cpu", "--model"]).arg(&file).arg(&input);
    command.arg("-o").arg(of("b.png")).assert().success();
}

#[test]
fn a_missing_file_is_noticed_before_latents_are_made() {
    let folder = TempDir::new().unwrap();
    let (data, output, latents) =
        (folder.path().join("data"), folder.path().join("run"), folder.path().join("latents"));
    std::fs::create_dir(&data).unwrap();
    let control = |flags: &[&str]| {
        let mut command = diffbir();
        command.args(["train", "control", "--autoencoder", "none", "--stage1", "none", "--steps", "1"]);
        command.arg("--latents").arg(&latents).arg("--data").arg(&data).arg("--output").arg(&output);
        command.args(flags).assert().code(2)
    };
    control(&["--unet", "no-unet.pth"]).stderr(contains("no-unet.pth"));
    control(&["--unet", "no-unet.pth", "--init", "no-start.pth"]).stderr(contains("no-start.pth"));
    control(&["--unet", "u", "--draws", "0"]).stderr(contains("--draws"));
    control(&["--unet", "u", "--checkpoint-every", "0"]).stderr(contains("--checkpoint-every"));
    assert!(!latents.exists() && !output.exists());
}

#[test]
fn a_loss_that_is_no_number_is_no_fault_of_the_command() {
    let folder = TempDir::new().unwrap();
    let data = folder.path().join("data");
    std::fs::create_dir(&data).unwrap();
    picture(130, 140).save(data.join("good.png")).unwrap();
    let mut command = diffbir();
    command.args(["train", "stage1", "--steps", "4", "--batch", "1", "--rate", "1e30", "--data"]).arg(data);
    command.arg("--output").arg(folder.path().join("run"));
    command.assert().code(1).stderr(contains("the loss became"));
}

#[test]
fn a_printed_configuration_is_the_run() {
    let folder = TempDir::new().unwrap();
    let (data, file) = (folder.path().join("data"), folder.path().join("run.toml"));
    std::fs::create_dir(&data).unwrap();
    picture(40, 40).save(data.join("good.png")).unwrap();
    let print = |arguments: &[&str]| {
        let told = diffbir().args(["train", "stage1", "--emit-config"]).args(arguments).assert().success();
        String::from_utf8(told.get_output().stdout.clone()).unwrap()
    };
    let sets = ["--set", "network.features=4", "--set", "network.convolutions=1", "--set", "data.crop_px=32"];
    let first = print(
        &[&sets[..], &["--steps", "2", "--batch", "1", "--rate", "1e-3", "--data", data.to_str().unwrap()]]
            .concat(),
    );
    for line in ["base = \"srvgg\"", "features = 4", "steps = 2", "rate = 0.001", "crop_px = 32"] {
        assert!(first.contains(line), "{first}");
    }
    std::fs::write(&file, &first).unwrap();
    let file = file.to_str().unwrap();
    assert_eq!(print(&["--config", file]), first);
    // What is given beside the file wins over it, and --set over all.
    let other = print(&["--config", file, "--steps", "3", "--set", "run.steps=4"]);
    assert_eq!(other, first.replace("steps = 2", "steps = 4"));
    let run = |arguments: &[&str]| {
        let mut command = diffbir();
        command.args(["train", "stage1", "--config", file]).args(arguments);
        command.arg("--output").arg(folder.path().join("run")).assert()
    };
    run(&[]).success().stderr(contains("step 2: loss"));
    let mut command = diffbir();
    command.args(["train", "stage1", "--config", file, "--set", "run.precision=bf16", "--output"]);
    command.arg(folder.path().join("bf16")).assert().success().stderr(contains("step 2: loss"));
    let kept = std::fs::read_to_string(folder.path().join("run/config.toml")).unwrap();
    assert_eq!(kept.lines().filter(|line| !line.starts_with("output")).count(), first.lines().count() - 1);
    let broken = folder.path().join("broken.toml");
    std::fs::write(&broken, "[run]\nsteps =").unwrap();
    let mut command = diffbir();
    command.args(["train", "stage1", "--config"]).arg(&broken);
    command.assert().code(2).stderr(contains("broken.toml: line 2: "));
    run(&["--set", "run.precision=bf16"])
        .code(2)
        .stderr(contains("run.precision is \"bf16\", but the run in"));
    run(&["--set", "optimizer.beta2=0.5"]).code(2).stderr(contains("optimizer.beta2 is 0.5, but the run in"));
}

#[test]
fn fields_that_are_not_or_cannot_be_are_named() {
    let refuse = |sets: &[&str], why: &str| {
        let mut command = diffbir();
        command.args(["train", "stage1", "--data", "d", "-o", "r"]);
        sets.iter().for_each(|set| _ = command.args(["--set", set]));
        command.assert().code(2).stderr(contains(why));
    };
    refuse(&["run.stops=3"], "stops");
    refuse(&["network.window=8"], "srvgg has no field `window`; it has convolutions, features, upscale");
    refuse(&["network.base=unet"], "there are srvgg, swinir");
    refuse(&["run.steps=many"], "run.steps");
    refuse(&["run.keep=0"], "run.keep: it must be at least 1");
    refuse(&["optimizer.beta1=1"], "optimizer.beta1: it must be from 0 to below 1");
    refuse(&["loss.mse_log=0"], "loss: ");
    refuse(&["loss.lpips=1"], "loss.lpips_files");
    refuse(&["data.crop_px=30"], "data.crop_px: it must be a multiple of 4");
    refuse(&["data"], "SECTION.FIELD=VALUE");
    let mut command = diffbir();
    command.args(["train", "stage1", "--data", "d", "-o", "r"]).env("WORLD_SIZE", "2");
    command.assert().code(2).stderr(contains("several processes"));
}

/// A file may be no longer than a few blocks: as if the disk were full.
#[cfg(unix)]
#[test]
fn a_full_disk_is_told_of_and_leaves_nothing() {
    let folder = TempDir::new().unwrap();
    let (data, output) = (folder.path().join("data"), folder.path().join("run"));
    std::fs::create_dir(&data).unwrap();
    picture(40, 40).save(data.join("good.png")).unwrap();
    let script = "trap '' XFSZ; ulimit -f 8; exec \"$0\" train stage1 --steps 1 --batch 1 --set data.crop_px=32 \
        --set network.features=16 --data \"$1\" --output \"$2\"";
    let mut command = assert_cmd::Command::new("sh");
    command.arg("-c").arg(script).arg(env!("CARGO_BIN_EXE_diffbir")).arg(&data).arg(&output);
    command.assert().code(1).stderr(contains("0000001.safetensors: cannot be written: file too large"));
    assert!(names(&output.join("checkpoints")).is_empty());
    assert!(!names(&output).contains(&"stage1.safetensors".into()));
}

#[test]
fn weights_are_written_for_pytorch() {
    let folder = TempDir::new().unwrap();
    let (data, output) = (folder.path().join("data"), folder.path().join("run"));
    std::fs::create_dir(&data).unwrap();
    picture(130, 140).save(data.join("good.png")).unwrap();
    train(&data, &output).success();
    diffbir().arg("info").arg(&output).assert().success().stdout(contains("training run, diffbir model"));
    let export = |from: &str, to: &Path| {
        let mut command = diffbir();
        command.args(["train", "export"]).arg(output.join(from)).arg("-o").arg(to).assert()
    };
    let [weights, state] = ["weights.pt", "state.pt"].map(|name| folder.path().join(name));
    export("stage1.safetensors", &weights).success().stderr(contains("weights.pt: 101 tensors"));
    export("stage1.safetensors", &weights).code(2).stderr(contains("exists already"));
    // Of a checkpoint the network alone.
    export("checkpoints/0000001.safetensors", &state).success().stderr(contains("state.pt: 101 tensors"));
    // What PyTorch reads we read too, as a stage 1 that is known by its tensors.
    let mut command = diffbir();
    command.arg("info").arg(&weights);
    command.assert().success().stdout(contains("SRVGGNetCompact"));
}
