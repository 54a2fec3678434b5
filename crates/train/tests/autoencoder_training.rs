//! The trainer of autoencoders on pictures made here.

mod pictures;

use diffbir_models::autoencoder::Autoencoder;
use diffbir_models::kl::KlConfig;
use diffbir_nn::Device;
use diffbir_nn::checkpoint::Checkpoint;
use diffbir_nn::params::build;
use diffbir_train::autoencoder;
use diffbir_train::config::*;
use diffbir_train::run::{Report, TrainError};
use pictures::{pictures, tensors};
use std::path::Path;

fn config(folder: &Path, name: &str) -> AutoencoderTraining {
    let data = folder.join("data");
    if !data.exists() {
        pictures(&data);
    }
    let sizes = KlConfig {
        channels: 8,
        multipliers: vec![1, 1, 2],
        blocks: 1,
        latent_channels: 4,
        norm_groups: 4,
        scale: 0.5,
    };
    let start = AutoencoderTraining::default();
    AutoencoderTraining {
        network: Network { base: "kl-f4".into(), sizes },
        data: PictureData { folders: vec![data.clone()], ..PictureData::crops_of(32) },
        validation: PictureValidation { folders: vec![data], ..PictureValidation::default() },
        latent: AutoencoderLoss { discriminator: 0.003, discriminator_start: 10, ..start.latent },
        optimizer: OptimizerConfig { rate: 2e-3, ..start.optimizer },
        run: RunConfig {
            output: folder.join(name),
            steps: 40,
            batch: 2,
            log_every: 10,
            checkpoint_every: 20,
            ..start.run
        },
        ..start
    }
}

/// The terms of each report, and the ranks of the validations.
#[derive(Default)]
struct Told {
    terms: Vec<Vec<(&'static str, f64)>>,
    ranks: Vec<f64>,
}

fn train(config: &AutoencoderTraining) -> Result<Told, TrainError> {
    let mut told = Told::default();
    autoencoder::train(config, &Device::flex(), &mut |report| match report {
        Report::Steps(steps) => told.terms.push(steps.terms),
        Report::Validation { measured, .. } => told.ranks.push(measured.rank.unwrap()),
        _ => {}
    })?;
    Ok(told)
}

#[test]
fn pictures_come_back_and_a_discriminator_judges_from_its_step_on() {
    let folder = tempfile::TempDir::new().unwrap();
    let folder = folder.path();
    let whole = config(folder, "whole");
    let told = train(&whole).unwrap();
    assert!(told.ranks[2] < told.ranks[0] - 1.0, "decibels, negated: {:?}", told.ranks);
    let names = |index: usize| told.terms[index].iter().map(|(name, _)| *name).collect::<Vec<_>>();
    assert_eq!(names(0), ["picture", "kl"]);
    assert_eq!(names(3), ["picture", "kl", "adversarial", "discriminator"]);
    let judge = |index: usize| told.terms[index][3].1;
    assert!(judge(3) < judge(1), "it learns too: {:?}", told.terms);

    // The file for use is the autoencoder alone.
    let weights = whole.run.output.join("autoencoder.safetensors");
    let mut file = Checkpoint::open(&weights).unwrap();
    let (network, _) = build(&mut file, &Device::flex(), |params| whole.network.sizes.build(params)).unwrap();
    file.expect_all_used().unwrap();
    assert_eq!(network.downsampling(), 4);
    let state = tensors(&whole.run.output.join("checkpoints/0000040.safetensors"));
    assert!(state.keys().any(|name| name.starts_with("network.discriminator.")));

    let parts = config(folder, "parts");
    let stopped = std::panic::catch_unwind(|| {
        let _ = autoencoder::train(&parts, &Device::flex(), &mut |report| {
            assert!(!matches!(report, Report::Validation { step: 20, .. }), "stop here");
        });
    });
    assert!(stopped.is_err());
    train(&parts).unwrap();
    assert_eq!(state, tensors(&parts.run.output.join("checkpoints/0000040.safetensors")));

    // Another run starts from an autoencoder alone, with a new discriminator or none.
    for discriminator in [0.003, 0.0] {
        let mut next = config(folder, &format!("next{discriminator}"));
        next.latent.discriminator = discriminator;
        next.run.init = Some(weights.clone());
        next.run.steps = 1;
        let first = train(&next).unwrap().ranks[0];
        assert!((first - told.ranks[2]).abs() < 1e-6, "{first} {:?}", told.ranks);
    }
}

#[test]
fn a_latent_that_is_weighed_down_comes_nearer_to_normal() {
    let folder = tempfile::TempDir::new().unwrap();
    let kl_of = |weight: f64| {
        let mut config = config(folder.path(), &format!("kl{weight}"));
        config.latent = AutoencoderLoss { kl: weight, discriminator: 0.0, ..config.latent };
        let told = train(&config).unwrap();
        told.terms[3].iter().find(|(name, _)| *name == "kl").unwrap().1 / weight
    };
    let (free, bound) = (kl_of(1e-6), kl_of(1.0));
    assert!(bound < 0.5 * free, "{bound} {free}");
}

#[test]
fn an_autoencoder_learns_in_bf16_as_in_f32_and_goes_on() {
    let folder = tempfile::TempDir::new().unwrap();
    let of = |precision, name: &str| {
        let mut config = config(folder.path(), name);
        (config.run.precision, config.run.steps) = (precision, 20);
        (config.run.checkpoint_every, config.latent.discriminator_start) = (10, 5);
        config
    };
    let (exact, whole) = (of(Precision::F32, "f32"), of(Precision::Bf16, "bf16"));
    let [exact, rounded] = [&exact, &whole].map(|config| train(config).unwrap().ranks);
    assert!(rounded[2] < rounded[0] - 0.5, "decibels, negated: {rounded:?}");
    assert!(exact != rounded && (exact[2] - rounded[2]).abs() < 0.2, "{exact:?} {rounded:?}");
    let parts = of(Precision::Bf16, "parts");
    let stopped = std::panic::catch_unwind(|| {
        let _ = autoencoder::train(&parts, &Device::flex(), &mut |report| {
            assert!(!matches!(report, Report::Validation { step: 10, .. }), "stop here");
        });
    });
    assert!(stopped.is_err());
    train(&parts).unwrap();
    let state = |run: &AutoencoderTraining| tensors(&run.run.output.join("checkpoints/0000020.safetensors"));
    assert_eq!(state(&whole), state(&parts));
}

/// Blocks that are computed twice give the same gradients.
#[test]
fn less_memory_is_no_other_training() {
    let folder = tempfile::TempDir::new().unwrap();
    let trained = |recompute: bool| {
        let mut config = config(folder.path(), &format!("{recompute}"));
        (config.run.steps, config.run.recompute) = (3, recompute);
        config.latent.discriminator_start = 1;
        train(&config).unwrap();
        tensors(&config.run.output.join("checkpoints/0000003.safetensors"))
    };
    let (kept, computed) = (trained(false), trained(true));
    assert_eq!(kept.keys().collect::<Vec<_>>(), computed.keys().collect::<Vec<_>>());
    for (name, kept) in kept.iter().filter(|(name, _)| name.starts_with("mean.")) {
        let size = kept.iter().fold(0.0f32, |size, value| size.max(value.abs()));
        let apart = kept.iter().zip(&computed[name]).fold(0.0f32, |apart, (a, b)| apart.max((a - b).abs()));
        assert!(apart <= 1e-3 * size + 1e-9, "{name}: {apart} of {size}");
    }
}
