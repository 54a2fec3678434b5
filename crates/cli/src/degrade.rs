//! `diffbir degrade`.

use crate::args::{Degrade, Existing};
use crate::inputs;
use crate::outputs::{self, Job, Target, Variant, stays};
use crate::progress::{counter, summary};
use crate::recipe;
use crate::talk::{data, ended, say};
use anyhow::{Context, Result, bail, ensure};
use diffbir_imaging::{Format, decode, encode_rgb};
use diffbir_train::degrade::{Drawn, Recipe, generator, presets};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// What stands beside a degraded picture, from which it can be made again.
#[derive(Clone, Serialize, Deserialize)]
struct Record {
    preset: String,
    seed: u64,
    drawn: Drawn,
}

/// Where degradations come from.
enum Source {
    /// Drawn for each picture.
    Recipe { preset: String, recipe: Recipe, seed: u64 },
    /// The same for all.
    Record(Record),
}

pub fn run(arguments: &Degrade) -> Result<ExitCode> {
    if let Some(name) = &arguments.print_preset {
        let text = presets::text(name).context("a name of a preset")?;
        return Ok(ended(data(text.as_bytes())));
    }
    let output = arguments.output.as_deref().context("--output is needed")?;
    let target = Target::new(Some(output))?;
    if !matches!(target, Target::Folder(_)) {
        bail!("{}: give a folder", output.display());
    }
    let source = Source::open(arguments)?;
    let found = inputs::find(&arguments.inputs, arguments.recursive, &target);
    let (jobs, skipped) =
        outputs::plan(&found, &target, Format::Png, (&[Variant::default()], &[]), arguments.existing)?;
    for problem in &found.problems {
        say(format_args!("error: {}", problem.message));
    }
    let files: Vec<(&Path, &Path)> =
        jobs.iter().flat_map(|job| job.files().map(|file| (job.input.as_path(), file))).collect();
    for (_, output) in &files {
        ensure_free(&record_of(output), arguments.existing)?;
    }
    outputs::tidy(jobs.iter().flat_map(Job::files));
    let bar = counter(files.len());
    let written = files.par_iter().map(|(input, output)| {
        let done = one(input, output, &source);
        bar.inc(1);
        bar.suspend(|| match &done {
            Ok(()) => say(output.display()),
            Err(error) => say(format_args!("error: {error:#}")),
        });
        usize::from(done.is_ok())
    });
    let written = written.sum();
    bar.finish_and_clear();
    let failed = found.problems.len() + files.len() - written;
    say(format_args!("{}", summary(written, None, skipped, failed)));
    Ok(if failed > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

impl Source {
    fn open(arguments: &Degrade) -> Result<Self> {
        let preset = &arguments.preset;
        let (seed, path) = (arguments.seed.unwrap_or(1), Path::new(preset));
        if presets::text(preset).is_none() && path.extension().is_some_and(|extension| extension == "json") {
            let text = recipe::read(preset)?;
            for (flag, given) in
                [("--seed", arguments.seed.is_some()), ("--factor", arguments.factor.is_some())]
            {
                ensure!(!given, "{flag} changes nothing: {preset} says all");
            }
            return Ok(Self::Record(record(&text).with_context(|| preset.clone())?));
        }
        let flag = if arguments.factor.is_some() { "--factor" } else { "--preset" };
        let recipe = recipe::open(preset, arguments.factor).context(flag)?;
        Ok(Self::Recipe { preset: preset.clone(), recipe, seed })
    }

    /// For the picture of this name.
    fn draw(&self, name: &str) -> Record {
        match self {
            Self::Record(record) => record.clone(),
            Self::Recipe { preset, recipe, seed } => Record {
                preset: preset.clone(),
                seed: *seed,
                drawn: recipe.draw(&mut generator(*seed, name)),
            },
        }
    }
}

fn record(text: &str) -> Result<Record> {
    let record: Record = serde_json::from_str(text).context("is no record of a degradation")?;
    if let Some(fault) = record.drawn.fault() {
        bail!("cannot be applied: {fault}");
    }
    Ok(record)
}

/// The file of what was drawn for a picture.
fn record_of(output: &Path) -> PathBuf {
    output.with_extension("json")
}

/// Fails where a record would replace what must stay. A run that was stopped may have left one without its
/// picture, which `skip` replaces.
fn ensure_free(path: &Path, existing: Existing) -> Result<()> {
    if stays(path, existing)? {
        let is_record = std::fs::read_to_string(path).is_ok_and(|text| record(&text).is_ok());
        ensure!(
            is_record,
            "{}: exists already and is no record of a degradation: choose --existing overwrite",
            path.display()
        );
    }
    Ok(())
}

fn one(input: &Path, output: &Path, source: &Source) -> Result<()> {
    let truth = decode(input)?.to_raster();
    let record = source.draw(&input.file_name().unwrap_or_default().to_string_lossy());
    let degraded = record.drawn.apply(&truth).with_context(|| input.display().to_string())?;
    let bytes = encode_rgb(degraded.size(), degraded.to_u8_rounding(), Format::Png, None)?;
    let mut text = serde_json::to_string_pretty(&record)?;
    text.push('\n');
    outputs::write(&record_of(output), text.as_bytes())?;
    outputs::write(output, &bytes)
}
