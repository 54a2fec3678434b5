//! SCUNet (arXiv 2203.13278), the denoiser of DiffBIR v2's stage 1 (reference 1.7).
//!
//! A UNet of three halvings without any residual to the picture. Every block splits its channels: one half
//! goes through convolutions, the other through a Swin layer, whose windows are moved in every second block.

use crate::sizes::{Checked, SizeError, between, deep, holdable, multiple, wide};
use crate::window;
use burn::module::{Module, Param};
use burn::tensor::Tensor;
use diffbir_nn::layers::{Conv2d, Conv2dConfig, ConvTranspose2d, LayerNorm, Linear};
use diffbir_nn::params::Init;
use diffbir_nn::{Params, Rectifier, WeightError, ops};
use serde::{Deserialize, Serialize};

/// Halvings of the size on the way down.
const LEVELS: usize = 3;

/// The sizes of a [`ScuNet`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScuNetConfig {
    /// Width at full size, doubled at each halving; half of it a multiple of `head_features`.
    pub features: usize,
    /// Width of one attention head.
    pub head_features: usize,
    /// Blocks of each of the seven stages.
    pub blocks: usize,
    /// Side of an attention window in tokens.
    pub window: usize,
}

impl ScuNetConfig {
    /// The official denoiser: 17,946,072 parameters, 540 tensors.
    pub fn official() -> Self {
        Self { features: 64, head_features: 32, blocks: 4, window: 8 }
    }

    /// The network, its tensors at `params`.
    pub fn build(&self, params: &Params) -> Result<ScuNet, WeightError> {
        let width = |level: usize| self.features << level;
        // Stages number their members through, the change of size included.
        let blocks = |params: &Params, level: usize, first: usize| {
            (0..self.blocks)
                .map(|index| Block::new(&params.at(first + index), self, width(level), index % 2 == 1))
                .collect::<Result<Vec<_>, _>>()
        };
        let halve =
            |level: usize| Conv2dConfig::new(width(level), width(level + 1), 2).stride(2).padding(0, 0);
        let head = Conv2dConfig::new(3, self.features, 3).no_bias().build(&params.at("m_head.0"))?;
        let down = (0..LEVELS)
            .map(|level| {
                let params = params.at(format_args!("m_down{}", level + 1));
                let blocks = blocks(&params, level, 0)?;
                Ok(Down { blocks, halve: halve(level).no_bias().build(&params.at(self.blocks))? })
            })
            .collect::<Result<_, WeightError>>()?;
        let body = blocks(&params.at("m_body"), LEVELS, 0)?;
        let up = (0..LEVELS)
            .rev()
            .map(|level| {
                let params = params.at(format_args!("m_up{}", level + 1));
                let double = ConvTranspose2d::new(&params.at(0), width(level + 1), width(level), 2)?;
                Ok(Up { double, blocks: blocks(&params, level, 1)? })
            })
            .collect::<Result<_, WeightError>>()?;
        let tail = Conv2dConfig::new(self.features, 3, 3).no_bias().build(&params.at("m_tail.0"))?;
        Ok(ScuNet { head, down, body, up, tail, window: self.window })
    }
}

impl Checked for ScuNetConfig {
    fn check(&self) -> Result<(), SizeError> {
        wide("features", self.features)?;
        wide("head_features", self.head_features)?;
        multiple("features", self.features, 2 * self.head_features, "twice head_features")?;
        deep("blocks", self.blocks)?;
        between("window", self.window, 1..=window::MOST)?;
        holdable("features", |params| self.build(params))
    }
}

/// The network; see the module.
#[derive(Module, Debug)]
pub struct ScuNet {
    head: Conv2d,
    down: Vec<Down>,
    body: Vec<Block>,
    up: Vec<Up>,
    tail: Conv2d,
    #[module(skip)]
    window: usize,
}

/// Blocks, then half the size.
#[derive(Module, Debug)]
struct Down {
    blocks: Vec<Block>,
    halve: Conv2d,
}

/// Twice the size, then blocks.
#[derive(Module, Debug)]
struct Up {
    double: ConvTranspose2d,
    blocks: Vec<Block>,
}

impl ScuNet {
    /// RGB in 0..1 `[b, h, w, 3]` to the same size, not clamped. Of sizes that are no multiple of eight
    /// windows the last row and column are repeated up to one.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let [_, height, width, _] = x.dims();
        let mut skips = self.encode(x);
        let deepest = skips.last().expect("a level").clone();
        let mut x = run(&self.body, deepest, self.window);
        for up in &self.up {
            let skip = skips.pop().expect("as many as levels, and the head's");
            x = run(&up.blocks, up.double.forward(x + skip), self.window);
        }
        let head = skips.pop().expect("the head's");
        self.tail.forward(x + head).slice_dim(1, 0..height).slice_dim(2, 0..width)
    }

    /// What the head and each halving give on the way down, the picture brought to a multiple of eight
    /// windows: `[b, h', w', features]` and from there half as large and twice as deep each.
    pub fn encode(&self, x: Tensor<4>) -> Vec<Tensor<4>> {
        let [_, height, width, _] = x.dims();
        let multiple = self.window << LEVELS;
        let x = ops::pad_replicate_end(
            x,
            height.next_multiple_of(multiple) - height,
            width.next_multiple_of(multiple) - width,
        );
        let mut outputs = vec![self.head.forward(x)];
        for (level, down) in self.down.iter().enumerate() {
            outputs.push(down.halve.forward(run(&down.blocks, outputs[level].clone(), self.window)));
        }
        outputs
    }
}

/// The blocks of one stage.
fn run(blocks: &[Block], x: Tensor<4>, window: usize) -> Tensor<4> {
    let [_, rows, columns, _] = x.dims();
    let mask = window::shift_mask(rows, columns, window, window::HIDDEN, &x.device());
    blocks.iter().fold(x, |x, block| block.forward(x, &mask))
}

/// Convolutions and a Swin layer side by side, each on half of the channels.
#[derive(Module, Debug)]
struct Block {
    conv1_1: Conv2d,
    conv1: Conv2d,
    conv2: Conv2d,
    swin: SwinLayer,
    conv1_2: Conv2d,
}

impl Block {
    fn new(params: &Params, config: &ScuNetConfig, width: usize, shifted: bool) -> Result<Self, WeightError> {
        let half = width / 2;
        let conv = |name: &str, width: usize, kernel: usize| {
            let conv = Conv2dConfig::new(width, width, kernel);
            if kernel == 1 { conv } else { conv.no_bias() }.build(&params.at(name))
        };
        Ok(Self {
            swin: SwinLayer::new(&params.at("trans_block"), config, half, shifted)?,
            conv1_1: conv("conv1_1", width, 1)?,
            conv1_2: conv("conv1_2", width, 1)?,
            conv1: conv("conv_block.0", half, 3)?,
            conv2: conv("conv_block.2", half, 3)?,
        })
    }

    fn forward(&self, x: Tensor<4>, mask: &Tensor<3>) -> Tensor<4> {
        let width = x.dims()[3];
        let mixed = self.conv1_1.forward(x.clone());
        let (local, distant) =
            (mixed.clone().slice_dim(3, 0..width / 2), mixed.slice_dim(3, width / 2..width));
        let y = self.conv1.forward_then(local.clone(), None, Rectifier::Relu);
        let local = self.conv2.forward_onto(y, local);
        let distant = self.swin.forward(distant, mask);
        self.conv1_2.forward_onto(ops::join(local, distant, None), x)
    }
}

/// Windowed attention and a perceptron, each behind a norm and with a skip.
#[derive(Module, Debug)]
struct SwinLayer {
    norm1: LayerNorm,
    /// `[heads, 2·window - 1, 2·window - 1]`.
    relative_position: Param<Tensor<3>>,
    qkv: Linear,
    proj: Linear,
    norm2: LayerNorm,
    fc1: Linear,
    fc2: Linear,
    #[module(skip)]
    window: usize,
    /// Whether the windows are moved by half a window.
    #[module(skip)]
    shifted: bool,
}

impl SwinLayer {
    /// Hidden width of the perceptron over the token width.
    const MLP_RATIO: usize = 4;

    fn new(params: &Params, config: &ScuNetConfig, embed: usize, shifted: bool) -> Result<Self, WeightError> {
        let side = 2 * config.window - 1;
        let attention = params.at("msa");
        Ok(Self {
            norm1: LayerNorm::new(&params.at("ln1"), embed)?,
            relative_position: attention.in_full().tensor(
                "relative_position_params",
                [embed / config.head_features, side, side],
                Init::Normal(0.02),
            )?,
            qkv: Linear::new(&attention.at("embedding_layer"), embed, 3 * embed)?,
            proj: Linear::new(&attention.at("linear"), embed, embed)?,
            norm2: LayerNorm::new(&params.at("ln2"), embed)?,
            fc1: Linear::new(&params.at("mlp.0"), embed, embed * Self::MLP_RATIO)?,
            fc2: Linear::new(&params.at("mlp.2"), embed * Self::MLP_RATIO, embed)?,
            window: config.window,
            shifted,
        })
    }

    fn forward(&self, x: Tensor<4>, mask: &Tensor<3>) -> Tensor<4> {
        let [heads, side, _] = self.relative_position.dims();
        let table = self.relative_position.val().reshape([heads, side * side]).transpose();
        let x = window::attend(
            self.norm1.forward(x.clone()),
            self.window,
            &self.qkv,
            &self.proj,
            ops::relative_bias(table, self.window),
            self.shifted.then_some(mask),
            Some(x.clone()),
        );
        let y = ops::gelu(self.fc1.forward(self.norm2.forward(x.clone())));
        self.fc2.forward_onto(y, x)
    }
}
