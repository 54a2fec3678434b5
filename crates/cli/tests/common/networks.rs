//! The goldens' networks as files, and a command line of the reference on them (goldens and what they are:
//! `crates/diffbir/tests/goldens/README.md`).
#![allow(dead_code, reason = "no test file needs all of it")]

use crate::common::diffbir;
use crate::support::{Golden, filler, weights};
use diffbir::config::{AutoencoderConfig, SamplingDefaults};
use diffbir::yaml;
use diffbir_models::controlnet::ControlNet;
use diffbir_nn::checkpoint::Checkpoint;
use std::path::Path;

/// The goldens' networks as a training configuration of the reference describes them; FOLDER is where
/// their weights lie.
const NETWORKS: &str = "
model:
  cldm:
    params:
      latent_scale_factor: 0.18215
      unet_cfg: {in_channels: 4, model_channels: 32, attention_resolutions: [4, 2, 1], num_res_blocks: 2,
        channel_mult: [1, 2, 4, 4], num_head_channels: 32, use_linear_in_transformer: true,
        transformer_depth: 1, context_dim: 32}
      vae_cfg: {embed_dim: 4, ddconfig: {z_channels: 4, ch: 32, ch_mult: [1, 2, 4, 4], num_res_blocks: 2}}
      clip_cfg: {text_cfg: {context_length: 77, vocab_size: 49408, width: 32, heads: 4, layers: 24}}
  swinir:
    params: {img_size: 64, embed_dim: 12, depths: [6, 6, 6, 6, 6, 6, 6, 6], num_heads: [6, 6, 6, 6, 6, 6, 6, 6],
      window_size: 8, mlp_ratio: 2, upsampler: nearest+conv, unshuffle: true, unshuffle_scale: 8}
  diffusion: {params: {zero_snr: true, parameterization: v}}
train: {sd_path: FOLDER/sd.ckpt, swinir_path: FOLDER/swinir.pth}
";

fn write_weights(folder: &Path, yaml: &str) {
    let model = yaml::training(yaml, SamplingDefaults::default()).unwrap().config;
    let stage2 = model.stage2.unwrap();
    let AutoencoderConfig::Kl(autoencoder) = &stage2.autoencoder else {
        unreachable!("of the configuration")
    };
    let write = |name: &str, file: &Checkpoint| {
        std::fs::write(folder.join(name), file.to_safetensors(false).unwrap()).unwrap();
    };
    let mut base = Checkpoint::default();
    base.insert("model.diffusion_model", weights(0, |params| stage2.unet.build(params)));
    base.insert("first_stage_model", weights(0, |params| autoencoder.build(params)));
    base.insert("cond_stage_model", weights(0, |params| stage2.text.as_ref().unwrap().build(params)));
    write("sd.ckpt", &base);
    write("swinir.pth", &weights(0, |params| model.stage1.build(params)));
    write("control.pt", &weights(1, |params| ControlNet::new(params, &stage2.unet)));
}

pub fn golden(name: &str) -> Golden {
    Golden::read(&format!("{}/../diffbir/tests/goldens/{name}.safetensors", env!("CARGO_MANIFEST_DIR")))
}

/// The photograph of a golden, by the formula, as PNG bytes in a file.
pub fn write_photo(golden: &Golden, file: &Path) {
    let size = golden.fact("photo").split(';').next().unwrap();
    let (height, width) = size.split_once('x').unwrap();
    let (height, width): (u32, u32) = (height.parse().unwrap(), width.parse().unwrap());
    let values = filler(0, &format!("in/photo_{size}"), (height * width * 3) as usize);
    let bytes = values.iter().map(|u| ((f64::from(*u) + 1.0) * 128.0) as u8).collect();
    image::RgbImage::from_raw(width, height, bytes).unwrap().save(file).unwrap();
}

/// Runs the golden's command line on its networks, in `folder`, on the photograph that lies in `in`; results are in `out`.
pub fn run(golden: &Golden, folder: &Path, more: &[&Path]) {
    let yaml = NETWORKS.replace("FOLDER", &folder.display().to_string());
    write_weights(folder, &yaml);
    std::fs::write(folder.join("train.yaml"), yaml).unwrap();
    let mut command = diffbir();
    command.env("DIFFBIR_MODELS", folder);
    command.arg("restore").args(golden.fact("command").split('\x1f'));
    command.arg("--input").arg(folder.join("in")).arg("--output").arg(folder.join("out"));
    command.args(["--version", "custom", "--train_cfg"]).arg(folder.join("train.yaml"));
    command.arg("--ckpt").arg(folder.join("control.pt")).args(more);
    // The goldens' generator gets its seed after the networks were made.
    command.args(["--seed-mode", "reference-page"]).assert().success();
    let csv = std::fs::read_to_string(folder.join("out/prompt.csv")).unwrap();
    assert_eq!(csv, golden.fact("prompt.csv"));
}

/// The values of a picture, channel after channel.
pub fn planes(path: &Path) -> Vec<f32> {
    let picture = image::open(path).unwrap().into_rgb8();
    (0..3).flat_map(|c| picture.pixels().map(move |pixel| f32::from(pixel.0[c]))).collect()
}
