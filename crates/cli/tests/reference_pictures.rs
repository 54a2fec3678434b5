//! A command line of the reference, run by the binary, ends at the reference's own picture, names and
//! prompts (goldens and what they are: `crates/diffbir/tests/goldens/README.md`).

mod common;
#[path = "../../diffbir/tests/support/faces.rs"]
mod faces;
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

fn golden(name: &str) -> Golden {
    Golden::read(&format!("{}/../diffbir/tests/goldens/{name}.safetensors", env!("CARGO_MANIFEST_DIR")))
}

/// Runs the golden's command line on its networks and its photograph, in `folder`; results are in `out`.
fn run(golden: &Golden, folder: &Path, more: &[&Path]) {
    let yaml = NETWORKS.replace("FOLDER", &folder.display().to_string());
    write_weights(folder, &yaml);
    std::fs::write(folder.join("train.yaml"), yaml).unwrap();
    let size = golden.fact("photo").split(';').next().unwrap();
    let (height, width) = size.split_once('x').unwrap();
    let (height, width): (u32, u32) = (height.parse().unwrap(), width.parse().unwrap());
    let values = filler(0, &format!("in/photo_{size}"), (height * width * 3) as usize);
    let bytes = values.iter().map(|u| ((f64::from(*u) + 1.0) * 128.0) as u8).collect();
    std::fs::create_dir(folder.join("in")).unwrap();
    image::RgbImage::from_raw(width, height, bytes).unwrap().save(folder.join("in/photo.png")).unwrap();

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
fn planes(path: &Path) -> Vec<f32> {
    let picture = image::open(path).unwrap().into_rgb8();
    (0..3).flat_map(|c| picture.pixels().map(move |pixel| f32::from(pixel.0[c]))).collect()
}

#[test]
fn a_command_line_of_the_reference_gives_its_picture() {
    let (golden, folder) = (golden("v21_no_guidance"), TempDir::new().unwrap());
    run(&golden, folder.path(), &[]);
    let out = folder.path().join("out");
    assert_eq!(names(&out).join(" "), golden.fact("files"));
    golden.compare_levels("final", &planes(&out.join("photo.png")));
}

/// Found by a detector, cut, restored in one stream of random numbers with the background, and laid back by ParseNet's
/// mask. The golden's faces and background have one stage 1, as a model of one's own has.
#[test]
fn faces_in_a_photograph_are_restored_as_the_reference_does() {
    let (golden, folder) = (golden("unaligned_v21"), TempDir::new().unwrap());
    let least = golden.fact("least").parse().unwrap();
    let (detector, _) = faces::files(folder.path(), least);
    run(&golden, folder.path(), &[Path::new("--face-detector"), &detector]);
    let out = folder.path().join("out");
    for file in golden.fact("files").split(' ').filter(|file| *file != "prompt.csv") {
        golden.compare_levels(file.trim_end_matches(".png"), &planes(&out.join(file)));
    }
}
