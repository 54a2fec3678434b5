//! `diffbir bench`: how fast this machine restores, in one line to paste into a report.

use crate::args::Bench;
use crate::progress::plural;
use crate::restore::choose;
use crate::restore::memory::Memory;
use crate::talk;
use anyhow::{Result, bail};
use diffbir::catalog::Task;
use diffbir::device::Opened;
use diffbir::model::Loading;
use diffbir::restore::Watch;
use diffbir::{Model, Options, Progress, Stage};
use diffbir_diffusion::noise::{Source, TorchNoise};
use diffbir_imaging::{Format, Photo, decode_bytes, encode_rgb};
use indicatif::HumanBytes;
use std::ops::ControlFlow;
use std::process::ExitCode;
use std::time::Instant;

pub fn run(arguments: &Bench) -> Result<ExitCode> {
    let Opened { device, name: device_name, instead } = arguments.device.open()?;
    instead.iter().for_each(|why| talk::say(format_args!("--device: {why}")));
    let precision = choose::precision(arguments.precision, &device);
    let memory = Memory::watch();
    let chosen =
        choose::named("--model", &arguments.model, Task::Sr, Loading { precision, ..Loading::on(&device) })?;
    chosen.doubts.iter().for_each(talk::say);
    let model = chosen.model;
    if arguments.steps.is_some() && !model.has_stage2() {
        bail!("--steps: {} has no stage 2, which alone heeds it", model.config.name);
    }
    let mut options = Options::of(&model);
    options.steps = arguments.steps.map_or(options.steps, usize::from);
    let photo = picture(arguments.size as usize / 4)?;
    let mut runs = Vec::new();
    for run in 0..=arguments.runs {
        let times = Times::measure(&model, &photo, &options)?;
        let which = if run == 0 { "to warm up".into() } else { format!("{run} of {}", arguments.runs) };
        talk::say(format_args!("run {which}: {:.2} s", times.whole()));
        if run > 0 {
            runs.push(times);
        }
    }
    let machine = if device_name == "cpu" { processor() } else { device_name };
    let side = arguments.size / 4 * 4;
    let line = format!(
        "diffbir {} | {} | {machine} | {} | {side} x {side} | {} | {} at most",
        env!("CARGO_PKG_VERSION"),
        model.config.name,
        format!("{precision:?}").to_lowercase(),
        told(&runs),
        HumanBytes(memory.most())
    );
    Ok(talk::ended(talk::data(format!("{line}\n").as_bytes())))
}

/// A picture with edges, slopes and noise; its content does not change the time.
fn picture(side_px: usize) -> Result<Photo> {
    let value = |i: usize| (i * i / 7 + i / 5) as u8;
    let rgb = (0..side_px * side_px * 3).map(value).collect();
    let bytes = encode_rgb((side_px, side_px), rgb, Format::Png, None)?;
    Ok(decode_bytes(&bytes, "the picture to measure with")?)
}

/// The processor, the threads that are used of it, and the instructions.
fn processor() -> String {
    let about = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = named(&about).unwrap_or_else(|| std::env::consts::ARCH.into());
    let threads = rayon::current_num_threads();
    format!("{name}, {threads} thread{}, {}", plural(threads), diffbir_kernels::instruction_set())
}

/// The name of the first processor that Linux tells of, with the numbers of its kind: virtual machines hide the name's rest.
fn named(about: &str) -> Option<String> {
    let field = |name: &str| {
        let fields = about.lines().filter_map(|line| line.split_once(':'));
        fields
            .map(|(key, value)| (key.trim(), value.trim()))
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value)
    };
    let name = field("model name")?;
    let kind = field("cpu family").zip(field("model"));
    Some(kind.map_or(name.into(), |(family, model)| format!("{name}, family {family}, model {model}")))
}

/// How long each stage of a run took, seconds.
struct Times {
    since: Instant,
    /// Each stage with its steps or tiles, in the order in which they came.
    stages: Vec<(Stage, usize, f64)>,
}

impl Times {
    fn measure(model: &Model, photo: &Photo, options: &Options) -> Result<Self> {
        let mut times = Self { since: Instant::now(), stages: Vec::new() };
        let prepared = model.prepare(photo, options, true, &mut times)?;
        model.detail(&prepared, 1, options, &mut TorchNoise::new(Source::TorchCpu, 231), &mut times)?;
        times.pass();
        Ok(times)
    }

    /// What has passed belongs to the last stage.
    fn pass(&mut self) {
        let seconds = self.since.elapsed().as_secs_f64();
        self.since = Instant::now();
        if let Some((_, _, sum)) = self.stages.last_mut() {
            *sum += seconds;
        }
    }

    fn whole(&self) -> f64 {
        self.stages.iter().map(|(_, _, seconds)| seconds).sum()
    }
}

impl Watch for Times {
    fn progress(&mut self, progress: Progress) -> ControlFlow<()> {
        self.pass();
        if self.stages.last().map(|(stage, ..)| *stage) != Some(progress.stage) {
            self.stages.push((progress.stage, progress.total, 0.0));
        }
        ControlFlow::Continue(())
    }
}

/// The middle of each stage's times and of the whole, and the whole's least and most.
fn told(runs: &[Times]) -> String {
    let sorted = |of: &dyn Fn(&Times) -> f64| {
        let mut seconds: Vec<f64> = runs.iter().map(of).collect();
        seconds.sort_by(f64::total_cmp);
        seconds
    };
    let middle = |seconds: &[f64]| seconds[seconds.len() / 2];
    let stages = runs[0].stages.iter().enumerate().map(|(index, (stage, steps, _))| {
        let seconds = middle(&sorted(&|times| times.stages[index].2));
        match stage {
            Stage::Sample => {
                format!("{stage} {steps} steps {seconds:.2} s ({:.2} steps/s)", *steps as f64 / seconds)
            }
            _ => format!("{stage} {seconds:.2} s"),
        }
    });
    let stages: Vec<String> = stages.collect();
    let whole = sorted(&|times| times.whole());
    let (least, most) = (whole[0], whole[whole.len() - 1]);
    let runs = format!("{} run{}", runs.len(), plural(runs.len()));
    format!("{} | {:.2} s ({least:.2} to {most:.2}, {runs})", stages.join(", "), middle(&whole))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_processor_is_named_with_the_numbers_of_its_kind() {
        let about =
            "processor\t: 0\ncpu family\t: 25\nmodel\t\t: 17\nmodel name\t: AMD EPYC\nstepping\t: 1\n";
        assert_eq!(named(about).as_deref(), Some("AMD EPYC, family 25, model 17"));
        assert_eq!(named("model name : Some board\n").as_deref(), Some("Some board"));
        assert_eq!(named(""), None);
    }
}
