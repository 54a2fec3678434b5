//! The text encoder: OpenCLIP's ViT-H/14 text tower as Stable Diffusion 2.1 uses it (reference 1.4; CLIP: arXiv
//! 2103.00020, OpenCLIP: arXiv 2212.07143).
//!
//! A prompt is described by all its tokens after the last but one block and the final norm. The last block and
//! the projection, which CLIP needs to compare texts with pictures, are in official files but not in use.

use crate::sizes::{Checked, SizeError, between, deep, holdable, multiple, wide};
use crate::window::HIDDEN;
use burn::module::{Module, Param};
use burn::tensor::{Int, Tensor, TensorData};
use diffbir_nn::layers::{Embedding, LayerNorm, Linear};
use diffbir_nn::params::Init;
use diffbir_nn::{Device, Params, Weight, WeightError, ops};
use serde::{Deserialize, Serialize};

/// The sizes of a [`ClipText`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClipTextConfig {
    /// Number of token ids.
    pub vocabulary: usize,
    /// Tokens of every prompt, padding included.
    pub tokens: usize,
    /// Width of a token, a multiple of the heads.
    pub width: usize,
    /// Heads of each attention.
    pub heads: usize,
    /// Blocks in the file; all but the last are in use.
    pub blocks: usize,
}

impl ClipTextConfig {
    /// Stable Diffusion 2.1: 354,032,641 parameters in 294 tensors, of which 340,387,840 in 280 are in use.
    pub fn official() -> Self {
        Self { vocabulary: 49408, tokens: 77, width: 1024, heads: 16, blocks: 24 }
    }

    /// The network, its tensors at `params`.
    pub fn build(&self, params: &Params) -> Result<ClipText, WeightError> {
        let model = params.at("model");
        let width = self.width;
        let positions =
            model.in_full().tensor("positional_embedding", [self.tokens, width], Init::Normal(0.01))?;
        model.unused("text_projection", &[width, width])?;
        model.unused("logit_scale", &[])?;
        let place = model.at("transformer.resblocks");
        let used = self.blocks - 1;
        let blocks = (0..used).map(|index| Block::new(&place.at(index), self)).collect::<Result<_, _>>()?;
        Block::unused(&place.at(used), width)?;
        Ok(ClipText {
            embedding: Embedding::new(&model.at("token_embedding"), self.vocabulary, width)?,
            positions,
            blocks,
            norm: LayerNorm::new(&model.at("ln_final"), width)?,
        })
    }
}

impl Checked for ClipTextConfig {
    /// That prompts fit belongs to it: so many tokens, with ids up to so many.
    fn check(&self) -> Result<(), SizeError> {
        between("vocabulary", self.vocabulary, diffbir_text::VOCABULARY..=1 << 20)?;
        between("tokens", self.tokens, diffbir_text::CONTEXT..=diffbir_text::CONTEXT)?;
        wide("width", self.width)?;
        wide("heads", self.heads)?;
        multiple("width", self.width, self.heads, "the heads")?;
        deep("blocks", self.blocks)?;
        holdable("width", |params| self.build(params))
    }
}

/// The network; see the module.
#[derive(Module, Debug)]
pub struct ClipText {
    embedding: Embedding,
    /// `[tokens, width]`.
    positions: Param<Tensor<2>>,
    blocks: Vec<Block>,
    norm: LayerNorm,
}

impl ClipText {
    /// Token ids `[b, tokens]` to text tokens `[b, tokens, width]`.
    pub fn forward(&self, ids: Tensor<2, Int>) -> Tensor<3> {
        self.norm.forward(self.hidden(ids, self.blocks.len()))
    }

    /// What the first `blocks` blocks make of token ids `[b, tokens]`: `[b, tokens, width]`.
    pub fn hidden(&self, ids: Tensor<2, Int>, blocks: usize) -> Tensor<3> {
        let mask = causal_mask(ids.dims()[1], &ids.device());
        let x = self.embedding.forward(ids) + self.positions.val().unsqueeze();
        self.blocks[..blocks].iter().fold(x, |x, block| block.forward(x, mask.clone()))
    }
}

/// What keeps a token from attending to later ones: `[1, 1, tokens, tokens]`, added to the scores.
fn causal_mask(tokens: usize, device: &Device) -> Tensor<4> {
    let values: Vec<f32> =
        (0..tokens * tokens).map(|at| if at % tokens > at / tokens { HIDDEN } else { 0.0 }).collect();
    Tensor::from_data(TensorData::new(values, [1, 1, tokens, tokens]), device)
}

/// Attention and a perceptron four times as wide inside, each added to its input and normed before.
#[derive(Module, Debug)]
struct Block {
    norm1: LayerNorm,
    /// Query, key and value in one, `[3 · width, width]`.
    in_weight: Weight<2>,
    /// `[3 · width]`.
    in_bias: Param<Tensor<1>>,
    out: Linear,
    norm2: LayerNorm,
    up: Linear,
    down: Linear,
    #[module(skip)]
    heads: usize,
}

impl Block {
    fn new(params: &Params, config: &ClipTextConfig) -> Result<Self, WeightError> {
        let width = config.width;
        let attention = params.at("attn");
        Ok(Self {
            norm1: LayerNorm::new(&params.at("ln_1"), width)?,
            in_weight: attention.linear("in_proj_weight", [3 * width, width], Init::FanIn)?,
            in_bias: attention.tensor("in_proj_bias", [3 * width], Init::BiasOf(width))?,
            out: Linear::new(&attention.at("out_proj"), width, width)?,
            norm2: LayerNorm::new(&params.at("ln_2"), width)?,
            up: Linear::new(&params.at("mlp.c_fc"), width, 4 * width)?,
            down: Linear::new(&params.at("mlp.c_proj"), 4 * width, width)?,
            heads: config.heads,
        })
    }

    /// The names of a block that is not in use.
    fn unused(params: &Params, width: usize) -> Result<(), WeightError> {
        let tensors: [(&str, &[usize]); 12] = [
            ("ln_1.weight", &[width]),
            ("ln_1.bias", &[width]),
            ("attn.in_proj_weight", &[3 * width, width]),
            ("attn.in_proj_bias", &[3 * width]),
            ("attn.out_proj.weight", &[width, width]),
            ("attn.out_proj.bias", &[width]),
            ("ln_2.weight", &[width]),
            ("ln_2.bias", &[width]),
            ("mlp.c_fc.weight", &[4 * width, width]),
            ("mlp.c_fc.bias", &[4 * width]),
            ("mlp.c_proj.weight", &[width, 4 * width]),
            ("mlp.c_proj.bias", &[width]),
        ];
        for (name, shape) in tensors {
            params.unused(name, shape)?;
        }
        Ok(())
    }

    fn forward(&self, x: Tensor<3>, mask: Tensor<4>) -> Tensor<3> {
        // What is passed from block to block stays in f32.
        let x = x.clone() + ops::as_result(self.attention(self.norm1.forward(x), mask));
        let h = ops::gelu(self.up.forward(self.norm2.forward(x.clone())));
        x + ops::as_result(self.down.forward(h))
    }

    fn attention(&self, x: Tensor<3>, mask: Tensor<4>) -> Tensor<3> {
        let parts = self.in_weight.multiply(x, Some(self.in_bias.val()));
        self.out.forward(ops::attention_of_parts(parts, self.heads, mask, self.in_weight.products()))
    }
}
