//! Stage 1, the degradation remover: one of several networks behind one face.

use crate::gfpgan::{Gfpgan, GfpganConfig};
use crate::rrdb::{Rrdb, RrdbConfig};
use crate::scunet::{ScuNet, ScuNetConfig};
use crate::sizes::{Checked, SizeError};
use crate::srvgg::{Srvgg, SrvggConfig};
use crate::swinir::{SwinIr, SwinIrConfig};
use burn::module::Module;
use burn::tensor::Tensor;
use diffbir_nn::{Params, WeightError, on_workers};
use serde::{Deserialize, Serialize};

/// Which network, and its sizes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage1Config {
    /// Works at the size of the output.
    SwinIr(SwinIrConfig),
    /// Enlarges by itself.
    Srvgg(SrvggConfig),
    /// Enlarges by itself.
    Rrdb(RrdbConfig),
    /// Works at the size of the output.
    ScuNet(ScuNetConfig),
    /// Takes aligned faces of one size.
    Gfpgan(GfpganConfig),
}

impl Stage1Config {
    /// Layers that [`Stage1::forward_skipping`] can leave out.
    pub fn skippable(&self) -> usize {
        match self {
            Self::SwinIr(config) => config.depths.iter().sum(),
            Self::Srvgg(_) | Self::Rrdb(_) | Self::ScuNet(_) | Self::Gfpgan(_) => 0,
        }
    }

    /// How many times larger the network's output is than its input.
    pub fn upscale(&self) -> usize {
        match self {
            Self::SwinIr(_) | Self::ScuNet(_) | Self::Gfpgan(_) => 1,
            Self::Srvgg(config) => config.upscale,
            Self::Rrdb(config) => config.upscale,
        }
    }

    /// Sides of the input are brought to a multiple of this.
    pub fn multiple_px(&self) -> usize {
        match self {
            Self::SwinIr(config) => config.unshuffle * config.window,
            // It pads by itself, in its own way.
            Self::ScuNet(_) => 1,
            // What it sees is brought to the one side that it takes.
            Self::Srvgg(_) | Self::Gfpgan(_) => 1,
            Self::Rrdb(config) => config.unshuffle(),
        }
    }

    /// The only side of a picture that the network takes, in pixels, if there is but one: that of an aligned face.
    pub fn side_px(&self) -> Option<usize> {
        match self {
            Self::Gfpgan(config) => Some(config.side_px),
            Self::SwinIr(_) | Self::Srvgg(_) | Self::Rrdb(_) | Self::ScuNet(_) => None,
        }
    }

    /// The longer side, in pixels of the input, up to which a picture in one piece takes about a gigabyte.
    pub fn whole_px(&self) -> usize {
        match self {
            Self::SwinIr(_) | Self::Srvgg(_) | Self::ScuNet(_) | Self::Gfpgan(_) => 1024,
            // Its widest layers work at the size of the output.
            Self::Rrdb(_) => 512,
        }
    }

    /// How far an output pixel sees, in pixels of the input; nothing where tiles are to be blended: for a
    /// network whose windows pass context on without a sharp end, or that sees further than a tile is
    /// worth.
    pub fn reach_px(&self) -> Option<usize> {
        match self {
            Self::SwinIr(_) | Self::ScuNet(_) | Self::Gfpgan(_) => None,
            Self::Srvgg(config) => Some(config.convolutions + 2),
            // 15 · blocks + 4: 349 for the official one.
            Self::Rrdb(_) => None,
        }
    }

    /// The network, its tensors at `params`.
    pub fn build(&self, params: &Params) -> Result<Stage1, WeightError> {
        Ok(match self {
            Self::SwinIr(config) => Stage1::SwinIr(config.build(params)?),
            Self::Srvgg(config) => Stage1::Srvgg(config.build(params)?),
            Self::Rrdb(config) => Stage1::Rrdb(config.build(params)?),
            Self::ScuNet(config) => Stage1::ScuNet(config.build(params)?),
            Self::Gfpgan(config) => Stage1::Gfpgan(config.build(params)?),
        })
    }
}

impl Checked for Stage1Config {
    fn check(&self) -> Result<(), SizeError> {
        match self {
            Self::SwinIr(config) => config.check(),
            Self::Srvgg(config) => config.check(),
            Self::Rrdb(config) => config.check(),
            Self::ScuNet(config) => config.check(),
            Self::Gfpgan(config) => config.check(),
        }
    }
}

/// A loaded stage 1.
#[derive(Module, Debug)]
#[allow(clippy::large_enum_variant, reason = "there is one a model")]
pub enum Stage1 {
    /// See [`SwinIr`].
    SwinIr(SwinIr),
    /// See [`Srvgg`].
    Srvgg(Srvgg),
    /// See [`Rrdb`].
    Rrdb(Rrdb),
    /// See [`ScuNet`].
    ScuNet(ScuNet),
    /// See [`Gfpgan`].
    Gfpgan(Gfpgan),
}

impl Stage1 {
    /// In how many parts [`Stage1::forward_watched`] runs.
    pub fn layers(&self) -> usize {
        match self {
            Self::Srvgg(network) => network.layers(),
            Self::Gfpgan(network) => network.layers(),
            Self::SwinIr(_) | Self::Rrdb(_) | Self::ScuNet(_) => 1,
        }
    }

    /// [`Stage1::forward`] in training, where SwinIR heeds `kept`: see [`SwinIr::forward_skipping`].
    pub fn forward_skipping(&self, x: Tensor<4>, kept: Option<Tensor<4>>) -> Tensor<4> {
        match self {
            Self::SwinIr(network) => network.forward_skipping(x, kept),
            Self::Srvgg(_) | Self::Rrdb(_) | Self::ScuNet(_) | Self::Gfpgan(_) => self.forward(x),
        }
    }

    /// [`Stage1::forward`], telling before each part its index; an error of `before` stops it.
    pub fn forward_watched<E>(
        &self,
        x: Tensor<4>,
        before: &mut dyn FnMut(usize) -> Result<(), E>,
    ) -> Result<Tensor<4>, E> {
        match self {
            Self::Srvgg(network) => network.forward_watched(x, before),
            Self::Gfpgan(network) => network.forward_watched(x, before),
            Self::SwinIr(_) | Self::Rrdb(_) | Self::ScuNet(_) => before(0).map(|()| self.forward(x)),
        }
    }

    /// RGB in 0..1 `[b, h, w, 3]` to the same, [`Stage1Config::upscale`] times as large, not clamped.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        on_workers(&x.device(), move || match self {
            Self::SwinIr(network) => network.forward(x),
            Self::Srvgg(network) => network.forward(x),
            Self::Rrdb(network) => network.forward(x),
            Self::ScuNet(network) => network.forward(x),
            Self::Gfpgan(network) => network.forward(x),
        })
    }
}
