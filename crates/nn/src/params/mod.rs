//! Where the parameters of a network come from while it is built, and under which names.
//!
//! Every network is a function from [`Params`] to itself: it asks for each tensor by its official name
//! and shape. The same function therefore loads a checkpoint, starts a training run and lists the names
//! that an official file must have. A parameter's id is a hash of its name, so that optimizer state,
//! averages and files find it again.

use crate::ops;
use crate::weight::Weight;
use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::tensor::{DType, Device, Shape, Tensor, TensorData};
use diffbir_kernels::conv::PackedWeight;
use diffbir_kernels::{Products, bf16_is_fast};
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::fmt::Display;
use std::rc::Rc;

/// What can be wrong with a set of weights.
#[derive(Debug, thiserror::Error)]
pub enum WeightError {
    /// A tensor that the network needs is not there.
    #[error("{file}: lacks the tensor `{key}` of shape {shape:?}: is this file for another network?")]
    Missing {
        /// Which file.
        file: String,
        /// Official name.
        key: String,
        /// Official shape.
        shape: Vec<usize>,
    },
    /// A tensor has another shape than the network needs.
    #[error(
        "{file}: the tensor `{key}` has shape {found:?} where {expected:?} is needed: is this file for another size of the network?"
    )]
    Shape {
        /// Which file.
        file: String,
        /// Official name.
        key: String,
        /// The shape that the network needs.
        expected: Vec<usize>,
        /// The shape in the file.
        found: Vec<usize>,
    },
    /// A tensor is stored in numbers that no weights have, such as whole ones.
    #[error(
        "{file}: the tensor `{key}` is stored in numbers that are no weights: floating point of 16, 32 or 64 bits is needed"
    )]
    Numbers {
        /// Which file.
        file: String,
        /// Official name.
        key: String,
    },
    /// Tensors that the network has no place for.
    #[error("{file}: holds {} tensors that the network does not know, first `{}`: is this file for another network?", .names.len(), .names[0])]
    Unknown {
        /// Which file.
        file: String,
        /// The tensors.
        names: Vec<String>,
    },
    /// The file itself cannot be read.
    #[error("{file}: {reason}")]
    File {
        /// Which file.
        file: String,
        /// What is wrong and what may help.
        reason: String,
    },
}

/// How a parameter starts when a network is trained from nothing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// Uniform in ±1/√fan-in, fan-in being the product of all dimensions but the first (PyTorch's
    /// default for convolutions and linear maps).
    FanIn,
    /// Uniform in ±1/√n, for a bias of a map with fan-in n.
    BiasOf(usize),
    /// Normal with this standard deviation.
    Normal(f32),
    /// A constant.
    Constant(f32),
}

/// How a tensor's dimensions in a checkpoint relate to ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
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
enum Kind {
    Parameter(Order),
    /// A tensor that files hold and that we compute: written when saving, not read.
    Buffer(Rc<dyn Fn() -> TensorData>),
    /// A tensor that files may hold and that nothing reads: neither read nor written.
    Unused,
}

/// Where values come from.
pub trait Source {
    /// The values of `key` in row-major order of `shape`.
    fn values(&mut self, key: &str, shape: &[usize], init: Init) -> Result<Vec<f32>, WeightError>;

    /// Told of each tensor that files hold and that the network computes for itself or does not use: an error if it is
    /// there in another shape.
    fn skip(&mut self, _key: &str, _shape: &[usize]) -> Result<(), WeightError> {
        Ok(())
    }
}

/// The names and shapes of a network's tensors, in the order in which it asked for them.
#[derive(Clone, Default)]
pub struct Keys {
    entries: Vec<Entry>,
    /// What its parameters take.
    sizes: Sizes,
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

struct Shared<'a> {
    /// Nothing: only names are wanted.
    source: Option<&'a mut dyn Source>,
    keys: Keys,
}

/// A place in a network from which tensors are asked for by the rest of their name.
#[derive(Clone)]
pub struct Params<'a> {
    shared: Rc<RefCell<Shared<'a>>>,
    prefix: String,
    device: Device,
    weights: Weights,
}

/// What becomes of weights.
#[derive(Clone, Copy, Default)]
struct Weights {
    /// That they are held in: all tensors with more than one dimension.
    precision: Precision,
    /// Of convolutions and linear maps on the CPU.
    products: Products,
    /// Whether they are laid out for the kernels of the CPU, once and for all.
    packs: bool,
}

/// In which numbers a network's weights are held, and multiplied on the CPU where they are bf16. Norms, biases and
/// what a network asks for in full stay in f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// 32 bits.
    #[default]
    F32,
    /// 16 bits with the range of 32.
    Bf16,
    /// 16 bits, IEEE half.
    F16,
}

impl Precision {
    /// What is fastest on a device at results that are as good: bf16 where the processor multiplies it twice as fast,
    /// f16 on graphics cards that have it.
    pub fn best_on(device: &Device) -> Self {
        if ops::on_cpu(device) {
            return if bf16_is_fast() { Self::Bf16 } else { Self::F32 };
        }
        if device.supports_dtype(DType::F16) { Self::F16 } else { Self::F32 }
    }

    /// Bytes of a number.
    pub fn bytes(self) -> usize {
        self.dtype().size()
    }

    fn dtype(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::Bf16 => DType::BF16,
            Self::F16 => DType::F16,
        }
    }
}

/// Builds a network from a source of values on a device, in f32.
pub fn build<N>(
    source: &mut dyn Source,
    device: &Device,
    network: impl FnOnce(&Params) -> Result<N, WeightError>,
) -> Result<(N, Keys), WeightError> {
    build_to_train(Products::F32, source, device, network)
}

/// The same; on the CPU its convolutions, linear maps and attentions multiply, forward and backward, in other numbers
/// than f32. What a network asks for in full does not.
pub fn build_to_train<N>(
    products: Products,
    source: &mut dyn Source,
    device: &Device,
    network: impl FnOnce(&Params) -> Result<N, WeightError>,
) -> Result<(N, Keys), WeightError> {
    run(Some(source), device, Weights { products, ..Weights::default() }, network)
}

/// Builds a network to be used and not trained, its weights held in `precision`.
pub fn build_in<N>(
    precision: Precision,
    source: &mut dyn Source,
    device: &Device,
    network: impl FnOnce(&Params) -> Result<N, WeightError>,
) -> Result<N, WeightError> {
    Ok(run(Some(source), device, Weights::to_use(precision, device), network)?.0)
}

/// The names and shapes of a network, without any values.
pub fn keys_of<N>(network: impl FnOnce(&Params) -> Result<N, WeightError>) -> Result<Keys, WeightError> {
    Ok(run(None, &Device::flex(), Weights::default(), network)?.1)
}

/// What a network takes that [`build_in`] makes, without any values.
pub fn sizes_in<N>(
    precision: Precision,
    device: &Device,
    network: impl FnOnce(&Params) -> Result<N, WeightError>,
) -> Result<Sizes, WeightError> {
    Ok(run(None, device, Weights::to_use(precision, device), network)?.1.sizes)
}

impl Weights {
    /// Of a network that is used and not trained.
    fn to_use(precision: Precision, device: &Device) -> Self {
        let packs = ops::on_cpu(device) && !device.is_autodiff();
        let products = if precision == Precision::Bf16 { Products::Bf16 } else { Products::F32 };
        Self { precision, products, packs }
    }

    /// Whether the kernels read them laid out: they have no half floats.
    fn are_packed(self) -> bool {
        self.packs && self.precision != Precision::F16
    }
}

fn run<N>(
    source: Option<&mut dyn Source>,
    device: &Device,
    weights: Weights,
    network: impl FnOnce(&Params) -> Result<N, WeightError>,
) -> Result<(N, Keys), WeightError> {
    let shared = Rc::new(RefCell::new(Shared { source, keys: Keys::default() }));
    let params = Params { shared: shared.clone(), prefix: String::new(), device: device.clone(), weights };
    let network = network(&params)?;
    let keys = std::mem::take(&mut shared.borrow_mut().keys);
    Ok((network, keys))
}

impl<'a> Params<'a> {
    /// The place `name` below this one.
    pub fn at(&self, name: impl Display) -> Params<'a> {
        let prefix =
            if self.prefix.is_empty() { name.to_string() } else { format!("{}.{name}", self.prefix) };
        Params { prefix, ..self.clone() }
    }

    /// The same place, for a part of the network that is held in f32 whatever the rest is.
    pub fn in_full(&self) -> Params<'a> {
        let weights = Weights { packs: self.weights.packs, ..Weights::default() };
        Params { weights, ..self.clone() }
    }

    /// The device that the network is built on.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// A tensor of this name and shape, held as it is stored.
    pub fn tensor<const D: usize>(
        &self,
        name: &str,
        shape: [usize; D],
        init: Init,
    ) -> Result<Param<Tensor<D>>, WeightError> {
        let (id, held) = self.declare(name, shape, Order::Same);
        let dtype = if D == 1 { DType::F32 } else { self.weights.precision.dtype() };
        self.note(&shape, dtype.size() * shape.iter().product::<usize>());
        let Some(values) = self.values(name, &shape, init)? else { return Ok(self.without_values(id, held)) };
        Ok(self.with_values(id, held, values, dtype))
    }

    /// A convolution's weight, stored `[out, in, kernel, kernel]` and held `[out, kernel, kernel, in]`; `doubled` if
    /// pixels are repeated before it.
    pub fn convolution(
        &self,
        name: &str,
        [out, kernel, input]: [usize; 3],
        init: Init,
        doubled: bool,
    ) -> Result<Weight<4>, WeightError> {
        self.weight(name, [out, input, kernel, kernel], init, Order::Convolution, doubled)
    }

    /// The weight of a linear map, `[out, in]`.
    pub fn linear(&self, name: &str, shape: [usize; 2], init: Init) -> Result<Weight<2>, WeightError> {
        self.weight(name, shape, init, Order::Same, false)
    }

    /// A tensor that official files hold but that we compute: its values are not read, computed
    /// and written on saving.
    pub fn buffer(
        &self,
        name: &str,
        shape: &[usize],
        values: impl Fn() -> TensorData + 'static,
    ) -> Result<(), WeightError> {
        self.skip(name, shape, Kind::Buffer(Rc::new(values)))
    }

    /// A tensor that official files hold but that the network never uses: its values are not read, it is
    /// missed by nobody, left out on saving.
    pub fn unused(&self, name: &str, shape: &[usize]) -> Result<(), WeightError> {
        self.skip(name, shape, Kind::Unused)
    }

    fn skip(&self, name: &str, shape: &[usize], kind: Kind) -> Result<(), WeightError> {
        let key = self.at(name).prefix;
        let mut shared = self.shared.borrow_mut();
        if let Some(source) = &mut shared.source {
            source.skip(&key, shape)?;
        }
        shared.keys.entries.push(Entry { key, shape: shape.to_vec(), kind });
        Ok(())
    }

    fn weight<const D: usize>(
        &self,
        name: &str,
        shape: [usize; D],
        init: Init,
        order: Order,
        doubled: bool,
    ) -> Result<Weight<D>, WeightError> {
        let (id, held) = self.declare(name, shape, order);
        let Weights { precision, products, .. } = self.weights;
        let sizes = match held[..] {
            [out, kernel, _, input] => [out, kernel, kernel, input],
            [out, input] => [out, 1, 1, input],
            _ => unreachable!("weights are of convolutions or linear maps"),
        };
        self.note(
            &shape,
            match self.weights.are_packed() {
                true => PackedWeight::bytes_of(sizes, products, doubled),
                false => precision.dtype().size() * shape.iter().product::<usize>(),
            },
        );
        let Some(mut values) = self.values(name, &shape, init)? else {
            return Ok(Weight::plain(self.without_values(id, held), products));
        };
        if order == Order::Convolution {
            values = permute(&values, [shape[0], shape[1], shape[2..].iter().product()]);
        }
        if !self.weights.are_packed() {
            return Ok(Weight::plain(self.with_values(id, held, values, precision.dtype()), products));
        }
        // Zeros would pass for values where somebody saves the network.
        let none = |_: &Device, _: bool| panic!("a packed weight has no plain values");
        let name = Param::uninitialized(id, none, self.device.clone(), false, Shape::from(held));
        let pack = if doubled { PackedWeight::doubled } else { PackedWeight::new };
        Ok(Weight::packed(name, pack(&values, sizes, products)))
    }

    /// Notes the bytes that a parameter takes.
    fn note(&self, shape: &[usize], bytes: usize) {
        let sizes = &mut self.shared.borrow_mut().keys.sizes;
        // Its values as they are stored and as floats, or as floats and turned, or as floats and laid out.
        let floats = size_of::<f32>() * shape.iter().product::<usize>();
        sizes.reading = sizes.reading.max(sizes.held + floats + floats.max(bytes));
        sizes.held += bytes;
    }

    /// Notes a tensor's name and shape; gives its id and the shape that it is held in.
    fn declare<const D: usize>(&self, name: &str, shape: [usize; D], order: Order) -> (ParamId, [usize; D]) {
        let key = self.at(name).prefix;
        let id = id_of(&key);
        let keys = &mut self.shared.borrow_mut().keys;
        keys.by_id.insert(id, keys.entries.len());
        keys.entries.push(Entry { key, shape: shape.to_vec(), kind: Kind::Parameter(order) });
        let held = std::array::from_fn(|d| match order {
            Order::Same => shape[d],
            Order::Convolution => shape[[0, 2, 3, 1][d]],
        });
        (id, held)
    }

    /// The values of a tensor in its own order, if there is a source of values.
    fn values(&self, name: &str, shape: &[usize], init: Init) -> Result<Option<Vec<f32>>, WeightError> {
        let source = &mut self.shared.borrow_mut().source;
        source.as_mut().map(|source| source.values(&self.at(name).prefix, shape, init)).transpose()
    }

    /// A parameter with an id alone.
    fn without_values<const D: usize>(&self, id: ParamId, shape: [usize; D]) -> Param<Tensor<D>> {
        let zeros = move |device: &Device, _: bool| Tensor::zeros(shape, device);
        Param::uninitialized(id, zeros, self.device.clone(), true, Shape::from(shape))
    }

    fn with_values<const D: usize>(
        &self,
        id: ParamId,
        shape: [usize; D],
        values: Vec<f32>,
        dtype: DType,
    ) -> Param<Tensor<D>> {
        let tensor = if self.device.is_autodiff() {
            Tensor::from_data(TensorData::new(values, shape), (&self.device, dtype)).require_grad()
        } else {
            // As one row: graphics cards lay rows apart, and each convolution would bring them together.
            let count = values.len();
            Tensor::<1>::from_data(TensorData::new(values, [count]), (&self.device, dtype)).reshape(shape)
        };
        Param::initialized(id, tensor)
    }
}

/// `[a, b, c]` to `[a, c, b]`.
fn permute(values: &[f32], [a, b, c]: [usize; 3]) -> Vec<f32> {
    let mut out = Vec::with_capacity(values.len());
    for i in 0..a {
        for k in 0..c {
            out.extend((0..b).map(|j| values[(i * b + j) * c + k]));
        }
    }
    out
}

/// FNV-1a, 64 bit.
fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |h, byte| (h ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

fn id_of(key: &str) -> ParamId {
    ParamId::from(hash(key))
}

impl Keys {
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

/// Values for a training run: drawn from a seed and the tensor's name, so that the order in which a
/// network asks changes nothing.
pub struct RandomInit {
    /// The run's seed.
    pub seed: u64,
}

impl Source for RandomInit {
    fn values(&mut self, key: &str, shape: &[usize], init: Init) -> Result<Vec<f32>, WeightError> {
        let count = shape.iter().product();
        let mut state = hash(key) ^ self.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut uniform = move || (split_mix(&mut state) >> 40) as f32 / (1 << 24) as f32;
        let fan_in = shape.iter().skip(1).product::<usize>();
        Ok(match init {
            Init::FanIn | Init::BiasOf(_) => {
                let fan_in = if let Init::BiasOf(n) = init { n } else { fan_in };
                let bound = (fan_in.max(1) as f32).powf(-0.5);
                (0..count).map(|_| (2.0 * uniform() - 1.0) * bound).collect()
            }
            Init::Normal(std) => (0..count)
                .map(|_| {
                    let (u, v) = (1.0 - uniform(), uniform());
                    std * (-2.0 * u.ln()).sqrt() * (std::f32::consts::TAU * v).cos()
                })
                .collect(),
            Init::Constant(value) => vec![value; count],
        })
    }
}

fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
