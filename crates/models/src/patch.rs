//! A discriminator of patches (pix2pix, arXiv 1611.07004, as VQGAN trains autoencoders with it, arXiv 2012.09841): says
//! of every place whether a picture looks real around it. Where theirs has batch norms it has group norms, which do not
//! depend on what else is in a batch.

use burn::module::Module;
use burn::tensor::Tensor;
use diffbir_nn::layers::{Conv2d, Conv2dConfig, GroupNorm};
use diffbir_nn::{Params, WeightError, ops};

/// Width of the first layer.
const FEATURES: usize = 64;
/// Layers between the first and the last, each twice as wide; all but the last of them halve the size.
const LAYERS: usize = 3;

/// The network; see the module. A place sees 70 pixels a side.
#[derive(Module, Debug)]
pub struct PatchDiscriminator {
    first: Conv2d,
    layers: Vec<Layer>,
    last: Conv2d,
}

#[derive(Module, Debug)]
struct Layer {
    conv: Conv2d,
    norm: GroupNorm,
}

impl PatchDiscriminator {
    /// The network, its tensors at `params`.
    pub fn new(params: &Params) -> Result<Self, WeightError> {
        let conv = |input, output, stride| Conv2dConfig::new(input, output, 4).padding(1, 1).stride(stride);
        let layers = (1..=LAYERS).map(|index| {
            let (input, output) = (FEATURES << (index - 1), FEATURES << index);
            let stride = if index < LAYERS { 2 } else { 1 };
            let place = params.at("layers").at(index - 1);
            Ok(Layer {
                conv: conv(input, output, stride).no_bias().build(&place.at("conv"))?,
                norm: GroupNorm::new(&place.at("norm"), 32, output, 1e-5)?,
            })
        });
        Ok(Self {
            first: conv(3, FEATURES, 2).build(&params.at("first"))?,
            layers: layers.collect::<Result<_, WeightError>>()?,
            last: conv(FEATURES << LAYERS, 1, 1).build(&params.at("last"))?,
        })
    }

    /// Side of the smallest picture that it judges.
    pub const LEAST_PX: usize = 24;

    /// RGB with values 0..1 `[b, h, w, 3]` to judgements `[b, about h / 8, about w / 8, 1]`: higher is more real.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let x = ops::leaky_relu(self.first.forward(x * 2.0 - 1.0), 0.2);
        let x = self
            .layers
            .iter()
            .fold(x, |x, layer| ops::leaky_relu(layer.norm.forward(layer.conv.forward(x)), 0.2));
        self.last.forward(x)
    }
}
