//! RRDBNet, the network of ESRGAN (arXiv 1809.00219), as a stage 1: with the weights of BSRNet
//! (arXiv 2103.14006) the degradation remover of DiffBIR v2 for super-resolution (reference 1.6), and with
//! those of Real-ESRGAN (arXiv 2107.10833): x4plus, its smaller one for drawings, and x2plus, which works on 2x-unshuffled
//! pixels.
//!
//! Densely connected 3x3 convolutions at the size of the input, each block's output scaled down and added to
//! its input; nearest-neighbour upsampling with convolutions brings the features to the size of the output.

use crate::sizes::{Checked, SizeError, between, deep, holdable, power_of_two, wide};
use burn::module::Module;
use burn::tensor::Tensor;
use diffbir_nn::layers::{Conv2d, Conv2dConfig};
use diffbir_nn::{Params, WeightError, ops};
use serde::{Deserialize, Serialize};

/// How many times larger the output is than the grid that the blocks work on.
const ENLARGED: usize = 4;

/// What a block's output counts beside its input.
const RESIDUAL_SCALE: f64 = 0.2;

/// Slope of all activations where negative.
const SLOPE: f64 = 0.2;

/// The sizes of an [`Rrdb`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RrdbConfig {
    /// Width between the blocks.
    pub features: usize,
    /// Width that each convolution of a dense block adds.
    pub growth: usize,
    /// Blocks of three dense blocks each.
    pub blocks: usize,
    /// How many times larger the output is than the input: 4, or 2 or 1 with the input's pixels unshuffled.
    #[serde(default = "enlarged")]
    pub upscale: usize,
    /// Whether one that enlarges less than 4 times sees the input as it is, and has fewer convolutions that enlarge: BSRGANx2.
    #[serde(default)]
    pub plain: bool,
    /// How the weights' file names its tensors.
    pub names: RrdbNames,
}

fn enlarged() -> usize {
    ENLARGED
}

/// The two ways in which files name the same tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RrdbNames {
    /// `RRDB_trunk.0.RDB1.conv1`, `trunk_conv`, `upconv1`, `HRconv`: the first ESRGAN, BSRNet.
    Esrgan,
    /// `body.0.rdb1.conv1`, `conv_body`, `conv_up1`, `conv_hr`: BasicSR, Real-ESRGAN.
    BasicSr,
}

impl RrdbConfig {
    /// BSRNet: 16,697,987 parameters, 702 tensors.
    pub fn official() -> Self {
        Self {
            features: 64,
            growth: 32,
            blocks: 23,
            upscale: ENLARGED,
            plain: false,
            names: RrdbNames::Esrgan,
        }
    }

    /// Pixels of the input per side of what a block sees as one; sides of the input are multiples of it.
    pub fn unshuffle(&self) -> usize {
        if self.plain { 1 } else { ENLARGED / self.upscale }
    }

    /// How many convolutions enlarge, twice each.
    pub fn doublings(&self) -> usize {
        (self.upscale * self.unshuffle()).ilog2() as usize
    }

    /// The network, its tensors at `params`.
    pub fn build(&self, params: &Params) -> Result<Rrdb, WeightError> {
        let name = |esrgan: &'static str, basic_sr: &'static str| match self.names {
            RrdbNames::Esrgan => esrgan,
            RrdbNames::BasicSr => basic_sr,
        };
        let conv = |name: String, input: usize, output: usize| {
            Conv2dConfig::new(input, output, 3).build(&params.at(name))
        };
        let (trunk, dense) = (params.at(name("RRDB_trunk", "body")), name("RDB", "rdb"));
        let wide = self.features;
        Ok(Rrdb {
            conv_first: conv("conv_first".into(), 3 * self.unshuffle().pow(2), wide)?,
            trunk: (0..self.blocks)
                .map(|index| {
                    let dense = |n| DenseBlock::new(&trunk.at(index).at(format_args!("{dense}{n}")), self);
                    Ok(Block { dense: (1..=3).map(dense).collect::<Result<_, WeightError>>()? })
                })
                .collect::<Result<_, WeightError>>()?,
            trunk_conv: conv(name("trunk_conv", "conv_body").into(), wide, wide)?,
            upsampling: (1..=self.doublings())
                .map(|step| {
                    let name = format!("{}{step}", name("upconv", "conv_up"));
                    Conv2dConfig::doubling(wide, wide).build(&params.at(name))
                })
                .collect::<Result<_, _>>()?,
            conv_hr: conv(name("HRconv", "conv_hr").into(), wide, wide)?,
            conv_last: conv("conv_last".into(), wide, 3)?,
            unshuffle: self.unshuffle(),
        })
    }
}

impl Checked for RrdbConfig {
    fn check(&self) -> Result<(), SizeError> {
        wide("features", self.features)?;
        wide("growth", self.growth)?;
        deep("blocks", self.blocks)?;
        between("upscale", self.upscale, 1..=ENLARGED)?;
        power_of_two("upscale", self.upscale)?;
        holdable("features", |params| self.build(params))
    }
}

/// The network; see the module.
#[derive(Module, Debug)]
pub struct Rrdb {
    conv_first: Conv2d,
    trunk: Vec<Block>,
    trunk_conv: Conv2d,
    upsampling: Vec<Conv2d>,
    conv_hr: Conv2d,
    conv_last: Conv2d,
    #[module(skip)]
    unshuffle: usize,
}

impl Rrdb {
    /// RGB in 0..1 `[b, h, w, 3]` to `[b, upscale · h, upscale · w, 3]`, not clamped.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let mut features = self.features(x);
        for conv in &self.upsampling {
            features = ops::leaky_relu(conv.forward(features), SLOPE);
        }
        self.conv_last.forward(ops::leaky_relu(self.conv_hr.forward(features), SLOPE))
    }

    /// The same as far as it goes at the size of the input over [`RrdbConfig::unshuffle`]: `[b, h', w', features]`.
    pub fn features(&self, x: Tensor<4>) -> Tensor<4> {
        let x = if self.unshuffle > 1 { ops::pixel_unshuffle(x, self.unshuffle) } else { x };
        let shallow = self.conv_first.forward(x);
        let deep = self.trunk.iter().fold(shallow.clone(), |x, block| block.forward(x));
        self.trunk_conv.forward(deep) + shallow
    }
}

/// Residual in residual dense block.
#[derive(Module, Debug)]
struct Block {
    dense: Vec<DenseBlock>,
}

impl Block {
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let y = self.dense.iter().fold(x.clone(), |x, dense| dense.forward(x));
        y * RESIDUAL_SCALE + x
    }
}

/// Convolutions that each see the input and all outputs before.
#[derive(Module, Debug)]
struct DenseBlock {
    growing: Vec<Conv2d>,
    last: Conv2d,
}

impl DenseBlock {
    fn new(params: &Params, config: &RrdbConfig) -> Result<Self, WeightError> {
        let conv = |index: usize, output: usize| {
            let input = config.features + index * config.growth;
            Conv2dConfig::new(input, output, 3).build(&params.at(format_args!("conv{}", index + 1)))
        };
        Ok(Self {
            growing: (0..4).map(|index| conv(index, config.growth)).collect::<Result<_, _>>()?,
            last: conv(4, config.features)?,
        })
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let seen = self.growing.iter().fold(x.clone(), |seen, conv| {
            let y = ops::leaky_relu(conv.forward(seen.clone()), SLOPE);
            Tensor::cat(vec![seen, y], 3)
        });
        self.last.forward(seen) * RESIDUAL_SCALE + x
    }
}
