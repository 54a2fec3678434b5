//! ParseNet, which tells the parts of an aligned face apart (reference 1.8).
//!
//! A residual network that halves the size four times and doubles it again, every convolution on a reflected border.
//! Its second output, a picture, is not used. Source of the structure: facexlib 0.3.0 (MIT), `parsing/parsenet.py`, after
//! PSFRGAN (arXiv 2009.08709).

use burn::module::Module;
use burn::tensor::Tensor;
use diffbir_nn::layers::{BatchNorm2d, Conv2d, Conv2dConfig};
use diffbir_nn::{Params, WeightError, ops};

/// Side of the face that it sees, in pixels.
pub const SIDE_PX: usize = 512;

/// Parts that it tells apart.
pub const PARTS: usize = 19;

/// Slope of the activations where negative.
const SLOPE: f64 = 0.2;

/// The sizes of a [`ParseNet`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseNetConfig {
    /// Width at full size, doubled at each halving.
    pub features: usize,
    /// Width at which the doubling stops.
    pub most: usize,
    /// Halvings.
    pub levels: usize,
    /// Blocks at the smallest size.
    pub blocks: usize,
}

impl ParseNetConfig {
    /// The published one: 21,303,254 parameters.
    pub fn official() -> Self {
        Self { features: 64, most: 256, levels: 4, blocks: 10 }
    }

    /// The network, its tensors at `params`.
    pub fn build(&self, params: &Params) -> Result<ParseNet, WeightError> {
        let width = |level: usize| (self.features << level).min(self.most);
        let (encoder, body, decoder) = (params.at("encoder"), params.at("body"), params.at("decoder"));
        let deepest = width(self.levels);
        let down =
            |level: usize| Block::new(&encoder.at(level + 1), width(level), width(level + 1), Scale::Down);
        let same = |index: usize| Block::new(&body.at(index), deepest, deepest, Scale::Same);
        let up = |step: usize| {
            let level = self.levels - step;
            Block::new(&decoder.at(step), width(level), width(level - 1), Scale::Up)
        };
        params.at("out_img_conv.conv2d").unused("weight", &[3, self.features, 3, 3])?;
        params.at("out_img_conv.conv2d").unused("bias", &[3])?;
        Ok(ParseNet {
            first: conv(3, self.features, 1).build(&encoder.at("0.conv2d"))?,
            down: (0..self.levels).map(down).collect::<Result<_, _>>()?,
            body: (0..self.blocks).map(same).collect::<Result<_, _>>()?,
            up: (0..self.levels).map(up).collect::<Result<_, _>>()?,
            last: conv(self.features, PARTS, 1).build(&params.at("out_mask_conv.conv2d"))?,
        })
    }
}

/// A 3x3 convolution whose border is laid around before.
fn conv(input: usize, output: usize, stride: usize) -> Conv2dConfig {
    Conv2dConfig::new(input, output, 3).stride(stride).padding(0, 0)
}

/// The network; see the module.
#[derive(Module, Debug)]
pub struct ParseNet {
    first: Conv2d,
    down: Vec<Block>,
    body: Vec<Block>,
    up: Vec<Block>,
    last: Conv2d,
}

impl ParseNet {
    /// RGB in -1..1 `[b, h, w, 3]`, sides multiples of 16, to a logit for each part, `[b, h, w, PARTS]`.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let through = |blocks: &[Block], x| blocks.iter().fold(x, |x, block| block.forward(x));
        let x = through(&self.down, self.first.forward(ops::pad_reflect_one(x)));
        let x = through(&self.body, x.clone()) + x;
        self.last.forward(ops::pad_reflect_one(through(&self.up, x)))
    }
}

/// What a block does to the size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scale {
    Down,
    Same,
    Up,
}

/// Two convolutions with norms beside a shortcut, which is one convolution where anything changes.
#[derive(Module, Debug)]
struct Block {
    shortcut: Option<Conv2d>,
    conv1: Conv2d,
    norm1: BatchNorm2d,
    conv2: Conv2d,
    norm2: BatchNorm2d,
    #[module(skip)]
    enlarges: bool,
}

impl Block {
    fn new(params: &Params, input: usize, output: usize, scale: Scale) -> Result<Self, WeightError> {
        let stride = if scale == Scale::Down { 2 } else { 1 };
        let place = |name: &str| (params.at(name).at("conv2d"), params.at(name).at("norm.norm"));
        let ((conv1, norm1), (conv2, norm2)) = (place("conv1"), place("conv2"));
        let changes = scale != Scale::Same || input != output;
        let shortcut = changes.then(|| conv(input, output, stride).build(&params.at("shortcut_func.conv2d")));
        Ok(Self {
            shortcut: shortcut.transpose()?,
            conv1: conv(input, output, 1).no_bias().build(&conv1)?,
            norm1: BatchNorm2d::new(&norm1, output)?,
            conv2: conv(output, output, stride).no_bias().build(&conv2)?,
            norm2: BatchNorm2d::new(&norm2, output)?,
            enlarges: scale == Scale::Up,
        })
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let x = if self.enlarges { ops::upsample_nearest2x(x) } else { x };
        let padded = ops::pad_reflect_one(x.clone());
        let y = ops::leaky_relu(self.norm1.forward(self.conv1.forward(padded.clone())), SLOPE);
        let y = self.norm2.forward(self.conv2.forward(ops::pad_reflect_one(y)));
        match &self.shortcut {
            Some(shortcut) => shortcut.forward(padded) + y,
            None => x + y,
        }
    }
}
