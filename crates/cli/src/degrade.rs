//! `diffbir degrade`.

use crate::args::{Degrade, Existing, Preset};
use crate::inputs;
use anyhow::Result;
use diffbir_imaging::{Encoded, Format, Metadata, Raster, Samples, decode, write_atomic};
use diffbir_train::degrade::{self, Degradation, generator};
use std::path::Path;
use std::process::ExitCode;

/// By how much a preset reduces.
const FACTOR: usize = 4;

pub fn run(arguments: &Degrade) -> Result<ExitCode> {
    let found = inputs::expand(&arguments.inputs, false)?;
    anyhow::ensure!(
        !inputs::is_file_name(&arguments.output),
        "{}: give a folder",
        arguments.output.display()
    );
    let (jobs, _) = inputs::plan(&found, Some(&arguments.output), Format::Png, 1, Existing::Overwrite)?;
    std::fs::create_dir_all(&arguments.output)?;
    let preset = match arguments.preset {
        Preset::Mild => degrade::Preset::Mild,
        Preset::Medium => degrade::Preset::Medium,
        Preset::Heavy => degrade::Preset::Heavy,
    };
    let mut failed = 0;
    for job in &jobs {
        for (output, _) in &job.outputs {
            match one(&job.input, output, preset, arguments.seed) {
                Ok(degradation) => {
                    eprintln!("{}: {}", output.display(), serde_json::to_string(&degradation)?);
                }
                Err(error) => {
                    failed += 1;
                    eprintln!("error: {error:#}");
                }
            }
        }
    }
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
    write_atomic(output, &encoded.to_bytes(Format::Png, None)?)?;
    Ok(degradation)
}
