//! SwinIR on unshuffled pixels, the degradation remover of DiffBIR's stage 1 (paper section 3.1,
//! arXiv 2308.15070; SwinIR: arXiv 2108.10257).
//!
//! An 8x pixel-unshuffle brings the picture to a small grid of deep pixels; windowed self-attention works
//! there; nearest-neighbour upsampling with convolutions brings it back to full size.

use crate::sizes::{
    Checked, MOST_DEEP, SizeError, as_many, between, deep, holdable, multiple, power_of_two, some, wide,
};
use crate::window;
use burn::module::{Module, Param};
use burn::tensor::{Tensor, TensorData};
use diffbir_nn::layers::{Conv2d, Conv2dConfig, LayerNorm, Linear};
use diffbir_nn::params::Init;
use diffbir_nn::{Params, Rectifier, WeightError, ops, recompute};
use serde::{Deserialize, Serialize};

/// Mean colour of DIV2K, taken off before and put back after the network.
const MEAN_RGB: [f32; 3] = [0.4488, 0.4371, 0.4040];

/// The value that keeps a token from attending to one of another region (finite, as the reference's).
const MASKED: f32 = -100.0;

/// The sizes of a [`SwinIr`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SwinIrConfig {
    /// Pixels of the picture per side of one deep pixel; a power of two.
    pub unshuffle: usize,
    /// Token width, a multiple of the heads.
    pub embed: usize,
    /// Attention layers of each residual group.
    pub depths: Vec<usize>,
    /// Attention heads of each residual group.
    pub heads: Vec<usize>,
    /// Side of an attention window in tokens.
    pub window: usize,
    /// Hidden width of the perceptron over the token width.
    pub mlp_ratio: usize,
    /// Width of the upsampling convolutions.
    pub upsampling_features: usize,
    /// Token grid of the stored mask: the training size over `unshuffle`.
    pub nominal_grid: usize,
    /// Whether the input is added to the output and the last convolution starts at zero. Not in the
    /// official network; a small one need not learn the identity with it.
    pub global_skip: bool,
}

impl SwinIrConfig {
    /// The official cleaner: 15,792,587 parameters, 732 tensors.
    pub fn official() -> Self {
        Self {
            unshuffle: 8,
            embed: 180,
            depths: vec![6; 8],
            heads: vec![6; 8],
            window: 8,
            mlp_ratio: 2,
            upsampling_features: 64,
            nominal_grid: 64,
            global_skip: false,
        }
    }

    /// The network, its tensors at `params`.
    pub fn build(&self, params: &Params) -> Result<SwinIr, WeightError> {
        let features = self.upsampling_features;
        let deep = 3 * self.unshuffle * self.unshuffle;
        let conv_first = Conv2dConfig::new(deep, self.embed, 3).build(&params.at("conv_first.1"))?;
        let patch_norm = LayerNorm::new(&params.at("patch_embed.norm"), self.embed)?;
        let groups = self
            .depths
            .iter()
            .zip(&self.heads)
            .enumerate()
            .map(|(index, (&depth, &heads))| Group::new(&params.at("layers").at(index), self, depth, heads))
            .collect::<Result<Vec<_>, _>>()?;
        let norm = LayerNorm::new(&params.at("norm"), self.embed)?;
        let conv_after_body =
            Conv2dConfig::new(self.embed, self.embed, 3).build(&params.at("conv_after_body"))?;
        let conv_before =
            Conv2dConfig::new(self.embed, features, 3).build(&params.at("conv_before_upsample.0"))?;
        let upsampling = (1..=self.unshuffle.ilog2())
            .map(|step| {
                Conv2dConfig::doubling(features, features).build(&params.at(format_args!("conv_up{step}")))
            })
            .collect::<Result<Vec<_>, _>>()?;
        let conv_hr = Conv2dConfig::new(features, features, 3).build(&params.at("conv_hr"))?;
        let last = Conv2dConfig::new(features, 3, 3);
        let last = if self.global_skip { last.zero() } else { last };
        Ok(SwinIr {
            conv_first,
            patch_norm,
            groups,
            norm,
            conv_after_body,
            conv_before,
            upsampling,
            conv_hr,
            conv_last: last.build(&params.at("conv_last"))?,
            window: self.window,
            unshuffle: self.unshuffle,
            global_skip: self.global_skip,
        })
    }
}

/// Most rows of the stored mask times rows of a window.
const MOST_MASK: usize = 4096;

impl Checked for SwinIrConfig {
    fn check(&self) -> Result<(), SizeError> {
        between("unshuffle", self.unshuffle, 1..=16)?;
        power_of_two("unshuffle", self.unshuffle)?;
        wide("embed", self.embed)?;
        some("depths", &self.depths, MOST_DEEP)?;
        self.depths.iter().try_for_each(|&depth| deep("depths", depth))?;
        as_many("heads", &self.heads, ("depths", &self.depths))?;
        for &heads in &self.heads {
            wide("heads", heads)?;
            multiple("embed", self.embed, heads, "the heads of a group")?;
        }
        between("window", self.window, 1..=window::MOST)?;
        between("mlp_ratio", self.mlp_ratio, 1..=64)?;
        wide("upsampling_features", self.upsampling_features)?;
        between("nominal_grid", self.nominal_grid, self.window..=MOST_MASK / self.window)?;
        multiple("nominal_grid", self.nominal_grid, self.window, "the window")?;
        holdable("embed", |params| self.build(params))
    }
}

/// The network; see the module.
#[derive(Module, Debug)]
pub struct SwinIr {
    conv_first: Conv2d,
    patch_norm: LayerNorm,
    groups: Vec<Group>,
    norm: LayerNorm,
    conv_after_body: Conv2d,
    conv_before: Conv2d,
    upsampling: Vec<Conv2d>,
    conv_hr: Conv2d,
    conv_last: Conv2d,
    #[module(skip)]
    window: usize,
    #[module(skip)]
    unshuffle: usize,
    #[module(skip)]
    global_skip: bool,
}

impl SwinIr {
    /// RGB in 0..1 `[b, h, w, 3]` to the same size, not clamped. Sizes that are no multiple of
    /// `unshuffle · window` are reflected up to one.
    ///
    /// # Panics
    /// When a side is shorter than the reflection that it needs.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        self.forward_skipping(x, None)
    }

    /// [`SwinIr::forward`] in training with stochastic depth (arXiv 1603.09382): `kept[layers, b, 2, 1]` are factors on
    /// what the attention and the perceptron of each layer add to each picture.
    pub fn forward_skipping(&self, x: Tensor<4>, kept: Option<Tensor<4>>) -> Tensor<4> {
        let [_, height, width, _] = x.dims();
        // The reference reflects up to a multiple of the window in pixels, and its pipeline pads to
        // unshuffle · window beforehand; one rule does both.
        let multiple = self.unshuffle * self.window;
        let x = ops::pad_reflect_end(
            x,
            height.next_multiple_of(multiple) - height,
            width.next_multiple_of(multiple) - width,
        );
        let device = x.device();
        let mean = Tensor::<1>::from_floats(MEAN_RGB, &device).unsqueeze::<4>();
        let centred = x - mean.clone();
        let unshuffled = ops::pixel_unshuffle(centred.clone(), self.unshuffle);
        let shallow =
            recompute::block(&self.conv_first, vec![unshuffled], |conv, x| conv.forward(x[0].clone()));
        let [_, rows, columns, _] = shallow.dims();
        let mask = window::shift_mask(rows, columns, self.window, MASKED, &device);
        let mut tokens = self.patch_norm.forward(shallow.clone());
        let mut first = 0;
        for group in &self.groups {
            let layers = first..first + group.layers.len();
            first = layers.end;
            let mut inputs = vec![tokens, mask.clone().unsqueeze()];
            inputs.extend(kept.as_ref().map(|kept| kept.clone().slice_dim(0, layers)));
            tokens = recompute::block(group, inputs, |group, inputs| {
                group.forward(inputs[0].clone(), &inputs[1].clone().squeeze_dim(0), inputs.get(2))
            });
        }
        let deep = self.conv_after_body.forward_onto(self.norm.forward(tokens), shallow);
        let mut features = self.conv_before.forward_then(deep, None, Rectifier::Leaky(0.01));
        for conv in &self.upsampling {
            features = conv.forward_then(features, None, Rectifier::Leaky(0.2));
        }
        let features = self.conv_hr.forward_then(features, None, Rectifier::Leaky(0.2));
        let mut out = ops::as_result(self.conv_last.forward(features));
        if self.global_skip {
            out = out + centred;
        }
        (out + mean).slice_dim(1, 0..height).slice_dim(2, 0..width)
    }
}

/// Residual group: attention layers, a convolution, and the group's input added.
#[derive(Module, Debug)]
struct Group {
    layers: Vec<Layer>,
    conv: Conv2d,
}

impl Group {
    fn new(params: &Params, config: &SwinIrConfig, depth: usize, heads: usize) -> Result<Self, WeightError> {
        let blocks = params.at("residual_group.blocks");
        Ok(Self {
            layers: (0..depth)
                .map(|index| Layer::new(&blocks.at(index), config, heads, index % 2 == 1))
                .collect::<Result<_, _>>()?,
            conv: Conv2dConfig::new(config.embed, config.embed, 3).build(&params.at("conv"))?,
        })
    }

    /// `kept[layers, b, 2, 1]` as in [`SwinIr::forward_skipping`].
    fn forward(&self, x: Tensor<4>, mask: &Tensor<3>, kept: Option<&Tensor<4>>) -> Tensor<4> {
        let of_layer = |index: usize| kept.map(|kept| kept.clone().slice_dim(0, index..index + 1));
        let layers = self.layers.iter().enumerate();
        let y = layers.fold(x.clone(), |x, (index, layer)| layer.forward(x, mask, of_layer(index)));
        self.conv.forward_onto(y, x)
    }
}

/// Swin layer: windowed attention and a perceptron, each behind a norm and with a skip.
#[derive(Module, Debug)]
struct Layer {
    norm1: LayerNorm,
    attention: WindowAttention,
    norm2: LayerNorm,
    fc1: Linear,
    fc2: Linear,
    /// Whether the windows are moved by half a window.
    #[module(skip)]
    shifted: bool,
}

impl Layer {
    fn new(params: &Params, config: &SwinIrConfig, heads: usize, shifted: bool) -> Result<Self, WeightError> {
        let (embed, window, grid) = (config.embed, config.window, config.nominal_grid);
        if shifted {
            let windows = (grid / window).pow(2);
            let tokens = window * window;
            params.buffer("attn_mask", &[windows, tokens, tokens], move || {
                TensorData::new(window::mask_values(grid, grid, window, MASKED), [windows, tokens, tokens])
            })?;
        }
        Ok(Self {
            norm1: LayerNorm::new(&params.at("norm1"), embed)?,
            attention: WindowAttention::new(&params.at("attn"), embed, heads, window)?,
            norm2: LayerNorm::new(&params.at("norm2"), embed)?,
            fc1: Linear::new(&params.at("mlp.fc1"), embed, embed * config.mlp_ratio)?,
            fc2: Linear::new(&params.at("mlp.fc2"), embed * config.mlp_ratio, embed)?,
            shifted,
        })
    }

    fn forward(&self, x: Tensor<4>, mask: &Tensor<3>, kept: Option<Tensor<4>>) -> Tensor<4> {
        let share = |branch: usize, y: Tensor<4>| match &kept {
            Some(kept) => y * kept.clone().slice_dim(2, branch..branch + 1).swap_dims(0, 1),
            None => y,
        };
        let (normed, mask) = (self.norm1.forward(x.clone()), self.shifted.then_some(mask));
        let x = if kept.is_none() {
            self.attention.forward(normed, mask, Some(x))
        } else {
            x + share(0, self.attention.forward(normed, mask, None))
        };
        let y = ops::gelu(self.fc1.forward(self.norm2.forward(x.clone())));
        if kept.is_none() {
            return self.fc2.forward_onto(y, x);
        }
        x + share(1, self.fc2.forward(y))
    }
}

/// Self-attention inside windows, with a learned bias for each relative position.
#[derive(Module, Debug)]
struct WindowAttention {
    /// `[(2·window - 1)², heads]`.
    bias_table: Param<Tensor<2>>,
    qkv: Linear,
    proj: Linear,
    #[module(skip)]
    window: usize,
}

impl WindowAttention {
    fn new(params: &Params, embed: usize, heads: usize, window: usize) -> Result<Self, WeightError> {
        let side = 2 * window - 1;
        let bias_table = params.in_full().tensor(
            "relative_position_bias_table",
            [side * side, heads],
            Init::Normal(0.02),
        )?;
        let tokens = window * window;
        params.buffer("relative_position_index", &[tokens, tokens], move || {
            TensorData::new(ops::relative_index(window), [tokens, tokens])
        })?;
        Ok(Self {
            bias_table,
            qkv: Linear::new(&params.at("qkv"), embed, 3 * embed)?,
            proj: Linear::new(&params.at("proj"), embed, embed)?,
            window,
        })
    }

    /// `x[b, rows, columns, embed]`; `mask[windows, tokens, tokens]` if the windows are shifted. Added to `rest`.
    fn forward(&self, x: Tensor<4>, mask: Option<&Tensor<3>>, rest: Option<Tensor<4>>) -> Tensor<4> {
        let bias = ops::relative_bias(self.bias_table.val(), self.window);
        window::attend(x, self.window, &self.qkv, &self.proj, bias, mask, rest)
    }
}
