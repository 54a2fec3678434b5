//! AdamW with PyTorch's constants, clipping by the global norm, and an average of the weights.
//!
//! State is kept per parameter id on the parameter's own device, and ids are hashes of official names,
//! so a run that is stopped and resumed goes on bit for bit.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::tensor::{Device, Gradients, Tensor, TensorData};
use diffbir_nn::checkpoint::Checkpoint;
use diffbir_nn::params::Keys;
use std::collections::{BTreeMap, HashMap};

/// The constants of a run; rates are given per step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamWConfig {
    /// Decay of the mean of gradients.
    pub beta1: f64,
    /// Decay of the mean of squared gradients.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub epsilon: f64,
    /// Decoupled decay, on every parameter.
    pub weight_decay: f64,
    /// Largest norm over all gradients together; larger ones are scaled down.
    pub clip_norm: f64,
    /// Decay of the averaged weights.
    pub average_decay: f64,
}

impl Default for AdamWConfig {
    fn default() -> Self {
        Self {
            beta1: 0.9,
            beta2: 0.99,
            epsilon: 1e-8,
            weight_decay: 0.0,
            clip_norm: 0.5,
            average_decay: 0.999,
        }
    }
}

/// What is kept of one parameter, each as one row.
#[derive(Clone)]
struct Moments {
    mean: Tensor<1>,
    square: Tensor<1>,
    average: Tensor<1>,
}

/// Steps a network's parameters and keeps their average.
pub struct AdamW {
    config: AdamWConfig,
    state: HashMap<ParamId, Moments>,
    steps: u64,
}

impl AdamW {
    /// Before the first step.
    pub fn new(config: AdamWConfig) -> Self {
        Self { config, state: HashMap::new(), steps: 0 }
    }

    /// Steps taken so far.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// One step at `rate` for every parameter that has a gradient; returns the network and the norm of
    /// all gradients before clipping.
    pub fn step<N: Module>(&mut self, network: N, gradients: &Gradients, rate: f64) -> (N, f64) {
        let mut norm = SquaredNorm { gradients, total: 0.0 };
        network.visit(&mut norm);
        let norm = norm.total.sqrt();
        self.steps += 1;
        let scale = (self.config.clip_norm / norm.max(1e-12)).min(1.0);
        // The average follows quickly at first: otherwise it would remember the random start.
        let steps = self.steps as f64;
        let average_decay = self.config.average_decay.min((1.0 + steps) / (10.0 + steps));
        let network = network.map(&mut Step { optimizer: self, gradients, rate, scale, average_decay });
        (network, norm)
    }

    /// The network with its averaged weights, without gradients.
    pub fn averaged<N: Module>(&self, network: &N) -> N {
        network.valid().map(&mut Replace(&self.state))
    }

    /// The optimizer's state under official names, for a file that a run resumes from.
    pub fn save(&self, keys: &Keys) -> Checkpoint {
        let mut tensors = BTreeMap::new();
        for (id, moments) in &self.state {
            let key = keys.name(*id);
            for (part, tensor) in
                [("mean", &moments.mean), ("square", &moments.square), ("average", &moments.average)]
            {
                tensors.insert(format!("{part}.{key}"), tensor.to_data());
            }
        }
        let mut checkpoint = Checkpoint::from_tensors(tensors);
        checkpoint.metadata.insert("steps".into(), self.steps.to_string());
        checkpoint
    }

    /// The state that [`AdamW::save`] wrote; nothing if the file lacks any of it.
    pub fn load(config: AdamWConfig, saved: &Checkpoint, keys: &Keys, device: &Device) -> Option<Self> {
        let device = device.clone().inner();
        let mut state = HashMap::new();
        for entry in keys.parameters() {
            let part = |name: &str| {
                let (_, values) = saved.get(&format!("{name}.{}", entry.1)).ok()??;
                let count = values.len();
                Some(Tensor::from_data(TensorData::new(values, [count]), &device))
            };
            let moments = Moments { mean: part("mean")?, square: part("square")?, average: part("average")? };
            state.insert(entry.0, moments);
        }
        let steps = saved.metadata.get("steps")?.parse().ok()?;
        Some(Self { config, state, steps })
    }
}

struct SquaredNorm<'a> {
    gradients: &'a Gradients,
    total: f64,
}

impl ModuleVisitor for SquaredNorm<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = param.val().grad(self.gradients) {
            self.total += gradient.square().sum().into_scalar::<f32>() as f64;
        }
    }
}

struct Step<'a> {
    optimizer: &'a mut AdamW,
    gradients: &'a Gradients,
    rate: f64,
    scale: f64,
    average_decay: f64,
}

impl ModuleMapper for Step<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let (id, tensor, mapper) = param.consume();
        let Some(gradient) = tensor.grad(self.gradients) else {
            return Param::from_mapped_value(id, tensor, mapper);
        };
        let AdamWConfig { beta1, beta2, epsilon, weight_decay, .. } = self.optimizer.config;
        let shape = tensor.dims();
        let value = tensor.inner().reshape([-1]);
        let gradient = gradient.reshape([-1]) * self.scale;
        let moments = self.optimizer.state.remove(&id).unwrap_or_else(|| Moments {
            mean: value.zeros_like(),
            square: value.zeros_like(),
            average: value.clone(),
        });
        let mean = moments.mean * beta1 + gradient.clone() * (1.0 - beta1);
        let square = moments.square * beta2 + gradient.square() * (1.0 - beta2);
        let steps = self.optimizer.steps as i32;
        let (correct1, correct2) = (1.0 - beta1.powi(steps), 1.0 - beta2.powi(steps));
        let root = (square.clone() / correct2).sqrt() + epsilon;
        let value = value * (1.0 - self.rate * weight_decay) - mean.clone() / root * (self.rate / correct1);
        let average = moments.average * self.average_decay + value.clone() * (1.0 - self.average_decay);
        self.optimizer.state.insert(id, Moments { mean, square, average });
        Param::from_mapped_value(id, Tensor::from_inner(value.reshape(shape)).require_grad(), mapper)
    }
}

struct Replace<'a>(&'a HashMap<ParamId, Moments>);

impl ModuleMapper for Replace<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        match self.0.get(&param.id) {
            Some(moments) => param.map(|tensor| moments.average.clone().reshape(tensor.dims())),
            None => param,
        }
    }
}

/// The learning rate at `step` of `total`: a linear warm-up, then half a cosine down to zero.
pub fn cosine_rate(peak: f64, warm_up: u64, step: u64, total: u64) -> f64 {
    if step < warm_up {
        return peak * (step + 1) as f64 / warm_up as f64;
    }
    let progress = (step - warm_up) as f64 / (total.saturating_sub(warm_up)).max(1) as f64;
    peak * 0.5 * (1.0 + (std::f64::consts::PI * progress.min(1.0)).cos())
}
