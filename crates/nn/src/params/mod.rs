//! Where the parameters of a network come from while it is built, and under which names.
//!
//! Every network is a function from [`Params`] to itself: it asks for each tensor by its official name
//! and shape. The same function therefore loads a checkpoint, starts a training run and lists the names
//! that an official file must have. A parameter's id is a hash of its name, so that optimizer state,
//! averages and files find it again.

mod error;
mod keys;
mod random;

pub use error::WeightError;
pub use keys::{Entry, Keys, Sizes};
pub use random::{Init, RandomInit};

use crate::ops;
use crate::weight::Weight;
use burn::module::{Param, ParamId};
use burn::tensor::{DType, Device, Shape, Tensor, TensorData};
use diffbir_kernels::conv::PackedWeight;
use diffbir_kernels::{Products, bf16_is_fast};
use keys::{Kind, Order, permute};
use std::cell::RefCell;
use std::fmt::Display;
use std::rc::Rc;

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
        shared.keys.add(key, shape, kind);
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
        self.shared.borrow_mut().keys.sizes.add(shape, bytes);
    }

    /// Notes a tensor's name and shape; gives its id and the shape that it is held in.
    fn declare<const D: usize>(&self, name: &str, shape: [usize; D], order: Order) -> (ParamId, [usize; D]) {
        let key = self.at(name).prefix;
        let id = self.shared.borrow_mut().keys.parameter(key, &shape, order);
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
