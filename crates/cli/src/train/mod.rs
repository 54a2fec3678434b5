//! `diffbir train`.

mod export;
mod view;

use crate::args::{Latents, Train, TrainPart, TrainRun};
use crate::outputs;
use crate::talk;
use anyhow::{Context, Result, bail, ensure};
use diffbir::device::Opened;
use diffbir_nn::Device;
use diffbir_train::config::{
    self, AutoencoderTraining, Config, Precision, PriorTraining, Stage1Training, Stage2Training, field,
};
use diffbir_train::run::{Report, TrainError};
use diffbir_train::{autoencoder, stage1, stage2};
use std::path::{Path, PathBuf};
use toml::{Table, Value};
use view::View;

pub fn run(arguments: Train) -> Result<()> {
    match arguments.part {
        TrainPart::Stage1 { network, run } => {
            let flags = network.map(|base| field("network.base", base)).into_iter().collect();
            train(&run, flags, |config: &Stage1Training, device, report| {
                stage1::train(config, device, report)
            })
        }
        TrainPart::Autoencoder { network, run } => {
            let flags = network.map(|base| field("network.base", base)).into_iter().collect();
            train(&run, flags, |config: &AutoencoderTraining, device, report| {
                autoencoder::train(config, device, report)
            })
        }
        TrainPart::Prior { latents, run } => {
            let flags = latent_flags(&latents)?;
            train(&run, flags, |config: &PriorTraining, device, report| {
                stage2::train_prior(config, device, report)
            })
        }
        TrainPart::Stage2 { latents, stage1, unet, together_with, draws, run } => {
            let mut flags = latent_flags(&latents)?;
            flags.extend(path_flag("stage1.path", &stage1)?);
            flags.extend(path_flag("control.unet", &unet)?);
            flags.extend(path_flag("control.together_with", &together_with)?);
            flags.extend(draws.map(|draws| field("control.draws", i64::from(draws))));
            train(&run, flags, |config: &Stage2Training, device, report| {
                stage2::train_control(config, device, report)
            })
        }
        TrainPart::Export { weights, output } => export::weights(&weights, &output),
        TrainPart::Full { stable_diffusion, stage1, control, output } => {
            export::full(&stable_diffusion, &stage1, control.as_deref(), &output)
        }
    }
}

/// Settles the configuration, then prints it or trains by it.
fn train<C: Config>(
    run: &TrainRun,
    flags: Vec<Table>,
    trainer: impl Fn(&C, &Device, &mut dyn FnMut(Report)) -> Result<(), TrainError>,
) -> Result<()> {
    let mut layers: Vec<Table> = Vec::new();
    layers.extend(run.config.as_deref().map(config::read).transpose()?);
    layers.extend(run_flags(run)?);
    layers.extend(flags);
    layers.extend(run.set.iter().cloned());
    let place = run.config.as_ref().map_or("the configuration".into(), |file| file.display().to_string());
    let config: C = config::resolve(&place, layers)?;
    if run.emit_config {
        return Ok(talk::data(config.to_toml().as_bytes())?);
    }
    config.check()?;
    ensure!(
        std::env::var("WORLD_SIZE")
            .ok()
            .and_then(|size| size.parse::<u32>().ok())
            .is_none_or(|size| size <= 1),
        "WORLD_SIZE is set: training by several processes together is not supported; run.accumulate makes a step's \
        batch larger in one"
    );
    outputs::ensure_writable(&config.run().output)?;
    let Opened { device, name, instead } = run.device.open()?;
    let in_bf16 = config.run().precision == Precision::Bf16;
    if let Some(why) = instead.as_ref().filter(|_| in_bf16) {
        bail!("--device: {why}: run.precision is \"bf16\", which only the CPU trains in: give --device cpu");
    }
    instead.iter().for_each(|why| talk::say(format_args!("--device: {why}")));
    if name != "cpu" {
        talk::say(format_args!("on {name}"));
    }
    let mut view = View::new();
    let result = trainer(&config, &device, &mut |report| view.show(report));
    view.finish();
    Ok(result?)
}

/// The fields that flags of all trainers give.
fn run_flags(run: &TrainRun) -> Result<Vec<Table>> {
    let mut flags = Vec::new();
    for (name, folders) in [("data.folders", &run.data), ("validation.folders", &run.validation)] {
        if !folders.is_empty() {
            let folders: Result<Vec<Value>> = folders.iter().map(|folder| text(folder)).collect();
            flags.push(field(name, folders?));
        }
    }
    flags.extend(path_flag("run.output", &run.output)?);
    flags.extend(path_flag("run.init", &run.init)?);
    for (name, number) in [
        ("run.steps", run.steps),
        ("run.batch", run.batch.map(u64::from)),
        ("run.seed", run.seed),
        ("run.checkpoint_every", run.checkpoint_every),
    ] {
        if let Some(number) = number {
            let number = i64::try_from(number).with_context(|| format!("{name}: {number} is too large"))?;
            flags.push(field(name, number));
        }
    }
    flags.extend(run.rate.map(|rate| field("optimizer.rate", rate)));
    Ok(flags)
}

fn latent_flags(latents: &Latents) -> Result<Vec<Table>> {
    let mut flags = Vec::new();
    flags.extend(path_flag("autoencoder.path", &latents.autoencoder)?);
    flags.extend(path_flag("data.latents", &latents.latents)?);
    Ok(flags)
}

fn path_flag(name: &str, path: &Option<PathBuf>) -> Result<Option<Table>> {
    path.as_deref().map(|path| Ok(field(name, text(path)?))).transpose()
}

/// A path as TOML can hold it.
fn text(path: &Path) -> Result<Value> {
    let text = path.to_str().with_context(|| format!("{}: is no Unicode", path.display()))?;
    Ok(Value::from(text))
}
