//! A command line of the reference, run by the binary, ends at the reference's own picture, names and
//! prompts (goldens and what they are: `crates/diffbir/tests/goldens/README.md`).

mod common;
#[path = "../../models/tests/parity/support.rs"]
mod support;

use common::{diffbir, names};
use diffbir::config::{AutoencoderConfig, SamplingDefaults};
use diffbir::yaml;
use diffbir_models::controlnet::ControlNet;
use diffbir_nn::checkpoint::Checkpoint;
use std::path::Path;
use support::{Golden, filler, weights};
use tempfile::TempDir;

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

#[test]
fn a_command_line_of_the_reference_gives_its_picture() {
    let golden = Golden::read(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../diffbir/tests/goldens/v21_no_guidance.safetensors"
    ));
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    let yaml = NETWORKS.replace("FOLDER", &folder.path().display().to_string());
    write_weights(folder.path(), &yaml);
    std::fs::write(at("train.yaml"), yaml).unwrap();
    let values = filler(0, "in/photo_128x128", 128 * 128 * 3);
    let bytes = values.iter().map(|u| ((f64::from(*u) + 1.0) * 128.0) as u8).collect();
    std::fs::create_dir(at("in")).unwrap();
    image::RgbImage::from_raw(128, 128, bytes).unwrap().save(at("in/photo.png")).unwrap();

    let mut command = diffbir();
    command.arg("restore").args(golden.fact("command").split('\x1f'));
    command.arg("--input").arg(at("in")).arg("--output").arg(at("out"));
    command.args(["--version", "custom", "--train_cfg"]).arg(at("train.yaml"));
    command.arg("--ckpt").arg(at("control.pt"));
    // The goldens' generator gets its seed after the networks were made.
    command.args(["--seed-mode", "reference-page"]).assert().success();

    assert_eq!(names(&at("out")).join(" "), golden.fact("files"));
    assert_eq!(std::fs::read_to_string(at("out/prompt.csv")).unwrap(), golden.fact("prompt.csv"));
    let picture = image::open(at("out/photo.png")).unwrap().into_rgb8();
    let planes = (0..3).flat_map(|c| picture.pixels().map(move |pixel| f32::from(pixel.0[c])));
    golden.compare_levels("final", &planes.collect::<Vec<_>>());
}
