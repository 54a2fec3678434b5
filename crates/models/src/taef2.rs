//! TAEF2, a tiny autoencoder for the latent space of FLUX.2 by Ollin Boer Bohan
//! (github.com/madebyollin/taesd, MIT): 32 channels at an eighth of the size. The autoencoder of our own
//! small model.

use crate::autoencoder::Autoencoder;
use crate::sizes::{Checked, SizeError, holdable, multiple, wide};
use crate::steps::{Activation, Step};
use burn::module::Module;
use diffbir_nn::layers::{Conv2d, Conv2dConfig, GroupNorm};
use diffbir_nn::{Params, Rectifier, WeightError};
use serde::{Deserialize, Serialize};

/// The sizes of a [`Taef2`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Taef2Config {
    /// Channels of the latent.
    pub latent_channels: usize,
    /// Width of all layers.
    pub features: usize,
    /// Width inside the branch of the deepest blocks.
    pub branch_features: usize,
}

impl Taef2Config {
    /// Pixels per side of one latent cell.
    pub const DOWNSAMPLING: usize = 1 << Taef2::STAGES;

    /// The published network: 2,677,027 parameters.
    pub fn published() -> Self {
        Self { latent_channels: 32, features: 64, branch_features: 256 }
    }

    /// The network, its halves at `encoder` and `decoder` of `params`.
    pub fn build(&self, params: &Params) -> Result<Taef2, WeightError> {
        let wide = self.features;
        let stages = Taef2::STAGES;
        // The published files number the members of one sequence, activations and resizings included.
        let encoder = params.at("encoder");
        let first = Conv2dConfig::new(3, wide, 3).build(&encoder.at(0))?;
        let first_block = Block::new(&encoder.at(1), self, false)?;
        let mut down = Vec::new();
        for stage in 0..stages {
            let start = 2 + stage * (1 + Stage::BLOCKS);
            let place = |index: usize| encoder.at(start + index);
            let resize = Conv2dConfig::new(wide, wide, 3).stride(2).no_bias().build(&place(0))?;
            let blocks = (1..=Stage::BLOCKS)
                .map(|index| Block::new(&place(index), self, stage + 1 == stages))
                .collect::<Result<_, _>>()?;
            down.push(Stage { blocks, resize });
        }
        let to_latent = Conv2dConfig::new(wide, self.latent_channels, 3)
            .build(&encoder.at(2 + stages * (1 + Stage::BLOCKS)))?;

        let decoder = params.at("decoder");
        let from_latent = Conv2dConfig::new(self.latent_channels, wide, 3).build(&decoder.at(1))?;
        let mut up = Vec::new();
        for stage in 0..stages {
            let start = 3 + stage * (2 + Stage::BLOCKS);
            let blocks = (0..Stage::BLOCKS)
                .map(|index| Block::new(&decoder.at(start + index), self, stage == 0))
                .collect::<Result<_, _>>()?;
            let place = decoder.at(start + Stage::BLOCKS + 1);
            up.push(Stage { blocks, resize: Conv2dConfig::doubling(wide, wide).no_bias().build(&place)? });
        }
        let end = 3 + stages * (2 + Stage::BLOCKS);
        Ok(Taef2 {
            first,
            first_block,
            down,
            to_latent,
            from_latent,
            up,
            last_block: Block::new(&decoder.at(end), self, false)?,
            last: Conv2dConfig::new(wide, 3, 3).build(&decoder.at(end + 1))?,
            latent_channels: self.latent_channels,
        })
    }
}

impl Checked for Taef2Config {
    fn check(&self) -> Result<(), SizeError> {
        wide("latent_channels", self.latent_channels)?;
        wide("features", self.features)?;
        wide("branch_features", self.branch_features)?;
        multiple("branch_features", self.branch_features, Branch::GROUPS, "the groups of its norm")?;
        holdable("features", |params| self.build(params))
    }
}

/// The network; see the module.
#[derive(Module, Debug)]
pub struct Taef2 {
    first: Conv2d,
    first_block: Block,
    down: Vec<Stage>,
    to_latent: Conv2d,
    from_latent: Conv2d,
    up: Vec<Stage>,
    last_block: Block,
    last: Conv2d,
    #[module(skip)]
    latent_channels: usize,
}

impl Taef2 {
    /// Halvings and doublings.
    const STAGES: usize = 3;
}

impl Autoencoder for Taef2 {
    fn downsampling(&self) -> usize {
        Taef2Config::DOWNSAMPLING
    }

    fn latent_channels(&self) -> usize {
        self.latent_channels
    }

    fn encoder_steps(&self) -> Vec<Step<'_>> {
        let mut steps = vec![Step::Conv(&self.first)];
        self.first_block.steps(&mut steps);
        for stage in &self.down {
            steps.push(Step::Conv(&stage.resize));
            stage.blocks.iter().for_each(|block| block.steps(&mut steps));
        }
        steps.push(Step::Conv(&self.to_latent));
        steps
    }

    fn decoder_steps(&self) -> Vec<Step<'_>> {
        let mut steps = vec![
            // Latents beyond what training saw are bent back softly.
            Step::map(|x| (x / 3.0).tanh() * 3.0),
            Step::near(1, |x| self.from_latent.forward_then(x, None, Rectifier::Relu)),
        ];
        for stage in &self.up {
            stage.blocks.iter().for_each(|block| block.steps(&mut steps));
            steps.push(Step::Conv(&stage.resize));
        }
        self.last_block.steps(&mut steps);
        steps.push(Step::Conv(&self.last));
        steps
    }
}

/// Blocks at one size, and the convolution that leads to it or away from it.
#[derive(Module, Debug)]
struct Stage {
    blocks: Vec<Block>,
    resize: Conv2d,
}

impl Stage {
    const BLOCKS: usize = 3;
}

/// Three convolutions with a skip; at the smallest size behind a branch that sees the whole picture.
#[derive(Module, Debug)]
struct Block {
    branch: Option<Branch>,
    conv1: Conv2d,
    conv2: Conv2d,
    conv3: Conv2d,
}

/// A pointwise perceptron with a group norm inside.
#[derive(Module, Debug)]
struct Branch {
    widen: Conv2d,
    norm: GroupNorm,
    narrow: Conv2d,
}

impl Branch {
    const GROUPS: usize = 4;
}

impl Block {
    fn new(params: &Params, config: &Taef2Config, with_branch: bool) -> Result<Self, WeightError> {
        let (wide, inside) = (config.features, config.branch_features);
        let conv = |index: usize| Conv2dConfig::new(wide, wide, 3).build(&params.at("conv").at(index));
        let (conv1, conv2, conv3) = (conv(0)?, conv(2)?, conv(4)?);
        let pool = params.at("pool");
        let branch = with_branch
            .then(|| {
                Ok(Branch {
                    widen: Conv2dConfig::new(wide, inside, 1).no_bias().build(&pool.at(0))?,
                    norm: GroupNorm::new(&pool.at(1), Branch::GROUPS, inside, 1e-5)?,
                    narrow: Conv2dConfig::new(inside, wide, 1).no_bias().build(&pool.at(3))?,
                })
            })
            .transpose()?;
        Ok(Self { branch, conv1, conv2, conv3 })
    }

    fn steps<'a>(&'a self, steps: &mut Vec<Step<'a>>) {
        if let Some(branch) = &self.branch {
            steps.extend([
                Step::Keep,
                Step::Conv(&branch.widen),
                Step::Norm(&branch.norm, Activation::Relu),
                Step::ConvOntoKept(&branch.narrow, None),
            ]);
        }
        steps.push(Step::near(3, |x| {
            let y = self.conv1.forward_then(x.clone(), None, Rectifier::Relu);
            let y = self.conv2.forward_then(y, None, Rectifier::Relu);
            self.conv3.forward_then(y, Some(x), Rectifier::Relu)
        }));
    }
}
