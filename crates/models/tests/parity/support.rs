//! Weights and inputs by their formula, and the goldens' files.
#![allow(dead_code, reason = "each file of tests needs a part")]

use burn::tensor::{Device, Tensor, TensorData};
use diffbir_nn::checkpoint::Checkpoint;
use diffbir_nn::observe;
use diffbir_nn::params::{Init, Keys, Source, build};
use diffbir_nn::{Module, Params, WeightError};
use safetensors::{Dtype, SafeTensors};
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

/// Uniform values in [-1, 1) from FNV-1a of the name and SplitMix64 of the index.
pub fn filler(salt: u32, key: &str, count: usize) -> Vec<f32> {
    let hash = fnv(&format!("{salt}:{key}"));
    (0..count as u64)
        .map(|i| {
            let mut z = hash.wrapping_add((i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^= z >> 31;
            ((z >> 40) as f64 * 2f64.powi(-23) - 1.0) as f32
        })
        .collect()
}

fn fnv(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |h, byte| (h ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

/// Weights by the formula.
pub struct Formula {
    pub salt: u32,
}

impl Source for Formula {
    fn values(&mut self, key: &str, shape: &[usize], init: Init) -> Result<Vec<f32>, WeightError> {
        const SMALL: [&str; 8] =
            ["out_layers.3", "to_out.0", "ff.net.2", "proj_out", "conv2", "mlp.fc2", "mlp.c_proj", "conv5"];
        const HALF: [&str; 3] =
            ["relative_position_bias_table", "relative_position_params", "token_embedding.weight"];
        let name = key.rsplit_once('.').map_or(key, |(name, _)| name);
        let u = filler(self.salt, key, shape.iter().product());
        if init == Init::Constant(0.25) {
            return Ok(u.iter().map(|u| 0.25 + 0.2 * u).collect());
        }
        // Only norms start at constants 1 and, beside such a weight, 0.
        let norm = shape.len() == 1 && matches!(init, Init::Constant(_)) && !is_zeroed_bias(key);
        let scale = |factor: f32, offset: f32| u.iter().map(|u| offset + factor * u).collect();
        let factor = key.ends_with(".weight") || key.ends_with(".running_var");
        Ok(if HALF.iter().any(|end| key.ends_with(end)) {
            scale(0.5, 0.0)
        } else if key.ends_with("modulation.bias") {
            scale(0.2, 1.0)
        } else if key.ends_with("constant_input.weight") || key.contains(".noises.") {
            scale(3f32.sqrt(), 0.0)
        } else if key.ends_with("positional_embedding") {
            scale(0.1, 0.0)
        } else if norm && factor {
            scale(0.2, 1.0)
        } else if norm {
            scale(0.1, 0.0)
        } else if key.ends_with("bias") {
            scale(0.05, 0.0)
        } else {
            let mut gain = if SMALL.iter().any(|small| name.ends_with(small)) { 0.3 } else { 1.0 };
            if key.contains("zero_convs") || key.contains("middle_block_out") {
                gain = 0.5;
            }
            let fan_in: usize = shape[1..].iter().product();
            scale(((3.0 / fan_in as f64).sqrt() * gain) as f32, 0.0)
        })
    }
}

/// Biases of convolutions that start at zero, which are no norms.
fn is_zeroed_bias(key: &str) -> bool {
    ["out_layers.3.bias", "out.2.bias"].iter().any(|end| key.ends_with(end))
        || key.contains("zero_convs")
        || key.contains("middle_block_out")
}

/// An input `[b, c, h, w]` by the formula, as `[b, h, w, c]`, every value through `f`.
pub fn given(key: &str, shape: [usize; 4], f: impl Fn(f32) -> f32) -> Tensor<4> {
    let values: Vec<f32> =
        filler(0, &format!("in/{key}"), shape.iter().product()).into_iter().map(f).collect();
    Tensor::from_data(TensorData::new(values, shape), &Device::flex()).permute([0, 2, 3, 1])
}

/// Text tokens by the formula.
pub fn context(key: &str, shape: [usize; 3]) -> Tensor<3> {
    let values = filler(0, &format!("in/{key}"), shape.iter().product());
    Tensor::from_data(TensorData::new(values.into_iter().map(root3).collect(), shape), &Device::flex())
}

pub fn root3(u: f32) -> f32 {
    u * 3f32.sqrt()
}

pub fn picture(u: f32) -> f32 {
    (u + 1.0) / 2.0
}

pub fn made<N>(network: impl FnOnce(&Params) -> Result<N, WeightError>) -> N {
    keyed(0, network).0
}

/// A network with the weights of a salt, and their names.
pub fn keyed<N>(salt: u32, network: impl FnOnce(&Params) -> Result<N, WeightError>) -> (N, Keys) {
    build(&mut Formula { salt }, &Device::flex(), network).expect("the formula knows every tensor")
}

/// The weights of a network by the formula, as its file holds them.
pub fn weights<N: Module>(salt: u32, network: impl FnOnce(&Params) -> Result<N, WeightError>) -> Checkpoint {
    let (network, keys) = keyed(salt, network);
    Checkpoint::from_tensors(keys.tensors(&network))
}

pub struct Golden {
    tensors: HashMap<String, (Vec<usize>, Vec<f32>)>,
    facts: HashMap<String, String>,
}

impl Golden {
    /// One of this crate's goldens.
    pub fn open(name: &str) -> Self {
        Self::read(&format!("{}/tests/goldens/{name}.safetensors", env!("CARGO_MANIFEST_DIR")))
    }

    pub fn read(path: &str) -> Self {
        let bytes = std::fs::read(path).expect("goldens are in the repository");
        let file = SafeTensors::deserialize(&bytes).expect("a whole file");
        let tensors = file
            .iter()
            .map(|(name, view)| {
                let values = match view.dtype() {
                    Dtype::U8 => view.data().iter().map(|&byte| f32::from(byte)).collect(),
                    _ => view.data().as_chunks::<4>().0.iter().map(|&b| f32::from_le_bytes(b)).collect(),
                };
                (name.to_string(), (view.shape().to_vec(), values))
            })
            .collect();
        let (_, header) = SafeTensors::read_metadata(&bytes).expect("a whole file");
        Self { tensors, facts: header.metadata().clone().expect("metadata") }
    }

    /// Compares `[b, h, w, c]` with a golden `[b, c, h, w]`.
    pub fn check(&self, name: &str, got: Tensor<4>) {
        let got = got.permute([0, 3, 1, 2]);
        let shape = got.dims();
        self.compare(name, &shape, &got.into_data().iter::<f32>().collect::<Vec<_>>());
    }

    /// Compares values in row-major order, or every so many of them and their statistics, as the golden
    /// keeps them.
    pub fn compare(&self, name: &str, shape: &[usize], got: &[f32]) {
        let floor = self.facts.get(&format!("floor.{name}"));
        self.compare_within(name, shape, got, allowed(floor.map(|floor| floor.parse().expect("a number"))));
    }

    /// The same with another error allowed, over the largest value.
    pub fn compare_within(&self, name: &str, shape: &[usize], got: &[f32], allowed: f64) {
        let error = if let Some((known_shape, known)) = self.tensors.get(name) {
            assert_eq!(known_shape, shape, "{name}");
            error_of(got, known)
        } else {
            assert_eq!(numbers(&self.facts[&format!("shape.{name}")]), shape, "{name}");
            let stride = self.facts[&format!("stride.{name}")].parse().expect("a number");
            let sample: Vec<f32> = got.iter().step_by(stride).copied().collect();
            let stats = &self.tensors[&format!("{name}.stats")].1;
            let sampled = error_of(&sample, &self.tensors[&format!("{name}.sample")].1);
            sampled.max(error_of_stats(&stats_of(got), stats))
        };
        println!("{name}: {error:.1e} of {allowed:.1e}");
        assert!(error <= allowed, "{name}: error {error:e} of the largest value, {allowed:e} allowed");
    }

    /// Compares 8-bit values: one in a thousand may differ, and none by more than one level.
    pub fn compare_levels(&self, name: &str, got: &[f32]) {
        self.compare_levels_but(name, got, 0.001);
    }

    /// The same where this share of the values may differ, by one level.
    pub fn compare_levels_but(&self, name: &str, got: &[f32], share: f64) {
        let known = &self.tensors[&format!("{name}.sample")].1;
        let stride = self.fact(&format!("stride.{name}")).parse().expect("a number");
        assert_eq!(self.shape(name).iter().product::<usize>(), got.len(), "{name}");
        let off = got.iter().step_by(stride).zip(known).map(|(got, known)| (got - known).abs());
        let off: Vec<f32> = off.filter(|off| *off > 0.0).collect();
        println!("{name}: {} of {} values differ", off.len(), known.len());
        assert!(off.iter().all(|off| *off <= 1.0), "{name}: {off:?}");
        let allowed = share * known.len() as f64;
        assert!(off.len() as f64 <= allowed, "{name}: {} of {} differ", off.len(), known.len());
    }

    /// 1 - cosine of the angle between a sampled golden and the same sample of `got`.
    pub fn cosine_distance(&self, name: &str, got: &[f32]) -> f64 {
        let known = &self.tensors[&format!("{name}.sample")].1;
        let stride = self.fact(&format!("stride.{name}")).parse().expect("a number");
        let pairs = || got.iter().step_by(stride).zip(known).map(|(a, b)| (f64::from(*a), f64::from(*b)));
        let dot: f64 = pairs().map(|(a, b)| a * b).sum();
        let norms: f64 = pairs().map(|(a, _)| a * a).sum::<f64>() * pairs().map(|(_, b)| b * b).sum::<f64>();
        1.0 - dot / norms.sqrt()
    }

    /// A tensor of the golden, whole.
    pub fn values(&self, name: &str) -> &[f32] {
        &self.tensors.get(name).unwrap_or_else(|| panic!("the golden has no {name}")).1
    }

    /// A fact about the golden.
    pub fn fact(&self, name: &str) -> &str {
        self.facts.get(name).unwrap_or_else(|| panic!("the golden does not say {name}"))
    }

    /// Whether there is a golden of this name.
    pub fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name) || self.tensors.contains_key(&format!("{name}.sample"))
    }

    /// The shape of a golden, whole or sampled.
    pub fn shape(&self, name: &str) -> Vec<usize> {
        match self.tensors.get(name) {
            Some((shape, _)) => shape.clone(),
            None => numbers(self.fact(&format!("shape.{name}"))),
        }
    }

    /// Runs a network and compares the output of each of its layers, by name, with the golden's, all of
    /// which it must have.
    pub fn check_layers<R>(&self, name: &str, keys: &Keys, network: impl FnOnce() -> R) -> R {
        let heard = Rc::new(RefCell::new(HashMap::new()));
        let (into, keys) = (heard.clone(), keys.clone());
        let listener = move |id, data: TensorData| {
            let layer = keys.name(id).trim_end_matches(".weight").to_string();
            into.borrow_mut().entry(layer).or_insert_with_key(|layer| Layer::of(layer, &data));
        };
        let result = observe::layers(listener, network);
        let heard = heard.borrow();
        let known: Vec<(String, usize, Option<f64>)> =
            serde_json::from_str(&self.facts[&format!("layers.{name}")]).expect("a list");
        let stats = &self.tensors[&format!("{name}.stats")].1;
        let mut samples = self.tensors[&format!("{name}.samples")].1.as_slice();
        let mut largest = 0f64;
        for (index, (layer, count, floor)) in known.iter().enumerate() {
            let at = format!("{name}: {layer}");
            let got = heard.get(layer).unwrap_or_else(|| panic!("{at} was never run"));
            assert_eq!(got.count, *count, "{at}");
            let (sample, rest) = samples.split_at(got.sample.len());
            samples = rest;
            // Over the largest value of the layer, not of the sample.
            let stats = &stats[index * 5..][..5];
            let scale = f64::from(stats[2].abs().max(stats[3].abs()));
            let error = difference(&got.sample, sample) / scale;
            let error = error.max(error_of_stats(&got.stats, stats));
            let allowed = allowed(*floor);
            assert!(error <= allowed, "{at}: error {error:e} of the largest value, {allowed:e} allowed");
            largest = largest.max(error);
        }
        assert!(samples.is_empty(), "{name}");
        println!("{name}: {largest:.1e} in {} layers", known.len());
        result
    }

    /// Names and shapes at official size against the reference's.
    pub fn check_keys(&self, name: &str, keys: &Keys) {
        let mut lines: Vec<String> = keys
            .entries()
            .iter()
            .map(|entry| {
                let shape: Vec<String> = entry.shape.iter().map(ToString::to_string).collect();
                format!("{} {}", entry.key, shape.join("x"))
            })
            .collect();
        lines.sort();
        let known = &self.facts[&format!("official_{name}")];
        assert_eq!(&format!("{} {:016x}", lines.len(), fnv(&lines.join("\n"))), known, "{name}");
    }
}

/// The error that may be, over the largest value: ten times what float32 brings to the reference itself, where
/// that is known.
fn allowed(floor: Option<f64>) -> f64 {
    floor.map_or(2e-5, |floor| (10.0 * floor).max(1e-5))
}

/// What is kept of a layer's output.
struct Layer {
    count: usize,
    stats: [f64; 5],
    sample: Vec<f32>,
}

impl Layer {
    fn of(name: &str, data: &TensorData) -> Self {
        const SAMPLES: usize = 32;
        // Their windows may come in any order.
        const WINDOWED: [&str; 4] = ["attn.qkv", "attn.proj", "msa.embedding_layer", "msa.linear"];
        let mut values: Vec<f32> = data.iter::<f32>().collect();
        if WINDOWED.iter().any(|end| name.ends_with(end)) {
            values.sort_by(f32::total_cmp);
        }
        let mut stride = values.len().div_ceil(SAMPLES);
        while gcd(stride, values.len()) != 1 {
            stride += 1;
        }
        let sample = values.iter().step_by(stride).copied().collect();
        Self { count: values.len(), stats: stats_of(&values), sample }
    }
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Mean, standard deviation, smallest, largest, norm.
fn stats_of(values: &[f32]) -> [f64; 5] {
    let count = values.len() as f64;
    let values = values.iter().map(|&value| f64::from(value));
    let mean = values.clone().sum::<f64>() / count;
    let deviation = (values.clone().map(|value| (value - mean).powi(2)).sum::<f64>() / count).sqrt();
    let (least, most) = (values.clone().fold(f64::MAX, f64::min), values.clone().fold(f64::MIN, f64::max));
    [mean, deviation, least, most, values.map(|value| value * value).sum::<f64>().sqrt()]
}

/// The largest difference of statistics over the largest value; of the norm over itself.
fn error_of_stats(got: &[f64; 5], known: &[f32]) -> f64 {
    let known: Vec<f64> = known.iter().map(|&value| f64::from(value)).collect();
    let largest = known[2].abs().max(known[3].abs());
    let error = |index: usize| (got[index] - known[index]).abs();
    (0..4).map(error).fold(0.0, f64::max) / largest + error(4) / known[4]
}

fn difference(got: &[f32], known: &[f32]) -> f64 {
    assert_eq!(got.len(), known.len());
    got.iter().zip(known).fold(0f64, |m, (a, b)| m.max((f64::from(*a) - f64::from(*b)).abs()))
}

/// The largest error over the largest value.
fn error_of(got: &[f32], known: &[f32]) -> f64 {
    difference(got, known) / known.iter().fold(0f64, |m, v| m.max(f64::from(v.abs())))
}

/// The whole numbers in a text, in order.
fn numbers(text: &str) -> Vec<usize> {
    text.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect()
}
