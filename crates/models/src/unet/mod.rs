//! The denoiser: Stable Diffusion 2.1's UNet (reference 1.1; arXiv 2112.10752), with a place where the
//! control branch adds to its skips (paper section 3.2).

mod blocks;

pub use blocks::{ResBlock, Transformer};

use crate::controlnet::ControlNet;
use crate::sizes::{Checked, SizeError, as_many, deep, divides, holdable, levels, multiple, wide};
use burn::module::{Module, Param};
use burn::tensor::Tensor;
use diffbir_nn::layers::{Conv2d, Conv2dConfig, GroupNorm, Linear};
use diffbir_nn::params::Init;
use diffbir_nn::{Params, WeightError, ops, recompute};
use serde::{Deserialize, Serialize};

/// The sizes of a [`Unet`] and of the control branch that goes with it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UnetConfig {
    /// Channels of the latent.
    pub latent_channels: usize,
    /// Width of the first level.
    pub model_channels: usize,
    /// Width of each level over `model_channels`; each but the last halves height and width.
    pub multipliers: Vec<usize>,
    /// Residual blocks a level on the way down; one more on the way up.
    pub blocks: usize,
    /// Whether each level has attention; the middle always has.
    pub attention: Vec<bool>,
    /// Channels of one attention head.
    pub head_channels: usize,
    /// Groups of each group norm.
    pub norm_groups: usize,
    /// Width of the text tokens.
    pub context_channels: usize,
    /// Whether the network brings one learned token in place of text.
    pub learned_context: bool,
}

impl UnetConfig {
    /// Stable Diffusion 2.1: 865,910,724 parameters, 686 tensors.
    pub fn official() -> Self {
        Self {
            latent_channels: 4,
            model_channels: 320,
            multipliers: vec![1, 2, 4, 4],
            blocks: 2,
            attention: vec![true, true, true, false],
            head_channels: 64,
            norm_groups: 32,
            context_channels: 1024,
            learned_context: false,
        }
    }

    /// The built-in model's, on the 32 channels of TAEF2: 7.7 M parameters with the control branch.
    pub fn nano() -> Self {
        Self {
            latent_channels: 32,
            model_channels: 64,
            multipliers: vec![1, 2, 2],
            blocks: 1,
            attention: vec![false, false, true],
            head_channels: 32,
            norm_groups: 16,
            context_channels: 64,
            learned_context: true,
        }
    }

    /// Latent cells per side must be a multiple of this.
    pub fn multiple(&self) -> usize {
        1 << (self.multipliers.len() - 1)
    }

    /// Width of the embedding of time.
    fn time_channels(&self) -> usize {
        4 * self.model_channels
    }

    /// The network, its tensors at `params`.
    pub fn build(&self, params: &Params) -> Result<Unet, WeightError> {
        let encoder = Encoder::new(params, self, self.latent_channels)?;
        let mut widths = encoder_widths(self);
        let mut width = *widths.last().expect("at least the first convolution");
        let mut output_blocks = Vec::new();
        for (level, multiplier) in self.multipliers.iter().enumerate().rev() {
            for index in 0..=self.blocks {
                let skip = widths.pop().expect("as many outputs as inputs");
                let out = multiplier * self.model_channels;
                let at = params.at("output_blocks").at(output_blocks.len());
                let res = ResBlock::new(&at.at(0), self, width + skip, out)?;
                let attention =
                    self.attention[level].then(|| Transformer::new(&at.at(1), self, out)).transpose()?;
                let up = (index == self.blocks && level > 0)
                    .then(|| {
                        let place = at.at(1 + usize::from(attention.is_some())).at("conv");
                        Conv2dConfig::doubling(out, out).build(&place)
                    })
                    .transpose()?;
                output_blocks.push(OutputBlock { res, attention, up });
                width = out;
            }
        }
        let out_norm = GroupNorm::new(&params.at("out.0"), self.norm_groups, width, ResBlock::EPSILON)?;
        let out_conv =
            Conv2dConfig::new(width, self.latent_channels, 3).zero().build(&params.at("out.2").in_full())?;
        let context = self
            .learned_context
            .then(|| params.in_full().tensor("context", [1, self.context_channels], Init::Normal(1.0)))
            .transpose()?;
        Ok(Unet { encoder, output_blocks, out_norm, out_conv, context })
    }
}

impl Checked for UnetConfig {
    fn check(&self) -> Result<(), SizeError> {
        wide("latent_channels", self.latent_channels)?;
        wide("model_channels", self.model_channels)?;
        multiple("model_channels", self.model_channels, 2, "the waves of the time's embedding")?;
        levels("multipliers", &self.multipliers)?;
        deep("blocks", self.blocks)?;
        as_many("attention", &self.attention, ("multipliers", &self.multipliers))?;
        wide("norm_groups", self.norm_groups)?;
        multiple("model_channels", self.model_channels, self.norm_groups, "norm_groups")?;
        wide("head_channels", self.head_channels)?;
        let deepest = self.multipliers.len() - 1;
        for (level, multiplier) in self.multipliers.iter().enumerate() {
            // That of the middle is as wide as the deepest level.
            if self.attention[level] || level == deepest {
                let (width, what) =
                    (multiplier * self.model_channels, "model_channels times one of multipliers");
                divides("head_channels", self.head_channels, width, what)?;
            }
        }
        wide("context_channels", self.context_channels)?;
        holdable("model_channels", |params| Ok((self.build(params)?, ControlNet::new(params, self)?)))
    }
}

/// Widths of the outputs of the input blocks, in order.
pub(crate) fn encoder_widths(config: &UnetConfig) -> Vec<usize> {
    let mut widths = vec![config.model_channels];
    for (level, multiplier) in config.multipliers.iter().enumerate() {
        widths.extend(vec![multiplier * config.model_channels; config.blocks]);
        if level + 1 < config.multipliers.len() {
            widths.push(multiplier * config.model_channels);
        }
    }
    widths
}

/// What the control branch adds: one tensor for each skip and, last, one for the middle.
pub struct Control(pub Vec<Tensor<4>>);

/// The network; see the module.
#[derive(Module, Debug)]
pub struct Unet {
    encoder: Encoder,
    output_blocks: Vec<OutputBlock>,
    out_norm: GroupNorm,
    out_conv: Conv2d,
    /// `[1, context_channels]`.
    context: Option<Param<Tensor<2>>>,
}

impl Unet {
    /// The prediction (eps or v, as it was trained) for latents `x[b, h, w, c]` at `timesteps[b]`
    /// (0..1000, fractions allowed), with text tokens `context[b, tokens, context_channels]`.
    ///
    /// # Panics
    /// Without `context` when the network brings no token of its own, and when height or width is no
    /// multiple of [`UnetConfig::multiple`].
    pub fn forward(
        &self,
        x: Tensor<4>,
        timesteps: Tensor<1>,
        context: Option<Tensor<3>>,
        control: Option<Control>,
    ) -> Tensor<4> {
        let context = self.context(context, x.dims()[0]);
        let time = self.encoder.time(timesteps);
        let (mut skips, mut h) = self.encoder.forward(x, &time, &context);
        let mut control = control.map(|control| control.0);
        if let Some(control) = &mut control {
            h = h + control.pop().expect("one for the middle");
        }
        let (time, context) = (time.cast(h.dtype()), context.cast(h.dtype()));
        for block in &self.output_blocks {
            let skip = skips.pop().expect("as many skips as output blocks");
            let control = control.as_mut().map(|control| control.pop().expect("one for each skip"));
            h = in_block(block, ops::join(h, skip, control), &time, &context, OutputBlock::forward);
        }
        self.out_conv.forward(self.out_norm.forward_silu(h))
    }

    /// The given tokens, or the network's own for each image of the batch.
    pub fn context(&self, given: Option<Tensor<3>>, batch: usize) -> Tensor<3> {
        match (given, &self.context) {
            (Some(given), _) => given,
            (None, Some(own)) => recompute::block(own, Vec::new(), move |own, _| {
                own.val().unsqueeze::<3>().repeat_dim(0, batch)
            }),
            (None, None) => panic!("this network has no context token of its own: it needs text"),
        }
    }
}

/// The way down and the middle, which the control branch has once more.
#[derive(Module, Debug)]
pub(crate) struct Encoder {
    time: TimeEmbedding,
    input_blocks: Vec<InputBlock>,
    middle: Middle,
    #[module(skip)]
    model_channels: usize,
}

/// What residual blocks are told of the time, `[b, 4 · model_channels]`, from its waves `[b, model_channels]`.
#[derive(Module, Debug)]
struct TimeEmbedding {
    first: Linear,
    second: Linear,
}

impl TimeEmbedding {
    fn forward(&self, wave: Tensor<2>) -> Tensor<2> {
        ops::silu(self.second.forward(ops::silu(self.first.forward(wave))))
    }
}

/// `[b, c]` as `[b, 1, 1, c]`.
fn as_picture(x: Tensor<2>) -> Tensor<4> {
    let [batch, channels] = x.dims();
    x.reshape([batch, 1, 1, channels])
}

/// A block that training may run twice instead of keeping what is inside.
fn in_block<N: Module + 'static>(
    block: &N,
    x: Tensor<4>,
    time: &Tensor<2>,
    context: &Tensor<3>,
    forward: fn(&N, Tensor<4>, &Tensor<2>, &Tensor<3>) -> Tensor<4>,
) -> Tensor<4> {
    if !recompute::is_on() {
        return forward(block, x, time, context);
    }
    let ([batch, channels], [_, tokens, width]) = (time.dims(), context.dims());
    let time = as_picture(time.clone());
    let context = context.clone().reshape([batch, 1, tokens, width]);
    recompute::block(block, vec![x, time, context], move |block, inputs| {
        let time = inputs[1].clone().reshape([batch, channels]);
        let context = inputs[2].clone().reshape([batch, tokens, width]);
        forward(block, inputs[0].clone(), &time, &context)
    })
}

/// The deepest place: two residual blocks with attention between them.
#[derive(Module, Debug)]
struct Middle {
    res1: ResBlock,
    attention: Transformer,
    res2: ResBlock,
}

impl Middle {
    fn forward(&self, x: Tensor<4>, time: &Tensor<2>, context: &Tensor<3>) -> Tensor<4> {
        let x = self.attention.forward(self.res1.forward(x, time), context);
        self.res2.forward(x, time)
    }
}

impl Encoder {
    pub(crate) fn new(params: &Params, config: &UnetConfig, input: usize) -> Result<Self, WeightError> {
        let base = config.model_channels;
        let width = config.time_channels();
        let time = TimeEmbedding {
            first: Linear::new(&params.at("time_embed.0").in_full(), base, width)?,
            second: Linear::new(&params.at("time_embed.2").in_full(), width, width)?,
        };
        let blocks = params.at("input_blocks");
        let first = Conv2dConfig::new(input, base, 3).build(&blocks.at("0.0"))?;
        let mut input_blocks = vec![InputBlock { conv: Some(first), res: None, attention: None }];
        let mut width = base;
        for (level, multiplier) in config.multipliers.iter().enumerate() {
            let out = multiplier * base;
            for _ in 0..config.blocks {
                let at = blocks.at(input_blocks.len());
                let res = Some(ResBlock::new(&at.at(0), config, width, out)?);
                let attention =
                    config.attention[level].then(|| Transformer::new(&at.at(1), config, out)).transpose()?;
                input_blocks.push(InputBlock { conv: None, res, attention });
                width = out;
            }
            if level + 1 < config.multipliers.len() {
                let at = blocks.at(input_blocks.len());
                let down = Conv2dConfig::new(width, width, 3).stride(2).build(&at.at("0.op"))?;
                input_blocks.push(InputBlock { conv: Some(down), res: None, attention: None });
            }
        }
        let middle = params.at("middle_block");
        Ok(Self {
            time,
            input_blocks,
            middle: Middle {
                res1: ResBlock::new(&middle.at(0), config, width, width)?,
                attention: Transformer::new(&middle.at(1), config, width)?,
                res2: ResBlock::new(&middle.at(2), config, width, width)?,
            },
            model_channels: base,
        })
    }

    /// `timesteps[b]` as `[b, 4 · model_channels]`, SiLU applied, as every residual block wants it.
    pub(crate) fn time(&self, timesteps: Tensor<1>) -> Tensor<2> {
        let half = self.model_channels / 2;
        let frequencies: Vec<f32> =
            (0..half).map(|i| (-(10000f64.ln()) * i as f64 / half as f64).exp() as f32).collect();
        let frequencies = Tensor::<1>::from_floats(frequencies.as_slice(), &timesteps.device());
        let angles = timesteps.unsqueeze_dim::<2>(1) * frequencies.unsqueeze::<2>();
        let wave = Tensor::cat(vec![angles.clone().cos(), angles.sin()], 1);
        recompute::block(&self.time, vec![as_picture(wave)], |time, wave| {
            let [batch, _, _, channels] = wave[0].dims();
            time.forward(wave[0].clone().reshape([batch, channels]))
        })
    }

    /// The output of each input block, and that of the middle.
    pub(crate) fn forward(
        &self,
        x: Tensor<4>,
        time: &Tensor<2>,
        context: &Tensor<3>,
    ) -> (Vec<Tensor<4>>, Tensor<4>) {
        let mut skips = Vec::with_capacity(self.input_blocks.len());
        let (mut h, mut time, mut context) = (x, time.clone(), context.clone());
        for block in &self.input_blocks {
            h = in_block(block, h, &time, &context, InputBlock::forward);
            skips.push(h.clone());
            // From the first block on in the numbers of the weights, once for all.
            (time, context) = (time.cast(h.dtype()), context.cast(h.dtype()));
        }
        (skips, in_block(&self.middle, h, &time, &context, Middle::forward))
    }
}

/// One step on the way down: a convolution (the first, or one that halves the size), or a residual
/// block with or without attention.
#[derive(Module, Debug)]
struct InputBlock {
    conv: Option<Conv2d>,
    res: Option<ResBlock>,
    attention: Option<Transformer>,
}

impl InputBlock {
    fn forward(&self, x: Tensor<4>, time: &Tensor<2>, context: &Tensor<3>) -> Tensor<4> {
        let x = self.conv.iter().fold(x, |x, conv| conv.forward(x));
        let x = self.res.iter().fold(x, |x, res| res.forward(x, time));
        self.attention.iter().fold(x, |x, attention| attention.forward(x, context))
    }
}

/// One step on the way up.
#[derive(Module, Debug)]
struct OutputBlock {
    res: ResBlock,
    attention: Option<Transformer>,
    /// After doubling the size.
    up: Option<Conv2d>,
}

impl OutputBlock {
    fn forward(&self, x: Tensor<4>, time: &Tensor<2>, context: &Tensor<3>) -> Tensor<4> {
        let x = self.res.forward(x, time);
        let x = self.attention.iter().fold(x, |x, attention| attention.forward(x, context));
        self.up.iter().fold(x, |x, conv| conv.forward(x))
    }
}
