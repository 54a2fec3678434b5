//! The blocks of the denoiser: one told the time, one that attends to the text.

use super::UnetConfig;
use burn::module::Module;
use burn::tensor::Tensor;
use diffbir_nn::layers::{Conv2d, Conv2dConfig, GroupNorm, LayerNorm, Linear};
use diffbir_nn::{Params, WeightError, ops};

/// Residual block that is told the time.
#[derive(Module, Debug)]
pub struct ResBlock {
    norm1: GroupNorm,
    conv1: Conv2d,
    time: Linear,
    norm2: GroupNorm,
    conv2: Conv2d,
    skip: Option<Conv2d>,
}

impl ResBlock {
    pub(super) const EPSILON: f32 = 1e-5;

    /// From `input` to `output` channels.
    pub fn new(
        params: &Params,
        config: &UnetConfig,
        input: usize,
        output: usize,
    ) -> Result<Self, WeightError> {
        let groups = config.norm_groups;
        Ok(Self {
            norm1: GroupNorm::new(&params.at("in_layers.0"), groups, input, Self::EPSILON)?,
            conv1: Conv2dConfig::new(input, output, 3).build(&params.at("in_layers.2"))?,
            time: Linear::new(&params.at("emb_layers.1"), config.time_channels(), output)?,
            norm2: GroupNorm::new(&params.at("out_layers.0"), groups, output, Self::EPSILON)?,
            conv2: Conv2dConfig::new(output, output, 3).zero().build(&params.at("out_layers.3"))?,
            skip: (input != output)
                .then(|| Conv2dConfig::new(input, output, 1).build(&params.at("skip_connection")))
                .transpose()?,
        })
    }

    /// `x[b, h, w, input]`, told `time[b, 4 · model_channels]`.
    pub fn forward(&self, x: Tensor<4>, time: &Tensor<2>) -> Tensor<4> {
        let h = self.conv1.forward(self.norm1.forward_silu(x.clone()));
        let h = ops::add_to_images(h, self.time.forward(time.clone()));
        let x = self.skip.iter().fold(x, |x, skip| skip.forward(x));
        self.conv2.forward_onto(self.norm2.forward_silu(h), x)
    }
}

/// Attention of each pixel to all others and to the text (`SpatialTransformer`, depth 1, linear
/// projections).
#[derive(Module, Debug)]
pub struct Transformer {
    norm: GroupNorm,
    proj_in: Linear,
    self_attention: Attention,
    feed_forward: FeedForward,
    cross_attention: Attention,
    norm1: LayerNorm,
    norm2: LayerNorm,
    norm3: LayerNorm,
    proj_out: Linear,
}

impl Transformer {
    const EPSILON: f32 = 1e-6;

    /// Over `channels` channels.
    pub fn new(params: &Params, config: &UnetConfig, channels: usize) -> Result<Self, WeightError> {
        let block = params.at("transformer_blocks.0");
        let head = config.head_channels;
        Ok(Self {
            norm: GroupNorm::new(&params.at("norm"), config.norm_groups, channels, Self::EPSILON)?,
            proj_in: Linear::new(&params.at("proj_in"), channels, channels)?,
            self_attention: Attention::new(&block.at("attn1"), channels, channels, head)?,
            feed_forward: FeedForward::new(&block.at("ff.net"), channels)?,
            cross_attention: Attention::new(&block.at("attn2"), channels, config.context_channels, head)?,
            norm1: LayerNorm::new(&block.at("norm1"), channels)?,
            norm2: LayerNorm::new(&block.at("norm2"), channels)?,
            norm3: LayerNorm::new(&block.at("norm3"), channels)?,
            proj_out: Linear::new(&params.at("proj_out"), channels, channels)?,
        })
    }

    /// `x[b, h, w, channels]`, attending to itself and to `context[b, tokens, context_channels]`.
    pub fn forward(&self, x: Tensor<4>, context: &Tensor<3>) -> Tensor<4> {
        let [batch, height, width, channels] = x.dims();
        let tokens = self.norm.forward(x.clone()).reshape([batch, height * width, channels]);
        let h = self.proj_in.forward(tokens);
        let normed = self.norm1.forward(h.clone());
        let h = self.self_attention.forward_onto(normed.clone(), normed, h);
        let h = self.cross_attention.forward_onto(self.norm2.forward(h.clone()), context.clone(), h);
        let h = self.feed_forward.forward_onto(self.norm3.forward(h.clone()), h);
        self.proj_out.forward_onto(h.reshape([batch, height, width, channels]), x)
    }
}

/// Multi-head attention without biases on query, key and value.
#[derive(Module, Debug)]
struct Attention {
    query: Linear,
    key: Linear,
    value: Linear,
    out: Linear,
    #[module(skip)]
    head_channels: usize,
}

impl Attention {
    fn new(
        params: &Params,
        channels: usize,
        context: usize,
        head_channels: usize,
    ) -> Result<Self, WeightError> {
        Ok(Self {
            query: Linear::without_bias(&params.at("to_q"), channels, channels)?,
            key: Linear::without_bias(&params.at("to_k"), context, channels)?,
            value: Linear::without_bias(&params.at("to_v"), context, channels)?,
            out: Linear::new(&params.at("to_out.0"), channels, channels)?,
            head_channels,
        })
    }

    /// `x[b, n, channels]` attends to `context[b, m, context]`; what it finds is added to `rest`.
    fn forward_onto(&self, x: Tensor<3>, context: Tensor<3>, rest: Tensor<3>) -> Tensor<3> {
        let [batch, tokens, channels] = x.dims();
        let heads = |x: Tensor<3>| {
            let [_, length, _] = x.dims();
            let heads = channels / self.head_channels;
            x.reshape([batch, length, heads, self.head_channels]).swap_dims(1, 2)
        };
        let (q, k, v) =
            (self.query.forward(x), self.key.forward(context.clone()), self.value.forward(context));
        let y = ops::attention(heads(q), heads(k), heads(v), self.query.products());
        self.out.forward_onto(y.swap_dims(1, 2).reshape([batch, tokens, channels]), rest)
    }
}

/// GEGLU perceptron, four times as wide inside.
#[derive(Module, Debug)]
struct FeedForward {
    proj: Linear,
    out: Linear,
}

impl FeedForward {
    fn new(params: &Params, channels: usize) -> Result<Self, WeightError> {
        Ok(Self {
            proj: Linear::new(&params.at("0.proj"), channels, 8 * channels)?,
            out: Linear::new(&params.at("2"), 4 * channels, channels)?,
        })
    }

    /// Added to `rest`.
    fn forward_onto(&self, x: Tensor<3>, rest: Tensor<3>) -> Tensor<3> {
        self.out.forward_onto(self.proj.forward_gated(x), rest)
    }
}
