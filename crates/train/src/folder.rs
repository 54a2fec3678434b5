//! The folder of a run: `config.toml`, `checkpoints/STEP.safetensors` each with the whole state, and beside them the
//! weights for use: the newest and the best.
//!
//! Whatever a run needs to go on lies in one file that appears whole at its place, so that no moment is a bad one to
//! be killed. The weights for use follow from it and are written again where they are behind.

use crate::config::{self, Config};
use crate::data::Inventory;
use crate::run::TrainError;
use diffbir_imaging::{remove_orphans, write_atomic, write_atomic_with};
use diffbir_nn::WeightError;
use diffbir_nn::checkpoint::Checkpoint;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// Keys of the metadata of checkpoints and weights.
const STEP: &str = "step";
const CONFIG: &str = "config";
const BEST: &str = "best";
const PICTURES: &str = "pictures";
const SUM: &str = "sum";
/// Keeps other runs out.
const LOCK: &str = ".lock";

/// A folder that one run at a time works in.
pub struct Folder {
    root: PathBuf,
    name: &'static str,
    config: String,
    keep: usize,
    /// Whether there was nothing of this name before.
    is_new: bool,
    /// Locked as long as the run lives.
    _lock: File,
}

/// The step whose validation was best, and its value; lower is better.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Best {
    /// After which step.
    pub step: u64,
    /// What was measured.
    pub value: f64,
}

/// What a run goes on from.
pub struct Saved {
    /// Network and optimizer.
    pub state: Checkpoint,
    /// Steps that lie behind.
    pub step: u64,
    /// The best until then.
    pub best: Option<Best>,
    /// What it was trained on; runs of earlier versions did not say.
    pub pictures: Option<Inventory>,
}

/// Whether there is a run to go on with.
pub fn has_checkpoint(root: &Path) -> bool {
    steps(&root.join("checkpoints")).is_ok_and(|steps| !steps.is_empty())
}

/// Steps of the checkpoints in a folder, the last one last.
fn steps(checkpoints: &Path) -> io::Result<Vec<u64>> {
    let mut steps = Vec::new();
    for entry in fs::read_dir(checkpoints)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        steps.extend(name.strip_suffix(".safetensors").and_then(|step| step.parse::<u64>().ok()));
    }
    steps.sort_unstable();
    Ok(steps)
}

impl Folder {
    /// Takes the run's folder, which is made where there is none, and finds its last checkpoint. `name` is that of
    /// the weights for use.
    pub fn open<C: Config>(config: &C, name: &'static str) -> Result<(Self, Option<Saved>), TrainError> {
        let root = config.run().output.clone();
        let checkpoints = root.join("checkpoints");
        let is_new = !root.exists();
        fs::create_dir_all(&checkpoints)
            .map_err(|source| TrainError::Write { file: checkpoints.clone(), source })?;
        let lock = lock(&root)?;
        remove_orphans(&root);
        remove_orphans(&checkpoints);
        let folder = Self {
            root,
            name,
            config: config::anchored(config.table()).to_string(),
            keep: config.run().keep,
            is_new,
            _lock: lock,
        };
        let saved = folder.last()?;
        match &saved {
            Some(saved) => {
                let then = saved.state.metadata.get(CONFIG).ok_or_else(|| folder.not_whole(saved.step))?;
                config::same_run(then, config, &folder.root)?;
            }
            None if folder.weights(name).exists() => {
                return Err(TrainError::Occupied { file: folder.weights(name) });
            }
            None => {}
        }
        write_atomic(&folder.root.join("config.toml"), folder.config.as_bytes())?;
        Ok((folder, saved))
    }

    /// Takes a new folder back where its run cannot begin; what others put into it stays.
    pub fn abandon(&self) {
        if !self.is_new {
            return;
        }
        // What cannot be removed is no worse than what was there.
        let _ = fs::remove_file(self.root.join("config.toml"));
        let _ = fs::remove_file(self.root.join(LOCK));
        let _ = fs::remove_dir(self.root.join("checkpoints"));
        let _ = fs::remove_dir(&self.root);
    }

    fn steps(&self) -> Result<Vec<u64>, TrainError> {
        let checkpoints = self.root.join("checkpoints");
        steps(&checkpoints).map_err(|source| TrainError::Read { file: checkpoints.clone(), source })
    }

    fn last(&self) -> Result<Option<Saved>, TrainError> {
        let Some(step) = self.steps()?.pop() else { return Ok(None) };
        let state = Checkpoint::open(&self.checkpoint(step)).map_err(|error| match error {
            // Not that it must be got again.
            WeightError::File { .. } => self.not_whole(step),
            error => error,
        })?;
        if state.metadata.get(STEP) != Some(&step.to_string()) {
            return Err(self.not_whole(step).into());
        }
        // Checkpoints of earlier versions have no sum.
        if let Some(sum) = state.metadata.get(SUM)
            && *sum != state.sum()?
        {
            return Err(WeightError::File {
                file: self.checkpoint(step).display().to_string(),
                reason: "is damaged: its tensors are not those that were written: remove it to go on from the one \
                         before"
                    .into(),
            }
            .into());
        }
        let best = state.metadata.get(BEST).and_then(|best| {
            let (step, value) = best.split_once(' ')?;
            Some(Best { step: step.parse().ok()?, value: value.parse().ok()? })
        });
        let pictures = state.metadata.get(PICTURES).and_then(|text| text.parse().ok());
        Ok(Some(Saved { state, step, best, pictures }))
    }

    fn not_whole(&self, step: u64) -> WeightError {
        WeightError::File {
            file: self.checkpoint(step).display().to_string(),
            reason: "is no whole checkpoint of a training run: remove it to go on from the one before".into(),
        }
    }

    /// The checkpoint after `step`.
    pub fn checkpoint(&self, step: u64) -> PathBuf {
        self.root.join("checkpoints").join(format!("{step:07}.safetensors"))
    }

    fn weights(&self, name: &str) -> PathBuf {
        self.root.join(format!("{name}.safetensors"))
    }

    /// Writes a checkpoint and removes those before the last few.
    pub fn save(
        &self,
        mut state: Checkpoint,
        step: u64,
        best: Option<Best>,
        pictures: Option<Inventory>,
    ) -> Result<(), TrainError> {
        state.metadata.insert(SUM.into(), state.sum()?);
        state.metadata.insert(STEP.into(), step.to_string());
        state.metadata.insert(CONFIG.into(), self.config.clone());
        if let Some(Best { step, value }) = best {
            state.metadata.insert(BEST.into(), format!("{step} {value}"));
        }
        if let Some(pictures) = pictures {
            state.metadata.insert(PICTURES.into(), pictures.to_string());
        }
        write(&self.checkpoint(step), &state)?;
        let mut steps = self.steps()?;
        steps.truncate(steps.len().saturating_sub(self.keep));
        for step in steps {
            let file = self.checkpoint(step);
            fs::remove_file(&file).map_err(|source| TrainError::Write { file, source })?;
        }
        Ok(())
    }

    /// Brings the weights for use, those after `step`, up to date.
    pub fn publish(
        &self,
        step: u64,
        best: Option<Best>,
        weights: impl Fn() -> Checkpoint,
    ) -> Result<(), TrainError> {
        self.publish_as(self.name, step, &weights)?;
        if best.is_some_and(|best| best.step == step) {
            self.publish_as(&format!("{}-best", self.name), step, &weights)?;
        }
        Ok(())
    }

    fn publish_as(&self, name: &str, step: u64, weights: &impl Fn() -> Checkpoint) -> Result<(), TrainError> {
        let file = self.weights(name);
        let there = Checkpoint::open(&file).ok().and_then(|there| there.metadata.get(STEP).cloned());
        if there == Some(step.to_string()) {
            return Ok(());
        }
        let mut weights = weights();
        weights.metadata.insert(STEP.into(), step.to_string());
        write(&file, &weights)
    }

    /// Keeps tensors that a run broke on.
    pub fn keep_batch(&self, step: u64, batch: &Checkpoint) -> Result<PathBuf, TrainError> {
        let file = self.root.join(format!("batch-{step:07}.safetensors"));
        write(&file, batch)?;
        Ok(file)
    }
}

fn write(file: &Path, checkpoint: &Checkpoint) -> Result<(), TrainError> {
    Ok(write_atomic_with(file, |out| checkpoint.write_safetensors(false, out))?)
}

/// Two runs in one folder would take each other's checkpoints away.
fn lock(root: &Path) -> Result<File, TrainError> {
    let file = root.join(LOCK);
    let lock = File::create(&file).map_err(|source| TrainError::Write { file: file.clone(), source })?;
    match lock.try_lock() {
        Err(fs::TryLockError::WouldBlock) => Err(TrainError::Busy { folder: root.to_path_buf() }),
        Err(fs::TryLockError::Error(error)) if error.kind() != io::ErrorKind::Unsupported => {
            Err(TrainError::Write { file, source: error })
        }
        _ => Ok(lock),
    }
}
