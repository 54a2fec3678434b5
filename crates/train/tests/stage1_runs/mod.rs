//! Small runs of stage 1.

use diffbir_imaging::write_atomic;
use diffbir_models::srvgg::SrvggConfig;
use diffbir_models::stage1::Stage1Config;
use diffbir_models::swinir::SwinIrConfig;
use diffbir_nn::Device;
use diffbir_nn::checkpoint::Checkpoint;
use diffbir_train::config::*;
use diffbir_train::run::{Report, Steps, TrainError};
use diffbir_train::stage1;
use std::path::Path;

pub fn config(network: Network<Stage1Config>, out: &Path, data: &Path, steps: u64) -> Stage1Training {
    let folders = vec![data.to_path_buf()];
    let start = Stage1Training::default();
    Stage1Training {
        network,
        data: PictureData { folders: folders.clone(), ..PictureData::crops_of(32) },
        validation: PictureValidation { folders, ..PictureValidation::default() },
        optimizer: OptimizerConfig { rate: 2e-3, ..start.optimizer },
        schedule: ScheduleConfig { warm_up: 2, ..start.schedule },
        run: RunConfig {
            output: out.to_path_buf(),
            steps,
            batch: 2,
            seed: 4,
            checkpoint_every: 2,
            ..start.run
        },
        ..start
    }
}

pub fn train(config: &Stage1Training) -> Result<Vec<f64>, TrainError> {
    let mut losses = Vec::new();
    stage1::train(config, &Device::flex(), &mut |report| {
        if let Report::Steps(Steps { loss, .. }) = report {
            losses.push(loss);
        }
    })?;
    Ok(losses)
}

pub fn srvgg() -> Network<Stage1Config> {
    let sizes = SrvggConfig { features: 8, convolutions: 2, upscale: 4 };
    Network { base: "srvgg".into(), sizes: Stage1Config::Srvgg(sizes) }
}

pub fn swinir() -> Network<Stage1Config> {
    let sizes = Stage1Config::SwinIr(SwinIrConfig {
        unshuffle: 4,
        embed: 12,
        depths: vec![2],
        heads: vec![2],
        window: 4,
        upsampling_features: 8,
        nominal_grid: 8,
        global_skip: true,
        ..SwinIrConfig::official()
    });
    Network { base: "swinir".into(), sizes }
}

/// Writes to another file of the same name, since the tensors may come from the one that is there.
pub fn replace(file: &Path, checkpoint: &Checkpoint) {
    write_atomic(file, &checkpoint.to_safetensors(false).unwrap()).unwrap();
}
