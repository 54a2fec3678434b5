//! Checkpoints: the named tensors of safetensors and PyTorch files as a [`Source`] of weights, and writing of both.
//!
//! Opening a file reads its index only. A tensor's values are read when they are asked for, so that a
//! network costs its own size and one tensor more, however large the file is.

mod faults;
mod formats;
mod pytorch;
mod views;

use crate::params::{Init, Source, WeightError};
use burn::tensor::TensorData;
pub use formats::Float;
use half::f16;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

/// A file's named tensors, each read when it is asked for.
#[derive(Clone, Default)]
pub struct Checkpoint {
    tensors: BTreeMap<String, Stored>,
    used: BTreeSet<String>,
    /// Its name in errors.
    file: Arc<str>,
    /// Where its tensors lie in the file, for errors: nothing, or a place with its dot.
    place: Arc<str>,
    /// Free text that the file carries, such as the configuration of its networks.
    pub metadata: HashMap<String, String>,
    /// What the file holds beside the tensors of networks, such as an optimizer's state: names of places.
    pub extras: Vec<String>,
    /// What its tensors are called in the file, where they have been renamed: for errors about those that are missing.
    origin: Option<Origin>,
}

/// A tensor at rest.
#[derive(Clone)]
struct Stored {
    shape: Vec<usize>,
    /// None for whole numbers and the like: networks compute those for themselves, they are compared and never read.
    format: Option<Float>,
    read: Read,
    /// Its whole name and its shape in the file where it goes by another name.
    own: Option<(Arc<str>, Vec<usize>)>,
}

/// Gives a tensor's bytes, little-endian in row-major order.
type Read = Arc<dyn Fn() -> io::Result<Cow<'static, [u8]>> + Send + Sync>;

/// From a tensor's name and shape to those that it has in the file, in parts where it is joined from several.
pub type Origin = Arc<dyn Fn(&str, &[usize]) -> Option<(Vec<String>, Vec<usize>)> + Send + Sync>;

/// Told the bytes read so far, may stop the reading.
pub type WatchRead<'a> = dyn FnMut(u64) -> ControlFlow<()> + 'a;

/// Reads a file through, if its format has sums to compare with, as PyTorch's zip has: what was lost or changed on the
/// way shows. `Break` when `watch` stops it.
///
/// # Errors
/// When a part of it is not what it was when it was written.
pub fn check_sums(path: &Path, watch: &mut WatchRead) -> Result<ControlFlow<()>, WeightError> {
    let file = || path.display().to_string();
    formats::check_sums(path, watch).map_err(|reason| WeightError::File { file: file(), reason })
}

/// A tensor in memory: shape and values in row-major order.
pub type Values = (Vec<usize>, Vec<f32>);

impl Checkpoint {
    /// Opens a file by its content: safetensors, or PyTorch's zip and legacy formats (no code in a
    /// pickle is ever run).
    ///
    /// Weights that lie under `state_dict`, `params_ema` or `params`, or whose names all begin with
    /// `module.`, are found under their own names.
    pub fn open(path: &Path) -> Result<Self, WeightError> {
        let file = path.display().to_string();
        formats::open(path)
            .map(|checkpoint| Self { file: file.as_str().into(), place: "".into(), ..checkpoint })
            .map_err(|reason| WeightError::File { file, reason })
    }

    /// Safetensors in memory; `name` is theirs in errors.
    pub fn from_static(bytes: &'static [u8], name: &str) -> Result<Self, WeightError> {
        formats::safetensors_in_memory(bytes)
            .map(|checkpoint| Self { file: name.into(), ..checkpoint })
            .map_err(|reason| WeightError::File { file: name.into(), reason })
    }

    /// A checkpoint of these tensors.
    pub fn from_tensors(tensors: BTreeMap<String, TensorData>) -> Self {
        let tensors = tensors
            .into_iter()
            .map(|(name, data)| {
                let shape = data.shape().to_vec();
                let bytes: Arc<Vec<u8>> = Arc::new(data.iter::<f32>().flat_map(f32::to_le_bytes).collect());
                let read: Read = Arc::new(move || Ok(Cow::Owned(bytes.to_vec())));
                (name, Stored { shape, format: Some(Float::F32), read, own: None })
            })
            .collect();
        Checkpoint { tensors, file: "memory".into(), ..Default::default() }
    }

    /// Its name in errors.
    pub fn name(&self) -> &str {
        &self.file
    }

    /// The same under another name in errors.
    pub fn named(self, name: &str) -> Self {
        Self { file: name.into(), ..self }
    }

    /// Names, shapes and number formats, which whole numbers and the like have none of.
    pub fn entries(&self) -> impl Iterator<Item = (&str, &[usize], Option<Float>)> {
        self.tensors.iter().map(|(name, stored)| (name.as_str(), stored.shape.as_slice(), stored.format))
    }

    /// The tensors that are written again: what networks compute for themselves comes from them.
    fn weights(&self) -> impl Iterator<Item = (&String, &Stored, Float)> {
        self.tensors.iter().filter_map(|(name, stored)| Some((name, stored, stored.format?)))
    }

    /// The shape of a tensor, if it is there.
    pub fn shape_of(&self, name: &str) -> Option<&[usize]> {
        self.tensors.get(name).map(|stored| stored.shape.as_slice())
    }

    /// Whether there is a tensor of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// Reads one tensor, if it is there and its numbers are those of weights.
    pub fn get(&self, name: &str) -> Result<Option<Values>, WeightError> {
        let Some(stored) = self.tensors.get(name) else { return Ok(None) };
        let Some(format) = stored.format else { return Ok(None) };
        let bytes = (stored.read)().map_err(|error| WeightError::File {
            file: self.file.to_string(),
            reason: format!("the tensor `{name}` cannot be read ({error}): is the file whole?"),
        })?;
        Ok(Some((stored.shape.clone(), format.decode(&bytes))))
    }

    /// A sum over names and values of all weights, which any change of one of them changes.
    pub fn sum(&self) -> Result<String, WeightError> {
        const PRIME: u64 = 0x100_0000_01b3;
        let step = |sum: u64, word: u64| (sum ^ word).wrapping_mul(PRIME).rotate_left(23);
        let mut sum = 0xcbf2_9ce4_8422_2325u64;
        for (name, stored, _) in self.weights() {
            let bytes = (stored.read)().map_err(|error| self.unreadable(error))?;
            for bytes in [name.as_bytes(), &bytes] {
                let (words, rest) = bytes.as_chunks::<8>();
                sum = words.iter().fold(sum, |sum, word| step(sum, u64::from_le_bytes(*word)));
                sum = rest.iter().fold(sum, |sum, byte| step(sum, u64::from(*byte)));
            }
        }
        Ok(format!("{sum:016x}"))
    }

    /// The file's bytes as safetensors, in f32 or, if `half`, in f16.
    pub fn to_safetensors(&self, half: bool) -> Result<Vec<u8>, WeightError> {
        let mut bytes = Vec::new();
        self.write_safetensors(half, &mut bytes).map_err(|error| self.unreadable(error))?;
        Ok(bytes)
    }

    /// Writes [`Checkpoint::to_safetensors`] tensor by tensor. The same tensors and metadata give the same bytes.
    pub fn write_safetensors(&self, half: bool, out: &mut dyn io::Write) -> io::Result<()> {
        let (dtype, width) = if half { ("F16", 2) } else { ("F32", 4) };
        let mut index = serde_json::Map::new();
        if !self.metadata.is_empty() {
            let sorted: BTreeMap<_, _> = self.metadata.iter().collect();
            index.insert("__metadata__".into(), serde_json::json!(sorted));
        }
        let mut offset = 0;
        for (name, stored, _) in self.weights() {
            let end = offset + stored.shape.iter().product::<usize>() * width;
            let entry =
                serde_json::json!({ "dtype": dtype, "shape": stored.shape, "data_offsets": [offset, end] });
            index.insert(name.clone(), entry);
            offset = end;
        }
        let mut index = serde_json::to_vec(&index)?;
        // The tensors begin at a multiple of eight bytes.
        index.resize(index.len().next_multiple_of(8), b' ');
        out.write_all(&(index.len() as u64).to_le_bytes())?;
        out.write_all(&index)?;
        for (_, stored, format) in self.weights() {
            let values = format.decode(&(stored.read)()?);
            let bytes: Vec<u8> = if half {
                values.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()).collect()
            } else {
                values.iter().flat_map(|v| v.to_le_bytes()).collect()
            };
            out.write_all(&bytes)?;
        }
        Ok(())
    }

    fn unreadable(&self, error: io::Error) -> WeightError {
        WeightError::File {
            file: self.file.to_string(),
            reason: format!("a tensor cannot be read ({error}): is the file whole?"),
        }
    }
}

impl Source for Checkpoint {
    fn values(&mut self, key: &str, shape: &[usize], _: Init) -> Result<Vec<f32>, WeightError> {
        self.of_weights(key, shape)?;
        self.used.insert(key.into());
        let values = self.get(key)?.expect("found above").1;
        if has_no_number(&values) {
            let reason = format!(
                "the tensor `{}` holds values that are no numbers: get the file again",
                self.whole(key)
            );
            return Err(WeightError::File { file: self.file.to_string(), reason });
        }
        Ok(values)
    }

    fn skip(&mut self, key: &str, shape: &[usize]) -> Result<(), WeightError> {
        self.used.insert(key.into());
        self.of_shape_if_there(key, shape)
    }
}

/// Whether any value is infinite or not a number. No branch in the loop: files hold a billion values.
fn has_no_number(values: &[f32]) -> bool {
    const EXPONENT: u32 = 0x7f80_0000;
    values.iter().fold(false, |found, value| found | (value.to_bits() & EXPONENT == EXPONENT))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two_tensors() -> Checkpoint {
        let tensor = |values: Vec<f32>| TensorData::new(values, [2, 2]);
        Checkpoint::from_tensors(BTreeMap::from([
            ("a.weight".into(), tensor(vec![1.0, -2.5, 0.125, 3e4])),
            ("b.weight".into(), tensor(vec![0.0; 4])),
        ]))
    }

    fn half(shape: &[usize], values: &[f32]) -> Stored {
        let bytes: Vec<u8> = values.iter().flat_map(|value| f16::from_f32(*value).to_le_bytes()).collect();
        let read: Read = Arc::new(move || Ok(Cow::Owned(bytes.clone())));
        Stored { shape: shape.to_vec(), format: Some(Float::F16), read, own: None }
    }

    fn saved(bytes: &[u8]) -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("weights.safetensors");
        std::fs::write(&path, bytes).unwrap();
        (folder, path)
    }

    #[test]
    fn what_is_written_is_read_again_tensor_by_tensor() {
        for half in [false, true] {
            let (_folder, path) = saved(&two_tensors().to_safetensors(half).unwrap());
            let checkpoint = Checkpoint::open(&path).unwrap();
            assert_eq!(
                checkpoint.get("a.weight").unwrap().unwrap(),
                (vec![2, 2], vec![1.0, -2.5, 0.125, 3e4])
            );
            assert!(checkpoint.get("c").unwrap().is_none());
            assert_eq!(checkpoint.part("b").entries().next().unwrap().0, "weight");
        }
    }

    #[test]
    fn missing_misshapen_and_unknown_tensors_name_themselves_and_the_file() {
        let (_folder, path) = saved(&two_tensors().to_safetensors(false).unwrap());
        let mut checkpoint = Checkpoint::open(&path).unwrap();
        let mut ask =
            |key: &str, shape: &[usize]| checkpoint.values(key, shape, Init::FanIn).unwrap_err().to_string();
        let missing = ask("c.weight", &[2, 2]);
        assert!(missing.contains("c.weight") && missing.contains("weights.safetensors"), "{missing}");
        let shape = ask("a.weight", &[4]);
        assert!(shape.contains("[2, 2]") && shape.contains("[4]"), "{shape}");
        checkpoint.values("a.weight", &[2, 2], Init::FanIn).unwrap();
        let unknown = checkpoint.expect_all_used().unwrap_err().to_string();
        assert!(unknown.contains("b.weight"), "{unknown}");
        let shape = checkpoint.skip("b.weight", &[4]).unwrap_err().to_string();
        assert!(shape.contains("b.weight") && shape.contains("[2, 2]"), "{shape}");
        checkpoint.skip("b.weight", &[2, 2]).unwrap();
        checkpoint.expect_all_used().unwrap();
    }

    #[test]
    fn values_that_are_no_numbers_are_the_files_fault() {
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let data = TensorData::new(vec![1.0, value], [2]);
            let mut file = Checkpoint::from_tensors(BTreeMap::from([("a".into(), data)])).named("x.pth");
            let error = file.values("a", &[2], Init::FanIn).unwrap_err().to_string();
            assert!(error.contains("x.pth") && error.contains("`a`"), "{error}");
        }
    }

    #[test]
    fn names_and_shapes_are_compared_without_reading_values() {
        let network = |names: [(&str, usize); 2]| {
            let keys = crate::params::keys_of(|params| {
                params.unused("u", &[7])?;
                names.into_iter().try_for_each(|(name, side)| {
                    params.at(name).tensor("weight", [side, 2], Init::FanIn).map(drop)
                })
            });
            two_tensors().expect(&keys.unwrap()).map_err(|error| error.to_string())
        };
        network([("a", 2), ("b", 2)]).unwrap();
        assert!(network([("a", 2), ("b", 3)]).unwrap_err().contains("[2, 2] where [3, 2]"));
        assert!(network([("a", 2), ("c", 2)]).unwrap_err().contains("lacks the tensor `c.weight`"));
        assert!(network([("a", 2), ("a", 2)]).unwrap_err().contains("does not know, first `b.weight`"));
    }

    #[test]
    fn tensors_are_renamed_reshaped_and_joined() {
        let rule = |name: &str, shape: &[usize]| {
            let name = name.strip_suffix(".weight")?;
            Some((name.to_string(), [shape, &[1]].concat()))
        };
        let mut renamed = two_tensors().renamed(rule);
        assert_eq!(renamed.get("a").unwrap().unwrap().0, [2, 2, 1]);
        renamed.join("c".into(), &["b".into(), "missing".into()]);
        assert!(!renamed.contains("c"));
        let mut taken = renamed.clone();
        taken.join("a".into(), &["b".into(), "b".into()]);
        let told = taken.expect(&crate::params::keys_of(|params| params.unused("a", &[4, 2, 1])).unwrap());
        assert!(
            told.unwrap_err()
                .to_string()
                .contains("1 tensors that the network does not know, first `a.weight`")
        );
        renamed.join("c".into(), &["b".into(), "a".into()]);
        let joined = renamed.get("c").unwrap().unwrap();
        assert_eq!(joined, (vec![4, 2, 1], vec![0.0, 0.0, 0.0, 0.0, 1.0, -2.5, 0.125, 3e4]));
        assert!(!renamed.contains("a"));
        let mut other = renamed.clone();
        other.tensors.insert("h".into(), half(&[4, 2, 1], &[0.5; 8]));
        other.join("i".into(), &["c".into(), "h".into()]);
        let (shape, values) = other.get("i").unwrap().unwrap();
        assert_eq!((shape, &values[6..9]), (vec![8, 2, 1], &[0.125, 3e4, 0.5][..]), "f16 beside f32");
        // Errors name what is in the file, under the names of the file.
        let ask = |key| renamed.clone().values(key, &[2, 2], Init::FanIn).unwrap_err().to_string();
        assert!(ask("c").contains("`b.weight`, `a.weight`"), "{}", ask("c"));
        assert!(ask("d").starts_with("memory: lacks the tensor `d`"), "{}", ask("d"));
        let named = renamed.missing_as(|name, shape| {
            Some((vec![format!("{name}.q"), format!("{name}.k")], shape[1..].to_vec()))
        });
        let told = named.clone().values("d", &[4, 2], Init::FanIn).unwrap_err().to_string();
        assert!(told.contains("lacks the tensor `d.q` of shape [2]"), "{told}");
    }

    #[test]
    fn names_lose_the_wrapper_of_several_cards_one_by_one() {
        let of = |names: [&str; 3]| {
            let data = TensorData::new(vec![1f32], [1]);
            let tensors = names.map(|name| (name.to_string(), data.clone()));
            let (_folder, path) =
                saved(&Checkpoint::from_tensors(tensors.into()).to_safetensors(false).unwrap());
            let found = Checkpoint::open(&path).unwrap();
            found.entries().map(|(name, ..)| name.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(of(["module.a", "module.b", "n_averaged"]), ["a", "b", "n_averaged"]);
        assert_eq!(of(["a", "module.a", "module.b"]), ["a", "b", "module.a"]);
    }

    #[test]
    fn a_file_that_is_cut_short_is_refused_when_it_is_opened() {
        let whole = two_tensors().to_safetensors(false).unwrap();
        for length in [0, 4, 9, 20, whole.len() - 1] {
            let (_folder, path) = saved(&whole[..length]);
            let error = Checkpoint::open(&path).err().expect("refused").to_string();
            assert!(error.contains("weights.safetensors"), "{error}");
        }
    }
}
