//! What a trainer tells of its progress.

use burn::tensor::Tensor;
use diffbir_imaging::Raster;
use std::time::{Duration, Instant};

/// What a trainer tells of its progress.
#[derive(Clone, Debug)]
pub enum Report {
    /// A picture that cannot be trained on, and the rest goes on without it.
    LeftOut {
        /// Its name and the reason.
        why: String,
    },
    /// Something else that a person should know of, and the run goes on.
    Warning {
        /// What, with the name of the field or file.
        what: String,
    },
    /// Latents are made before the first step.
    Latents {
        /// Pictures that are done.
        done: usize,
        /// Of how many.
        total: usize,
    },
    /// Steps since the last such report.
    Steps(Steps),
    /// A validation of the averaged weights.
    Validation {
        /// After this step.
        step: u64,
        /// What was measured.
        measured: Measured,
    },
}

/// How the last steps went, on average.
#[derive(Clone, Debug)]
pub struct Steps {
    /// The last one, counted from 1.
    pub step: u64,
    /// Steps of the whole run.
    pub of: u64,
    /// Loss.
    pub loss: f64,
    /// What it is made of, where that is more than one term.
    pub terms: Vec<(&'static str, f64)>,
    /// Learning rate of the last one.
    pub rate: f64,
    /// Norm of all gradients of the last one, before clipping; a discriminator's are not among them.
    pub norm: f64,
    /// Seconds a step.
    pub seconds: f64,
    /// Share of that spent waiting for data, 0..1.
    pub waited: f64,
    /// Examples a second.
    pub examples_per_second: f64,
}

/// What a validation found.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    /// For people.
    pub text: String,
    /// Values under the reference's tags.
    pub scalars: Vec<(&'static str, f64)>,
    /// By which one validation is better than another: lower is better.
    pub rank: Option<f64>,
    /// Pictures under the reference's tags.
    pub pictures: Vec<(&'static str, Vec<Raster>)>,
    /// Texts under the reference's tags.
    pub texts: Vec<(&'static str, String)>,
}

/// The mean loss of the epoch that goes on. What lies before a run that goes on is not in it.
pub(crate) struct Epoch {
    number: u64,
    sum: f64,
    steps: u32,
}

impl Epoch {
    pub(crate) fn new(number: u64) -> Self {
        Self { number, sum: 0.0, steps: 0 }
    }

    /// Adds a step's loss; gives the mean if the epoch of this number begins after it.
    pub(crate) fn add(&mut self, loss: f64, number: u64) -> Option<f64> {
        self.sum += loss;
        self.steps += 1;
        if number == self.number {
            return None;
        }
        let mean = self.sum / f64::from(self.steps);
        *self = Self::new(number);
        Some(mean)
    }
}

/// What happened since the last report.
pub(crate) struct Since {
    begin: Instant,
    /// For checkpoints.
    pub(crate) paused: Duration,
    /// For examples.
    pub(crate) waited: Duration,
    pub(crate) steps: u32,
    pub(crate) loss: f64,
    terms: Vec<(&'static str, f64)>,
}

impl Since {
    pub(crate) fn new() -> Self {
        let (paused, waited) = (Duration::ZERO, Duration::ZERO);
        Self { begin: Instant::now(), paused, waited, steps: 0, loss: 0.0, terms: Vec::new() }
    }

    pub(crate) fn add(&mut self, loss: f64, terms: Vec<(&'static str, Tensor<1>)>, share: f64) {
        self.loss += loss;
        for (name, term) in terms {
            let value = f64::from(term.into_scalar::<f32>()) * share;
            match self.terms.iter_mut().find(|(known, _)| *known == name) {
                Some((_, sum)) => *sum += value,
                // Some terms are heard later than others.
                None => self.terms.push((name, value)),
            }
        }
    }

    pub(crate) fn report(&self, step: u64, of: u64, rate: f64, norm: f64, examples: u64) -> Steps {
        let elapsed = (self.begin.elapsed() - self.paused).as_secs_f64().max(1e-9);
        let count = f64::from(self.steps);
        Steps {
            step,
            of,
            loss: self.loss / count,
            terms: self.terms.iter().map(|(name, sum)| (*name, sum / count)).collect(),
            rate,
            norm,
            seconds: elapsed / count,
            waited: self.waited.as_secs_f64() / elapsed,
            examples_per_second: examples as f64 * count / elapsed,
        }
    }
}
