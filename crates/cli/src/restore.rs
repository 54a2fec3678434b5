//! `diffbir restore`.

use crate::args::{ColourFix, Precision, Restore, Task};
use crate::inputs;
use crate::outputs::{self, Job, Target};
use crate::paths::folder_of;
use crate::progress::{Event, Reporter};
use crate::talk;
use anyhow::{Context, Result, bail};
use diffbir::restore::{self, output_size};
use diffbir::{Error, Model, Options};
use diffbir_diffusion::{Parameter, Parameters, Sampler};
use diffbir_imaging::{Encoded, Format, Raster, decode, write_atomic};
use std::ops::ControlFlow;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Exit code of a run that was stopped by Ctrl-C, as shells count it.
const STOPPED: u8 = 130;

/// Exit code where nothing that was asked for could begin, as for wrong options.
const NOTHING_TO_DO: u8 = 2;

pub fn run(arguments: &Restore) -> Result<ExitCode> {
    let mut reporter = Reporter::new(arguments.json);
    let code = restore_all(arguments, &mut reporter)?;
    // Results are on the disk; whoever waited for events has to know that some are missing.
    let told = talk::ended(reporter.lost());
    Ok(if code == ExitCode::SUCCESS { told } else { code })
}

fn restore_all(arguments: &Restore, reporter: &mut Reporter) -> Result<ExitCode> {
    let target = Target::new(arguments.output.as_deref())?;
    let format = output_format(arguments, &target)?;
    let found = inputs::find(&arguments.inputs, arguments.recursive, &target);
    let samples = u64::from(arguments.samples);
    let (jobs, skipped) = outputs::plan(&found, &target, format, samples, arguments.existing)?;
    if found.results > 0 {
        reporter.say(&format!("{} found as results of an earlier run: left out", found.results));
    }
    let problem = |problem: &inputs::Problem, reporter: &mut Reporter| {
        reporter.event(&Event::Error { input: &problem.path, message: &problem.message });
    };
    if found.inputs.is_empty() {
        found.problems.iter().for_each(|found| problem(found, reporter));
        return Ok(ExitCode::from(NOTHING_TO_DO));
    }
    let (device, device_name) = arguments.device.open()?;
    let model = open_model(arguments, &device)?;
    let options = options(arguments, &model, reporter)?;

    let stop = Arc::new(AtomicBool::new(false));
    let flag = stop.clone();
    ctrlc::set_handler(move || {
        // The second time nobody wants to wait for the end of a step.
        if flag.swap(true, Ordering::SeqCst) {
            std::process::exit(i32::from(STOPPED));
        }
        talk::say("stopping after this step; press Ctrl-C again to leave at once");
    })
    .context("Ctrl-C cannot be listened for")?;

    let name = &model.config.name;
    reporter.event(&Event::Start { pictures: jobs.len(), model: name, device: &device_name });
    found.problems.iter().for_each(|found| problem(found, reporter));
    let (mut restored, mut failed) = (0, found.problems.len());
    for (index, job) in jobs.iter().enumerate() {
        reporter.picture(index + 1, jobs.len(), &job.input.display().to_string());
        match one(job, &model, &options, format, arguments.quality, &stop, reporter) {
            Ok(count) => restored += count,
            Err(error) if matches!(error.downcast_ref(), Some(Error::Stopped)) => {
                reporter.event(&Event::End { model: name, restored, skipped, failed });
                return Ok(ExitCode::from(STOPPED));
            }
            Err(error) => {
                failed += 1;
                reporter.event(&Event::Error { input: &job.input, message: &format!("{error:#}") });
            }
        }
    }
    reporter.event(&Event::End { model: name, restored, skipped, failed });
    Ok(if failed > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Restores one picture; returns how many results were written.
fn one(
    job: &Job,
    model: &Model,
    options: &Options,
    format: Format,
    quality: Option<u8>,
    stop: &AtomicBool,
    reporter: &mut Reporter,
) -> Result<usize> {
    let photo = decode(&job.input)?;
    let lost = photo.metadata.lost_in(format);
    if !lost.is_empty() {
        reporter.say(&format!("  {} cannot carry {}: left out", format.name(), lost.join(" and ")));
    }
    let (_, upscale) = output_size(photo.width_px, photo.height_px, options.upscale);
    if upscale < options.upscale {
        let size = (photo.width_px, photo.height_px);
        reporter.say(&format!("  {}", lowered(options.upscale, upscale, size)));
    }
    for (path, sample) in &job.outputs {
        let started = Instant::now();
        let options = Options { seed: options.seed.wrapping_add(*sample), ..options.clone() };
        let result = model.restore(&photo, &options, &mut |progress| {
            reporter.step(&job.input, progress);
            if stop.load(Ordering::SeqCst) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        let result = result.with_context(|| job.input.display().to_string()).map_err(|error| {
            // The stop is nobody's fault and names no picture.
            if matches!(error.downcast_ref(), Some(Error::Stopped)) { Error::Stopped.into() } else { error }
        })?;
        let deep = photo.is_deep() && format.is_deep();
        let samples = photo.to_own_colours(&result.picture, deep);
        let alpha = result.alpha.as_ref().map(|alpha| depth(alpha, deep));
        let encoded = Encoded {
            width_px: result.picture.width_px,
            height_px: result.picture.height_px,
            channels: photo.channels,
            samples: &samples,
            alpha: alpha.as_ref(),
            metadata: &photo.metadata,
        };
        let bytes = encoded.to_bytes(format, quality).with_context(|| job.input.display().to_string())?;
        let folder = folder_of(path);
        std::fs::create_dir_all(folder)
            .with_context(|| format!("{}: the folder cannot be made", folder.display()))?;
        write_atomic(path, &bytes)?;
        reporter.event(&Event::Done {
            input: &job.input,
            output: path,
            seed: options.seed,
            width: encoded.width_px,
            height: encoded.height_px,
            seconds: started.elapsed().as_secs_f64(),
        });
    }
    Ok(job.outputs.len())
}

/// Why a result is not enlarged as asked.
fn lowered(asked: f64, upscale: f64, (width, height): (usize, usize)) -> String {
    let limit = restore::MAX_OUTPUT_PIXELS / 1_000_000;
    if upscale > 1.0 {
        return format!(
            "upscale lowered from {asked} to {upscale:.2}: the result would exceed {limit} megapixels"
        );
    }
    let own = (width * height) as f64 / 1e6;
    format!(
        "upscale lowered from {asked} to 1: the picture itself has {own:.1} megapixels, and none above {limit} is enlarged"
    )
}

fn depth(plane: &Raster, deep: bool) -> diffbir_imaging::Samples {
    if deep {
        diffbir_imaging::Samples::U16(plane.to_u16_rounding())
    } else {
        diffbir_imaging::Samples::U8(plane.to_u8_rounding())
    }
}

fn output_format(arguments: &Restore, target: &Target) -> Result<Format> {
    let by_name = if let Target::File(_, format) = target { Some(*format) } else { None };
    let format = match (arguments.format, by_name) {
        (Some(asked), Some(named)) if asked != named => {
            bail!("--format and the name of --output say different formats: leave one of them out")
        }
        (asked, named) => asked.or(named).unwrap_or(Format::Png),
    };
    if arguments.quality.is_some() && !format.takes_quality() {
        bail!("--quality is for JPEG and WebP: {} is written without loss", format.extension());
    }
    Ok(format)
}

fn open_model(arguments: &Restore, device: &diffbir_nn::Device) -> Result<Model> {
    let precision = match arguments.precision {
        Precision::F32 => diffbir_nn::Precision::F32,
        Precision::Bf16 => diffbir_nn::Precision::Bf16,
        Precision::F16 => diffbir_nn::Precision::F16,
    };
    Ok(match arguments.model.as_str() {
        "auto" | "nano" => Model::nano(device, precision)?,
        file if Path::new(file).is_file() => Model::open(Path::new(file), device, precision)?,
        name => bail!("--model {name}: is neither auto, nano nor a file"),
    })
}

/// The options, or why this model cannot honour them.
fn options(arguments: &Restore, model: &Model, reporter: &Reporter) -> Result<Options> {
    let name = &model.config.name;
    if arguments.task == Task::Face {
        bail!("--task face: {name} has no networks for faces: use --task sr");
    }
    if !model.has_text() {
        let texts = [
            ("--prompt", arguments.prompt.is_some()),
            ("--negative-prompt", arguments.negative_prompt.is_some()),
        ];
        for (flag, _) in texts.into_iter().filter(|(_, given)| *given) {
            reporter.say(&format!("warning: {flag} changes nothing: {name} reads no text"));
        }
    }
    if arguments.no_stage1 && !model.has_stage2() {
        bail!("--no-stage1: {name} has no stage 2, so nothing would be left to do");
    }
    if !model.has_stage2() && !arguments.stage1_only {
        reporter.say(&format!("{name} has no stage 2: it cleans and enlarges, and adds no detail"));
    }
    Ok(Options {
        upscale: arguments.upscale,
        stage1: !arguments.no_stage1,
        stage2: !arguments.stage1_only,
        sampler: arguments.sampler,
        parameters: parameters(arguments, model.parameters())?,
        start: arguments.start_point_type,
        steps: usize::from(arguments.steps),
        cfg_scale: arguments.cfg_scale,
        rescale_cfg: arguments.rescale_cfg,
        strength: arguments.strength,
        noise_aug: usize::from(arguments.noise_aug),
        seed: arguments.seed,
        colour_fix: match arguments.color_fix {
            ColourFix::Wavelet => restore::ColourFix::Wavelet,
            ColourFix::Adain => restore::ColourFix::Adain,
            ColourFix::None => restore::ColourFix::None,
        },
    })
}

/// The settings that were given in place of `defaults`; one that the sampler would ignore is an error.
fn parameters(arguments: &Restore, defaults: Parameters) -> Result<Parameters> {
    let given = &arguments.parameters;
    let flags = [
        ("--s-churn", Parameter::SChurn, given.s_churn.is_some()),
        ("--s-tmin", Parameter::STmin, given.s_tmin.is_some()),
        ("--s-tmax", Parameter::STmax, given.s_tmax.is_some()),
        ("--s-noise", Parameter::SNoise, given.s_noise.is_some()),
        ("--eta", Parameter::Eta, given.eta.is_some()),
        ("--order", Parameter::Order, given.order.is_some()),
    ];
    for (flag, parameter, given) in flags {
        if given && !arguments.sampler.heeds().contains(&parameter) {
            let heeding: Vec<&str> = Sampler::ALL
                .into_iter()
                .filter(|sampler| sampler.heeds().contains(&parameter))
                .map(Sampler::name)
                .collect();
            bail!("{flag}: {} does not heed it; {} do", arguments.sampler, heeding.join(", "));
        }
    }
    Ok(Parameters {
        s_churn: given.s_churn.unwrap_or(defaults.s_churn),
        s_tmin: given.s_tmin.unwrap_or(defaults.s_tmin),
        s_tmax: given.s_tmax.unwrap_or(defaults.s_tmax),
        s_noise: given.s_noise.unwrap_or(defaults.s_noise),
        eta: given.eta.unwrap_or(defaults.eta),
        order: given.order.map_or(defaults.order, usize::from),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lowered_upscale_is_explained() {
        let said = |size: (usize, usize)| lowered(4.0, output_size(size.0, size.1, 4.0).1, size);
        assert!(said((4000, 3000)).starts_with("upscale lowered from 4 to 1.41: the result would exceed"));
        assert!(said((6000, 4200)).contains("to 1: the picture itself has 25.2 megapixels"));
    }
}
