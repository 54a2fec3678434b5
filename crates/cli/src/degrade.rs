//! `diffbir degrade`.

use crate::args::{Degrade, Preset};
use crate::inputs;
use crate::outputs::{self, Job, Target};
use crate::progress::summary;
use crate::talk::say;
use anyhow::{Result, bail};
use diffbir_imaging::{Encoded, Format, Metadata, Raster, Samples, decode};
use diffbir_train::degrade::{self, Degradation, generator};
use std::path::Path;
use std::process::ExitCode;

/// By how much a preset reduces.
const FACTOR: usize = 4;

pub fn run(arguments: &Degrade) -> Result<ExitCode> {
    let target = Target::new(Some(&arguments.output))?;
    if !matches!(target, Target::Folder(_)) {
        bail!("{}: give a folder", arguments.output.display());
    }
    let found = inputs::find(&arguments.inputs, arguments.recursive, &target);
    let (jobs, skipped) = outputs::plan(&found, &target, Format::Png, 1, arguments.existing)?;
    for problem in &found.problems {
        say(format_args!("error: {}", problem.message));
    }
    outputs::tidy(jobs.iter().flat_map(Job::files));
    let preset = match arguments.preset {
        Preset::Mild => degrade::Preset::Mild,
        Preset::Medium => degrade::Preset::Medium,
        Preset::Heavy => degrade::Preset::Heavy,
    };
    let (mut written, mut failed) = (0, found.problems.len());
    for job in &jobs {
        for (output, _) in &job.outputs {
            match one(&job.input, output, preset, arguments.seed) {
                Ok(degradation) => {
                    written += 1;
                    say(format_args!("{}: {}", output.display(), serde_json::to_string(&degradation)?));
                }
                Err(error) => {
                    failed += 1;
                    say(format_args!("error: {error:#}"));
                }
            }
        }
    }
    say(format_args!("{}", summary(written, None, skipped, failed)));
    Ok(if failed > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn one(input: &Path, output: &Path, preset: degrade::Preset, seed: u64) -> Result<Degradation> {
    let truth = decode(input)?.to_raster();
    let name = input.file_name().unwrap_or_default().to_string_lossy();
    let mut random = generator(seed, &name);
    let degradation = Degradation::draw(&preset.ranges(), FACTOR, &mut random);
    let degraded: Raster = degradation.apply(&truth, &mut random);
    let samples = Samples::U8(degraded.to_u8_rounding());
    let encoded = Encoded {
        width_px: degraded.width_px,
        height_px: degraded.height_px,
        channels: 3,
        samples: &samples,
        alpha: None,
        metadata: &Metadata::default(),
    };
    outputs::write(output, &encoded.to_bytes(Format::Png, None)?)?;
    Ok(degradation)
}
