//! `diffbir info`.

use crate::doubts;
use crate::paths::{Kind, kind};
use crate::talk::{self, say};
use crate::trained;
use anyhow::{Context, Result, bail};
use diffbir::ModelConfig;
use diffbir::catalog::{fault, fault_of_diffusers, is_beside_networks};
use diffbir::config::CONFIG_KEY;
use diffbir::diffusers;
use diffbir::faces::Detector;
use diffbir_imaging::{DecodeError, FORMATS};
use diffbir_metrics::Niqe;
use diffbir_nn::checkpoint::Checkpoint;
use diffbir_nn::params::keys_of;
use diffbir_nn::{Device, WeightError};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

pub fn run(files: &[PathBuf]) -> Result<ExitCode> {
    let mut code = ExitCode::SUCCESS;
    for file in files {
        match describe(file) {
            Ok(text) => {
                let written = talk::data(format!("{}: {text}\n", file.display()).as_bytes());
                if written.is_err() {
                    return Ok(talk::ended(written));
                }
            }
            Err(error) => {
                say(format_args!("error: {error:#}"));
                code = ExitCode::FAILURE;
            }
        }
    }
    Ok(code)
}

fn describe(file: &Path) -> Result<String> {
    let name = file.display().to_string();
    if name == "nano" && !file.exists() {
        let built_in = Checkpoint::from_static(diffbir::NANO, "the built-in model")?;
        return describe_weights(&built_in, &name, fault);
    }
    if kind(file)? == Kind::Folder {
        return describe_folder(file);
    }
    let cannot_be_read = || format!("{name}: cannot be read");
    let mut start = Vec::new();
    File::open(file).and_then(|file| file.take(9).read_to_end(&mut start)).with_context(cannot_be_read)?;
    if file.extension().is_some_and(|ending| ending == "onnx") {
        return describe_onnx(file);
    }
    let is_weights =
        start.get(8) == Some(&b'{') || start.starts_with(b"PK\x03\x04") || start.starts_with(b"\x80");
    if !is_weights {
        let bytes = std::fs::read(file).with_context(cannot_be_read)?;
        return match diffbir_imaging::describe(&bytes, &name) {
            Err(DecodeError::NotAPicture { .. }) => {
                bail!("{name}: is neither a picture in {FORMATS} nor a model file (safetensors or PyTorch)")
            }
            described => Ok(described?),
        };
    }
    let opened = Checkpoint::open(file);
    if opened.is_err() && Niqe::open(file).is_ok() {
        return Ok("NIQE's statistics of good photographs, for `diffbir eval`".into());
    }
    describe_weights(&opened?, &name, fault)
}

fn describe_onnx(file: &Path) -> Result<String> {
    Detector::open(file, &Device::flex())?;
    Ok("YuNet, which finds faces, for `diffbir restore --face-detector`".into())
}

fn describe_folder(folder: &Path) -> Result<String> {
    if trained::is_run(folder) {
        let (config, _) = trained::model(folder)?;
        return Ok(format!("training run, {}\n  {}", stages(&config), config.origin.join("\n  ")));
    }
    let Some(files) = diffusers::files(folder) else {
        bail!(
            "{}: is a folder, neither of a training run nor Stable Diffusion as the diffusers library keeps it: \
             name files",
            folder.display()
        );
    };
    let mut text = String::from("Stable Diffusion as the diffusers library keeps it");
    for (place, file) in files.iter().enumerate() {
        let within = file.strip_prefix(folder).unwrap_or(file).display().to_string();
        let weights = Checkpoint::open(file)?.named(&within);
        let described = describe_weights(&weights, &within, |file| fault_of_diffusers(place, file))?;
        text += &format!("\n  {within}: {described}");
    }
    Ok(text)
}

/// How much of a model there is.
fn stages(config: &ModelConfig) -> String {
    let stages = if config.stage2.is_some() { "stage 1 and stage 2" } else { "stage 1 only" };
    format!("diffbir model `{}`, {stages}", config.name)
}

/// Where files of several networks keep them, and what they are.
const PARTS: [(&str, &str); 11] = [
    ("model.diffusion_model", "UNet"),
    ("control_model", "control branch"),
    ("first_stage_model", "autoencoder"),
    ("cond_stage_model", "text encoder"),
    ("preprocess_model", "stage 1"),
    ("cond_encoder", "the autoencoder's encoder once more, unused"),
    ("model_ema", "averages of a training run, unused"),
    ("stage1", "stage 1"),
    ("autoencoder", "autoencoder"),
    ("unet", "UNet"),
    ("control", "control branch"),
];

/// A tensor by which a network is known, and the network.
const NETWORKS: [(&str, &str); 19] = [
    ("down_blocks.0.resnets.0.conv1.weight", "UNet in the names of the diffusers library"),
    ("decoder.mid_block.resnets.0.conv1.weight", "autoencoder in the names of the diffusers library"),
    (
        "text_model.encoder.layers.0.self_attn.q_proj.weight",
        "text encoder in the names of the transformers library",
    ),
    ("conv_before_upsample.0.weight", "SwinIR, a stage 1"),
    ("RRDB_trunk.0.RDB1.conv1.weight", "RRDBNet, a stage 1"),
    ("body.0.rdb1.conv1.weight", "RRDBNet in BasicSR's names"),
    ("m_head.0.weight", "SCUNet, a stage 1"),
    ("zero_convs.0.0.weight", "control branch"),
    ("output_blocks.0.0.in_layers.0.weight", "UNet"),
    ("decoder.mid.block_1.conv1.weight", "autoencoder"),
    ("model.token_embedding.weight", "text encoder"),
    ("body.0.weight", "SRVGGNetCompact, a stage 1"),
    ("lin0.model.1.weight", "LPIPS, for `diffbir eval`"),
    ("features.0.weight", "AlexNet or VGG-16, for LPIPS"),
    ("11.pool.1.weight", "encoder of TAEF2, an autoencoder"),
    ("3.pool.1.weight", "decoder of TAEF2, an autoencoder"),
    ("BboxHead.0.conv1x1.weight", "RetinaFace, which finds faces"),
    ("stylegan_decoder.style_conv1.weight", "GFPGAN, which restores aligned faces"),
    ("out_mask_conv.conv2d.weight", "ParseNet, which tells a face from what is around it"),
];

/// `fault` says what is wrong with a file that is no model of its own.
fn describe_weights(
    checkpoint: &Checkpoint,
    name: &str,
    fault: impl Fn(&Checkpoint) -> Option<WeightError>,
) -> Result<String> {
    let whole_numbers: Vec<&str> =
        checkpoint.entries().filter(|(.., format)| format.is_none()).map(|(name, ..)| name).collect();
    let weights = checkpoint.entries().filter(|(.., format)| format.is_some());
    let (tensors, parameters) = weights.fold((0, 0), |(tensors, parameters), (_, shape, _)| {
        (tensors + 1, parameters + shape.iter().product::<usize>())
    });
    let s = if tensors == 1 { "" } else { "s" };
    let size = format!("{tensors} tensor{s}, {:.2} M values", parameters as f64 / 1e6);
    let (config, fault) = match ModelConfig::of(checkpoint, name) {
        Ok(config) => (Some(config), None),
        Err(fault) if checkpoint.metadata.contains_key(CONFIG_KEY) => (None, Some(fault)),
        // It holds no network at all.
        Err(WeightError::File { .. }) => (None, fault(checkpoint)),
        Err(fault) => (None, Some(fault)),
    };
    let known: Vec<&str> = NETWORKS
        .iter()
        .filter(|(tensor, _)| checkpoint.contains(tensor))
        .map(|(_, network)| *network)
        .collect();
    let mut text = match (&config, &known[..]) {
        (Some(config), _) => format!("{}, {size}", stages(config)),
        (None, []) => format!("weights, {size}"),
        (None, networks) => format!("weights of {}, {size}", networks.join(" and of ")),
    };
    if let Some(fault) = fault {
        let described = checkpoint.metadata.contains_key(CONFIG_KEY);
        let as_what = if described { "no model" } else { "not as it is published" };
        text += &format!("\n  {as_what}: {fault}");
    }
    if let Some(config) = &config {
        let whole = checkpoint.metadata.contains_key(CONFIG_KEY);
        let stage1 = if whole { checkpoint.part("stage1") } else { checkpoint.clone() };
        let keys = keys_of(|params| config.stage1.build(params))?;
        text.extend(doubts::of_lacking(&stage1.lacking(&keys)).map(|lacking| format!("\n  it {lacking}")));
    }
    let mut rest: Vec<&str> = checkpoint.entries().map(|(name, ..)| name).collect();
    for (prefix, part) in PARTS {
        let before = rest.len();
        rest.retain(|name| !name.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('.')));
        if rest.len() < before {
            text += &format!("\n  {part}: {} tensors in {prefix}", before - rest.len());
        }
    }
    let before = rest.len();
    rest.retain(|name| !is_beside_networks(name));
    if rest.len() < before {
        text += &format!("\n  schedule of noise, which is computed: {} tensors", before - rest.len());
    }
    if config.is_none() && known.is_empty() && !rest.is_empty() {
        text += &format!("\n  no known network: {}", some_of(&rest));
    }
    let unused = UNUSED_TEXT
        .iter()
        .flat_map(|end| checkpoint.entries().map(|(name, ..)| name).filter(move |name| name.contains(end)));
    let unused = unused.count();
    if unused > 0 {
        text += &format!("\n  unused of the text encoder: {unused} tensors, its last block and projection");
    }
    if !whole_numbers.is_empty() {
        let which = some_of(&whole_numbers);
        text += &format!("\n  in formats that are no weights, as whole numbers are, and not read: {which}");
    }
    if !checkpoint.extras.is_empty() {
        text += &format!("\n  beside the weights, unused: {}", checkpoint.extras.join(", "));
    }
    for line in config.iter().flat_map(|config| &config.origin) {
        text += &format!("\n  {line}");
    }
    Ok(text)
}

/// How many tensors these are, and the first of them.
fn some_of<S: AsRef<str>>(names: &[S]) -> String {
    let shown: Vec<&str> = names.iter().take(3).map(S::as_ref).collect();
    let more = if names.len() > 3 { ", ..." } else { "" };
    format!("{} tensor{}: {}{more}", names.len(), if names.len() == 1 { "" } else { "s" }, shown.join(", "))
}

/// What no prompt needs of the text encoder.
const UNUSED_TEXT: [&str; 3] =
    ["model.transformer.resblocks.23.", "model.text_projection", "model.logit_scale"];
