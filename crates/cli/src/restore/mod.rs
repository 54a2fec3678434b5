//! `diffbir restore`.

pub mod choose;
pub mod faces;
mod intermediates;
pub mod memory;
pub mod picture;
pub mod plan;
mod prompts;
mod seeds;
pub mod settings;
pub mod sweep;
pub mod together;

use crate::args::{Existing, Restore, SeedMode};
use crate::inputs;
use crate::outputs::{self, Job, Target, Variant};
use crate::progress::{Event, Reporter};
use crate::stop::{STOPPED, on_ctrl_c};
use crate::talk;
use anyhow::{Result, bail};
use diffbir::device::Opened;
use diffbir::harm::Harm;
use diffbir::restore::{Value, Watch};
use diffbir::{Error, Progress};
use diffbir_imaging::{EncodeError, Format, Raster, decode};
use intermediates::Intermediates;
use memory::Memory;
use picture::{Finished, Follow, Restorer};
use plan::Settled;
use std::collections::HashSet;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use sweep::Setting;
use together::{Gathered, Wanted};

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
    let choices = sweep::settings(arguments)?;
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
    let numbered = arguments.samples > 1 || faces::asked(arguments)? && settings::as_reference(arguments);
    let wanted = Wanted::new(arguments)?;
    let together = wanted.map(|wanted| wanted.names(&choices)).unwrap_or_default();
    let variants = variants(&choices, u64::from(arguments.samples), numbered);
    let (jobs, skipped) = outputs::plan(&found, &target, format, (&variants, &together), existing)?;
    faces::plan(arguments, &jobs, format, existing)?;
    if found.results > 0 {
        reporter.say(&format!("{} found as results of an earlier run: left out", found.results));
    }
    for link in &found.linked {
        reporter.say(&format!("{}: is a link to a folder, which is not followed", link.display()));
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
    // From the beginning, so that what is freed is not counted as what the program holds anyway.
    let memory = arguments.memory.is_some().then(Memory::watch_stages);
    let mask = settings::mask_of(arguments, found.inputs.len())?;
    let Opened { device, name: device_name, instead } = arguments.device.open()?;
    instead.iter().for_each(|why| reporter.say(&format!("--device: {why}")));
    let mut told = HashSet::new();
    let mut say = |text: &str| {
        if told.insert(text.to_string()) {
            reporter.say(text);
        }
    };
    let mut chosen = match &memory {
        Some(_) => choose::at_rest(arguments, task, &device)?,
        None => choose::choose(arguments, task, &device)?,
    };
    let mut settled = None;
    if memory.is_some() {
        // Pictures that cannot be read are told of when it is their turn.
        let (pictures, _) = plan::outlines_of(jobs.iter().map(|job| job.input.as_path()));
        if !pictures.is_empty() {
            let found = plan::settle(arguments, &choices, (&chosen, task, &device, mask), &pictures)?;
            say(&found.table(None));
            found.doubt().iter().for_each(|doubt| say(doubt));
            settled = Some(found);
        }
    }
    let regions = settings::regions_of(arguments)?;
    if memory.is_some() {
        let (precision, apart) = match &settled {
            Some(Settled { plan, .. }) => (plan.choices.precision, plan.choices.networks_apart),
            None => (choose::precision(arguments.precision, &device), false),
        };
        chosen.model.hold(precision, apart)?;
    }
    let restorers: Result<Vec<Restorer>> = choices
        .iter()
        .map(|choice| {
            let arguments = choice.arguments.as_deref().unwrap_or(arguments);
            let mut restorer =
                Restorer::new((arguments, regions.clone()), (task, format), &chosen, &device, &mut say)?;
            if let Some(settled) = &settled {
                restorer.options = settled.plan.choices.applied(&restorer.options);
            }
            Ok(restorer)
        })
        .collect();
    let mut run = Run {
        restorers: restorers?,
        choices: &choices,
        wanted,
        save: faces::Save::new(arguments, &jobs, existing),
        arguments,
        stop: on_ctrl_c("stopping; press Ctrl-C again to leave at once", None)?,
        memory,
        reporter,
        incomplete: 0,
    };
    outputs::tidy(jobs.iter().flat_map(Job::files));
    let name = &chosen.model.config.name;
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
    if let (Some(settled), Some(memory)) = (&settled, &run.memory) {
        run.reporter.say(&settled.table(Some(memory)));
    }
    run.reporter.event(&Event::End { model: Some(name), restored, skipped, failed, stopped });
    Ok(match (stopped, failed) {
        (true, _) => ExitCode::from(STOPPED),
        (false, 0) => ExitCode::SUCCESS,
        (false, _) => ExitCode::FAILURE,
    })
}

/// The results of a picture: of each choice of settings its samples.
fn variants(choices: &[Setting], samples: u64, numbered: bool) -> Vec<Variant> {
    let each = choices.iter().enumerate().flat_map(|(setting, choice)| {
        (0..samples).map(move |sample| {
            let number = if numbered { format!("_{sample}") } else { String::new() };
            Variant { suffix: format!("{}{number}", choice.suffix), sample, setting }
        })
    });
    each.collect()
}

/// The pictures of a command.
struct Run<'a> {
    /// One for each choice of settings.
    restorers: Vec<Restorer<'a>>,
    choices: &'a [Setting],
    /// What is made of all results of a picture.
    wanted: Option<Wanted>,
    /// Where faces go, if somebody wants them.
    save: Option<faces::Save>,
    arguments: &'a Restore,
    stop: Arc<AtomicBool>,
    memory: Option<Memory>,
    reporter: &'a mut Reporter,
    /// Pictures beside whose results something could not be written.
    incomplete: usize,
}

impl Run<'_> {
    /// Restores one picture; returns how many results were written.
    fn one(&mut self, job: &Job) -> Result<usize> {
        self.memory.iter().for_each(|memory| memory.stage(None));
        let photo = decode(&job.input)?;
        let mut follower = Follower {
            job,
            reporter: self.reporter,
            stop: self.stop.clone(),
            memory: self.memory.as_ref(),
            intermediates: self.arguments.save_intermediates.as_ref().map(|_| Intermediates::default()),
            gathered: self.wanted.map(|_| Gathered::default()),
            results: 0,
        };
        let mut found = None;
        for (setting, (restorer, choice)) in self.restorers.iter_mut().zip(self.choices).enumerate() {
            let own = job.outputs.iter().filter(|(_, variant)| variant.setting == setting);
            let samples: Vec<u64> = own.map(|(_, variant)| variant.sample).collect();
            if samples.is_empty() {
                continue;
            }
            if !choice.label.is_empty() {
                follower.reporter.say(&format!("  {}", choice.label));
            }
            found = restorer.restore(&photo, &samples, &mut follower).map_err(|error| {
                // A stop is nobody's fault and names no picture; what concerns folders names them.
                let of_picture = match error.downcast_ref() {
                    Some(error) => !matches!(error, Error::Stopped),
                    None => error.is::<EncodeError>(),
                };
                if of_picture { error.context(job.input.display().to_string()) } else { error }
            })?;
        }
        let (intermediates, gathered) = (follower.intermediates, follower.gathered);
        if let (Some(wanted), Some(gathered)) = (self.wanted, gathered) {
            let columns = together::columns(self.arguments);
            let written =
                wanted.write(job, &gathered, (&photo.to_raster(), self.choices, columns), &mut |event| {
                    self.reporter.event(event)
                });
            self.beside(job, written);
        }
        if let (Some(values), Some(folder)) = (intermediates, &self.arguments.save_intermediates) {
            let written = values.write(folder, job);
            let written = written.map(|path| self.reporter.say(&format!("  {}", path.display())));
            self.beside(job, written);
        }
        if let (Some(save), Some(found)) = (&self.save, &found) {
            self.beside(job, save.write(job, found, self.restorers[0].format));
        }
        if settings::as_reference(self.arguments) {
            let stem = job.input.file_stem().unwrap_or_default().to_string_lossy();
            let count = found.as_ref().map_or(0, |found| found.restored.count());
            let faces = (0..count).map(|face| format!("{stem}_face_{face}"));
            for name in faces.chain([stem.to_string()]) {
                let options = &self.restorers[0].options;
                self.beside(job, prompts::append(&self.arguments.output, &name, options));
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

/// Hears what the library tells on the way of one picture, and writes its results.
struct Follower<'a> {
    job: &'a Job,
    reporter: &'a mut Reporter,
    stop: Arc<AtomicBool>,
    memory: Option<&'a Memory>,
    intermediates: Option<Intermediates>,
    gathered: Option<Gathered>,
    /// Results that are done.
    results: usize,
}

impl Watch for Follower<'_> {
    fn progress(&mut self, progress: Progress) -> ControlFlow<()> {
        if let Some(memory) = self.memory {
            memory.stage(Some(progress.stage));
        }
        self.reporter.step(&self.job.input, progress);
        if self.stop.load(Ordering::SeqCst) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn value(&mut self, value: Value) {
        if let Some(intermediates) = &mut self.intermediates {
            intermediates.take(value, self.results);
        }
    }
}

impl Follow for Follower<'_> {
    fn stopped(&self) -> Box<dyn Fn() -> bool + Send + Sync> {
        let stop = self.stop.clone();
        Box::new(move || stop.load(Ordering::SeqCst))
    }

    fn say(&mut self, text: &str) {
        self.reporter.say(text);
    }

    fn stage1(&mut self, clean: &dyn Fn() -> Raster, _: &dyn Fn() -> Result<Vec<u8>>) -> Result<()> {
        self.gathered.iter_mut().for_each(|gathered| gathered.clean(&clean()));
        Ok(())
    }

    fn faces(&mut self, found: usize, restored: usize) {
        self.reporter.event(&Event::Faces { input: &self.job.input, found, restored });
    }

    fn face(&mut self, face: usize, faces: usize) {
        self.reporter.event(&Event::Face { input: &self.job.input, face, faces });
    }

    fn harm(&mut self, harm: &Harm, kept: bool) {
        let (parts, harmed) = (harm.parts(), harm.harmed());
        self.reporter.event(&Event::Harm { input: &self.job.input, parts, harmed, kept });
    }

    fn result(&mut self, _sample: u64, Finished { picture, bytes, seed, seconds }: Finished) -> Result<()> {
        let (output, variant) = &self.job.outputs[self.results];
        outputs::write(output, &bytes)?;
        if let Some(gathered) = &mut self.gathered {
            gathered.result(picture, variant.setting, seed);
        }
        self.results += 1;
        self.reporter.event(&Event::Done {
            input: &self.job.input,
            output,
            seed,
            width: picture.width_px,
            height: picture.height_px,
            seconds,
        });
        Ok(())
    }
}

/// The format of results: the one asked for, or that of the output's name.
pub fn output_format(arguments: &Restore, target: &Target) -> Result<Format> {
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
