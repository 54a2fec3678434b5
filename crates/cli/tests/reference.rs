//! Command lines of the reference and of the article, with small networks of the official kinds.

mod common;

use common::{detector, diffbir, names, save};
use diffbir::config::SamplingDefaults;
use diffbir::config::{AutoencoderConfig, ModelConfig};
use diffbir::yaml;
use diffbir_models::controlnet::ControlNet;
use diffbir_models::rrdb::RrdbConfig;
use diffbir_nn::checkpoint::Checkpoint;
use diffbir_nn::params::{Init, RandomInit, Source, build};
use diffbir_nn::{Device, Module, Params, TensorData, WeightError};
use predicates::prelude::PredicateBooleanExt;
use predicates::str::contains;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const UNET: &str = "{in_channels: 4, model_channels: 32, attention_resolutions: [8], num_res_blocks: 1, \
    channel_mult: [1, 1, 1, 1], num_head_channels: 8, use_linear_in_transformer: true, transformer_depth: 1, \
    context_dim: 64}";
const VAE: &str =
    "{embed_dim: 4, ddconfig: {z_channels: 4, ch: 32, ch_mult: [1, 1, 1, 1], num_res_blocks: 1}}";
const SWINIR: &str = "{img_size: 64, embed_dim: 12, depths: [1], num_heads: [2], window_size: 8, mlp_ratio: 2, \
    upsampler: nearest+conv, unshuffle: true, unshuffle_scale: 8}";

/// Random numbers also where training starts at zero.
struct Lively(u64);

impl Source for Lively {
    fn values(&mut self, key: &str, shape: &[usize], init: Init) -> Result<Vec<f32>, WeightError> {
        let init = if init == Init::Constant(0.0) { Init::Normal(0.1) } else { init };
        RandomInit { seed: self.0 }.values(key, shape, init)
    }
}

fn weights<N: Module>(seed: u64, network: impl Fn(&Params) -> Result<N, WeightError>) -> Checkpoint {
    let (network, keys) = build(&mut Lively(seed), &Device::flex(), network).unwrap();
    Checkpoint::from_tensors(keys.tensors(&network))
}

/// Stable Diffusion in its own layout.
fn base(config: &ModelConfig) -> Checkpoint {
    let stage2 = config.stage2.as_ref().unwrap();
    let AutoencoderConfig::Kl(autoencoder) = &stage2.autoencoder else { panic!("not official") };
    let mut file = Checkpoint::default();
    file.insert("model.diffusion_model", weights(1, |params| stage2.unet.build(params)));
    file.insert("first_stage_model", weights(1, |params| autoencoder.build(params)));
    file.insert("cond_stage_model", weights(1, |params| stage2.text.as_ref().unwrap().build(params)));
    // Some copies carry the mask of the text encoder.
    let mask = [("model.attn_mask".to_string(), TensorData::new(vec![0f32; 4], [2, 2]))];
    file.insert("cond_stage_model", Checkpoint::from_tensors(mask.into()));
    file
}

fn control(config: &ModelConfig) -> Checkpoint {
    weights(2, |params| ControlNet::new(params, &config.stage2.as_ref().unwrap().unet))
}

fn write(folder: &Path, name: &str, file: &Checkpoint) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, file.to_safetensors(false).unwrap()).unwrap();
    path
}

#[test]
fn the_articles_command_restores_with_a_full_checkpoint() {
    let folder = TempDir::new().unwrap();
    let yaml = format!(
        "target: model.cldm.ControlLDM\nparams:\n  scale_factor: 0.18215\n  control_stage_config: {{params: {UNET}}}\n  \
         unet_config: {{params: {UNET}}}\n  first_stage_config: {{params: {VAE}}}\n  preprocess_config: {{params: \
         {SWINIR}}}\n"
    );
    let model = yaml::v1_model(&yaml, SamplingDefaults::default()).unwrap();
    let mut full = base(&model);
    full.insert("control_model", control(&model));
    full.insert("preprocess_model", weights(1, |params| model.stage1.build(params)));
    // What such files hold besides: the encoder once more, and the schedule.
    full.insert("cond_encoder", base(&model).part("first_stage_model.encoder"));
    let full = write(folder.path(), "general_full_v1.ckpt", &full);
    let swinir =
        write(folder.path(), "general_swinir_v1.ckpt", &weights(5, |params| model.stage1.build(params)));
    let config = folder.path().join("cldm.yaml");
    std::fs::write(&config, yaml).unwrap();
    let input = save(folder.path(), "a.png");

    let run = |output: &str, more: &[&str]| {
        let mut command = diffbir();
        command.arg("restore").arg(&input).arg("-o").arg(folder.path().join(output));
        command.arg("--ckpt").arg(&full).arg("--config").arg(&config);
        command.args(["--device", "cuda", "--upscale", "2"]).args(more);
        if !more.contains(&"--steps") {
            command.args(["--steps", "2"]);
        }
        command.assert()
    };
    let swinir = swinir.to_str().unwrap();
    // Seven steps of DDIM are eight, since 7 does not divide 1000.
    run("ddim.png", &["--sampler", "ddim", "--steps", "7", "--json"])
        .success()
        .stdout(contains(r#""stage":"sample","done":8,"total":8"#).and(contains(r#""total":7"#).not()));
    let cpu = contains("with v1 on cpu").and(contains("--device: no NVIDIA card"));
    run("own.png", &[]).success().stderr(cpu);
    run("other.png", &["--reload_swinir", "--swinir_ckpt", swinir]).success();
    let bytes = |name: &str| std::fs::read(folder.path().join(name)).unwrap();
    assert_ne!(bytes("own.png"), bytes("other.png"), "--reload_swinir takes another stage 1");
    let result = image::open(folder.path().join("own.png")).unwrap();
    assert_eq!((result.width(), result.height()), (32, 24));
    run("no.png", &["--swinir_ckpt", swinir]).code(2).stderr(contains("--reload-swinir"));
    // v1's program for faces, in its spelling: what it lays faces into has a shorter side of 512, the result its own.
    save(folder.path(), "in/b.png");
    let mut command = diffbir();
    command.arg("restore").arg("--input").arg(folder.path().join("in"));
    command.arg("--output").arg(folder.path().join("out")).arg("--ckpt").arg(&full);
    command.arg("--config").arg(&config).arg("--face-detector").arg(detector(folder.path(), true));
    command.arg("--save-faces").arg(folder.path().join("faces"));
    command.args([
        "--task",
        "unaligned_face",
        "--faces",
        "center",
        "--bg_upsampler",
        "DiffBIR",
        "--steps",
        "2",
    ]);
    command.args(["--sr_scale", "2", "--repeat_times", "1", "--color_fix_type", "adain"]);
    command.arg("--disable_preprocess_model").args(["--device", "cpu"]).assert().success();
    assert_eq!(image::image_dimensions(folder.path().join("out/b.png")).unwrap(), (32, 24));
    let background = folder.path().join("faces/restored_backgrounds/b.png");
    assert_eq!(image::image_dimensions(background).unwrap(), (683, 512));
    diffbir()
        .arg("info")
        .arg(&full)
        .assert()
        .success()
        .stdout(contains("control branch").and(contains("text encoder")).and(contains("once more, unused")));
    diffbir()
        .arg("restore")
        .arg(&input)
        .arg("--ckpt")
        .arg(&full)
        .assert()
        .code(2)
        .stderr(contains("needs --config"));
}

#[test]
fn a_command_line_of_the_reference_runs_a_custom_model() {
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    let yaml = format!(
        "model:\n  cldm: {{params: {{latent_scale_factor: 0.18215, unet_cfg: {UNET}, vae_cfg: {VAE}, clip_cfg: \
         {{text_cfg: {{context_length: 77, vocab_size: 49408, width: 64, heads: 1, layers: 2}}}}}}}}\n  swinir: \
         {{params: {SWINIR}}}\n  diffusion: {{params: {{zero_snr: true, parameterization: v}}}}\ntrain:\n  sd_path: \
         {}\n  swinir_path: {}\n",
        at("sd.ckpt").display(),
        at("swinir.pth").display()
    );
    let model = yaml::training(&yaml, SamplingDefaults::default()).unwrap().config;
    write(folder.path(), "sd.ckpt", &base(&model));
    write(folder.path(), "swinir.pth", &weights(1, |params| model.stage1.build(params)));
    write(folder.path(), "control.pt", &control(&model));
    std::fs::write(at("train.yaml"), yaml).unwrap();
    save(folder.path(), "in/a.png");
    let run = |more: &[&str]| {
        let mut command = diffbir();
        command.args(["restore", "--version", "custom", "--train_cfg"]).arg(at("train.yaml"));
        command
            .arg("--ckpt")
            .arg(at("control.pt"))
            .arg("--input")
            .arg(at("in"))
            .arg("--output")
            .arg(at("out"));
        command.args(["--device", "cpu", "--precision", "fp32", "--steps", "2", "--upscale", "1.5"]);
        command.args(["--captioner", "none", "--neg_prompt", "say \"no\", twice"]).args(more).assert()
    };
    run(&["--pos_prompt", ""]).success();
    assert_eq!(names(&at("out")), ["a.png", "prompt.csv"]);
    let first = std::fs::read(at("out/a.png")).unwrap();
    // Again: results are replaced, rows are added; a batch gives the same results.
    run(&["--pos_prompt", "", "--n_samples", "3", "--batch_size", "2", "--save-intermediates"])
        .code(2)
        .stderr(contains("--save-intermediates"));
    let values = at("values");
    let memory = ["--memory", "auto", "--save-intermediates"];
    run(&["--pos_prompt", "", "--n_samples", "3", "--batch_size", "2"]
        .into_iter()
        .chain(memory)
        .chain([values.to_str().unwrap()])
        .collect::<Vec<_>>())
    .success()
    .stderr(contains("predicted").and(contains("measured")).and(contains("\n  sample ")));
    assert_eq!(names(&at("out")), ["a.png", "a_0.png", "a_1.png", "a_2.png", "prompt.csv"]);
    let pixels = |path: &str| image::open(at(path)).unwrap().into_rgb8().into_raw();
    let close = |a: &[u8], b: &[u8]| a.iter().zip(b).all(|(a, b)| a.abs_diff(*b) <= 1);
    assert!(close(&pixels("out/a.png"), &pixels("out/a_0.png")), "sample 0 has the seed itself");
    assert_ne!(pixels("out/a_0.png"), pixels("out/a_1.png"));
    let csv = std::fs::read_to_string(at("out/prompt.csv")).unwrap();
    assert_eq!(
        csv,
        "file_name,pos_prompt,neg_prompt\na,,\"say \"\"no\"\", twice\"\na,,\"say \"\"no\"\", twice\"\n"
    );

    let kept = Checkpoint::open(&values.join("a_0.safetensors")).unwrap();
    let shape = |name: &str| kept.get(name).unwrap().unwrap_or_else(|| panic!("{name}")).0;
    assert_eq!(shape("stage1"), [1, 512, 682, 3]);
    assert_eq!(shape("condition"), [1, 4, 64, 88]);
    assert_eq!(shape("0.step.0002.x"), [2, 4, 64, 88]);
    assert_eq!(shape("2.step.0001.estimate"), [1, 4, 64, 88]);
    assert_eq!(shape("2.latent"), [1, 4, 64, 88]);
    assert_eq!(shape("1.decoded"), [1, 512, 682, 3]);

    // One stream over all samples; tiles; a prompt.
    let other = |more: &[&str]| {
        run(more).success();
        std::fs::read(at("out/a.png")).unwrap()
    };
    assert_eq!(first, other(&["--pos_prompt", "", "--seed-mode", "reference-page"]));
    assert_ne!(first, other(&["--pos_prompt", "a city"]));
    assert_ne!(first, other(&["--pos_prompt", "", "--noise", "torch-cuda:h100"]));
    assert_ne!(first, other(&["--pos_prompt", "", "--cldm_tiled", "--vae_decoder_tiled"]));
    // All parameters given, as people do, whether the sampler heeds them or not.
    let all = "--sampler edm_euler --cfg_scale 1 --rescale_cfg --s_churn 0 --s_tmin 0 --s_tmax 300 --s_noise 1 --eta 1 \
               --order 1";
    let told = contains("warning: --eta: edm_euler does not heed it")
        .and(contains("warning: --order: "))
        .and(contains("warning: --rescale-cfg: changes nothing"));
    run(&all.split_whitespace().collect::<Vec<_>>()).success().stderr(told);
    run(&["--better_start"]).success().stderr(contains("--better-start change nothing"));
    run(&["--seed-mode", "reference-cli"]).code(2).stderr(contains("only for v1, v2 and v2.1"));
    run(&["--cldm_tiled", "--cldm_tile_size", "100"]).code(2).stderr(contains("tiles of 100 px do not fit"));
    // As people write it who give every flag.
    let told = contains("warning: --cldm-tile-size: changes nothing without --cldm-tiled");
    run(&["--cldm_tile_size", "512"]).success().stderr(told);
    let told = contains("warning: --vae-tiling: changes nothing without --vae-encoder-tiled");
    run(&["--vae-tiling", "exact"]).success().stderr(told);
}

#[test]
fn all_flags_of_the_reference_are_known() {
    let folder = TempDir::new().unwrap();
    save(folder.path(), "in/a.png");
    let run = |line: &str| {
        let mut command = diffbir();
        command.arg("restore").arg("--input").arg(folder.path().join("in"));
        command.arg("--output").arg(folder.path().join("out")).args(line.split(' ')).assert()
    };
    // Everything is taken until the weights are found missing, by name.
    run("--task sr --upscale 4 --version v2.1 --sampler edm_dpm++_3m_sde --steps 10 --start_point_type noise \
         --cleaner_tiled --cleaner_tile_size 512 --cleaner_tile_stride 256 --vae_encoder_tiled \
         --vae_encoder_tile_size 256 --vae_decoder_tiled --vae_decoder_tile_size 256 --cldm_tiled \
         --cldm_tile_size 512 --cldm_tile_stride 256 --captioner none --pos_prompt a --neg_prompt b --cfg_scale \
         6.0 --rescale_cfg --noise_aug 0 --s_churn 0 --s_tmin 0 --s_tmax 300 --s_noise 1 --eta 1 --order 1 \
         --strength 1 --batch_size 1 --n_samples 1 --seed 231 --device mps --precision fp16")
    .code(2)
    .stderr(contains("realesrgan_s4_swinir_100k.pth").and(contains("diffbir models pull v2.1")));
    run("--task denoise --version v2").code(2).stderr(contains("scunet_color_real_psnr.pth"));
    run("--task face --version v1").code(2).stderr(contains("face_swinir_v1.ckpt"));
    run("--version custom").code(2).stderr(contains("--train-cfg and --ckpt"));
    run("--task sr --g_loss w_mse --g_scale 0.0").code(2).stderr(contains("diffbir models pull v2.1"));
    // What is not built says so.
    run("--captioner llava").code(2).stderr(contains("--captioner"));
    run("--captioner ram").code(2).stderr(contains("--captioner"));
    run("--llava_bit 4").code(2).stderr(contains("--llava-bit"));
    run("--task unaligned_face").code(2).stderr(contains("realesrgan_s4_swinir_100k.pth"));
    assert!(!folder.path().join("out").exists());
}

#[test]
fn stage_1_alone_needs_its_own_file_only() {
    let folder = TempDir::new().unwrap();
    let (models, input) = (folder.path().join("models"), save(folder.path(), "in/a.png"));
    std::fs::create_dir(&models).unwrap();
    let run = |line: &str| {
        let mut command = diffbir();
        command.env("DIFFBIR_MODELS", &models).args(["restore", "--device", "cpu", "--upscale", "1"]);
        command.arg(&input).arg("-o").arg(folder.path().join("out/")).args(line.split(' ')).assert()
    };
    run("--model v2 --stage1-only").code(2).stderr(contains("BSRNet.pth of model v2 is not here"));
    write(&models, "BSRNet.pth", &weights(3, |params| RrdbConfig::official().build(params)));
    run("--model v2 --stage1-only").success();
    // It is the best that is here for this, and no model for more.
    let auto = run("--stage1-only --existing overwrite --json").success().get_output().stdout.clone();
    assert!(String::from_utf8(auto).unwrap().contains(r#""model":"v2""#));
    run("--model v2 --existing overwrite").code(2).stderr(contains("v2.pth of model v2 is not here"));
}
