//! GFPGAN in its clean form (arXiv 2101.04061), which restores an aligned face: a U-Net that takes the damage away and says
//! what the face is, and StyleGAN2's generator (arXiv 1912.04958), which draws it.
//!
//! The U-Net's lowest level gives a style for each layer of the generator; on its way up each level gives a factor and a
//! summand for half of the generator's channels of the same size. Convolutions of the generator have weights scaled by the
//! style; here the activations are scaled before and after, which is the same and leaves the weight as it is. Its noise is
//! that which the file holds. Source of the structure: PyPI's gfpgan 1.3.8 (Apache-2.0).

use crate::sizes::{Checked, MOST_DEEP, SizeError, between, holdable, multiple, power_of_two, wide};
use burn::module::{Module, Param};
use burn::tensor::Tensor;
use diffbir_nn::layers::{Conv2d, Conv2dConfig, Linear};
use diffbir_nn::params::Init;
use diffbir_nn::{Params, Products, WeightError, ops};
use serde::{Deserialize, Serialize};
use std::convert::Infallible;
use std::f64::consts::SQRT_2;

/// Slope of all activations where negative.
const SLOPE: f64 = 0.2;

/// Side of the generator's constant input, in pixels.
const FIRST_PX: usize = 4;

/// The sizes of a [`Gfpgan`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GfpganConfig {
    /// Side of the face, in pixels: a power of two, 8 at least.
    pub side_px: usize,
    /// Width of the generator up to 64 pixels; it halves with each doubling from there. The U-Net is half as wide.
    pub features: usize,
    /// Width of a style.
    pub style: usize,
    /// Linear maps from random numbers to styles, which files hold and faces do not need.
    pub mapping: usize,
}

impl GfpganConfig {
    /// v1.2, v1.3 and v1.4: 84,339,239 parameters that are used, beside the noise.
    pub fn official() -> Self {
        Self { side_px: 512, features: 512, style: 512, mapping: 8 }
    }

    /// Width of the generator at this side.
    fn width(&self, side_px: usize) -> usize {
        self.features * 64 / side_px.max(64)
    }

    /// Sides above the first, each twice the one before.
    fn sides(&self) -> Vec<usize> {
        (1..).map(|level| FIRST_PX << level).take_while(|side| *side <= self.side_px).collect()
    }

    /// The network, its tensors at `params`.
    pub fn build(&self, params: &Params) -> Result<Gfpgan, WeightError> {
        // Scales by styles multiply along the way: half floats are no place for it.
        let params = &params.in_full();
        let sides = self.sides();
        let narrow = |side: usize| self.width(side) / 2;
        let (lowest, levels) = (narrow(FIRST_PX), sides.len());
        let down = |(index, &side): (usize, &usize)| {
            let place = params.at("conv_body_down").at(index);
            ResBlock::new(&place, narrow(side), narrow(side / 2), Scale::Down)
        };
        let up = |(index, &side): (usize, &usize)| {
            let place = params.at("conv_body_up").at(index);
            ResBlock::new(&place, narrow(side / 2), narrow(side), Scale::Up)
        };
        let condition = |name: &'static str| {
            let one = move |(index, &side): (usize, &usize)| {
                let (place, width) = (params.at(name).at(index), narrow(side));
                let conv = |layer: usize| Conv2dConfig::new(width, width, 3).build(&place.at(layer));
                Ok((conv(0)?, conv(2)?))
            };
            sides.iter().enumerate().map(one).collect::<Result<_, WeightError>>()
        };
        // Pictures of each level, which only training looks at.
        for (index, &side) in sides.iter().enumerate() {
            params.at("toRGB").at(index).unused("weight", &[3, narrow(side), 1, 1])?;
            params.at("toRGB").at(index).unused("bias", &[3])?;
        }
        let styles = 2 * (levels + 1);
        Ok(Gfpgan {
            first: Conv2dConfig::new(3, narrow(self.side_px), 1).build(&params.at("conv_body_first"))?,
            down: sides.iter().rev().enumerate().map(down).collect::<Result<_, _>>()?,
            last: Conv2dConfig::new(lowest, lowest, 3).build(&params.at("final_conv"))?,
            to_styles: Linear::new(
                &params.at("final_linear"),
                lowest * FIRST_PX * FIRST_PX,
                styles * self.style,
            )?,
            up: sides.iter().enumerate().map(up).collect::<Result<_, _>>()?,
            scale: condition("condition_scale")?,
            shift: condition("condition_shift")?,
            generator: Generator::new(&params.at("stylegan_decoder"), self)?,
            styles,
        })
    }
}

impl Checked for GfpganConfig {
    fn check(&self) -> Result<(), SizeError> {
        between("side_px", self.side_px, 2 * FIRST_PX..=1024)?;
        power_of_two("side_px", self.side_px)?;
        wide("features", self.features)?;
        let halvings = 2 * self.side_px.max(64) / 64;
        multiple("features", self.features, halvings, "so often it is halved up to this side")?;
        wide("style", self.style)?;
        between("mapping", self.mapping, 0..=MOST_DEEP)?;
        holdable("features", |params| self.build(params))
    }
}

/// The network; see the module.
#[derive(Module, Debug)]
pub struct Gfpgan {
    first: Conv2d,
    down: Vec<ResBlock>,
    last: Conv2d,
    to_styles: Linear,
    up: Vec<ResBlock>,
    scale: Vec<(Conv2d, Conv2d)>,
    shift: Vec<(Conv2d, Conv2d)>,
    generator: Generator,
    #[module(skip)]
    styles: usize,
}

impl Gfpgan {
    /// In how many parts [`Gfpgan::forward_watched`] runs: the levels of the U-Net down and up, and those of the generator.
    pub fn layers(&self) -> usize {
        3 * self.down.len()
    }

    /// An aligned face, RGB in 0..1 `[b, side, side, 3]`, to the same, not clamped.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let Ok(out) = self.forward_watched(x, &mut |_| Ok::<(), Infallible>(()));
        out
    }

    /// [`Gfpgan::forward`], telling before each part its index; an error of `before` stops it.
    pub fn forward_watched<E>(
        &self,
        x: Tensor<4>,
        before: &mut dyn FnMut(usize) -> Result<(), E>,
    ) -> Result<Tensor<4>, E> {
        let levels = self.down.len();
        let mut x = leaky(self.first.forward(x * 2.0 - 1.0));
        let mut seen = Vec::with_capacity(levels);
        for (index, block) in self.down.iter().enumerate() {
            before(index)?;
            x = block.forward(x);
            seen.push(x.clone());
        }
        x = leaky(self.last.forward(x));
        let styles = self.styles_of(x.clone());
        let mut conditions = Vec::with_capacity(levels);
        for (index, block) in self.up.iter().enumerate() {
            before(levels + index)?;
            x = block.forward(x + seen.pop().expect("one for each level"));
            let of = |(first, second): &(Conv2d, Conv2d)| second.forward(leaky(first.forward(x.clone())));
            conditions.push((of(&self.scale[index]), of(&self.shift[index])));
        }
        let picture = self.generator.forward(&styles, conditions, &mut |index| before(2 * levels + index))?;
        Ok((picture + 1.0) / 2.0)
    }

    /// A style `[b, style]` for each layer of the generator from the lowest level.
    fn styles_of(&self, x: Tensor<4>) -> Vec<Tensor<2>> {
        let [batch, height, width, channels] = x.dims();
        // Files have channels first.
        let x = x.permute([0, 3, 1, 2]).reshape([batch, channels * height * width]);
        self.to_styles.forward(x).chunk(self.styles, 1)
    }
}

/// What a block does to the size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scale {
    Down,
    Up,
}

/// Two convolutions, the size changed between them, beside a linear map of the resized input.
#[derive(Module, Debug)]
struct ResBlock {
    conv1: Conv2d,
    conv2: Conv2d,
    skip: Conv2d,
    #[module(skip)]
    enlarges: bool,
}

impl ResBlock {
    fn new(params: &Params, input: usize, output: usize, scale: Scale) -> Result<Self, WeightError> {
        Ok(Self {
            conv1: Conv2dConfig::new(input, input, 3).build(&params.at("conv1"))?,
            conv2: Conv2dConfig::new(input, output, 3).build(&params.at("conv2"))?,
            skip: Conv2dConfig::new(input, output, 1).no_bias().build(&params.at("skip"))?,
            enlarges: scale == Scale::Up,
        })
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let resized = if self.enlarges { doubled } else { halved };
        let y = resized(leaky(self.conv1.forward(x.clone())));
        leaky(self.conv2.forward(y)) + self.skip.forward(resized(x))
    }
}

/// StyleGAN2's generator, whose channels the U-Net's conditions change.
#[derive(Module, Debug)]
struct Generator {
    /// `[1, channels, 4, 4]`.
    start: Param<Tensor<4>>,
    first: StyleConv,
    first_rgb: ToRgb,
    levels: Vec<(StyleConv, StyleConv, ToRgb)>,
}

impl Generator {
    fn new(params: &Params, config: &GfpganConfig) -> Result<Self, WeightError> {
        let lowest = config.width(FIRST_PX);
        for index in 0..config.mapping {
            let place = params.at("style_mlp").at(2 * index + 1);
            place.unused("weight", &[config.style; 2])?;
            place.unused("bias", &[config.style])?;
        }
        let noise = |index: usize, side: usize| {
            params.at("noises").tensor(&format!("noise{index}"), [1, 1, side, side], Init::Normal(1.0))
        };
        let conv = |name: String, widths: [usize; 2], noise| {
            StyleConv::new(&params.at(name), widths, config.style, noise)
        };
        let level = |(index, side): (usize, usize)| {
            let (input, width) = (config.width(side / 2), config.width(side));
            let (first, second) = (2 * index, 2 * index + 1);
            Ok((
                conv(format!("style_convs.{first}"), [input, width], noise(first + 1, side)?)?,
                conv(format!("style_convs.{second}"), [width, width], noise(second + 1, side)?)?,
                ToRgb::new(&params.at("to_rgbs").at(index), width, config.style)?,
            ))
        };
        Ok(Self {
            start: params.at("constant_input").tensor(
                "weight",
                [1, lowest, FIRST_PX, FIRST_PX],
                Init::Normal(1.0),
            )?,
            first: conv("style_conv1".into(), [lowest; 2], noise(0, FIRST_PX)?)?,
            first_rgb: ToRgb::new(&params.at("to_rgb1"), lowest, config.style)?,
            levels: config.sides().into_iter().enumerate().map(level).collect::<Result<_, WeightError>>()?,
        })
    }

    /// `conditions` are a factor and a summand for each level, of the latter half of its channels. Gives RGB in -1..1.
    fn forward<E>(
        &self,
        styles: &[Tensor<2>],
        conditions: Vec<(Tensor<4>, Tensor<4>)>,
        before: &mut dyn FnMut(usize) -> Result<(), E>,
    ) -> Result<Tensor<4>, E> {
        let [batch, _] = styles[0].dims();
        let start = self.start.val().permute([0, 2, 3, 1]).repeat_dim(0, batch);
        let mut x = self.first.forward(start, &styles[0]);
        let mut picture = self.first_rgb.forward(x.clone(), &styles[1]);
        for (index, ((first, second, rgb), (scale, shift))) in self.levels.iter().zip(conditions).enumerate()
        {
            before(index)?;
            let style = &styles[2 * index + 1..];
            x = first.forward(doubled(x), &style[0]);
            let [same, changed] = x.chunk(2, 3).try_into().expect("two halves");
            x = Tensor::cat(vec![same, changed * scale + shift], 3);
            x = second.forward(x, &style[1]);
            picture = rgb.forward(x.clone(), &style[2]) + doubled(picture);
        }
        Ok(picture)
    }
}

/// A convolution whose weight is scaled by a style.
#[derive(Module, Debug)]
struct Modulated {
    modulation: Linear,
    /// `[1, out, in, kernel, kernel]`.
    weight: Param<Tensor<5>>,
}

impl Modulated {
    /// Beside the sum of squares of an output's weights.
    const EPSILON: f64 = 1e-8;

    fn new(
        params: &Params,
        [input, output]: [usize; 2],
        kernel: usize,
        style: usize,
    ) -> Result<Self, WeightError> {
        Ok(Self {
            modulation: Linear::new(&params.at("modulation"), style, input)?,
            weight: params.tensor("weight", [1, output, input, kernel, kernel], Init::FanIn)?,
        })
    }

    /// Not brought back to one size: `[b, h, w, in]` and `[b, style]` to `[b, h, w, out]`, with how large each output's
    /// scaled weights are, `[b, 1, 1, out]`.
    fn forward(&self, x: Tensor<4>, style: &Tensor<2>) -> (Tensor<4>, Tensor<4>) {
        let [_, output, input, kernel, _] = self.weight.dims();
        let scale = self.modulation.forward(style.clone());
        let [batch, _] = scale.dims();
        let weight = self.weight.val().reshape([output, input, kernel * kernel]);
        let squares = weight.clone().powf_scalar(2.0).sum_dim(2).reshape([output, input]);
        let sizes = scale.clone().powf_scalar(2.0).matmul(squares.transpose()) + Self::EPSILON;
        let weight = weight.permute([0, 2, 1]).reshape([output, kernel, kernel, input]);
        let half = kernel / 2;
        let y = ops::conv2d(
            x * scale.reshape([batch, 1, 1, input]),
            weight,
            None,
            1,
            (half, half),
            Products::F32,
        );
        (y, sizes.sqrt().reshape([batch, 1, 1, output]))
    }
}

/// A modulated convolution brought back to one size, with noise, bias and activation.
#[derive(Module, Debug)]
struct StyleConv {
    conv: Modulated,
    /// `[1, 1, side, side]`.
    noise: Param<Tensor<4>>,
    /// How much of it, one number.
    strength: Param<Tensor<1>>,
    /// `[1, out, 1, 1]`.
    bias: Param<Tensor<4>>,
}

impl StyleConv {
    fn new(
        params: &Params,
        [input, output]: [usize; 2],
        style: usize,
        noise: Param<Tensor<4>>,
    ) -> Result<Self, WeightError> {
        Ok(Self {
            conv: Modulated::new(&params.at("modulated_conv"), [input, output], 3, style)?,
            noise,
            strength: params.tensor("weight", [1], Init::Constant(0.0))?,
            bias: params.tensor("bias", [1, output, 1, 1], Init::Constant(0.0))?,
        })
    }

    fn forward(&self, x: Tensor<4>, style: &Tensor<2>) -> Tensor<4> {
        let (y, size) = self.conv.forward(x, style);
        let noise = self.noise.val().permute([0, 2, 3, 1]) * self.strength.val().unsqueeze();
        leaky(y * (size.recip() * SQRT_2) + noise + per_channel(&self.bias))
    }
}

/// A modulated pointwise convolution to a picture.
#[derive(Module, Debug)]
struct ToRgb {
    conv: Modulated,
    /// `[1, 3, 1, 1]`.
    bias: Param<Tensor<4>>,
}

impl ToRgb {
    fn new(params: &Params, input: usize, style: usize) -> Result<Self, WeightError> {
        Ok(Self {
            conv: Modulated::new(&params.at("modulated_conv"), [input, 3], 1, style)?,
            bias: params.tensor("bias", [1, 3, 1, 1], Init::Constant(0.0))?,
        })
    }

    fn forward(&self, x: Tensor<4>, style: &Tensor<2>) -> Tensor<4> {
        self.conv.forward(x, style).0 + per_channel(&self.bias)
    }
}

/// A bias `[1, channels, 1, 1]` as `[1, 1, 1, channels]`.
fn per_channel(bias: &Param<Tensor<4>>) -> Tensor<4> {
    bias.val().permute([0, 2, 3, 1])
}

fn leaky(x: Tensor<4>) -> Tensor<4> {
    ops::leaky_relu(x, SLOPE)
}

/// Half the height and width: the means of 2 x 2 pixels, which is bilinear.
fn halved(x: Tensor<4>) -> Tensor<4> {
    let half = |x: Tensor<4>, axis: usize| {
        let mut dims = x.dims().to_vec();
        dims[axis] /= 2;
        let mut split: [usize; 5] = [2; 5];
        split[..=axis].copy_from_slice(&dims[..=axis]);
        split[axis + 2..].copy_from_slice(&dims[axis + 1..]);
        let [even, odd] = x.reshape(split).chunk(2, axis + 1).try_into().expect("pairs");
        ((even + odd) * 0.5).reshape([dims[0], dims[1], dims[2], dims[3]])
    };
    half(half(x, 1), 2)
}

/// Twice the height and width, both above 1, bilinear, the edge repeated.
fn doubled(x: Tensor<4>) -> Tensor<4> {
    let double = |x: Tensor<4>, axis: usize| {
        let mut dims = x.dims();
        let length = dims[axis];
        let (first, last) = (x.clone().narrow(axis, 0, 1), x.clone().narrow(axis, length - 1, 1));
        let before = Tensor::cat(vec![first, x.clone().narrow(axis, 0, length - 1)], axis);
        let after = Tensor::cat(vec![x.clone().narrow(axis, 1, length - 1), last], axis);
        let near = x * 0.75;
        let pairs: Tensor<5> =
            Tensor::stack(vec![near.clone() + before * 0.25, near + after * 0.25], axis + 1);
        dims[axis] *= 2;
        pairs.reshape(dims)
    };
    double(double(x, 1), 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Device, TensorData};

    #[test]
    fn sizes_change_as_bilinear_has_it() {
        let rows = TensorData::new(vec![0f32, 4.0, 0.0, 4.0], [1, 2, 2, 1]);
        let values = |x: Tensor<4>| x.into_data().iter::<f32>().collect::<Vec<_>>();
        let twice = doubled(Tensor::from_data(rows, &Device::flex()));
        assert_eq!(twice.dims(), [1, 4, 4, 1]);
        assert_eq!(values(twice.clone()), [0.0, 1.0, 3.0, 4.0].repeat(4));
        assert_eq!(values(halved(twice)), [0.5, 3.5, 0.5, 3.5]);
    }
}
