//! The control branch, IRControlNet (paper section 3.2; reference 1.2): the UNet's way down once more,
//! fed with the noisy latent beside the latent of the stage-1 picture, its outputs added to the UNet's
//! skips.

use crate::unet::{Control, Encoder, UnetConfig, encoder_widths};
use burn::module::Module;
use burn::tensor::Tensor;
use diffbir_nn::layers::{Conv2d, Conv2dConfig};
use diffbir_nn::{Params, WeightError};

/// The branch; see the module. Official: 363,153,280 parameters, 324 tensors.
#[derive(Module, Debug)]
pub struct ControlNet {
    encoder: Encoder,
    zero_convs: Vec<Conv2d>,
    middle_out: Conv2d,
}

impl ControlNet {
    /// The branch for a UNet of this configuration, its tensors at `params`.
    pub fn new(params: &Params, config: &UnetConfig) -> Result<Self, WeightError> {
        // The latent and, behind it, the hint: both latents of the same depth.
        let encoder = Encoder::new(params, config, 2 * config.latent_channels)?;
        let widths = encoder_widths(config);
        let zero = |width: usize| Conv2dConfig::new(width, width, 1).zero();
        let zero_convs = widths
            .iter()
            .enumerate()
            .map(|(index, &width)| zero(width).build(&params.at("zero_convs").at(index).at(0)))
            .collect::<Result<Vec<_>, _>>()?;
        let middle = *widths.last().expect("at least the first convolution");
        Ok(Self { encoder, zero_convs, middle_out: zero(middle).build(&params.at("middle_block_out.0"))? })
    }

    /// What is added to the UNet, times `strength`: for noisy latents `x` and the hint `c_img`, both
    /// `[b, h, w, c]`, at `timesteps[b]`, with text tokens `context`.
    pub fn forward(
        &self,
        x: Tensor<4>,
        c_img: Tensor<4>,
        timesteps: Tensor<1>,
        context: Tensor<3>,
        strength: f64,
    ) -> Control {
        let time = self.encoder.time(timesteps);
        let (skips, middle) = self.encoder.forward(Tensor::cat(vec![x, c_img], 3), &time, &context);
        let scaled = |x: Tensor<4>| if strength == 1.0 { x } else { x * strength };
        let mut out: Vec<Tensor<4>> =
            skips.into_iter().zip(&self.zero_convs).map(|(skip, conv)| scaled(conv.forward(skip))).collect();
        out.push(scaled(self.middle_out.forward(middle)));
        Control(out)
    }
}
