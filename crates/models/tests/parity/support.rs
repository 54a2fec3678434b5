//! Weights and inputs by their formula, and the goldens' files.
#![allow(dead_code, reason = "each file of tests needs a part")]

use burn::tensor::{Device, Tensor, TensorData};
use diffbir_nn::params::{Init, Keys, Source, build};
use diffbir_nn::{Params, WeightError};
use safetensors::SafeTensors;

/// Uniform values in [-1, 1) from FNV-1a of the name and SplitMix64 of the index.
pub fn filler(key: &str, count: usize) -> Vec<f32> {
    salted(0, key, count)
}

/// Other values for each salt.
fn salted(salt: u64, key: &str, count: usize) -> Vec<f32> {
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

/// The weights of a network.
pub struct Formula {
    /// Networks that have names in common get other values by another salt.
    pub salt: u64,
}

impl Source for Formula {
    fn values(&mut self, key: &str, shape: &[usize], init: Init) -> Result<Vec<f32>, WeightError> {
        const SMALL: [&str; 8] =
            ["out_layers.3", "to_out.0", "ff.net.2", "proj_out", "conv2", "mlp.fc2", "mlp.c_proj", "conv5"];
        const HALF: [&str; 3] =
            ["relative_position_bias_table", "relative_position_params", "token_embedding.weight"];
        let name = key.rsplit_once('.').map_or(key, |(name, _)| name);
        let u = salted(self.salt, key, shape.iter().product());
        if init == Init::Constant(0.25) {
            return Ok(u.iter().map(|u| 0.25 + 0.2 * u).collect());
        }
        // Only norms start at constants 1 and, beside such a weight, 0.
        let norm = shape.len() == 1 && matches!(init, Init::Constant(_)) && !is_zeroed_bias(key);
        let scale = |factor: f32, offset: f32| u.iter().map(|u| offset + factor * u).collect();
        Ok(if HALF.iter().any(|end| key.ends_with(end)) {
            scale(0.5, 0.0)
        } else if key.ends_with("positional_embedding") {
            scale(0.1, 0.0)
        } else if norm && key.ends_with(".weight") {
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
    let values: Vec<f32> = filler(&format!("in/{key}"), shape.iter().product()).into_iter().map(f).collect();
    Tensor::from_data(TensorData::new(values, shape), &Device::flex()).permute([0, 2, 3, 1])
}

pub fn root3(u: f32) -> f32 {
    u * 3f32.sqrt()
}

pub fn picture(u: f32) -> f32 {
    (u + 1.0) / 2.0
}

pub fn made<N>(network: impl FnOnce(&Params) -> Result<N, WeightError>) -> N {
    build(&mut Formula { salt: 0 }, &Device::flex(), network).expect("the formula knows every tensor").0
}

pub struct Golden(Vec<u8>);

impl Golden {
    pub fn open(name: &str) -> Self {
        let path = format!("{}/tests/goldens/{name}.safetensors", env!("CARGO_MANIFEST_DIR"));
        Self(std::fs::read(path).expect("goldens are in the repository"))
    }

    /// Compares `[b, h, w, c]` with a golden `[b, c, h, w]`.
    pub fn check(&self, name: &str, got: Tensor<4>, tolerance: f32) {
        let got = got.permute([0, 3, 1, 2]);
        let shape = got.dims();
        self.compare(name, &shape, &got.into_data().iter::<f32>().collect::<Vec<_>>(), tolerance);
    }

    /// A fact from the golden's metadata.
    pub fn fact(&self, name: &str) -> String {
        let (_, header) = SafeTensors::read_metadata(&self.0).expect("a whole file");
        header.metadata().as_ref().expect("metadata").get(name).unwrap_or_else(|| panic!("{name}")).clone()
    }

    /// The shape of a golden, of which every value or every so many are kept.
    pub fn shape(&self, name: &str) -> Vec<usize> {
        let file = SafeTensors::deserialize(&self.0).expect("a whole file");
        file.tensor(name).map_or_else(|_| numbers(&self.fact(&format!("shape.{name}"))), |t| t.shape().to_vec())
    }

    /// Compares values in row-major order, or every so many of them, as the golden keeps them: the
    /// largest error over the largest value.
    pub fn compare(&self, name: &str, shape: &[usize], got: &[f32], tolerance: f32) {
        let file = SafeTensors::deserialize(&self.0).expect("a whole file");
        let (stride, known_shape, golden) = match file.tensor(name) {
            Ok(whole) => (1, whole.shape().to_vec(), whole),
            Err(_) => (
                self.fact(&format!("stride.{name}")).parse().expect("a number"),
                self.shape(name),
                file.tensor(&format!("{name}.sample")).expect("a known name"),
            ),
        };
        let known: Vec<f32> =
            golden.data().as_chunks::<4>().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
        assert_eq!(known_shape, shape, "{name}");
        let got: Vec<f32> = got.iter().step_by(stride).copied().collect();
        assert_eq!(got.len(), known.len(), "{name}");
        let largest = known.iter().fold(0f32, |m, v| m.max(v.abs()));
        let error = got.iter().zip(&known).fold(0f32, |m, (a, b)| m.max((a - b).abs())) / largest;
        println!("{name}: {error:.2e}");
        assert!(error < tolerance, "{name}: error {error:e} of the largest value");
    }

    /// Compares 8-bit values: one in a thousand may differ, and none by more than one level.
    pub fn compare_levels(&self, name: &str, got: &[f32]) {
        let file = SafeTensors::deserialize(&self.0).expect("a whole file");
        let known = file.tensor(&format!("{name}.sample")).expect("a known name");
        let stride: usize = self.fact(&format!("stride.{name}")).parse().expect("a number");
        assert_eq!(self.shape(name).iter().product::<usize>(), got.len(), "{name}");
        let off: Vec<f32> = got
            .iter()
            .step_by(stride)
            .zip(known.data())
            .map(|(got, &known)| (got - f32::from(known)).abs())
            .filter(|off| *off > 0.0)
            .collect();
        println!("{name}: {} of {} values differ", off.len(), known.data().len());
        assert!(off.iter().all(|off| *off <= 1.0), "{name}: {off:?}");
        assert!(off.len() * 1000 <= known.data().len(), "{name}: {} differ", off.len());
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
        let (_, header) = SafeTensors::read_metadata(&self.0).expect("a whole file");
        let known = &header.metadata().as_ref().expect("metadata")[&format!("official_{name}")];
        assert_eq!(&format!("{} {:016x}", lines.len(), fnv(&lines.join("\n"))), known, "{name}");
    }
}

/// The whole numbers in a text, in order.
fn numbers(text: &str) -> Vec<usize> {
    text.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect()
}
