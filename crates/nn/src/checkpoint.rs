//! Checkpoints: safetensors and PyTorch files as a [`Source`] of weights, and writing of safetensors.

use crate::params::{Init, Source, WeightError};
use burn::tensor::TensorData;
use half::{bf16, f16};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

/// The named tensors of a file, in memory.
#[derive(Default, Clone)]
pub struct Checkpoint {
    tensors: BTreeMap<String, (Vec<usize>, Vec<f32>)>,
    used: BTreeSet<String>,
    /// Free text that the file carries, such as the configuration of its networks.
    pub metadata: HashMap<String, String>,
}

impl Checkpoint {
    /// Reads a file by its content: safetensors, or PyTorch's zip and legacy formats (no code in a
    /// pickle is ever run).
    pub fn open(path: &Path) -> Result<Self, WeightError> {
        let fail = |reason: String| WeightError::File { file: path.display().to_string(), reason };
        let mut start = [0; 9];
        let read = std::fs::File::open(path)
            .and_then(|mut file| std::io::Read::read(&mut file, &mut start))
            .map_err(|error| fail(format!("cannot be read: {error}")))?;
        if read == 9 && start[8] == b'{' {
            let bytes = std::fs::read(path).map_err(|error| fail(format!("cannot be read: {error}")))?;
            return Self::from_safetensors(&bytes).map_err(fail);
        }
        Self::from_pytorch(path).map_err(fail)
    }

    /// Reads safetensors from memory; an error says what is wrong.
    pub fn from_safetensors(bytes: &[u8]) -> Result<Self, String> {
        let damaged = |error| format!("is not a whole safetensors file ({error}): download it again");
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(damaged)?;
        let file = SafeTensors::deserialize(bytes).map_err(damaged)?;
        let mut checkpoint =
            Checkpoint { metadata: header.metadata().clone().unwrap_or_default(), ..Default::default() };
        for (name, view) in file.tensors() {
            let format = match view.dtype() {
                Dtype::F16 => Float::F16,
                Dtype::BF16 => Float::Bf16,
                Dtype::F32 => Float::F32,
                Dtype::F64 => Float::F64,
                // Integers are only ever buffers, which networks compute for themselves.
                _ => continue,
            };
            checkpoint.tensors.insert(name, (view.shape().to_vec(), decode(view.data(), format)));
        }
        Ok(checkpoint)
    }

    fn from_pytorch(path: &Path) -> Result<Self, String> {
        let reader = pytorch_reader::PytorchReader::new(path)
            .map_err(|error| format!("is neither safetensors nor a PyTorch checkpoint ({error})"))?;
        let mut checkpoint = Checkpoint::default();
        for (name, tensor) in reader.tensors() {
            let format = match tensor.dtype() {
                pytorch_reader::DType::F16 => Float::F16,
                pytorch_reader::DType::BF16 => Float::Bf16,
                pytorch_reader::DType::F32 => Float::F32,
                pytorch_reader::DType::F64 => Float::F64,
                _ => continue,
            };
            let bytes = tensor.read().map_err(|error| format!("is damaged: {error}"))?;
            checkpoint.tensors.insert(name.clone(), (tensor.shape().to_vec(), decode(&bytes, format)));
        }
        Ok(checkpoint)
    }

    /// A checkpoint of these tensors.
    pub fn from_tensors(tensors: BTreeMap<String, TensorData>) -> Self {
        let tensors = tensors
            .into_iter()
            .map(|(name, data)| (name, (data.shape().to_vec(), data.iter::<f32>().collect())))
            .collect();
        Checkpoint { tensors, ..Default::default() }
    }

    /// The tensors whose names begin with `prefix` and a dot, without that beginning.
    pub fn part(&self, prefix: &str) -> Self {
        let tensors = self
            .tensors
            .iter()
            .filter_map(|(name, tensor)| {
                let rest = name.strip_prefix(prefix)?.strip_prefix('.')?;
                Some((rest.to_string(), tensor.clone()))
            })
            .collect();
        Checkpoint { tensors, metadata: self.metadata.clone(), ..Default::default() }
    }

    /// Adds all tensors of `other` under `prefix` and a dot.
    pub fn insert(&mut self, prefix: &str, other: Checkpoint) {
        self.tensors
            .extend(other.tensors.into_iter().map(|(name, tensor)| (format!("{prefix}.{name}"), tensor)));
    }

    /// Names and shapes.
    pub fn shapes(&self) -> impl Iterator<Item = (&str, &[usize])> {
        self.tensors.iter().map(|(name, (shape, _))| (name.as_str(), shape.as_slice()))
    }

    /// One tensor: shape and values.
    pub fn get(&self, name: &str) -> Option<(&[usize], &[f32])> {
        self.tensors.get(name).map(|(shape, values)| (shape.as_slice(), values.as_slice()))
    }

    /// An error if any tensor was not asked for since the file was opened.
    pub fn expect_all_used(&self) -> Result<(), WeightError> {
        let unknown: Vec<String> =
            self.tensors.keys().filter(|name| !self.used.contains(*name)).cloned().collect();
        if unknown.is_empty() { Ok(()) } else { Err(WeightError::Unknown(unknown)) }
    }

    /// The file's bytes as safetensors, in f32 or, if `half`, in f16.
    pub fn to_safetensors(&self, half: bool) -> Vec<u8> {
        let bytes: Vec<(&String, &[usize], Vec<u8>)> = self
            .tensors
            .iter()
            .map(|(name, (shape, values))| {
                let bytes = if half {
                    values.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()).collect()
                } else {
                    values.iter().flat_map(|v| v.to_le_bytes()).collect()
                };
                (name, shape.as_slice(), bytes)
            })
            .collect();
        let dtype = if half { Dtype::F16 } else { Dtype::F32 };
        let views = bytes.iter().map(|(name, shape, bytes)| {
            let view = TensorView::new(dtype, shape.to_vec(), bytes).expect("bytes of this shape");
            (name.as_str(), view)
        });
        let metadata = (!self.metadata.is_empty()).then(|| self.metadata.clone());
        safetensors::serialize(views, metadata).expect("names are distinct")
    }
}

impl Source for Checkpoint {
    fn values(&mut self, key: &str, shape: &[usize], _: Init) -> Result<Vec<f32>, WeightError> {
        let Some((found, values)) = self.tensors.get(key) else {
            return Err(WeightError::Missing { key: key.into(), shape: shape.to_vec() });
        };
        if found != shape {
            return Err(WeightError::Shape {
                key: key.into(),
                expected: shape.to_vec(),
                found: found.clone(),
            });
        }
        self.used.insert(key.into());
        Ok(values.clone())
    }

    fn skip(&mut self, key: &str) {
        self.used.insert(key.into());
    }
}

/// The number formats whose values are weights.
#[derive(Clone, Copy)]
enum Float {
    F16,
    Bf16,
    F32,
    F64,
}

/// Little-endian bytes as f32.
fn decode(bytes: &[u8], format: Float) -> Vec<f32> {
    fn each<const N: usize>(bytes: &[u8], value: impl Fn([u8; N]) -> f32) -> Vec<f32> {
        bytes.as_chunks::<N>().0.iter().map(|&b| value(b)).collect()
    }
    match format {
        Float::F16 => each(bytes, |b| f16::from_le_bytes(b).to_f32()),
        Float::Bf16 => each(bytes, |b| bf16::from_le_bytes(b).to_f32()),
        Float::F32 => each(bytes, f32::from_le_bytes),
        Float::F64 => each(bytes, |b| f64::from_le_bytes(b) as f32),
    }
}
