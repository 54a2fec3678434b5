//! Weights of convolutions and linear maps, as layers hold them.

use crate::observe::told;
use crate::ops;
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
    /// One that can be trained.
    pub(crate) fn plain(plain: Param<Tensor<D>>) -> Self {
        Self { plain, packed: None }
    }

    /// One that cannot: `name` holds no values.
    pub(crate) fn packed(name: Param<Tensor<D>>, packed: PackedWeight) -> Self {
        Self { plain: name, packed: Some(Packed(Arc::new(packed))) }
    }

    /// In which numbers it is multiplied on the CPU; an attention on its results does the same.
    pub fn products(&self) -> Products {
        self.packed.as_ref().map_or(Products::F32, |Packed(weight)| weight.products())
    }
}

impl Weight<4> {
    /// `[batch, height, width, in]` to `[batch, height', width', out]`.
    pub fn convolve(
        &self,
        x: Tensor<4>,
        bias: Option<Tensor<1>>,
        stride: usize,
        padding: (usize, usize),
    ) -> Tensor<4> {
        let y = match &self.packed {
            Some(Packed(weight)) => ops::conv2d_packed(x, weight.clone(), bias, stride, padding),
            None => ops::conv2d(x, self.plain.val(), bias, stride, padding),
        };
        told(&self.plain, y)
    }

    /// `[batch, height, width, in]`, made twice as large by repeating pixels, to `[batch, 2·height, 2·width, out]`.
    pub fn convolve_doubled(&self, x: Tensor<4>, bias: Option<Tensor<1>>) -> Tensor<4> {
        let y = match &self.packed {
            Some(Packed(weight)) => ops::conv2d_packed(x, weight.clone(), bias, 1, (1, 1)),
            None => ops::conv2d_doubled(x, self.plain.val(), bias),
        };
        told(&self.plain, y)
    }
}

impl Weight<2> {
    /// `[.., in]` to `[.., out]`.
    pub fn multiply<const D: usize>(&self, x: Tensor<D>, bias: Option<Tensor<1>>) -> Tensor<D> {
        let y = match &self.packed {
            Some(Packed(weight)) => ops::linear_packed(x, weight.clone(), bias),
            None => ops::linear(x, self.plain.val(), bias),
        };
        told(&self.plain, y)
    }
}
