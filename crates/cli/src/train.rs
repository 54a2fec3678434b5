//! `diffbir train`.

use crate::args::{Stage1Network, Train, TrainPart, TrainRun};
use crate::outputs;
use crate::paths::folder_of;
use crate::talk::say;
use anyhow::{Context, Result, bail};
use diffbir::config::{AutoencoderConfig, SamplingDefaults, Stage2Config};
use diffbir::geometry::Geometry;
use diffbir::model::{Loading, Parts};
use diffbir::{Model, ModelConfig};
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
use diffbir_train::data::DataError;
use diffbir_train::latents::{self, Kind};
use diffbir_train::optimizer::AdamWConfig;
use diffbir_train::run::{Report, RunConfig, TrainError, to_tensor};
use diffbir_train::stage2::{Pairs, Sets};
use diffbir_train::{data, stage1, stage2};
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
            let encoder =
                Encoder { run: &run, cache: &latents, autoencoder: open_autoencoder(&autoencoder)? };
            let sets = |report: &mut dyn FnMut(Report)| encoder.sets(None, report);
            stage2::train_prior(&stage2_config(), &config, &sets, &device, &mut print)?;
        }
        TrainPart::Control { autoencoder, latents, stage1, unet, together_with, draws, run } => {
            let (sizes, config) = (stage2_config(), run_config(&run, 100, stage2_optimizer())?);
            let unet = Checkpoint::open(&unet)?;
            let branch = together_with.map(|file| Checkpoint::open(&file)).transpose()?;
            let encoder =
                Encoder { run: &run, cache: &latents, autoencoder: open_autoencoder(&autoencoder)? };
            let cleaner = stage1_config(Stage1Network::Srvgg);
            let (network, _) =
                build(&mut Checkpoint::open(&stage1)?, &device, |params| cleaner.build(params))?;
            let restore = |small: &Raster| {
                let out = network.forward(to_tensor([small], &device)).clamp(0.0, 1.0);
                let [_, height_px, width_px, channels] = out.dims();
                let data = out.into_data().iter::<f32>().collect();
                Raster { width_px, height_px, channels, data }
            };
            let degraded = Degraded { restore: &restore, draws: usize::from(draws) };
            let sets = |report: &mut dyn FnMut(Report)| encoder.sets(Some(&degraded), report);
            match branch {
                None => stage2::train_control(&sizes, &config, unet, &sets, &device, &mut print)?,
                Some(branch) => {
                    stage2::train_both(&sizes, &config, (unet, branch), &sets, &device, &mut print)?;
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
            if output.symlink_metadata().is_ok() {
                bail!("{}: exists already: remove it or choose another name", output.display());
            }
            outputs::ensure_writable(folder_of(&output))?;
            let mut parts = Parts { stage1: Checkpoint::open(&stage1)?, ..Parts::default() };
            let mut config = ModelConfig {
                name,
                origin,
                stage1: stage1_config(network),
                stage2: None,
                geometry: Geometry::Free,
            };
            if let Some(autoencoder) = autoencoder {
                parts.autoencoder = autoencoder_files(&autoencoder)?;
                let both = Checkpoint::open(&stage2[0])?;
                (parts.unet, parts.control) = match stage2.get(1) {
                    Some(branch) => (both, Checkpoint::open(branch)?),
                    None => (both.part("unet"), both.part("control")),
                };
                config.stage2 = Some(Stage2Config {
                    autoencoder: AutoencoderConfig::Taef2(Taef2Config::published()),
                    unet: UnetConfig::nano(),
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
            // What does not go together is refused here, not when somebody restores with it.
            Model::assemble(config.clone(), parts.clone(), Loading::on(&device))?;
            let model = parts.into_file(&config);
            let bytes = model.to_safetensors(true)?;
            write_atomic(&output, &bytes)?;
            say(format_args!("{}: {:.1} MB", output.display(), bytes.len() as f64 / 1e6));
        }
    }
    Ok(())
}

fn stage2_config() -> stage2::Stage2Config {
    stage2::Stage2Config {
        unet: UnetConfig::nano(),
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
    outputs::ensure_writable(&run.output)?;
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
    Ok(both.named(&folder.display().to_string()))
}

fn open_autoencoder(folder: &Path) -> Result<Taef2> {
    let mut files = autoencoder_files(folder)?;
    let (network, _) = build(&mut files, &Device::flex(), |params| Taef2Config::published().build(params))?;
    files.expect_all_used()?;
    Ok(network)
}

/// Makes latents of the pictures of a run.
struct Encoder<'a> {
    run: &'a TrainRun,
    cache: &'a Path,
    autoencoder: Taef2,
}

/// What makes a condition of a true picture.
struct Degraded<'a> {
    /// From a degraded picture to what stage 1 makes of it.
    restore: &'a dyn Fn(&Raster) -> Raster,
    /// Degradations of each picture.
    draws: usize,
}

impl Encoder<'_> {
    fn sets(&self, degraded: Option<&Degraded>, report: &mut dyn FnMut(Report)) -> Result<Sets, TrainError> {
        // A folder that is not there is noticed before the first latent.
        let folders = &self.run.validation;
        if data::pictures_in_all(folders)?.is_empty() && !folders.is_empty() {
            return Err(DataError::Empty { folders: folders.clone(), least_px: 1 }.into());
        }
        let mut pairs = |folders: &[PathBuf], name: &str| self.pairs(folders, name, degraded, report);
        Ok(Sets { train: pairs(&self.run.data, "train")?, held_out: pairs(&self.run.validation, "valid")? })
    }

    fn pairs(
        &self,
        folders: &[PathBuf],
        name: &str,
        degraded: Option<&Degraded>,
        report: &mut dyn FnMut(Report),
    ) -> Result<Pairs, TrainError> {
        let cache = self.cache.join(name);
        let mut encode = |kind: &Kind| {
            let device = Device::flex();
            latents::encode_all(folders, &cache, kind, SIDE_CELLS, &self.autoencoder, &device, report)
        };
        let truths = encode(&Kind::Truth)?;
        let mut conditions = Vec::new();
        if let Some(Degraded { restore, draws }) = degraded {
            for draw in 0..*draws {
                conditions.push(encode(&Kind::Stage1 { restore: *restore, truths: &truths, draw })?);
            }
        }
        Ok(Pairs { truths, conditions })
    }
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
