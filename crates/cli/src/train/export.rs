//! `diffbir train export` and `full`: weights for PyTorch and the reference.

use crate::outputs;
use crate::talk::say;
use anyhow::Result;
use diffbir::model::Parts;
use diffbir_imaging::write_atomic_with;
use diffbir_models::unet::UnetConfig;
use diffbir_nn::checkpoint::Checkpoint;
use diffbir_nn::params::keys_of;
use diffbir_train::run;
use diffbir_train::stage2::control_start;
use std::path::Path;

/// Writes weights as `torch.save(state_dict)` does.
pub fn weights(file: &Path, output: &Path) -> Result<()> {
    outputs::ensure_new(output)?;
    let weights = run::weights_of(Checkpoint::open(file)?);
    write(&weights, None, output)
}

/// Writes the full checkpoint of v1.
pub fn full(stable_diffusion: &Path, stage1: &Path, control: Option<&Path>, output: &Path) -> Result<()> {
    outputs::ensure_new(output)?;
    // Any file stands in for a branch that does not exist yet.
    let mut parts = Parts::of_files(stage1, control.unwrap_or(stage1), stable_diffusion)?;
    if control.is_none() {
        parts.unet.expect_parameters(&keys_of(|params| UnetConfig::official().build(params))?)?;
        parts.control = control_start(&parts.unet, &UnetConfig::official())?;
    }
    parts.expect_v1()?;
    write(&parts.into_full(), Some("state_dict"), output)
}

fn write(weights: &Checkpoint, nest: Option<&str>, output: &Path) -> Result<()> {
    write_atomic_with(output, |file| weights.write_pytorch(nest, file))?;
    let megabytes = output.metadata()?.len() as f64 / 1e6;
    say(format_args!("{}: {} tensors, {megabytes:.1} MB", output.display(), weights.entries().count()));
    Ok(())
}
