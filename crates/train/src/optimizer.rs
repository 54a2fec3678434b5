//! AdamW with PyTorch's constants, clipping by the global norm, and an average of the weights.
//!
//! State is kept per parameter id on the parameter's own device, and ids are hashes of official names,
//! so a run that is stopped and resumed goes on bit for bit.

use crate::config::{OptimizerConfig, ScheduleConfig, Shape};
use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::tensor::{Device, Gradients, Tensor, TensorData};
use diffbir_nn::WeightError;
use diffbir_nn::checkpoint::Checkpoint;
use diffbir_nn::ops::optimizer::{self as ops, Moments, adamw, sum_of_squares};
use diffbir_nn::params::{Init, Keys, Source};
use std::collections::{BTreeMap, HashMap, HashSet};

/// Gradients of one step by parameter, each as one row; those of several backward passes add up.
#[derive(Default)]
pub struct Summed(HashMap<ParamId, Tensor<1>>);

impl Summed {
    /// Adds the gradients of one backward pass through `network`.
    pub fn add<N: Module>(&mut self, network: &N, gradients: &Gradients) {
        network.visit(&mut Gather { gradients, into: self });
    }

    /// The norm of the gradients of these parameters together.
    fn norm<N: Module>(&self, network: &N, counts: impl Fn(ParamId) -> bool) -> f64 {
        let mut squares = Squares { gradients: self, counts, sums: Vec::new() };
        network.visit(&mut squares);
        if squares.sums.is_empty() {
            return 0.0;
        }
        // Brought to the host together: each time by itself would wait for a graphics card.
        let sums = Tensor::cat(squares.sums, 0).into_data();
        sums.iter::<f64>().sum::<f64>().sqrt()
    }
}

/// Steps a network's parameters and keeps their average.
pub struct AdamW {
    config: OptimizerConfig,
    state: HashMap<ParamId, Moments>,
    steps: u64,
    apart: Apart,
}

/// Parameters that are stepped as by an optimizer of their own: with a norm and a count of steps of their own.
#[derive(Default)]
struct Apart {
    parameters: HashSet<ParamId>,
    /// Steps before their first gradient.
    after: u64,
}

impl AdamW {
    /// Before the first step of `network`.
    pub fn new<N: Module>(config: OptimizerConfig, network: &N) -> Self {
        let mut start = Start { average: config.ema_decay > 0.0, state: HashMap::new() };
        network.visit(&mut start);
        Self { config, state: start.state, steps: 0, apart: Apart::default() }
    }

    /// With these parameters apart, which have gradients after so many steps.
    pub fn with_apart(self, parameters: impl IntoIterator<Item = ParamId>, after: u64) -> Self {
        Self { apart: Apart { parameters: parameters.into_iter().collect(), after }, ..self }
    }

    /// Steps taken so far.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// One step at `rate` for every parameter that has a gradient, which is the sum's `share`; returns the network
    /// and the norm of the gradients before clipping, of those that are not apart. Nothing changes where a norm is no
    /// number.
    pub fn step<N: Module>(&mut self, network: N, gradients: &Summed, share: f64, rate: f64) -> (N, f64) {
        let is_apart = |id: ParamId| self.apart.parameters.contains(&id);
        let norm = gradients.norm(&network, |id| !is_apart(id)) * share;
        let apart = match self.apart.parameters.is_empty() {
            true => 0.0,
            false => gradients.norm(&network, is_apart) * share,
        };
        if let Some(wrong) = [norm, apart].into_iter().find(|norm| !norm.is_finite()) {
            return (network, wrong);
        }
        self.steps += 1;
        let scales = [norm, apart].map(|norm| share * (self.config.clip_norm / norm.max(1e-12)).min(1.0));
        // The average follows quickly at first: otherwise it would remember the random start.
        let steps = self.steps as f64;
        let ema_decay = self.config.ema_decay.min((1.0 + steps) / (10.0 + steps));
        let network = network.map(&mut Step { optimizer: self, gradients, rate, scales, ema_decay });
        (network, norm)
    }

    /// The network with its averaged weights, without gradients; with its own where none are averaged.
    pub fn averaged<N: Module>(&self, network: &N) -> N {
        network.valid().map(&mut Replace(&self.state))
    }

    /// The optimizer's state under official names, for a file that a run resumes from.
    pub fn save(&self, keys: &Keys) -> Checkpoint {
        let mut tensors = BTreeMap::new();
        for (id, moments) in &self.state {
            let key = keys.name(*id);
            let mut keep = |part: &str, tensor: &Tensor<1>| {
                tensors.insert(format!("{part}.{key}"), tensor.to_data());
            };
            keep(MEAN, &moments.mean);
            keep(SQUARE, &moments.square);
            moments.average.iter().for_each(|average| keep(AVERAGE, average));
        }
        Checkpoint::from_tensors(tensors)
    }

    /// The state that [`AdamW::save`] wrote after so many steps: all of it and nothing else.
    pub fn load(
        config: OptimizerConfig,
        saved: &Checkpoint,
        steps: u64,
        keys: &Keys,
        device: &Device,
    ) -> Result<Self, WeightError> {
        let device = device.clone().inner();
        let mut parts = [MEAN, SQUARE, AVERAGE].map(|name| saved.part(name));
        let mut state = HashMap::new();
        for (id, key, shape) in keys.parameters() {
            let count = shape.iter().product();
            let row = |part: &mut Checkpoint| -> Result<Tensor<1>, WeightError> {
                let values = part.values(key, &[count], Init::Constant(0.0))?;
                Ok(Tensor::from_data(TensorData::new(values, [count]), &device))
            };
            let [means, squares, averages] = &mut parts;
            let average = (config.ema_decay > 0.0).then(|| row(averages)).transpose()?;
            state.insert(id, Moments { mean: row(means)?, square: row(squares)?, average });
        }
        for part in &parts {
            part.expect_all_used()?;
        }
        Ok(Self { config, state, steps, apart: Apart::default() })
    }
}

/// Under which names the state lies in a file.
pub(crate) const MEAN: &str = "mean";
pub(crate) const SQUARE: &str = "square";
pub(crate) const AVERAGE: &str = "average";

struct Start {
    average: bool,
    state: HashMap<ParamId, Moments>,
}

impl ModuleVisitor for Start {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let value: Tensor<1> = param.val().inner().reshape([-1]);
        let zeros = value.zeros_like();
        let moments = Moments { mean: zeros.clone(), square: zeros, average: self.average.then_some(value) };
        self.state.insert(param.id, moments);
    }
}

struct Gather<'a> {
    gradients: &'a Gradients,
    into: &'a mut Summed,
}

impl ModuleVisitor for Gather<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = param.val().grad(self.gradients) {
            let gradient: Tensor<1> = gradient.reshape([-1]);
            let sum = match self.into.0.remove(&param.id) {
                Some(before) => before + gradient,
                None => gradient,
            };
            self.into.0.insert(param.id, sum);
        }
    }
}

struct Squares<'a, C> {
    gradients: &'a Summed,
    counts: C,
    sums: Vec<Tensor<1>>,
}

impl<C: Fn(ParamId) -> bool> ModuleVisitor for Squares<'_, C> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if (self.counts)(param.id)
            && let Some(gradient) = self.gradients.0.get(&param.id)
        {
            self.sums.push(sum_of_squares(gradient.clone()));
        }
    }
}

/// The sum of all values. In rows: one sum over millions of values would depend on which thread comes first.
pub fn total<const D: usize>(x: Tensor<D>) -> Tensor<1> {
    const ROW: usize = 4096;
    let count = x.shape().num_elements();
    let x: Tensor<1> = x.reshape([-1]);
    if count <= ROW {
        return x.sum();
    }
    let whole = count / ROW * ROW;
    let rows: Tensor<2> = x.clone().slice_dim(0, 0..whole).reshape([whole / ROW, ROW]);
    let sum = rows.sum_dim(1).sum();
    if whole == count { sum } else { sum + x.slice_dim(0, whole..count).sum() }
}

struct Step<'a> {
    optimizer: &'a mut AdamW,
    gradients: &'a Summed,
    rate: f64,
    /// Of gradients, and of those that are apart.
    scales: [f64; 2],
    ema_decay: f64,
}

impl ModuleMapper for Step<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let (id, tensor, mapper) = param.consume();
        let Some(gradient) = self.gradients.0.get(&id) else {
            return Param::from_mapped_value(id, tensor, mapper);
        };
        let OptimizerConfig { beta1, beta2, epsilon, weight_decay, .. } = self.optimizer.config;
        let shape = tensor.dims();
        let Apart { parameters, after } = &self.optimizer.apart;
        let (steps, scale) = match parameters.contains(&id) {
            false => (self.optimizer.steps, self.scales[0]),
            true => (self.optimizer.steps.saturating_sub(*after).max(1), self.scales[1]),
        };
        let steps = steps as i32;
        let step = ops::AdamW {
            beta1: beta1 as f32,
            beta2: beta2 as f32,
            corrections: [1.0 - beta1.powi(steps), 1.0 - beta2.powi(steps)].map(|correct| correct as f32),
            epsilon: epsilon as f32,
            rate: self.rate as f32,
            weight_decay: weight_decay as f32,
            scale: scale as f32,
            average_decay: Some(self.ema_decay as f32),
        };
        let moments = self.optimizer.state.remove(&id).expect("every parameter has moments from the start");
        let (value, moments) = adamw(tensor.inner().reshape([-1]), moments, gradient.clone(), step);
        self.optimizer.state.insert(id, moments);
        Param::from_mapped_value(id, Tensor::from_inner(value.reshape(shape)).require_grad(), mapper)
    }
}

struct Replace<'a>(&'a HashMap<ParamId, Moments>);

impl ModuleMapper for Replace<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        match self.0.get(&param.id).and_then(|moments| moments.average.clone()) {
            Some(average) => param.map(|tensor| average.reshape(tensor.dims())),
            None => param,
        }
    }
}

/// The learning rate at `step`, counted from 0, of `steps`: `peak` after a linear warm-up.
pub fn rate_at(schedule: ScheduleConfig, peak: f64, step: u64, steps: u64) -> f64 {
    let ScheduleConfig { shape, warm_up } = schedule;
    if step < warm_up {
        return peak * (step + 1) as f64 / warm_up as f64;
    }
    match shape {
        Shape::Constant => peak,
        Shape::Cosine => {
            let progress = (step - warm_up) as f64 / (steps.saturating_sub(warm_up)).max(1) as f64;
            peak * 0.5 * (1.0 + (std::f64::consts::PI * progress.min(1.0)).cos())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_rise_and_then_stay_or_fall() {
        let rate = |shape, step| rate_at(ScheduleConfig { shape, warm_up: 4 }, 2.0, step, 12);
        for shape in [Shape::Constant, Shape::Cosine] {
            assert_eq!([0, 1, 3].map(|step| rate(shape, step)), [0.5, 1.0, 2.0]);
        }
        assert_eq!(rate(Shape::Constant, 11), 2.0);
        assert!((rate(Shape::Cosine, 8) - 1.0).abs() < 1e-12, "half of the way down");
        assert!(rate(Shape::Cosine, 12).abs() < 1e-12);
        // A run that was made longer goes on at the end of the old one, not beyond.
        assert!(rate(Shape::Cosine, 20).abs() < 1e-12);
    }

    #[derive(Module, Debug)]
    struct Two {
        a: Param<Tensor<1>>,
        b: Param<Tensor<1>>,
    }

    /// A network, a discriminator that is heard late, and the gradient of either so large that it is clipped.
    #[test]
    fn what_is_apart_is_stepped_as_by_an_optimizer_of_its_own() {
        let device = Device::flex().autodiff();
        let value = |values: [f32; 2]| Tensor::<1>::from_floats(values, &device).require_grad();
        let two = || Two {
            a: Param::initialized(ParamId::from(1), value([0.5, -0.3])),
            b: Param::initialized(ParamId::from(2), value([0.2, 0.7])),
        };
        let config = OptimizerConfig { clip_norm: 0.5, weight_decay: 0.01, ..OptimizerConfig::default() };
        let gradients = |network: &Two, parts: &[bool; 2]| {
            let mut sum = Summed::default();
            let factors =
                [[3.0, 1.0], [-20.0, 0.1]].map(|factors| Tensor::<1>::from_floats(factors, &device));
            let [a, b] = [&network.a, &network.b].map(|param| param.val());
            let terms = [(a * factors[0].clone()).sum(), (b * factors[1].clone()).sum()];
            let heard = terms.into_iter().zip(parts).filter(|(_, heard)| **heard).map(|(term, _)| term);
            sum.add(network, &heard.reduce(|a, b| a + b).unwrap().backward());
            sum
        };
        let train = |mut optimizer: AdamW, heard: &[[bool; 2]]| {
            let mut network = two();
            for parts in heard {
                let sum = gradients(&network, parts);
                network = optimizer.step(network, &sum, 1.0, 1e-2).0;
            }
            [network.a, network.b].map(|param| param.val().into_data().iter::<f32>().collect::<Vec<_>>())
        };
        let new = || AdamW::new(config, &two());
        let late = [[true, false], [true, false], [true, true], [true, true]];
        let [a, b] = train(new().with_apart([ParamId::from(2)], 2), &late);
        assert_eq!(a, train(new(), &[[true, false]; 4])[0]);
        assert_eq!(b, train(new(), &[[false, true]; 2])[1]);
        assert_ne!([a, b], train(new(), &late), "otherwise they share norm and count");
    }

    #[test]
    fn a_sum_has_all_values_once() {
        for count in [1, 4096, 4097, 3 * 4096, 20_000] {
            let values: Vec<f32> = (0..count).map(|i| (i % 7) as f32).collect();
            let known: f32 = values.iter().sum();
            let x: Tensor<1> = Tensor::from_data(TensorData::new(values, [count]), &Device::flex());
            assert_eq!(total(x).into_scalar::<f32>(), known, "{count}");
        }
    }
}
