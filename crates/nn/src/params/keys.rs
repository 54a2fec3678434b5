//! The tensors of a network by their official names, shapes and orders of dimensions.

use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::tensor::{Tensor, TensorData};
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

/// How a tensor's dimensions in a checkpoint relate to ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// As stored.
    Same,
    /// Stored `[out, in, kernel, kernel]`, held `[out, kernel, kernel, in]`.
    Convolution,
}

/// One named tensor of a network.
#[derive(Clone)]
pub struct Entry {
    /// Official name.
    pub key: String,
    /// Official shape.
    pub shape: Vec<usize>,
    kind: Kind,
}

impl Entry {
    /// Whether a file must hold it.
    pub fn is_read(&self) -> bool {
        matches!(self.kind, Kind::Parameter(_))
    }

    /// Whether files hold it and the network computes it for itself.
    pub fn is_computed(&self) -> bool {
        matches!(self.kind, Kind::Buffer(_))
    }
}

#[derive(Clone)]
pub(super) enum Kind {
    Parameter(Order),
    /// A tensor that files hold and that we compute: written when saving, not read.
    Buffer(Rc<dyn Fn() -> TensorData>),
    /// A tensor that files may hold and that nothing reads: neither read nor written.
    Unused,
}

/// The names and shapes of a network's tensors, in the order in which it asked for them.
#[derive(Clone, Default)]
pub struct Keys {
    entries: Vec<Entry>,
    /// What its parameters take.
    pub(super) sizes: Sizes,
    by_id: HashMap<ParamId, usize>,
}

/// Bytes that the parameters of a network take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// In memory, all together.
    pub held: usize,
    /// The most of what is there of them and what is held for a while, as one after the other is read as floats and laid out.
    pub reading: usize,
}

impl Sizes {
    /// Adds a parameter of this shape, held in so many bytes.
    pub(super) fn add(&mut self, shape: &[usize], bytes: usize) {
        // Its values as they are stored and as floats, or as floats and turned, or as floats and laid out.
        let floats = size_of::<f32>() * shape.iter().product::<usize>();
        self.reading = self.reading.max(self.held + floats + floats.max(bytes));
        self.held += bytes;
    }
}

impl Keys {
    /// Notes a parameter; gives its id.
    pub(super) fn parameter(&mut self, key: String, shape: &[usize], order: Order) -> ParamId {
        let id = id_of(&key);
        self.by_id.insert(id, self.entries.len());
        self.add(key, shape, Kind::Parameter(order));
        id
    }

    /// Notes a tensor.
    pub(super) fn add(&mut self, key: String, shape: &[usize], kind: Kind) {
        self.entries.push(Entry { key, shape: shape.to_vec(), kind });
    }

    /// Names and shapes in order.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Ids, official names and official shapes of the parameters: no buffers, nothing unused.
    pub fn parameters(&self) -> impl Iterator<Item = (ParamId, &str, &[usize])> {
        self.entries
            .iter()
            .filter(|entry| entry.is_read())
            .map(|entry| (id_of(&entry.key), entry.key.as_str(), entry.shape.as_slice()))
    }

    /// The official name of a parameter.
    ///
    /// # Panics
    /// When the parameter belongs to another network.
    pub fn name(&self, id: ParamId) -> &str {
        &self.entries[self.by_id[&id]].key
    }

    /// All tensors of `network` under their official names and in their official order of dimensions.
    pub fn tensors(&self, network: &impl Module) -> BTreeMap<String, TensorData> {
        struct Collect<'a>(&'a Keys, BTreeMap<String, TensorData>);
        impl ModuleVisitor for Collect<'_> {
            fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
                let entry = &self.0.entries[self.0.by_id[&param.id]];
                let data = param.val().into_data();
                let data = match entry.kind {
                    Kind::Parameter(Order::Convolution) => {
                        let values: Vec<f32> = data.iter::<f32>().collect();
                        let [out, input, kh, kw] = entry.shape[..] else { unreachable!("a convolution") };
                        TensorData::new(permute(&values, [out, kh * kw, input]), entry.shape.clone())
                    }
                    _ => data,
                };
                self.1.insert(entry.key.clone(), data);
            }
        }
        let mut collect = Collect(self, BTreeMap::new());
        network.visit(&mut collect);
        for entry in &self.entries {
            if let Kind::Buffer(values) = &entry.kind {
                collect.1.insert(entry.key.clone(), values());
            }
        }
        collect.1
    }
}

/// `[a, b, c]` to `[a, c, b]`.
pub(super) fn permute(values: &[f32], [a, b, c]: [usize; 3]) -> Vec<f32> {
    let mut out = Vec::with_capacity(values.len());
    for i in 0..a {
        for k in 0..c {
            out.extend((0..b).map(|j| values[(i * b + j) * c + k]));
        }
    }
    out
}

/// FNV-1a, 64 bit.
pub(super) fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |h, byte| (h ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

fn id_of(key: &str) -> ParamId {
    ParamId::from(hash(key))
}
