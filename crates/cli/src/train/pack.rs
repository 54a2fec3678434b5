//! `diffbir train pack`.

use crate::args::Pack;
use crate::outputs;
use crate::talk::say;
use anyhow::Result;
use diffbir::config::{AutoencoderConfig, SamplingDefaults, Stage2Config};
use diffbir::geometry::Geometry;
use diffbir::model::{Loading, Parts};
use diffbir::{Model, ModelConfig};
use diffbir_diffusion::{Prediction, Terminal};
use diffbir_imaging::write_atomic;
use diffbir_models::taef2::Taef2Config;
use diffbir_models::unet::UnetConfig;
use diffbir_nn::Device;
use diffbir_nn::checkpoint::Checkpoint;
use diffbir_train::config::Network;
use diffbir_train::parts::taef2_files;

/// Puts trained parts together into one model file.
pub fn run(arguments: Pack) -> Result<()> {
    let Pack { stage1, network, autoencoder, stage2, fidelity, cfg_scale, s_noise, name, origin, output } =
        arguments;
    outputs::ensure_new(&output)?;
    let mut parts = Parts { stage1: Checkpoint::open(&stage1)?, ..Parts::default() };
    let mut config = ModelConfig {
        name,
        origin,
        stage1: Network::of(&network).sizes,
        stage2: None,
        geometry: Geometry::Free,
    };
    if let Some(autoencoder) = autoencoder {
        parts.autoencoder = taef2_files(&autoencoder)?;
        let both = Checkpoint::open(&stage2[0])?;
        (parts.unet, parts.control) = match stage2.get(1) {
            Some(branch) => (both, Checkpoint::open(branch)?),
            None => (both.part("unet"), both.part("control")),
        };
        config.stage2 = Some(Stage2Config {
            autoencoder: AutoencoderConfig::Taef2(Taef2Config::published()),
            unet: UnetConfig::nano(),
            text: None,
            prediction: Prediction::V,
            terminal: Terminal::ZeroSnr,
            sampling: SamplingDefaults { fidelity, cfg_scale, s_noise, ..SamplingDefaults::default() },
        });
    }
    // What does not go together is refused here, not when somebody restores with it.
    Model::assemble(config.clone(), parts.clone(), Loading::on(&Device::flex()))?;
    let model = parts.into_file(&config);
    let bytes = model.to_safetensors(true)?;
    write_atomic(&output, &bytes)?;
    say(format_args!("{}: {:.1} MB", output.display(), bytes.len() as f64 / 1e6));
    Ok(())
}
