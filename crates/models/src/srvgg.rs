//! SRVGGNetCompact, the compact x4 network of Real-ESRGAN (arXiv 2107.10833), as a stage 1.
//!
//! A chain of 3x3 convolutions at the size of the input, whose last output is shuffled into pixels and
//! added to the enlarged input. Source of the structure: BasicSR's `srvgg_arch.py` (Apache-2.0).

use crate::sizes::{Checked, MOST_DEEP, SizeError, between, holdable, wide};
use burn::module::Module;
use burn::tensor::Tensor;
use diffbir_nn::layers::{Conv2d, Conv2dConfig, PRelu};
use diffbir_nn::{Params, WeightError, ops};
use serde::{Deserialize, Serialize};
use std::convert::Infallible;

/// The sizes of an [`Srvgg`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SrvggConfig {
    /// Width of the hidden layers.
    pub features: usize,
    /// Hidden convolutions between the first and the last.
    pub convolutions: usize,
    /// How many times larger the output is.
    pub upscale: usize,
}

impl SrvggConfig {
    /// Real-ESRGAN general-x4v3: 1,213,296 parameters.
    pub fn general_x4v3() -> Self {
        Self { features: 64, convolutions: 32, upscale: 4 }
    }

    /// The network, its tensors at `params`.
    pub fn build(&self, params: &Params) -> Result<Srvgg, WeightError> {
        let body = params.at("body");
        let hidden = (0..=self.convolutions)
            .map(|index| {
                let input = if index == 0 { 3 } else { self.features };
                Ok((
                    Conv2dConfig::new(input, self.features, 3).build(&body.at(2 * index))?,
                    PRelu::new(&body.at(2 * index + 1), self.features)?,
                ))
            })
            .collect::<Result<Vec<_>, WeightError>>()?;
        let last = 2 * (self.convolutions + 1);
        Ok(Srvgg {
            hidden,
            last: Conv2dConfig::new(self.features, 3 * self.upscale * self.upscale, 3)
                .build(&body.at(last))?,
            upscale: self.upscale,
        })
    }
}

impl Checked for SrvggConfig {
    fn check(&self) -> Result<(), SizeError> {
        wide("features", self.features)?;
        between("convolutions", self.convolutions, 0..=MOST_DEEP)?;
        between("upscale", self.upscale, 1..=8)?;
        holdable("features", |params| self.build(params))
    }
}

/// The network; see the module.
#[derive(Module, Debug)]
pub struct Srvgg {
    hidden: Vec<(Conv2d, PRelu)>,
    last: Conv2d,
    #[module(skip)]
    upscale: usize,
}

impl Srvgg {
    /// Convolutions, one behind the other.
    pub fn layers(&self) -> usize {
        self.hidden.len() + 1
    }

    /// RGB in 0..1 `[b, h, w, 3]` to `[b, h·upscale, w·upscale, 3]`, not clamped.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let Ok(out) = self.forward_watched(x, &mut |_| Ok::<(), Infallible>(()));
        out
    }

    /// [`Srvgg::forward`], telling before each layer its index; an error of `before` stops it.
    pub fn forward_watched<E>(
        &self,
        x: Tensor<4>,
        before: &mut dyn FnMut(usize) -> Result<(), E>,
    ) -> Result<Tensor<4>, E> {
        before(0)?;
        let [batch, height, width, channels] = x.dims();
        let scale = self.upscale;
        let nearest =
            x.clone().reshape([batch, height, 1, width, 1, channels]).repeat(&[1, 1, scale, 1, scale, 1]);
        let nearest = nearest.reshape([batch, height * scale, width * scale, channels]);
        let features = self.hidden.iter().enumerate().try_fold(x, |x, (index, (conv, prelu))| {
            if index > 0 {
                before(index)?;
            }
            Ok(prelu.forward(conv.forward(x)))
        })?;
        before(self.hidden.len())?;
        let detail = ops::as_result(self.last.forward(features));
        Ok(nearest + ops::pixel_shuffle(detail, scale))
    }
}
