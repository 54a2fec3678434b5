//! `diffbir info`.

use crate::paths::{Kind, kind};
use crate::talk::{self, say};
use anyhow::{Context, Result, bail};
use diffbir::ModelConfig;
use diffbir_imaging::DecodeError;
use diffbir_nn::checkpoint::Checkpoint;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

pub fn run(files: &[PathBuf]) -> Result<ExitCode> {
    let mut code = ExitCode::SUCCESS;
    for file in files {
        match describe(file) {
            Ok(text) => {
                let written = talk::data(format!("{}: {text}\n", file.display()).as_bytes());
                if written.is_err() {
                    return Ok(talk::ended(written));
                }
            }
            Err(error) => {
                say(format_args!("error: {error:#}"));
                code = ExitCode::FAILURE;
            }
        }
    }
    Ok(code)
}

fn describe(file: &Path) -> Result<String> {
    let name = file.display().to_string();
    if name == "nano" && !file.exists() {
        let built_in = Checkpoint::from_static(diffbir::NANO, "the built-in model")?;
        return describe_weights(&built_in, &name);
    }
    if kind(file)? == Kind::Folder {
        bail!("{name}: is a folder: name files");
    }
    let bytes = std::fs::read(file).with_context(|| format!("{name}: cannot be read"))?;
    let is_weights =
        bytes.get(8) == Some(&b'{') || bytes.starts_with(b"PK\x03\x04") || bytes.starts_with(b"\x80");
    if !is_weights {
        return match diffbir_imaging::describe(&bytes, &name) {
            Err(DecodeError::NotAPicture { .. }) => bail!(
                "{name}: is neither a picture in PNG, JPEG, WebP, TIFF or BMP nor a model file (safetensors or PyTorch)"
            ),
            described => Ok(described?),
        };
    }
    drop(bytes);
    describe_weights(&Checkpoint::open(file)?, &name)
}

fn describe_weights(checkpoint: &Checkpoint, name: &str) -> Result<String> {
    let (tensors, parameters) = checkpoint.entries().fold((0, 0), |(tensors, parameters), (_, shape, _)| {
        (tensors + 1, parameters + shape.iter().product::<usize>())
    });
    let size = format!("{tensors} tensors, {:.2} M parameters", parameters as f64 / 1e6);
    Ok(match ModelConfig::of(checkpoint, name) {
        Ok(config) => {
            let stages = if config.stage2.is_some() { "stage 1 and stage 2" } else { "stage 1 only" };
            let origin: String = config.origin.iter().map(|line| format!("\n  {line}")).collect();
            format!("diffbir model `{}`, {stages}, {size}{origin}", config.name)
        }
        Err(_) => {
            let first: Vec<&str> = checkpoint.entries().map(|(name, ..)| name).take(3).collect();
            format!("weights, {size}: {}, ...", first.join(", "))
        }
    })
}
