//! `diffbir train`.

use crate::args::{Stage1Network, Train, TrainPart, TrainRun};
use crate::talk::say;
use anyhow::{Context, Result};
use diffbir::ModelConfig;
use diffbir::config::{AutoencoderConfig, CONFIG_KEY, SamplingDefaults, Stage2Config};
use diffbir::geometry::Geometry;
use diffbir_diffusion::{Prediction, Schedule, Terminal};
use diffbir_imaging::{Raster, write_atomic};
use diffbir_models::srvgg::SrvggConfig;
use diffbir_models::stage1::Stage1Config;
use diffbir_models::swinir::SwinIrConfig;
use diffbir_models::taef2::{Taef2, Taef2Config};
use diffbir_models::unet::UnetConfig;
use diffbir_nn::Device;
use diffbir_nn::checkpoint::Checkpoint;
use diffbir_nn::params::build;
use diffbir_train::latents::{self, Kind, Latent};
use diffbir_train::optimizer::AdamWConfig;
use diffbir_train::run::{Report, RunConfig, to_tensor};
use diffbir_train::{stage1, stage2};
use std::path::{Path, PathBuf};

/// Side of a true crop of stage 1, pixels, and of a latent crop of stage 2, cells.
const CROP_PX: usize = 128;
const SIDE_CELLS: usize = 16;

pub fn run(arguments: Train) -> Result<()> {
    let device = Device::flex();
    match arguments.part {
        TrainPart::Stage1 { network, run } => {
            let config = run_config(&run, 20, AdamWConfig::default())?;
            let sizes = stage1_config(network);
            stage1::train(&sizes, &config, &run.data, &run.validation, CROP_PX, &device, &mut print)?;
        }
        TrainPart::Prior { autoencoder, latents, run } => {
            let config = run_config(&run, 100, stage2_optimizer())?;
            let autoencoder = open_autoencoder(&autoencoder, &device)?;
            let [truths, held_out] = encode(&run, &latents, &Kind::Truth, &autoencoder, &device)?;
            stage2::train_prior(&stage2_config(), &config, &truths, &held_out, &device, &mut print)?;
        }
        TrainPart::Control { autoencoder, latents, stage1, unet, together_with, draws, run } => {
            // All files are read before latents are made, which takes long.
            let (sizes, config) = (stage2_config(), run_config(&run, 100, stage2_optimizer())?);
            let unet = Checkpoint::open(&unet)?;
            sizes.fits_unet(&unet, &device)?;
            let branch = together_with.map(|file| Checkpoint::open(&file)).transpose()?;
            branch.iter().try_for_each(|branch| sizes.fits_control(branch, &device))?;
            let autoencoder = open_autoencoder(&autoencoder, &device)?;
            let cleaner = stage1_config(Stage1Network::Srvgg);
            let (network, _) =
                build(&mut Checkpoint::open(&stage1)?, &device, |params| cleaner.build(params))?;
            let restore = |small: &Raster| {
                let out = network.forward(to_tensor([small], &device)).clamp(0.0, 1.0);
                let [_, height_px, width_px, channels] = out.dims();
                let data = out.into_data().iter::<f32>().collect();
                Raster { width_px, height_px, channels, data }
            };
            let [truths, held_out] = encode(&run, &latents, &Kind::Truth, &autoencoder, &device)?;
            let (mut conditions, mut held_out_conditions) = (Vec::new(), Vec::new());
            for draw in 0..usize::from(draws) {
                let kind = Kind::Stage1 { restore: &restore, draw };
                let [train, held_out] = encode(&run, &latents, &kind, &autoencoder, &device)?;
                conditions.push(train);
                held_out_conditions.push(held_out);
            }
            let (pairs, held_out) =
                ((&truths[..], &conditions[..]), (&held_out[..], &held_out_conditions[..]));
            match branch {
                None => stage2::train_control(&sizes, &config, unet, pairs, held_out, &device, &mut print)?,
                Some(branch) => {
                    let start = (unet, branch);
                    stage2::train_both(&sizes, &config, start, pairs, held_out, &device, &mut print)?;
                }
            }
        }
        TrainPart::Pack {
            stage1,
            network,
            autoencoder,
            stage2,
            fidelity,
            cfg_scale,
            s_noise,
            name,
            origin,
            output,
        } => {
            let mut model = Checkpoint::default();
            model.insert("stage1", Checkpoint::open(&stage1)?);
            let mut config = ModelConfig {
                name,
                origin,
                stage1: stage1_config(network),
                stage2: None,
                geometry: Geometry::Free,
            };
            if let Some(autoencoder) = autoencoder {
                model.insert("autoencoder", autoencoder_files(&autoencoder)?);
                let both = Checkpoint::open(&stage2[0])?;
                let (unet, control) = match stage2.get(1) {
                    Some(branch) => (both, Checkpoint::open(branch)?),
                    None => (both.part("unet"), both.part("control")),
                };
                model.insert("unet", unet);
                model.insert("control", control);
                config.stage2 = Some(Stage2Config {
                    autoencoder: AutoencoderConfig::Taef2(Taef2Config::published()),
                    unet: nano_unet(),
                    text: None,
                    prediction: Prediction::V,
                    terminal: Terminal::ZeroSnr,
                    sampling: SamplingDefaults {
                        fidelity,
                        cfg_scale,
                        s_noise,
                        ..SamplingDefaults::default()
                    },
                });
            }
            model.metadata.insert(CONFIG_KEY.into(), serde_json::to_string(&config)?);
            let bytes = model.to_safetensors(true)?;
            write_atomic(&output, &bytes)?;
            say(format_args!("{}: {:.1} MB", output.display(), bytes.len() as f64 / 1e6));
        }
    }
    Ok(())
}

/// Nano's stage 2: 7.7 M parameters in UNet and control branch.
fn nano_unet() -> UnetConfig {
    UnetConfig {
        latent_channels: 32,
        model_channels: 64,
        multipliers: vec![1, 2, 2],
        blocks: 1,
        attention: vec![false, false, true],
        head_channels: 32,
        norm_groups: 16,
        context_channels: 64,
        learned_context: true,
    }
}

fn stage2_config() -> stage2::Stage2Config {
    stage2::Stage2Config {
        unet: nano_unet(),
        schedule: Schedule::new(Terminal::ZeroSnr),
        prediction: Prediction::V,
        side: SIDE_CELLS,
    }
}

fn stage1_config(network: Stage1Network) -> Stage1Config {
    match network {
        Stage1Network::Srvgg => Stage1Config::Srvgg(SrvggConfig::general_x4v3()),
        Stage1Network::Swinir => Stage1Config::SwinIr(SwinIrConfig {
            embed: 96,
            depths: vec![4; 4],
            heads: vec![6; 4],
            upsampling_features: 32,
            nominal_grid: 16,
            global_skip: true,
            ..SwinIrConfig::official()
        }),
    }
}

fn stage2_optimizer() -> AdamWConfig {
    AdamWConfig { beta2: 0.999, weight_decay: 0.01, clip_norm: 1.0, ..AdamWConfig::default() }
}

fn run_config(run: &TrainRun, warm_up: u64, optimizer: AdamWConfig) -> Result<RunConfig> {
    Ok(RunConfig {
        out: run.output.clone(),
        steps: run.steps,
        batch: usize::from(run.batch),
        rate: run.rate,
        warm_up,
        seed: run.seed,
        checkpoint_every: run.checkpoint_every,
        init: run.init.as_deref().map(Checkpoint::open).transpose()?,
        optimizer,
    })
}

fn autoencoder_files(folder: &Path) -> Result<Checkpoint> {
    let mut both = Checkpoint::default();
    for half in ["encoder", "decoder"] {
        let file = ["pth", "safetensors"]
            .map(|extension| folder.join(format!("taef2_{half}.{extension}")))
            .into_iter()
            .find(|file| file.exists())
            .with_context(|| format!("{}: holds no taef2_{half}.pth or .safetensors", folder.display()))?;
        both.insert(half, Checkpoint::open(&file)?);
    }
    Ok(both)
}

fn open_autoencoder(folder: &Path, device: &Device) -> Result<Taef2> {
    let mut files = autoencoder_files(folder)?;
    let (network, _) = build(&mut files, device, |params| Taef2Config::published().build(params))?;
    files.expect_all_used()?;
    Ok(network)
}

/// The latents of training and of validation pictures.
fn encode(
    run: &TrainRun,
    cache: &Path,
    kind: &Kind,
    autoencoder: &Taef2,
    device: &Device,
) -> Result<[Vec<Latent>; 2]> {
    let all = |folders: &[PathBuf], name: &str| {
        latents::encode_all(folders, &cache.join(name), kind, SIDE_CELLS, autoencoder, device, &mut print)
    };
    Ok([all(&run.data, "train")?, all(&run.validation, "valid")?])
}

fn print(report: Report) {
    match report {
        Report::LeftOut { why } => say(format_args!("warning: {why}: left out")),
        Report::Latents { done, total } if done.is_multiple_of(50) => {
            say(format_args!("latents: {done}/{total}"));
        }
        Report::Latents { .. } => {}
        Report::Step { step, loss, rate, norm, seconds, waited } => say(format_args!(
            "step {step}: loss {loss:.4}, rate {rate:.2e}, gradient {norm:.2}, {seconds:.3} s a step, {:.0} % waiting for data",
            100.0 * waited
        )),
        Report::Validation { step, text } => say(format_args!("validation after step {step}: {text}")),
    }
}
