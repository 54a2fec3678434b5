//! `diffbir models pack`.

use crate::args::Pack;
use crate::outputs;
use crate::talk::say;
use crate::trained;
use anyhow::{Result, ensure};
use diffbir::Model;
use diffbir::model::Loading;
use diffbir_imaging::write_atomic_with;
use diffbir_nn::Device;

/// Puts all parts of a run's model together into one file.
pub fn run(arguments: &Pack) -> Result<()> {
    let Pack { run, fidelity, cfg_scale, s_noise, name, origin, output } = arguments;
    outputs::ensure_new(output)?;
    ensure!(
        trained::is_run(run),
        "{}: is not the folder of a training run: there is no config.toml in it",
        run.display()
    );
    let (mut config, parts) = trained::model(run)?;
    config.name = name.clone().unwrap_or(config.name);
    if !origin.is_empty() {
        config.origin.clone_from(origin);
    }
    let asked = [("--fidelity", fidelity), ("--cfg-scale", cfg_scale), ("--s-noise", s_noise)];
    match &mut config.stage2 {
        Some(stage2) => {
            let sampling = &mut stage2.sampling;
            let fields = [&mut sampling.fidelity, &mut sampling.cfg_scale, &mut sampling.s_noise];
            for (field, (_, asked)) in fields.into_iter().zip(asked) {
                *field = asked.unwrap_or(*field);
            }
        }
        None => {
            let given = asked.iter().find(|(_, value)| value.is_some());
            ensure!(
                given.is_none(),
                "{}: {} is a run of stage 1: its model has no stage 2, which alone heeds it",
                given.map_or("", |(flag, _)| flag),
                run.display()
            );
        }
    }
    // What does not go together is refused here, not when somebody restores with it.
    Model::assemble(config.clone(), parts.clone(), Loading::on(&Device::flex()))?;
    let model = parts.into_file(&config);
    write_atomic_with(output, |out| model.write_safetensors(true, out))?;
    let bytes = output.metadata().map_or(0, |found| found.len());
    say(format_args!("{}: {:.1} MB, weights in f16", output.display(), bytes as f64 / 1e6));
    Ok(())
}
