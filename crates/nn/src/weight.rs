//! Weights of convolutions and linear maps, as layers hold them.

use crate::observe::told;
use crate::ops::{self, Following};
use burn::module::{Module, Param};
use burn::tensor::Tensor;
use diffbir_kernels::Products;
use diffbir_kernels::conv::PackedWeight;
use std::fmt;
use std::sync::Arc;

/// The weight of a convolution, `[out, kernel, kernel, in]`, or of a linear map, `[out, in]`.
#[derive(Module, Debug)]
pub struct Weight<const D: usize> {
    /// As training and other devices than the CPU need it. Where it is packed, only its name is left.
    plain: Param<Tensor<D>>,
    #[module(skip)]
    packed: Option<Packed>,
    #[module(skip)]
    products: Products,
}

/// A weight in the order in which the CPU's kernels read it.
#[derive(Clone)]
struct Packed(Arc<PackedWeight>);

impl fmt::Debug for Packed {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{:?} packed for {:?}", self.0.shape(), self.0.products())
    }
}

impl<const D: usize> Weight<D> {
    /// One that can be trained; on the CPU it is multiplied so, forward and backward.
    pub(crate) fn plain(plain: Param<Tensor<D>>, products: Products) -> Self {
        Self { plain, packed: None, products }
    }

    /// One that cannot: `name` holds no values.
    pub(crate) fn packed(name: Param<Tensor<D>>, packed: PackedWeight) -> Self {
        let products = packed.products();
        Self { plain: name, packed: Some(Packed(Arc::new(packed))), products }
    }

    /// In which numbers it is multiplied on the CPU; an attention on its results does the same.
    pub fn products(&self) -> Products {
        self.products
    }
}

impl Weight<4> {
    /// [`Weight::convolve`], or [`Weight::convolve_doubled`], and what follows it as one operation, where there is one.
    #[allow(clippy::result_large_err, reason = "what could not be done goes on as it came")]
    pub(crate) fn convolve_then(
        &self,
        x: Tensor<4>,
        bias: Option<Tensor<1>>,
        stride: usize,
        padding: (usize, usize),
        following: Following,
    ) -> Result<Tensor<4>, (Tensor<4>, Following)> {
        match &self.packed {
            Some(Packed(weight)) if ops::fuses(&x.device()) => {
                let y = ops::conv2d_packed(x, weight.clone(), bias, stride, padding, following);
                Ok(told(&self.plain, y))
            }
            _ => Err((x, following)),
        }
    }

    /// `[batch, height, width, in]` to `[batch, height', width', out]`.
    pub fn convolve(
        &self,
        x: Tensor<4>,
        bias: Option<Tensor<1>>,
        stride: usize,
        padding: (usize, usize),
    ) -> Tensor<4> {
        let y = match &self.packed {
            Some(Packed(weight)) => {
                ops::conv2d_packed(x, weight.clone(), bias, stride, padding, Following::NOTHING)
            }
            None => ops::conv2d(x, self.plain.val(), bias, stride, padding, self.products),
        };
        told(&self.plain, y)
    }

    /// `[batch, height, width, in]`, made twice as large by repeating pixels, to `[batch, 2·height, 2·width, out]`.
    pub fn convolve_doubled(&self, x: Tensor<4>, bias: Option<Tensor<1>>) -> Tensor<4> {
        let y = match &self.packed {
            Some(Packed(weight)) => {
                ops::conv2d_packed(x, weight.clone(), bias, 1, (1, 1), Following::NOTHING)
            }
            None => ops::conv2d_doubled(x, self.plain.val(), bias, self.products),
        };
        told(&self.plain, y)
    }
}

impl Weight<2> {
    /// [`Weight::multiply`] added to `rest` as one operation, where there is one.
    #[allow(clippy::result_large_err, reason = "what could not be done goes on as it came")]
    pub(crate) fn multiply_onto<const D: usize>(
        &self,
        x: Tensor<D>,
        bias: Option<Tensor<1>>,
        rest: Tensor<D>,
    ) -> Result<Tensor<D>, (Tensor<D>, Tensor<D>)> {
        match &self.packed {
            Some(Packed(weight)) if ops::fuses(&x.device()) => {
                let y = ops::linear_packed(x, weight.clone(), bias, Some(rest));
                Ok(told(&self.plain, y))
            }
            _ => Err((x, rest)),
        }
    }

    /// [`Weight::multiply`] and then [`ops::geglu`] as one operation, where there is one.
    #[allow(clippy::result_large_err, reason = "what could not be done goes on as it came")]
    pub(crate) fn multiply_gated<const D: usize>(
        &self,
        x: Tensor<D>,
        bias: Option<Tensor<1>>,
    ) -> Result<Tensor<D>, Tensor<D>> {
        match &self.packed {
            Some(Packed(weight)) if ops::fuses(&x.device()) => {
                Ok(told(&self.plain, ops::gated_linear_packed(x, weight.clone(), bias)))
            }
            _ => Err(x),
        }
    }

    /// `[.., in]` to `[.., out]`.
    pub fn multiply<const D: usize>(&self, x: Tensor<D>, bias: Option<Tensor<1>>) -> Tensor<D> {
        let y = match &self.packed {
            Some(Packed(weight)) => ops::linear_packed(x, weight.clone(), bias, None),
            None => ops::linear(x, self.plain.val(), bias, self.products),
        };
        told(&self.plain, y)
    }
}
