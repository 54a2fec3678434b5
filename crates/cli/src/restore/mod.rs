//! `diffbir restore`.

pub mod choose;
mod faces;
mod intermediates;
pub mod memory;
mod prompts;
mod seeds;
mod settings;

use crate::args::{Existing, Restore, SeedMode};
use crate::inputs;
use crate::outputs::{self, Job, Target};
use crate::progress::{Event, Reporter};
use crate::stop::{STOPPED, on_ctrl_c};
use crate::talk;
use anyhow::{Result, bail};
use diffbir::device::Opened;
use diffbir::geometry::MAX_OUTPUT_PIXELS;
use diffbir::restore::{Value, Watch};
use diffbir::{Error, Model, Options, Progress};
use diffbir_imaging::{Depth, Encoded, Format, Photo, Raster, Samples, decode};
use faces::Faces;
use intermediates::Intermediates;
use memory::Memory;
use seeds::Seeds;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

pub fn run(arguments: &Restore) -> Result<ExitCode> {
    let mut reporter = Reporter::new(arguments.json);
    let code = restore_all(arguments, &mut reporter)?;
    // Results are on the disk; whoever waited for events has to know that some are missing.
    let told = talk::ended(reporter.lost());
    Ok(if code == ExitCode::SUCCESS { told } else { code })
}

fn restore_all(arguments: &Restore, reporter: &mut Reporter) -> Result<ExitCode> {
    let task = choose::task(arguments)?;
    let target = match (&arguments.reference.input, &arguments.output) {
        // The reference knows folders only, whatever they are called.
        (Some(_), Some(output)) => Target::folder(output),
        (_, output) => Target::new(output.as_deref())?,
    };
    let format = output_format(arguments, &target)?;
    let named = match &arguments.reference.input {
        Some(folder) => std::slice::from_ref(folder),
        None => &arguments.inputs,
    };
    let found = inputs::find(named, arguments.recursive, &target);
    let samples = u64::from(arguments.samples);
    let existing = match arguments.existing {
        Some(existing) => existing,
        None if settings::as_reference(arguments) => Existing::Overwrite,
        None => Existing::Error,
    };
    if matches!(existing, Existing::Skip) && arguments.seed_mode == SeedMode::ReferenceCli {
        bail!(
            "--existing skip: in --seed-mode reference-cli each picture's noise follows from those before it"
        );
    }
    // The reference numbers samples always where it looks for faces.
    let numbered = samples > 1 || faces::asked(arguments)? && settings::as_reference(arguments);
    let (jobs, skipped) = outputs::plan(&found, &target, format, (samples, numbered), existing)?;
    faces::plan(arguments)?;
    if found.results > 0 {
        reporter.say(&format!("{} found as results of an earlier run: left out", found.results));
    }
    if !found.not_read.is_empty() {
        reporter.say(&format!(
            "{} left out in formats that are not read, such as HEIC and RAW: name one to see why",
            found.not_read.len()
        ));
    }
    let problem = |problem: &inputs::Problem, reporter: &mut Reporter| {
        reporter.event(&Event::Error { input: &problem.path, message: &problem.message });
    };
    if found.inputs.is_empty() {
        // No model has to be loaded to tell this.
        found.problems.iter().for_each(|found| problem(found, reporter));
        let failed = found.problems.len();
        reporter.event(&Event::End { model: None, restored: 0, skipped, failed, stopped: false });
        return Ok(if failed > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS });
    }
    if let Some(folder) = &arguments.save_intermediates {
        let reference = &arguments.reference;
        let weights = [&reference.ckpt, &reference.swinir_ckpt].into_iter().flatten().map(PathBuf::as_path);
        let inputs = found.inputs.iter().map(|input| input.path.as_path());
        let kept = inputs.chain([Path::new(&arguments.model)]).chain(weights);
        intermediates::plan(folder, &jobs, kept, existing)?;
    }
    let Opened { device, name: device_name, instead } = arguments.device.open()?;
    instead.iter().for_each(|why| reporter.say(&format!("--device: {why}")));
    let chosen = choose::choose(arguments, task, &device)?;
    chosen.doubts.iter().for_each(|doubt| reporter.say(doubt));
    let faces = Faces::new(arguments, &chosen, &jobs, existing, &device)?;
    let model = chosen.model;
    let mut run = Run {
        options: settings::options(arguments, &model, task, reporter)?,
        seeds: Seeds::new(arguments, chosen.set, task)?,
        model: &model,
        faces,
        numbered,
        arguments,
        format,
        stop: on_ctrl_c("stopping after this step; press Ctrl-C again to leave at once", None)?,
        memory: arguments.memory.then(Memory::watch),
        reporter,
        incomplete: 0,
    };
    outputs::tidy(jobs.iter().flat_map(Job::files));
    let name = &model.config.name;
    run.reporter.event(&Event::Start { pictures: jobs.len(), model: name, device: &device_name });
    found.problems.iter().for_each(|found| problem(found, run.reporter));
    let (mut restored, mut failed) = (0, found.problems.len());
    let mut stopped = false;
    for (index, job) in jobs.iter().enumerate() {
        run.reporter.picture(index + 1, jobs.len(), &job.input.display().to_string());
        match run.one(job) {
            Ok(count) => restored += count,
            Err(error) if matches!(error.downcast_ref(), Some(Error::Stopped)) => {
                stopped = true;
                break;
            }
            Err(error) => {
                failed += 1;
                run.reporter.event(&Event::Error { input: &job.input, message: &format!("{error:#}") });
            }
        }
    }
    failed += run.incomplete;
    if let Some(memory) = &run.memory {
        run.reporter.say(&memory.report());
    }
    run.reporter.event(&Event::End { model: Some(name), restored, skipped, failed, stopped });
    Ok(match (stopped, failed) {
        (true, _) => ExitCode::from(STOPPED),
        (false, 0) => ExitCode::SUCCESS,
        (false, _) => ExitCode::FAILURE,
    })
}

/// What is the same for all pictures of a run.
struct Run<'a> {
    model: &'a Model,
    faces: Option<Faces>,
    /// Whether names of results carry the number of the sample.
    numbered: bool,
    options: Options,
    arguments: &'a Restore,
    format: Format,
    seeds: Seeds,
    stop: Arc<AtomicBool>,
    memory: Option<Memory>,
    reporter: &'a mut Reporter,
    /// Pictures beside whose results something could not be written.
    incomplete: usize,
}

impl Run<'_> {
    /// Restores one picture; returns how many results were written.
    fn one(&mut self, job: &Job) -> Result<usize> {
        let photo = decode(&job.input)?;
        let lost = photo.metadata.lost_in(self.format);
        if !lost.is_empty() {
            let lost = lost.join(" and ");
            self.reporter.say(&format!("  {} cannot carry {lost}: left out", self.format.name()));
        }
        let size = (photo.width_px, photo.height_px);
        let geometry = self.model.config.geometry;
        let (_, upscale) = geometry.output_size(size.0, size.1, self.options.upscale);
        if upscale < self.options.upscale {
            self.reporter.say(&format!("  {}", lowered(self.options.upscale, upscale, size)));
        }
        let failed = |error: Error| match error {
            // The stop is nobody's fault and names no picture.
            Error::Stopped => error.into(),
            error => anyhow::Error::new(error).context(job.input.display().to_string()),
        };
        let mut started = Instant::now();
        let mut intermediates = self.arguments.save_intermediates.as_ref().map(|_| Intermediates::default());
        let mut watcher = Watcher {
            input: &job.input,
            reporter: self.reporter,
            stop: &self.stop,
            memory: self.memory.as_ref(),
            intermediates: intermediates.as_mut(),
            results: 0,
        };
        self.seeds.picture();
        let stage2 = !self.arguments.stage1_only;
        let batches = || job.outputs.chunks(usize::from(self.arguments.batch_size));
        let samples: Vec<Vec<u64>> = batches().map(|batch| batch.iter().map(|(_, n)| *n).collect()).collect();
        let mut found = None;
        if let Some(faces) = &self.faces {
            let by = (self.model, &self.options);
            let watcher = &mut Watcher { intermediates: None, reporter: &mut *watcher.reporter, ..watcher };
            let restored = faces.restore(by, &photo, &samples, &mut self.seeds, watcher);
            found = Some((faces, restored.map_err(failed)?));
        }
        let depth = match photo.is_deep() && self.format.is_deep() {
            true => Depth::Sixteen,
            false => geometry.depth(),
        };
        let mut backgrounds = Vec::new();
        let prepared = self.model.prepare(&photo, &self.options, stage2, &mut watcher).map_err(failed)?;
        for (batch, samples) in batches().zip(&samples) {
            let noise = self.seeds.batch(samples);
            let details = self.model.detail(&prepared, samples.len(), &self.options, noise, &mut watcher);
            let details = details.map_err(failed)?;
            for (index, ((path, sample), background)) in batch.iter().zip(&details).enumerate() {
                let index = watcher.results + index;
                let pasted = found.as_ref().map(|(faces, restored)| faces.paste(restored, background, index));
                let pasted = pasted.transpose().map_err(failed)?;
                let picture = pasted.as_ref().unwrap_or(background);
                let alpha = prepared.alpha.as_ref().filter(|alpha| alpha.size() == picture.size());
                write(path, picture, alpha, &photo, self.format, depth, self.arguments.quality).map_err(
                    |error| match error.downcast_ref::<diffbir_imaging::EncodeError>() {
                        Some(_) => error.context(job.input.display().to_string()),
                        None => error,
                    },
                )?;
                watcher.reporter.event(&Event::Done {
                    input: &job.input,
                    output: path,
                    seed: self.seeds.of(*sample),
                    width: picture.width_px,
                    height: picture.height_px,
                    seconds: started.elapsed().as_secs_f64() / details.len() as f64,
                });
            }
            watcher.results += details.len();
            if found.is_some() {
                backgrounds.extend(details);
            }
            started = Instant::now();
        }
        let saved = found.map(|(faces, restored)| {
            (faces.save(job, &restored, &backgrounds, self.numbered, (self.format, depth)), restored.count())
        });
        if let (Some(values), Some(folder)) = (intermediates, &self.arguments.save_intermediates) {
            let written = values.write(folder, job);
            let written = written.map(|path| self.reporter.say(&format!("  {}", path.display())));
            self.beside(job, written);
        }
        let (saved, count) = saved.unwrap_or((Ok(()), 0));
        self.beside(job, saved);
        if settings::as_reference(self.arguments) {
            let stem = job.input.file_stem().unwrap_or_default().to_string_lossy();
            let faces = (0..count).map(|face| format!("{stem}_face_{face}"));
            for name in faces.chain([stem.to_string()]) {
                self.beside(job, prompts::append(&self.arguments.output, &name, &self.options));
            }
        }
        Ok(job.outputs.len())
    }

    /// Tells of what could not be written beside results, which are there all the same.
    fn beside(&mut self, job: &Job, written: Result<()>) {
        if let Err(error) = written {
            self.incomplete += 1;
            self.reporter.event(&Event::Error { input: &job.input, message: &format!("{error:#}") });
        }
    }
}

/// Hears what the library tells on the way of one picture.
struct Watcher<'a> {
    input: &'a Path,
    reporter: &'a mut Reporter,
    stop: &'a AtomicBool,
    memory: Option<&'a Memory>,
    intermediates: Option<&'a mut Intermediates>,
    /// Results that were done before the batch that is going on.
    results: usize,
}

impl Watch for Watcher<'_> {
    fn progress(&mut self, progress: Progress) -> ControlFlow<()> {
        if let Some(memory) = self.memory {
            memory.stage(progress.stage);
        }
        self.reporter.step(self.input, progress);
        if self.stop.load(Ordering::SeqCst) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn value(&mut self, value: Value) {
        if let Some(intermediates) = &mut self.intermediates {
            intermediates.take(value, self.results);
        }
    }
}

/// Writes one result in the photograph's own colours.
fn write(
    path: &Path,
    picture: &Raster,
    alpha: Option<&Raster>,
    photo: &Photo,
    format: Format,
    depth: Depth,
    quality: Option<u8>,
) -> Result<()> {
    let samples = photo.to_own_colours(picture, depth);
    let alpha = alpha.map(|alpha| match depth {
        Depth::Sixteen => Samples::U16(alpha.to_u16_rounding()),
        Depth::Eight | Depth::EightCutOff => Samples::U8(alpha.to_u8_rounding()),
    });
    let encoded = Encoded {
        width_px: picture.width_px,
        height_px: picture.height_px,
        channels: photo.channels,
        samples: &samples,
        alpha: alpha.as_ref(),
        metadata: &photo.metadata,
    };
    let bytes = encoded.to_bytes(format, quality)?;
    outputs::write(path, &bytes)
}

/// Why a result is not enlarged as asked.
fn lowered(asked: f64, upscale: f64, (width, height): (usize, usize)) -> String {
    let limit = MAX_OUTPUT_PIXELS / 1_000_000;
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

#[cfg(test)]
mod tests {
    use super::*;
    use diffbir::geometry::Geometry;

    #[test]
    fn a_lowered_upscale_is_explained() {
        let said =
            |size: (usize, usize)| lowered(4.0, Geometry::Free.output_size(size.0, size.1, 4.0).1, size);
        assert!(said((4000, 3000)).starts_with("upscale lowered from 4 to 1.41: the result would exceed"));
        assert!(said((6000, 4200)).contains("to 1: the picture itself has 25.2 megapixels"));
    }
}
