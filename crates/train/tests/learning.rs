//! Stage 1 learns: by every loss, from every kind of recipe.

mod pictures;
mod stage1_runs;

use burn::tensor::{Tensor, TensorData};
use diffbir_metrics::{Backbone, Lpips};
use diffbir_models::srvgg::SrvggConfig;
use diffbir_models::stage1::Stage1Config;
use diffbir_models::swinir::SwinIrConfig;
use diffbir_nn::checkpoint::Checkpoint;
use diffbir_nn::params::{RandomInit, build};
use diffbir_nn::{Device, Params};
use diffbir_train::config::*;
use diffbir_train::data::Crop;
use diffbir_train::losses::LossTerms;
use diffbir_train::optimizer::{AdamW, Summed};
use diffbir_train::run::Report;
use diffbir_train::stage1;
use pictures::pictures;
use stage1_runs::{config, replace, srvgg, swinir, train};
use std::path::{Path, PathBuf};

/// Two backward passes over one picture each are a step over both.
#[test]
fn gradients_of_several_passes_are_averaged() {
    let network = Stage1Config::Srvgg(SrvggConfig { features: 4, convolutions: 1, upscale: 4 });
    let device = Device::flex().autodiff();
    let mut random = RandomInit { seed: 1 };
    let (network, _) = build(&mut random, &device, |params| network.build(params)).unwrap();
    let picture = |seed: f32, side: usize| -> Tensor<4> {
        let values: Vec<f32> = (0..side * side * 3).map(|i| (i as f32 * seed).sin().abs()).collect();
        Tensor::from_data(TensorData::new(values, [1, side, side, 3]), &device)
    };
    let pairs = [0.3, 0.7].map(|seed| (picture(seed, 8), picture(seed, 32)));
    let both =
        |part: fn(&(Tensor<4>, Tensor<4>)) -> Tensor<4>| Tensor::cat(pairs.iter().map(part).collect(), 0);
    let whole = (both(|pair| pair.0.clone()), both(|pair| pair.1.clone()));
    for weights in [
        PictureLoss { sse: 1.0, ..PictureLoss::default() },
        PictureLoss { l1: 1.0, ..PictureLoss::default() },
    ] {
        let norm = |batches: &[(Tensor<4>, Tensor<4>)]| {
            let passes = batches.len();
            let terms = LossTerms::open(&weights, passes as u64, &Device::flex()).unwrap();
            let mut sum = Summed::default();
            for (degraded, truth) in batches {
                let loss = terms.of(network.forward(degraded.clone()), truth.clone());
                sum.add(&network, &loss.total.backward());
            }
            let config = OptimizerConfig { clip_norm: f64::INFINITY, ..OptimizerConfig::default() };
            AdamW::new(config, &network).step(network.clone(), &sum, 1.0 / passes as f64, 1e-3).1
        };
        let (one, two) = (norm(std::slice::from_ref(&whole)), norm(&pairs));
        assert!((one - two).abs() < 1e-4 * one, "{one} {two}");
    }
}

#[test]
fn networks_learn_by_every_loss() {
    let folder = tempfile::TempDir::new().unwrap();
    let data = folder.path().join("data");
    pictures(&data);
    let none = PictureLoss::default();
    let logarithm = PictureLoss { mse_log: 1.0, ..none.clone() };
    for (name, network, loss) in [
        ("srvgg", srvgg(), logarithm.clone()),
        ("swinir", swinir(), logarithm),
        ("sse", srvgg(), PictureLoss { sse: 1.0, ..none.clone() }),
        ("l1", srvgg(), PictureLoss { l1: 1.0, ..none.clone() }),
        ("both", srvgg(), PictureLoss { l1: 1.0, mse_log: 0.1, ..none }),
    ] {
        let mut run = config(network, &folder.path().join(name), &data, 150);
        (run.loss, run.run.checkpoint_every) = (loss, 150);
        let losses = train(&run).unwrap();
        assert!(losses[2] < losses[0] - 0.005 * losses[0].abs(), "{name}: {losses:?}");
        if ["srvgg", "swinir"].contains(&name) {
            run.run.output = folder.path().join(format!("{name} in bf16"));
            run.run.precision = Precision::Bf16;
            let rounded = train(&run).unwrap();
            assert!(
                rounded != losses && (rounded[2] - losses[2]).abs() < 0.02,
                "{name}: {losses:?} {rounded:?}"
            );
        }
    }
}

/// A file of LPIPS with random weights.
fn lpips(file: &Path, backbone: Backbone) -> Vec<PathBuf> {
    let mut random = RandomInit { seed: 5 };
    let network = |params: &Params| Lpips::new(params, backbone);
    let (network, keys) = build(&mut random, &Device::flex(), network).unwrap();
    replace(file, &Checkpoint::from_tensors(keys.tensors(&network)));
    vec![file.to_path_buf()]
}

#[test]
fn lpips_is_learned_by_and_measured_where_its_weights_are_given() {
    let folder = tempfile::TempDir::new().unwrap();
    let data = folder.path().join("data");
    pictures(&data);
    let mut run = config(srvgg(), &folder.path().join("run"), &data, 2);
    run.loss = PictureLoss {
        l1: 1.0,
        lpips: 0.5,
        lpips_files: lpips(&folder.path().join("vgg.safetensors"), Backbone::Vgg16),
        ..PictureLoss::default()
    };
    run.validation.lpips_files = lpips(&folder.path().join("alex.safetensors"), Backbone::AlexNet);
    let (mut terms, mut scalars) = (Vec::new(), Vec::new());
    stage1::train(&run, &Device::flex(), &mut |report| match report {
        Report::Steps(steps) => terms.push((steps.loss, steps.terms)),
        Report::Validation { measured, .. } => scalars.push(measured.scalars),
        _ => {}
    })
    .unwrap();
    let (loss, terms) = &terms[0];
    assert_eq!(terms.iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["l1", "lpips"]);
    assert!((terms.iter().map(|(_, value)| value).sum::<f64>() - loss).abs() < 1e-6);
    assert!(terms.iter().all(|(_, value)| *value != 0.0), "{terms:?}");
    let names: Vec<&str> = scalars[0].iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ["val/loss", "val/psnr", "val/lpips"], "the reference's");
    run.loss.lpips_files[0] = folder.path().join("none.safetensors");
    run.run.output = folder.path().join("other");
    let error = train(&run).unwrap_err().to_string();
    assert!(error.contains("none.safetensors"), "{error}");
}

/// Held-out pictures are cut to sides that the network's enlargement makes.
#[test]
fn it_is_validated_at_any_enlargement() {
    let folder = tempfile::TempDir::new().unwrap();
    let data = folder.path().join("data");
    pictures(&data);
    let recipe = folder.path().join("thirds.toml");
    let simple = "[simple]\nfactor = 3\nblur_sigma_px = [1.0, 1.1]\nnoise_levels = [0.0, 0.1]\n";
    std::fs::write(&recipe, format!("{simple}jpeg_quality = [90, 91]\nsecond_chance = 0.0\n")).unwrap();
    let sizes = SrvggConfig { features: 8, convolutions: 2, upscale: 3 };
    let network = Network { base: "srvgg".into(), sizes: Stage1Config::Srvgg(sizes) };
    let mut run = config(network, &folder.path().join("run"), &data, 1);
    run.data.crop_px = 48;
    run.degradation.recipe = recipe.display().to_string();
    let mut shown = Vec::new();
    stage1::train(&run, &Device::flex(), &mut |report| {
        if let Report::Validation { measured, .. } = report {
            shown.extend(measured.pictures);
        }
    })
    .unwrap();
    let sizes = |tag: &str| -> Vec<(usize, usize)> {
        let pictures = shown.iter().filter(|(name, _)| *name == tag).flat_map(|(_, pictures)| pictures);
        pictures.map(|picture| picture.size()).collect()
    };
    assert!(!sizes("image/gt").is_empty() && sizes("image/pred") == sizes("image/gt"));
    assert!(sizes("image/gt").iter().all(|(width, height)| width % 3 == 0 && height % 3 == 0));
}

/// Recipes at full size are for networks that do not enlarge.
#[test]
fn recipes_of_all_kinds_are_trained_on_by_networks_that_they_suit() {
    let folder = tempfile::TempDir::new().unwrap();
    let data = folder.path().join("data");
    pictures(&data);
    let with = |recipe: &str, by_batch: bool, pool: usize| DegradationConfig {
        recipe: recipe.into(),
        by_batch,
        pool,
    };
    let sizes = SwinIrConfig {
        unshuffle: 4,
        embed: 12,
        depths: vec![1],
        heads: vec![2],
        window: 4,
        upsampling_features: 8,
        nominal_grid: 8,
        ..SwinIrConfig::official()
    };
    let swinir = Network { base: "swinir".into(), sizes: Stage1Config::SwinIr(sizes) };
    for degradation in [with("codeformer", false, 0), with("realesrgan", true, 4)] {
        let output = folder.path().join(&degradation.recipe);
        let mut run = config(swinir.clone(), &output, &data, 3);
        (run.degradation, run.data.crop) = (degradation, Crop::Random);
        train(&run).unwrap();
        run.network = srvgg();
        run.run.output = folder.path().join("other");
        let error = train(&run).unwrap_err().to_string();
        assert!(error.contains("degradation.recipe: makes 32 pixels of 32"), "{error}");
        assert!(!run.run.output.exists());
    }
    let mut run = config(swinir, &folder.path().join("none"), &data, 3);
    run.degradation.recipe = "no.toml".into();
    assert!(train(&run).unwrap_err().to_string().contains("no.toml: cannot be read"));
}
