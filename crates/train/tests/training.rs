//! Runs of stage 1 on pictures made here: one that was stopped goes on bit for bit, what does not belong to it is refused.

mod pictures;
mod stage1_runs;

use burn::tensor::TensorData;
use diffbir_nn::Device;
use diffbir_nn::checkpoint::Checkpoint;
use diffbir_train::config::*;
use diffbir_train::run::{Report, TrainError};
use diffbir_train::stage1;
use pictures::{pictures, save_picture, tensors};
use stage1_runs::{config, replace, srvgg, swinir, train};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Trains until the validation after this step, whose checkpoint is written by then.
fn train_until(config: &Stage1Training, stop: u64) {
    let stopped = std::panic::catch_unwind(|| {
        let _ = stage1::train(config, &Device::flex(), &mut |report| {
            assert!(!matches!(report, Report::Validation { step, .. } if step == stop), "stop here");
        });
    });
    assert!(stopped.is_err());
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
    let mut whole = Checkpoint::open(&state).unwrap();
    whole.metadata.remove("sum").unwrap();
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

/// What a run says beside its steps.
fn warnings(run: &Stage1Training) -> Vec<String> {
    let mut told = Vec::new();
    stage1::train(run, &Device::flex(), &mut |report| {
        if let Report::Warning { what } = report {
            told.push(what);
        }
    })
    .unwrap();
    told
}

/// A run whose pictures change, or that has nothing to do, says so.
#[test]
fn what_goes_on_otherwise_than_it_began_is_told() {
    let folder = tempfile::TempDir::new().unwrap();
    let data = folder.path().join("data");
    pictures(&data);
    let mut run = config(srvgg(), &folder.path().join("run"), &data, 2);
    run.validation.folders.clear();
    let none = Vec::<String>::new();
    assert_eq!(warnings(&run), none);
    let told = warnings(&run);
    assert!(told.len() == 1 && told[0].starts_with("run.steps: it is 2, and 2 are done"), "{told:?}");
    run.run.steps = 1;
    let told = warnings(&run);
    assert!(told.len() == 1 && told[0].starts_with("run.steps: it is 1, and 2 are done"), "{told:?}");
    // The same pictures elsewhere are the same pictures.
    std::fs::rename(data.join("2.png"), folder.path().join("2.png")).unwrap();
    run.run.steps = 4;
    let told = warnings(&run);
    assert!(
        told.len() == 1 && told[0].starts_with("data.folders: there were 3 pictures until step 2, 2 now"),
        "{told:?}"
    );
    run.run.steps = 6;
    assert_eq!(warnings(&run), none);
    save_picture(&data.join("1.png"), (40, 40), vec![7; 40 * 40 * 3]);
    run.run.steps = 8;
    let told = warnings(&run);
    assert!(
        told.len() == 1 && told[0].contains("2 pictures with other names or sizes until step 6"),
        "{told:?}"
    );
    // A run of an earlier version did not keep which pictures it had.
    let state = run.run.output.join("checkpoints/0000008.safetensors");
    let mut older = Checkpoint::open(&state).unwrap();
    older.metadata.remove("pictures").unwrap();
    replace(&state, &older);
    std::fs::remove_file(data.join("1.png")).unwrap();
    (run.run.steps, run.run.batch) = (10, 2);
    save_picture(&data.join("3.png"), (40, 40), vec![9; 40 * 40 * 3]);
    assert_eq!(warnings(&run), none);
}

/// A bit that has changed in a checkpoint is noticed; checkpoints of earlier versions have no sum to compare with.
#[test]
fn a_damaged_checkpoint_is_refused() {
    let folder = tempfile::TempDir::new().unwrap();
    let data = folder.path().join("data");
    pictures(&data);
    let mut run = config(srvgg(), &folder.path().join("run"), &data, 2);
    train(&run).unwrap();
    run.run.steps = 4;
    let state = run.run.output.join("checkpoints/0000002.safetensors");
    let whole = std::fs::read(&state).unwrap();
    for back in [1, 4001] {
        let mut bytes = whole.clone();
        let place = bytes.len() - back;
        bytes[place] ^= 1;
        std::fs::write(&state, &bytes).unwrap();
        let error = train(&run).unwrap_err().to_string();
        assert!(error.contains("0000002.safetensors: is damaged"), "{error}");
    }
    std::fs::write(&state, &whole).unwrap();
    let mut older = Checkpoint::open(&state).unwrap();
    older.metadata.remove("sum").unwrap();
    replace(&state, &older);
    train(&run).unwrap();
    assert!(Checkpoint::open(&run.run.output.join("checkpoints/0000004.safetensors")).is_ok());
}

/// What is refused before the first step leaves no folder.
#[test]
fn a_run_that_cannot_begin_leaves_nothing() {
    let folder = tempfile::TempDir::new().unwrap();
    let data = folder.path().join("data");
    pictures(&data);
    let mut run = config(swinir(), &folder.path().join("run"), &data, 2);
    run.run.init = Some("nano".into());
    assert!(matches!(train(&run).unwrap_err(), TrainError::Weights(_)));
    run.run.init = None;
    let mut sizes = srvgg();
    let diffbir_models::stage1::Stage1Config::Srvgg(srvgg) = &mut sizes.sizes else { unreachable!() };
    srvgg.upscale = 2;
    run.network = sizes;
    let error = train(&run).unwrap_err().to_string();
    assert!(error.contains("degradation.recipe: makes 8 pixels of 32"), "{error}");
    assert!(!run.run.output.exists());
}
