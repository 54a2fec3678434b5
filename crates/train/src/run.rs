//! What all trainers share: the loop over steps, its report, and checkpoints that a run resumes from.

use crate::config::{Config, OptimizerConfig, RunConfig, ScheduleConfig};
use crate::data::{Example, Inventory};
pub use crate::error::TrainError;
use crate::folder::{self, Best, Folder, Saved};
use crate::optimizer::{self, AdamW, Summed, rate_at};
use crate::report::{Epoch, Since};
pub use crate::report::{Measured, Report, Steps};
use crate::tensorboard::EventWriter;
use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use diffbir_imaging::Raster;
use diffbir_nn::checkpoint::Checkpoint;
use diffbir_nn::params::{Keys, RandomInit, build_to_train};
use diffbir_nn::{WeightError, on_workers, recompute};
use std::time::Instant;

/// A loss and what it is made of.
pub struct Loss {
    /// What is made small.
    pub total: Tensor<1>,
    /// Its terms with their weights, where there are several.
    pub terms: Vec<(&'static str, Tensor<1>)>,
}

impl From<Tensor<1>> for Loss {
    fn from(total: Tensor<1>) -> Self {
        Self { total, terms: Vec::new() }
    }
}

/// What one backward pass is on.
pub trait Batch: Sync {
    /// Its tensors under names, to look at what a run broke on.
    fn tensors(&self) -> Vec<(&'static str, TensorData)>;
}

/// A network in training, with all that a file needs to go on.
pub struct Run<N> {
    /// The network.
    pub network: N,
    /// Names of its tensors.
    pub keys: Keys,
    device: Device,
    optimizer: AdamW,
    best: Option<Best>,
    /// What its steps were on until now.
    pictures: Option<Inventory>,
    folder: Folder,
    run: RunConfig,
    rates: (OptimizerConfig, ScheduleConfig),
    place: Option<&'static str>,
    loss_tag: &'static str,
}

/// Under which name the network lies in a checkpoint.
const NETWORK: &str = "network";

/// The weights of a file for use, or those in training of a run's checkpoint.
pub fn weights_of(file: Checkpoint) -> Checkpoint {
    let network = file.part(NETWORK);
    if network.entries().next().is_none() { file } else { network }
}

impl<N: Module + Sync> Run<N> {
    /// Builds the network from the run's last checkpoint, else from `start`, else from random values. `name` is that of the weights for use.
    pub fn start<C: Config>(
        config: &C,
        name: &'static str,
        start: Option<Checkpoint>,
        device: &Device,
        network: impl Fn(&diffbir_nn::Params) -> Result<N, WeightError>,
    ) -> Result<Self, TrainError> {
        let run = config.run().clone();
        let (optimizer, schedule) = config.optimizer();
        let rates = (*optimizer, *schedule);
        let (loss_tag, products) = (C::LOSS_TAG, run.precision.products());
        let begin = |start: Option<Checkpoint>| match start {
            None => build_to_train(products, &mut RandomInit { seed: run.seed }, device, &network),
            Some(mut start) => {
                let built = build_to_train(products, &mut start, device, &network)?;
                start.expect_all_used()?;
                Ok(built)
            }
        };
        // Weights that do not fit leave no folder.
        let begun = if folder::has_checkpoint(&run.output) { None } else { Some(begin(start.clone())?) };
        let (folder, saved) = Folder::open(config, name)?;
        let ((network, keys), optimizer, best, pictures) = match saved {
            None => {
                let (network, keys) = begun.map_or_else(|| begin(start), Ok)?;
                let optimizer = AdamW::new(rates.0, &network);
                ((network, keys), optimizer, None, None)
            }
            Some(Saved { state, step, best, pictures }) => {
                state.expect_places(&[NETWORK, optimizer::MEAN, optimizer::SQUARE, optimizer::AVERAGE])?;
                let mut weights = state.part(NETWORK);
                let (network, keys) = build_to_train(products, &mut weights, device, &network)?;
                weights.expect_all_used()?;
                let optimizer = AdamW::load(rates.0, &state, step, &keys, device)?;
                ((network, keys), optimizer, best, pictures)
            }
        };
        let (device, place) = (device.clone(), None);
        Ok(Self { network, keys, device, optimizer, best, pictures, folder, run, rates, place, loss_tag })
    }

    /// Takes the folder back where nothing can be trained.
    pub fn abandon(&self) {
        self.folder.abandon();
    }

    /// With only the part of the network at this place as weights for use.
    pub fn for_use(self, place: &'static str) -> Self {
        Self { place: Some(place), ..self }
    }

    /// With the part of the network at this place stepped as by an optimizer of its own; it has gradients after so many
    /// steps.
    pub fn apart(self, place: &str, after: u64) -> Self {
        let inside = |name: &str| name.strip_prefix(place).is_some_and(|rest| rest.starts_with('.'));
        let parameters: Vec<_> =
            self.keys.parameters().filter(|(_, name, _)| inside(name)).map(|(id, ..)| id).collect();
        Self { optimizer: self.optimizer.with_apart(parameters, after), ..self }
    }

    /// The network with averaged weights, for validation and use.
    pub fn averaged(&self) -> N {
        self.optimizer.averaged(&self.network)
    }

    /// Steps that lie behind.
    pub fn steps(&self) -> u64 {
        self.optimizer.steps()
    }

    /// Backward passes that lie behind, which is where the examples go on.
    pub fn batches(&self) -> u64 {
        self.steps() * self.run.accumulate
    }

    /// Trains to the end: `loss` of a batch, `validate` in words, both given the network. As many examples as there are
    /// pictures are an epoch.
    pub fn train<B: Batch>(
        mut self,
        pictures: Inventory,
        mut next: impl FnMut() -> Result<B, TrainError>,
        loss: impl Fn(&N, &B) -> Loss + Sync,
        validate: impl Fn(&N) -> Result<Measured, TrainError>,
        report: &mut dyn FnMut(Report),
    ) -> Result<Self, TrainError> {
        let mut since = Since::new();
        let examples = self.run.batch as u64 * self.run.accumulate;
        let mut epoch = Epoch::new(self.steps() * examples / pictures.count);
        self.compare(pictures, report);
        let mut events = EventWriter::create(&self.run.output.join("events"), self.steps())?;
        if self.steps() > 0 {
            self.publish()?;
        } else {
            let measured = validate(&self.network.valid())?;
            note(&mut events, 0, &measured)?;
            report(Report::Validation { step: 0, measured });
        }
        while self.steps() < self.run.steps {
            let step = self.steps() + 1;
            let mut sum = Summed::default();
            let before = since.loss;
            let share = 1.0 / self.run.accumulate as f64;
            let mut last = None;
            for _ in 0..self.run.accumulate {
                let waiting = Instant::now();
                let batch = next()?;
                since.waited += waiting.elapsed();
                let (network, recompute) = (&self.network, self.run.recompute);
                let (value, terms) = on_workers(&self.device, || {
                    backward(network, recompute, |network| loss(network, &batch), &mut sum)
                });
                if !value.is_finite() {
                    return Err(self.diverged("loss", step, value, &batch));
                }
                since.add(value * share, terms, share);
                last = Some(batch);
            }
            let (optimizer, schedule) = self.rates;
            let rate = rate_at(schedule, optimizer.rate, step - 1, self.run.steps);
            let norm;
            let (network, optimizer) = (self.network, &mut self.optimizer);
            (self.network, norm) = on_workers(&self.device, || optimizer.step(network, &sum, share, rate));
            if let (Some(batch), false) = (&last, norm.is_finite()) {
                return Err(self.diverged("gradient", step, norm, batch));
            }
            since.steps += 1;
            if let Some(mean) = epoch.add(since.loss - before, step * examples / pictures.count) {
                events.scalar(step, &format!("{}_epoch", self.loss_tag), mean)?;
            }
            if step.is_multiple_of(self.run.log_every) || step == self.run.steps {
                let steps = since.report(step, self.run.steps, rate, norm, examples);
                events.scalar(step, &format!("{}_step", self.loss_tag), steps.loss)?;
                for (name, value) in [("rate", rate), ("gradient", norm)].iter().chain(&steps.terms) {
                    events.scalar(step, &format!("train/{name}"), *value)?;
                }
                report(Report::Steps(steps));
                since = Since::new();
            }
            if step.is_multiple_of(self.run.checkpoint_every) || step == self.run.steps {
                let begin = Instant::now();
                let measured = validate(&self.averaged())?;
                let value = measured.rank.filter(|value| value.is_finite());
                if let Some(value) = value
                    && self.best.is_none_or(|best| value < best.value)
                {
                    self.best = Some(Best { step, value });
                }
                self.save()?;
                note(&mut events, step, &measured)?;
                report(Report::Validation { step, measured });
                since.paused += begin.elapsed();
            }
        }
        Ok(self)
    }

    /// Tells where a run that goes on goes on otherwise than it began.
    fn compare(&mut self, pictures: Inventory, report: &mut dyn FnMut(Report)) {
        let done = self.steps();
        if let Some(then) = self.pictures.replace(pictures).filter(|then| *then != pictures) {
            let what = format!(
                "data.folders: {} until step {done}, {} now: the run goes on with these, but does not end as one \
                 that had the same pictures all the time",
                then.against(&pictures),
                pictures.count
            );
            report(Report::Warning { what });
        }
        if done >= self.run.steps {
            let of = self.run.steps;
            let what =
                format!("run.steps: it is {of}, and {done} are done: nothing is left to do; give more");
            report(Report::Warning { what });
        }
    }

    /// Writes the whole state, to resume from, and the averaged weights, for use.
    fn save(&self) -> Result<(), TrainError> {
        let mut state = self.optimizer.save(&self.keys);
        state.insert(NETWORK, Checkpoint::from_tensors(self.keys.tensors(&self.network.valid())));
        self.folder.save(state, self.steps(), self.best, self.pictures)?;
        self.publish()
    }

    fn publish(&self) -> Result<(), TrainError> {
        let weights = || {
            let all = Checkpoint::from_tensors(self.keys.tensors(&self.averaged()));
            self.place.map_or_else(|| all.clone(), |place| all.part(place))
        };
        self.folder.publish(self.steps(), self.best, weights)
    }

    fn diverged(&self, what: &'static str, step: u64, value: f64, batch: &impl Batch) -> TrainError {
        let tensors = batch.tensors().into_iter().map(|(name, data)| (name.to_string(), data)).collect();
        match self.folder.keep_batch(step, &Checkpoint::from_tensors(tensors)) {
            Ok(batch) => TrainError::Diverged { what, step, value, batch },
            Err(error) => error,
        }
    }
}

/// Adds the gradients of a loss to those of a step; gives its value and its terms.
fn backward<N: Module>(
    network: &N,
    recompute: bool,
    loss: impl FnOnce(&N) -> Loss,
    sum: &mut Summed,
) -> (f64, Vec<(&'static str, Tensor<1>)>) {
    let mut terms = Vec::new();
    let total = || {
        let loss = loss(network);
        terms = loss.terms;
        loss.total
    };
    let value = if recompute {
        recompute::backward(total, |gradients| sum.add(network, gradients))
    } else {
        let total = total();
        sum.add(network, &total.backward());
        total
    };
    (f64::from(value.into_scalar::<f32>()), terms)
}

fn note(events: &mut EventWriter, step: u64, measured: &Measured) -> Result<(), TrainError> {
    for (tag, value) in &measured.scalars {
        events.scalar(step, tag, *value)?;
    }
    for (tag, pictures) in &measured.pictures {
        events.pictures(step, tag, pictures)?;
    }
    for (tag, text) in &measured.texts {
        events.text(step, tag, text)?;
    }
    Ok(())
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
