//! Trainers on pictures made here: they learn, and a run that was stopped goes on bit for bit.

mod pictures;

use burn::tensor::{Tensor, TensorData};
use diffbir_imaging::Raster;
use diffbir_imaging::resize::{self, Filter};
use diffbir_imaging::write_atomic;
use diffbir_metrics::{Backbone, Lpips};
use diffbir_models::autoencoder::Autoencoder;
use diffbir_models::srvgg::SrvggConfig;
use diffbir_models::stage1::Stage1Config;
use diffbir_models::swinir::SwinIrConfig;
use diffbir_models::taef2::Taef2Config;
use diffbir_nn::checkpoint::Checkpoint;
use diffbir_nn::params::{RandomInit, build};
use diffbir_nn::{Device, Params};
use diffbir_train::config::*;
use diffbir_train::data::Crop;
use diffbir_train::degrade::preset;
use diffbir_train::latents::{Kind, encode_all, open};
use diffbir_train::losses::LossTerms;
use diffbir_train::optimizer::{AdamW, Summed};
use diffbir_train::run::{Report, Steps, TrainError};
use diffbir_train::stage1;
use pictures::{pictures, save_picture, tensors};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

fn config(network: Network<Stage1Config>, out: &Path, data: &Path, steps: u64) -> Stage1Training {
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

fn train(config: &Stage1Training) -> Result<Vec<f64>, TrainError> {
    let mut losses = Vec::new();
    stage1::train(config, &Device::flex(), &mut |report| {
        if let Report::Steps(Steps { loss, .. }) = report {
            losses.push(loss);
        }
    })?;
    Ok(losses)
}

/// Trains until the validation after this step, whose checkpoint is written by then.
fn train_until(config: &Stage1Training, stop: u64) {
    let stopped = std::panic::catch_unwind(|| {
        let _ = stage1::train(config, &Device::flex(), &mut |report| {
            assert!(!matches!(report, Report::Validation { step, .. } if step == stop), "stop here");
        });
    });
    assert!(stopped.is_err());
}

fn srvgg() -> Network<Stage1Config> {
    let sizes = SrvggConfig { features: 8, convolutions: 2, upscale: 4 };
    Network { base: "srvgg".into(), sizes: Stage1Config::Srvgg(sizes) }
}

fn swinir() -> Network<Stage1Config> {
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

/// Files below a folder by name, but for the configuration, which names the folder.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for below in [folder.to_path_buf(), folder.join("checkpoints")] {
        for file in std::fs::read_dir(below).unwrap().map(|entry| entry.unwrap().path()) {
            let name = file.strip_prefix(folder).unwrap().display().to_string();
            if file.is_file() && name != "config.toml" {
                found.insert(name, std::fs::read(file).unwrap());
            }
        }
    }
    found
}

#[test]
fn a_stopped_run_goes_on_bit_for_bit() {
    let folder = tempfile::TempDir::new().unwrap();
    let data = folder.path().join("data");
    pictures(&data);
    let (f32, bf16) = (Precision::F32, Precision::Bf16);
    for (accumulate, ema_decay, network, precision) in [
        (1, 0.9, srvgg(), f32),
        (2, 0.0, srvgg(), f32),
        (3, 0.9, swinir(), f32),
        (4, 0.0, srvgg(), bf16),
        (5, 0.9, swinir(), bf16),
    ] {
        let run = |name: &str| {
            let mut config =
                config(network.clone(), &folder.path().join(format!("{name}{accumulate}")), &data, 5);
            (config.run.accumulate, config.run.precision) = (accumulate, precision);
            config.optimizer.ema_decay = ema_decay;
            if network == swinir() {
                (config.regularization.stochastic_depth, config.run.recompute) = (0.5, true);
            }
            config
        };
        let (whole, parts) = (run("whole"), run("parts"));
        train(&whole).unwrap();
        train_until(&parts, 2);
        train(&parts).unwrap();
        let names = ["checkpoints/0000004.safetensors", "checkpoints/0000005.safetensors"];
        for name in names.into_iter().chain(["stage1.safetensors", "stage1-best.safetensors"]) {
            let [whole, parts] = [&whole, &parts].map(|run| tensors(&run.run.output.join(name)));
            assert_eq!(whole, parts, "{name}");
        }
        let found = files(&parts.run.output);
        assert!(!found.contains_key("checkpoints/0000002.safetensors"), "the last two are kept");
        let averages =
            tensors(&parts.run.output.join(names[1])).keys().any(|name| name.starts_with("average."));
        assert_eq!(averages, ema_decay > 0.0);
        // It is told of in a configuration that another may not go on from.
        if precision == bf16 {
            let mut other = parts.clone();
            other.run.precision = f32;
            assert!(
                train(&other).unwrap_err().to_string().contains("run.precision is \"f32\", but the run in")
            );
        }
        // Which layers are skipped changes what is learned.
        if network == swinir() {
            let mut all = run("all");
            all.regularization.stochastic_depth = 0.0;
            train(&all).unwrap();
            let file = "stage1.safetensors";
            assert_ne!(tensors(&whole.run.output.join(file)), tensors(&all.run.output.join(file)));
        }
        // Nothing is left to do, and nothing changes.
        assert!(train(&parts).unwrap().is_empty());
        assert_eq!(files(&parts.run.output), found);
        // Weights for use that are behind are brought up to date.
        std::fs::remove_file(parts.run.output.join("stage1.safetensors")).unwrap();
        train(&parts).unwrap();
        assert_eq!(files(&parts.run.output), found);
    }
}

/// A run begins with what is built in, and another with what that one made.
#[test]
fn a_run_begins_with_other_weights() {
    let folder = tempfile::TempDir::new().unwrap();
    let data = folder.path().join("data");
    pictures(&data);
    let begin_by = |recipe: &str, name: &str, init: Option<PathBuf>| {
        let network = Stage1Training::default().network;
        let mut run = config(network, &folder.path().join(name), &data, 1);
        (run.run.init, run.degradation.recipe) = (init, recipe.into());
        let mut first = None;
        stage1::train(&run, &Device::flex(), &mut |report| {
            if let Report::Validation { measured, .. } = report {
                first = first.or(measured.rank);
            }
        })
        .unwrap();
        (first.unwrap(), run.run.output)
    };
    let begin = |name: &str, init: Option<PathBuf>| begin_by("training", name, init);
    let ((random, _), (built_in, run)) = (begin("random", None), begin("nano", Some("nano".into())));
    assert!(built_in < random - 0.1, "{built_in} {random}");
    let file = run.join("stage1.safetensors");
    let ((of_run, _), (of_file, _)) = (begin("run", Some(run)), begin("file", Some(file)));
    assert!(of_run == of_file && of_run != built_in, "{of_run} {of_file} {built_in}");
    // It is measured on what it is trained on, which wide ranges stand for `medium` in.
    let by = |recipe: &str| begin_by(recipe, recipe, Some("nano".into())).0;
    let [mild, medium, heavy] = ["mild", "medium", "heavy"].map(by);
    // These pictures lose nothing to speak of by what is milder.
    assert!(
        medium == built_in && mild != medium && heavy > medium + 0.1,
        "{built_in}: {mild} {medium} {heavy}"
    );
}

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

/// Writes to another file of the same name, since the tensors may come from the one that is there.
fn replace(file: &Path, checkpoint: &Checkpoint) {
    write_atomic(file, &checkpoint.to_safetensors(false).unwrap()).unwrap();
}

#[test]
fn what_does_not_belong_together_is_refused() {
    let folder = tempfile::TempDir::new().unwrap();
    let (data, out) = (folder.path().join("data"), folder.path().join("run"));
    pictures(&data);
    let first = config(srvgg(), &out, &data, 2);
    train(&first).unwrap();
    let before = files(&out);
    let refused = |change: &dyn Fn(&mut Stage1Training), why: &str| {
        let mut other = first.clone();
        change(&mut other);
        let error = train(&other).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
        assert_eq!(files(&out), before);
    };
    refused(&|config| config.run.batch = 3, "run.batch is 3, but the run in");
    refused(&|config| config.run.seed = 5, "run.seed is 5");
    refused(&|config| config.optimizer.beta1 = 0.5, "optimizer.beta1 is 0.5");
    refused(&|config| config.optimizer.ema_decay = 0.0, "optimizer.ema_decay");
    refused(&|config| config.network.base = "swinir".into(), "network.base");
    refused(&|config| config.data.folders.clear(), "data.folders: there are no training pictures");
    refused(&|config| config.regularization.stochastic_depth = 0.1, "the network has no layers to skip");
    // Both may change.
    let mut other = first.clone();
    (other.optimizer.rate, other.run.keep) = (1e-3, 1);
    train(&other).unwrap();
    // A field that a later version brought has the value of then: its default.
    let state = out.join("checkpoints/0000002.safetensors");
    let mut older = Checkpoint::open(&state).unwrap();
    let text = older.metadata["config"].clone();
    let section = "[regularization]\nstochastic_depth = 0.0\n";
    assert!(text.contains(section), "{text}");
    older.metadata.insert("config".into(), text.replace(section, ""));
    replace(&state, &older);
    train(&first).unwrap();
    // A checkpoint with too much or too little.
    let whole = Checkpoint::open(&state).unwrap();
    let names: Vec<String> = whole.entries().map(|(name, ..)| name.to_string()).collect();
    for (place, why) in
        [("mean", "lacks the tensor"), ("network", "lacks the tensor"), ("square", "lacks the tensor")]
    {
        let lost = names.iter().find(|name| name.starts_with(place)).unwrap();
        let part = whole.renamed(|name, shape| (name != lost).then(|| (name.into(), shape.to_vec())));
        replace(&state, &part);
        let error = train(&first).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
    for extra in ["mean.more", "network.more", "other.more"] {
        let mut part = whole.clone();
        let (prefix, name) = extra.split_once('.').unwrap();
        let data = TensorData::new(vec![1.0f32], [1]);
        part.insert(prefix, Checkpoint::from_tensors(BTreeMap::from([(name.to_string(), data)])));
        replace(&state, &part);
        let error = train(&first).unwrap_err().to_string();
        assert!(error.contains("more"), "{error}");
    }
    // Weights without a checkpoint are not written over.
    std::fs::remove_file(&state).unwrap();
    let error = train(&first).unwrap_err().to_string();
    assert!(error.contains("stage1.safetensors: is there already"), "{error}");
}

#[test]
fn a_loss_that_is_no_number_leaves_its_batch() {
    let folder = tempfile::TempDir::new().unwrap();
    let (data, out) = (folder.path().join("data"), folder.path().join("run"));
    pictures(&data);
    let mut run = config(srvgg(), &out, &data, 20);
    run.optimizer.rate = 1e30;
    let error = train(&run).unwrap_err();
    let TrainError::Diverged { batch, .. } = &error else { panic!("{error}") };
    let batch = tensors(batch);
    assert_eq!(batch["truth"].len(), 2 * 32 * 32 * 3);
    assert_eq!(batch["degraded"].len(), 2 * 8 * 8 * 3);
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

/// Which picture a latent is of goes by its place, so all kinds leave out the same.
#[test]
fn latents_of_all_kinds_are_of_the_same_pictures() {
    let folder = tempfile::TempDir::new().unwrap();
    let (data, cache) = (folder.path().join("data"), folder.path().join("cache"));
    pictures(&data);
    std::fs::write(data.join("1.png"), b"no picture").unwrap();
    let device = Device::flex();
    let mut random = RandomInit { seed: 1 };
    let (network, _) = build(&mut random, &device, |params| Taef2Config::published().build(params)).unwrap();
    let mut left_out = Vec::new();
    let mut latents = |kind: &Kind, side: usize| {
        let by = (&network as &dyn Autoencoder, "these");
        let mut report = |report| {
            if let Report::LeftOut { why } = report {
                left_out.push(why);
            }
        };
        let pictures = open(std::slice::from_ref(&data), side, &network, &mut report).unwrap();
        encode_all(&pictures, &cache, kind, side, by, &device, &mut report)
    };
    let enlarge = |small: &Raster, (width_px, height_px): (usize, usize)| {
        resize::float(small, width_px, height_px, Filter::Bicubic)
    };
    let truths = latents(&Kind::Truth, 1).unwrap();
    assert_eq!(truths.len(), 2);
    let recipe = preset("codeformer");
    let stage1 = |truths| Kind::Stage1 { restore: &enlarge, recipe: &recipe, truths, draw: 0 };
    assert_eq!(latents(&stage1(&truths), 1).unwrap().len(), 2);
    // One that was kept of another picture is no condition of this one.
    let error = latents(&stage1(&truths[..1]), 1).err().unwrap().to_string();
    assert!(error.contains("the latent of another picture"), "{error}");
    let error = latents(&Kind::Truth, 100).err().unwrap().to_string();
    assert!(error.contains("no picture of at least"), "{error}");
    assert!(left_out[0].contains("1.png: is not a picture"), "{left_out:?}");
    assert_eq!(left_out.len(), 1 + 3, "once, and all where none is large enough");
}

/// Networks go through a picture whole, so of a large one its middle is kept.
#[test]
fn latents_of_large_pictures_are_of_their_middle() {
    let folder = tempfile::TempDir::new().unwrap();
    let (data, cache) = (folder.path().join("data"), folder.path().join("cache"));
    std::fs::create_dir(&data).unwrap();
    // Black, but for white columns from 88 to 1111.
    let rgb = (0..1200 * 40 * 3).map(|i| if (88..1112).contains(&(i / 3 % 1200)) { 255 } else { 0 });
    save_picture(&data.join("wide.png"), (1200, 40), rgb.collect());
    let rgb = vec![255; 1024 * 32 * 3];
    save_picture(&data.join("white.png"), (1024, 32), rgb);
    let device = Device::flex();
    let mut random = RandomInit { seed: 1 };
    let (network, _) = build(&mut random, &device, |params| Taef2Config::published().build(params)).unwrap();
    let pictures = open(&[data], 1, &network, &mut |_| {}).unwrap();
    let by = (&network as &dyn Autoencoder, "these");
    encode_all(&pictures, &cache, &Kind::Truth, 1, by, &device, &mut |_| {}).unwrap();
    let kept = std::fs::read_dir(cache.join("truth")).unwrap();
    let latents: Vec<_> =
        kept.map(|entry| Checkpoint::open(&entry.unwrap().path()).unwrap().get("latent").unwrap()).collect();
    assert_eq!(latents.len(), 2);
    assert_eq!(latents[0], latents[1]);
    assert_eq!(latents[0].as_ref().unwrap().0[..2], [4, 128]);
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

/// The reference's tags, once for each report and validation.
#[test]
fn events_are_written_for_tensorboard() {
    let folder = tempfile::TempDir::new().unwrap();
    let data = folder.path().join("data");
    pictures(&data);
    let mut run = config(srvgg(), &folder.path().join("run"), &data, 4);
    run.run.log_every = 1;
    train(&run).unwrap();
    let file = std::fs::read_dir(run.run.output.join("events")).unwrap().next().unwrap().unwrap().path();
    let events = String::from_utf8_lossy(&std::fs::read(file).unwrap()).into_owned();
    for (tag, count) in
        [("train/loss_step", 4), ("val/psnr", 3), ("image/pred", 3), ("image/lq", 3), ("train/loss_epoch", 2)]
    {
        assert_eq!(events.matches(tag).count(), count, "{tag}");
    }
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
        std::fs::remove_dir_all(&run.run.output).unwrap();
    }
    let mut run = config(swinir, &folder.path().join("none"), &data, 3);
    run.degradation.recipe = "no.toml".into();
    assert!(train(&run).unwrap_err().to_string().contains("no.toml: cannot be read"));
}

#[test]
fn two_runs_do_not_work_in_one_folder() {
    let folder = tempfile::TempDir::new().unwrap();
    let data = folder.path().join("data");
    pictures(&data);
    let run = config(srvgg(), &folder.path().join("run"), &data, 1);
    let mut tried = 0;
    stage1::train(&run, &Device::flex(), &mut |_| {
        tried += 1;
        let error = train(&run).unwrap_err();
        assert!(matches!(error, TrainError::Busy { .. }), "{error}");
    })
    .unwrap();
    assert!(tried > 0);
}

/// The weights that are kept as the best are those after the step with the best validation.
#[test]
fn the_best_weights_are_kept() {
    let folder = tempfile::TempDir::new().unwrap();
    let data = folder.path().join("data");
    pictures(&data);
    // A rate at which it soon gets worse.
    let mut run = config(srvgg(), &folder.path().join("run"), &data, 12);
    (run.optimizer.rate, run.optimizer.ema_decay, run.run.keep) = (0.02, 0.0, 20);
    run.schedule.shape = Shape::Constant;
    let mut ranks = Vec::new();
    stage1::train(&run, &Device::flex(), &mut |report| {
        if let Report::Validation { step, measured } = report {
            ranks.push((step, measured.rank.unwrap()));
        }
    })
    .unwrap();
    let (best, _) = ranks[1..].iter().copied().min_by(|a, b| a.1.total_cmp(&b.1)).unwrap();
    let state = tensors(&run.run.output.join(format!("checkpoints/{best:07}.safetensors")));
    for (name, values) in tensors(&run.run.output.join("stage1-best.safetensors")) {
        assert_eq!(state[&format!("network.{name}")], values, "{name} of step {best}: {ranks:?}");
    }
}
