//! What all trainers share: the loop over steps, its report, and files that a run resumes from.

use crate::data::{DataError, Example};
use crate::optimizer::{AdamW, AdamWConfig, cosine_rate};
use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use diffbir_imaging::Raster;
use diffbir_nn::WeightError;
use diffbir_nn::checkpoint::Checkpoint;
use diffbir_nn::params::{Keys, RandomInit, Source, build};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What can end a training run early.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The pictures.
    #[error(transparent)]
    Data(#[from] DataError),
    /// Weights to start or resume from.
    #[error(transparent)]
    Weights(#[from] WeightError),
    /// A checkpoint cannot be written.
    #[error("{}: cannot be written", file.display())]
    Write {
        /// The file.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The loss is no longer a number.
    #[error("the loss became {loss} at step {step}: resume from the last checkpoint with a lower --rate")]
    Diverged {
        /// When.
        step: u64,
        /// NaN or infinity.
        loss: f32,
    },
}

/// What every run has.
#[derive(Clone)]
pub struct RunConfig {
    /// Folder for checkpoints; a run that finds its own there goes on from it.
    pub out: PathBuf,
    /// Steps of the whole run.
    pub steps: u64,
    /// Examples a step.
    pub batch: usize,
    /// Highest learning rate.
    pub rate: f64,
    /// Steps in which the rate rises from zero.
    pub warm_up: u64,
    /// From which examples and first weights follow.
    pub seed: u64,
    /// Steps between checkpoints, each with a validation.
    pub checkpoint_every: u64,
    /// Weights to start from instead of random ones.
    pub init: Option<Checkpoint>,
    /// The optimizer's constants.
    pub optimizer: AdamWConfig,
}

/// What a trainer tells of its progress.
#[derive(Clone, Debug)]
pub enum Report {
    /// A picture that cannot be trained on, and the rest goes on without it.
    LeftOut {
        /// Its name and the reason.
        why: String,
    },
    /// Latents are made before the first step.
    Latents {
        /// Pictures that are done.
        done: usize,
        /// Of how many.
        total: usize,
    },
    /// A step: its number, the mean loss since the last report, the learning rate, the norm of the
    /// gradients, and the share of the time that was spent waiting for examples.
    Step {
        /// Counted from 1.
        step: u64,
        /// Mean loss since the last such report.
        loss: f64,
        /// Learning rate.
        rate: f64,
        /// Norm of all gradients before clipping.
        norm: f64,
        /// Seconds a step.
        seconds: f64,
        /// Share of that spent waiting for data, 0..1.
        waited: f64,
    },
    /// A validation of the averaged weights, in the trainer's own words.
    Validation {
        /// After this step.
        step: u64,
        /// What was measured.
        text: String,
    },
}

/// A network in training, with all that a file needs to go on.
pub struct Run<N> {
    /// The network.
    pub network: N,
    /// Names of its tensors.
    pub keys: Keys,
    optimizer: AdamW,
    config: RunConfig,
    name: &'static str,
}

impl<N: Module> Run<N> {
    /// Builds the network from the run's own checkpoint, else from `config.init`, else from random
    /// values.
    pub fn start(
        config: &RunConfig,
        name: &'static str,
        device: &Device,
        network: impl Fn(&diffbir_nn::Params) -> Result<N, WeightError>,
    ) -> Result<Self, TrainError> {
        std::fs::create_dir_all(&config.out)
            .map_err(|source| TrainError::Write { file: config.out.clone(), source })?;
        let weights_file = config.out.join(format!("{name}.safetensors"));
        let state_file = config.out.join(format!("{name}.state.safetensors"));
        let resume = state_file.exists();
        let mut file;
        let mut random = RandomInit { seed: config.seed };
        let saved = if resume { Some(Checkpoint::open(&state_file)?) } else { config.init.clone() };
        let source: &mut dyn Source = match &saved {
            Some(saved) if resume => {
                file = saved.part("network");
                &mut file
            }
            Some(saved) => {
                file = saved.clone();
                &mut file
            }
            None => &mut random,
        };
        let (network, keys) = build(source, device, network)?;
        let optimizer = match &saved {
            Some(saved) if resume => {
                AdamW::load(config.optimizer, saved, &keys, device).ok_or_else(|| WeightError::File {
                    file: weights_file.display().to_string(),
                    reason: "its training state is not whole: remove it to start anew".into(),
                })?
            }
            _ => AdamW::new(config.optimizer),
        };
        Ok(Self { network, keys, optimizer, config: config.clone(), name })
    }

    /// The network with averaged weights, for validation and use.
    pub fn averaged(&self) -> N {
        self.optimizer.averaged(&self.network)
    }

    /// Steps that lie behind.
    pub fn steps(&self) -> u64 {
        self.optimizer.steps()
    }

    /// Trains to the end: `loss` of a batch, `validate` in words, both given the network.
    pub fn train<B>(
        mut self,
        mut next: impl FnMut() -> Result<B, TrainError>,
        loss: impl Fn(&N, B) -> Tensor<1>,
        validate: impl Fn(&N) -> String,
        report: &mut dyn FnMut(Report),
    ) -> Result<Self, TrainError> {
        let mut losses = 0.0;
        let mut waited = Duration::ZERO;
        let mut since = Instant::now();
        let mut count = 0u32;
        if self.steps() == 0 {
            report(Report::Validation { step: 0, text: validate(&self.network.valid()) });
        }
        while self.steps() < self.config.steps {
            let waiting = Instant::now();
            let batch = next()?;
            waited += waiting.elapsed();
            let value = loss(&self.network, batch);
            let gradients = value.backward();
            let value = value.into_scalar::<f32>();
            let step = self.steps() + 1;
            if !value.is_finite() {
                return Err(TrainError::Diverged { step, loss: value });
            }
            losses += f64::from(value);
            count += 1;
            let rate = cosine_rate(self.config.rate, self.config.warm_up, step - 1, self.config.steps);
            let norm;
            (self.network, norm) = self.optimizer.step(self.network, &gradients, rate);
            if step.is_multiple_of(50) || step == self.config.steps {
                let elapsed = since.elapsed();
                report(Report::Step {
                    step,
                    loss: losses / f64::from(count),
                    rate,
                    norm,
                    seconds: elapsed.as_secs_f64() / f64::from(count),
                    waited: waited.as_secs_f64() / elapsed.as_secs_f64().max(1e-9),
                });
                (losses, count, waited, since) = (0.0, 0, Duration::ZERO, Instant::now());
            }
            if step.is_multiple_of(self.config.checkpoint_every) || step == self.config.steps {
                self.save()?;
                report(Report::Validation { step, text: validate(&self.averaged()) });
                since = Instant::now();
            }
        }
        Ok(self)
    }

    /// Writes the averaged weights, for use, and the whole state, to resume from.
    fn save(&self) -> Result<(), TrainError> {
        let average = Checkpoint::from_tensors(self.keys.tensors(&self.averaged()));
        write(&self.config.out.join(format!("{}.safetensors", self.name)), &average)?;
        let mut state = self.optimizer.save(&self.keys);
        state.insert("network", Checkpoint::from_tensors(self.keys.tensors(&self.network.valid())));
        write(&self.config.out.join(format!("{}.state.safetensors", self.name)), &state)
    }
}

/// Writes a checkpoint beside its place and moves it there, so that a run that is killed keeps the last.
fn write(file: &Path, checkpoint: &Checkpoint) -> Result<(), TrainError> {
    let partial = file.with_extension("partial");
    std::fs::write(&partial, checkpoint.to_safetensors(false)?)
        .and_then(|()| std::fs::rename(&partial, file))
        .map_err(|source| TrainError::Write { file: file.to_path_buf(), source })
}

/// Pictures of one size as a tensor `[batch, height, width, channels]`.
pub fn to_tensor<'a>(pictures: impl IntoIterator<Item = &'a Raster>, device: &Device) -> Tensor<4> {
    let mut data = Vec::new();
    let (mut count, mut shape) = (0, [0; 3]);
    for picture in pictures {
        data.extend_from_slice(&picture.data);
        shape = [picture.height_px, picture.width_px, picture.channels];
        count += 1;
    }
    Tensor::from_data(TensorData::new(data, [count, shape[0], shape[1], shape[2]]), device)
}

/// Both sides of a batch as tensors: degraded and true.
pub fn pair(batch: &[Example], device: &Device) -> (Tensor<4>, Tensor<4>) {
    let degraded = to_tensor(batch.iter().map(|example| &example.degraded), device);
    (degraded, to_tensor(batch.iter().map(|example| &example.truth), device))
}
