//! The autoencoder of Stable Diffusion, AutoencoderKL (reference 1.3; arXiv 2112.10752): a Gaussian
//! latent at an eighth of the size, of which the mean is taken.

use crate::autoencoder::Autoencoder;
use crate::sizes::{Checked, SizeError, deep, holdable, levels, multiple, scale, wide};
use crate::steps::{Activation, Step};
use burn::module::Module;
use burn::tensor::Tensor;
use diffbir_nn::layers::{Conv2d, Conv2dConfig, GroupNorm};
use diffbir_nn::{Params, WeightError, ops, recompute};
use serde::{Deserialize, Serialize};

/// The sizes of a [`KlAutoencoder`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KlConfig {
    /// Width of the first level.
    pub channels: usize,
    /// Width of each level over `channels`; each but the last halves height and width.
    pub multipliers: Vec<usize>,
    /// Residual blocks a level in the encoder; the decoder has one more.
    pub blocks: usize,
    /// Channels of the latent.
    pub latent_channels: usize,
    /// Groups of each group norm.
    pub norm_groups: usize,
    /// What a latent is multiplied by to have unit size.
    pub scale: f64,
}

impl KlConfig {
    /// Stable Diffusion's: 83,653,863 parameters, 248 tensors.
    pub fn official() -> Self {
        Self {
            channels: 128,
            multipliers: vec![1, 2, 4, 4],
            blocks: 2,
            latent_channels: 4,
            norm_groups: 32,
            scale: 0.18215,
        }
    }

    /// Pixels per side of one latent cell.
    pub fn downsampling(&self) -> usize {
        1 << (self.multipliers.len() - 1)
    }

    fn width(&self, level: usize) -> usize {
        self.channels * self.multipliers[level]
    }

    /// The network, its tensors at `params`.
    pub fn build(&self, params: &Params) -> Result<KlAutoencoder, WeightError> {
        let (latent, levels) = (self.latent_channels, self.multipliers.len());
        let deepest = self.width(levels - 1);
        let encoder = params.at("encoder");
        let encoder_in = Conv2dConfig::new(3, self.channels, 3).build(&encoder.at("conv_in"))?;
        let mut down = Vec::new();
        let mut width = self.channels;
        for level in 0..levels {
            let at = encoder.at("down").at(level);
            let blocks = self.blocks(&at, &mut width, self.width(level), self.blocks)?;
            // Zeros at the right and bottom only.
            let resize = (level + 1 < levels)
                .then(|| {
                    let conv = Conv2dConfig::new(width, width, 3).stride(2).padding(0, 1);
                    conv.build(&at.at("downsample.conv"))
                })
                .transpose()?;
            down.push(Level { blocks, resize });
        }
        let encoder_middle = Middle::new(&encoder.at("mid"), self, deepest)?;
        let encoder_norm = self.norm(&encoder.at("norm_out"), deepest)?;
        let encoder_out = Conv2dConfig::new(deepest, 2 * latent, 3).build(&encoder.at("conv_out"))?;

        let decoder = params.at("decoder");
        let decoder_in = Conv2dConfig::new(latent, deepest, 3).build(&decoder.at("conv_in"))?;
        let decoder_middle = Middle::new(&decoder.at("mid"), self, deepest)?;
        let mut up = Vec::new();
        let mut width = deepest;
        for level in (0..levels).rev() {
            let at = decoder.at("up").at(level);
            let blocks = self.blocks(&at, &mut width, self.width(level), self.blocks + 1)?;
            let resize = (level > 0)
                .then(|| Conv2dConfig::doubling(width, width).build(&at.at("upsample.conv")))
                .transpose()?;
            up.push(Level { blocks, resize });
        }
        let decoder_norm = self.norm(&decoder.at("norm_out"), width)?;
        let decoder_out = Conv2dConfig::new(width, 3, 3).build(&decoder.at("conv_out"))?;
        Ok(KlAutoencoder {
            encoder_in,
            down,
            encoder_middle,
            encoder_norm,
            encoder_out,
            quant: Conv2dConfig::new(2 * latent, 2 * latent, 1).build(&params.at("quant_conv"))?,
            post_quant: Conv2dConfig::new(latent, latent, 1).build(&params.at("post_quant_conv"))?,
            decoder_in,
            decoder_middle,
            up,
            decoder_norm,
            decoder_out,
            latent_channels: latent,
            scale: self.scale,
        })
    }

    fn norm(&self, params: &Params, channels: usize) -> Result<GroupNorm, WeightError> {
        GroupNorm::new(params, self.norm_groups, channels, 1e-6)
    }

    fn blocks(
        &self,
        params: &Params,
        width: &mut usize,
        output: usize,
        count: usize,
    ) -> Result<Vec<ResBlock>, WeightError> {
        (0..count)
            .map(|index| {
                let input = std::mem::replace(width, output);
                ResBlock::new(&params.at("block").at(index), self, input, output)
            })
            .collect()
    }
}

impl Checked for KlConfig {
    fn check(&self) -> Result<(), SizeError> {
        wide("channels", self.channels)?;
        levels("multipliers", &self.multipliers)?;
        deep("blocks", self.blocks)?;
        wide("latent_channels", self.latent_channels)?;
        wide("norm_groups", self.norm_groups)?;
        multiple("channels", self.channels, self.norm_groups, "norm_groups")?;
        scale("scale", self.scale)?;
        holdable("channels", |params| self.build(params))
    }
}

/// The network; see the module.
#[derive(Module, Debug)]
pub struct KlAutoencoder {
    encoder_in: Conv2d,
    down: Vec<Level>,
    encoder_middle: Middle,
    encoder_norm: GroupNorm,
    encoder_out: Conv2d,
    quant: Conv2d,
    post_quant: Conv2d,
    decoder_in: Conv2d,
    decoder_middle: Middle,
    up: Vec<Level>,
    decoder_norm: GroupNorm,
    decoder_out: Conv2d,
    #[module(skip)]
    latent_channels: usize,
    #[module(skip)]
    scale: f64,
}

impl KlAutoencoder {
    /// Mean and logarithm of the variance of the latent, unscaled, `[b, h / f, w / f, 2 · c]`.
    pub fn moments(&self, picture: Tensor<4>) -> Tensor<4> {
        crate::steps::run(&self.moment_steps(), picture)
    }

    fn moment_steps(&self) -> Vec<Step<'_>> {
        let mut steps = vec![Step::map(|x| x * 2.0 - 1.0), Step::Conv(&self.encoder_in)];
        for level in &self.down {
            level.blocks.iter().for_each(|block| block.steps(&mut steps));
            steps.extend(level.resize.iter().map(Step::Conv));
        }
        self.encoder_middle.steps(&mut steps);
        steps.push(Step::Norm(&self.encoder_norm, Activation::Silu));
        steps.extend([Step::Conv(&self.encoder_out), Step::Conv(&self.quant)]);
        steps
    }
}

impl Autoencoder for KlAutoencoder {
    fn downsampling(&self) -> usize {
        1 << (self.down.len() - 1)
    }

    fn latent_channels(&self) -> usize {
        self.latent_channels
    }

    fn encoder_steps(&self) -> Vec<Step<'_>> {
        let mut steps = self.moment_steps();
        steps.push(Step::map(|moments| moments.slice_dim(3, 0..self.latent_channels) * self.scale));
        steps
    }

    fn distribution(&self, picture: Tensor<4>) -> Tensor<4> {
        let moments = self.moments(picture).chunk(2, 3);
        let deviation = (moments[1].clone().clamp(-30.0, 20.0) * 0.5).exp();
        Tensor::cat(vec![moments[0].clone(), deviation], 3) * self.scale
    }

    fn decoder_steps(&self) -> Vec<Step<'_>> {
        let mut steps = vec![
            Step::map(|latent| self.post_quant.forward(latent / self.scale)),
            Step::Conv(&self.decoder_in),
        ];
        self.decoder_middle.steps(&mut steps);
        for level in &self.up {
            level.blocks.iter().for_each(|block| block.steps(&mut steps));
            steps.extend(level.resize.iter().map(Step::Conv));
        }
        steps.push(Step::Norm(&self.decoder_norm, Activation::Silu));
        steps.extend([Step::Conv(&self.decoder_out), Step::map(|x| (x + 1.0) / 2.0)]);
        steps
    }
}

/// Residual blocks at one size, and the convolution that leaves it.
#[derive(Module, Debug)]
struct Level {
    blocks: Vec<ResBlock>,
    resize: Option<Conv2d>,
}

#[derive(Module, Debug)]
struct ResBlock {
    norm1: GroupNorm,
    conv1: Conv2d,
    norm2: GroupNorm,
    conv2: Conv2d,
    shortcut: Option<Conv2d>,
}

impl ResBlock {
    fn new(params: &Params, config: &KlConfig, input: usize, output: usize) -> Result<Self, WeightError> {
        Ok(Self {
            norm1: config.norm(&params.at("norm1"), input)?,
            conv1: Conv2dConfig::new(input, output, 3).build(&params.at("conv1"))?,
            norm2: config.norm(&params.at("norm2"), output)?,
            conv2: Conv2dConfig::new(output, output, 3).build(&params.at("conv2"))?,
            shortcut: (input != output)
                .then(|| Conv2dConfig::new(input, output, 1).build(&params.at("nin_shortcut")))
                .transpose()?,
        })
    }

    fn steps<'a>(&'a self, steps: &mut Vec<Step<'a>>) {
        if recompute::is_on() {
            let whole = |block: &Self, x: &[Tensor<4>]| crate::steps::run(&block.parts(), x[0].clone());
            steps.push(Step::whole(move |x| recompute::block(self, vec![x], whole)));
        } else {
            steps.extend(self.parts());
        }
    }

    fn parts(&self) -> [Step<'_>; 5] {
        [
            Step::Keep,
            Step::Norm(&self.norm1, Activation::Silu),
            Step::Conv(&self.conv1),
            Step::Norm(&self.norm2, Activation::Silu),
            Step::ConvOntoKept(&self.conv2, self.shortcut.as_ref()),
        ]
    }
}

/// The deepest place: two residual blocks with attention of one head between them.
#[derive(Module, Debug)]
struct Middle {
    block1: ResBlock,
    norm: GroupNorm,
    query: Conv2d,
    key: Conv2d,
    value: Conv2d,
    proj_out: Conv2d,
    block2: ResBlock,
}

impl Middle {
    fn new(params: &Params, config: &KlConfig, width: usize) -> Result<Self, WeightError> {
        let attention = params.at("attn_1");
        let pointwise = |name: &str| Conv2dConfig::new(width, width, 1).build(&attention.at(name));
        let block1 = ResBlock::new(&params.at("block_1"), config, width, width)?;
        let norm = config.norm(&attention.at("norm"), width)?;
        Ok(Self {
            block1,
            norm,
            query: pointwise("q")?,
            key: pointwise("k")?,
            value: pointwise("v")?,
            proj_out: pointwise("proj_out")?,
            block2: ResBlock::new(&params.at("block_2"), config, width, width)?,
        })
    }

    fn steps<'a>(&'a self, steps: &mut Vec<Step<'a>>) {
        self.block1.steps(steps);
        steps.extend([
            Step::Keep,
            Step::Norm(&self.norm, Activation::None),
            Step::whole(|x| self.attend(x)),
            Step::AddKept,
        ]);
        self.block2.steps(steps);
    }

    fn attend(&self, x: Tensor<4>) -> Tensor<4> {
        let [batch, height, width, channels] = x.dims();
        let tokens = |x: Tensor<4>| x.reshape([batch, 1, height * width, channels]);
        let y = ops::attention(
            tokens(self.query.forward(x.clone())),
            tokens(self.key.forward(x.clone())),
            tokens(self.value.forward(x)),
            self.query.products(),
        );
        self.proj_out.forward(y.reshape([batch, height, width, channels]))
    }
}
