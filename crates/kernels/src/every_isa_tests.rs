//! Every operation in f32 on sizes that are drawn: each instruction set gives what portable code gives. What multiplies in
//! bf16 has such tests beside it.

use crate::activation::{geglu, gelu, gelu_backward, leaky_relu, leaky_relu_backward, prelu, prelu_backward};
use crate::attention::{Attention, Heads, WindowAttention};
use crate::conv::{After, Conv2d, PackedWeight, Rectifier, gated_linear};
use crate::norm::{GroupNorm, scale_and_shift};
use crate::products::Products;
use crate::simd::Isa;
use crate::{layer_norm, layer_norm_backward};

/// Sizes and values from one seed.
struct Draw(u32);

impl Draw {
    fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        self.0 >> 8
    }

    /// In `1..=most`, every fourth time 1.
    fn size(&mut self, most: usize) -> usize {
        if self.next().is_multiple_of(4) { 1 } else { 1 + self.next() as usize % most }
    }

    fn coin(&mut self) -> bool {
        self.next().is_multiple_of(2)
    }

    /// In -2..2.
    fn values(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.next() as f32 / (1 << 22) as f32 - 2.0).collect()
    }
}

/// Cases of each operation.
const CASES: u32 = 60;

/// `case` draws sizes and inputs, and gives results by what they are called.
fn each_isa_agrees(case: impl Fn(&mut Draw) -> Vec<(&'static str, Vec<f32>)>) {
    for seed in 0..CASES {
        let run = |isa: Isa| isa.run(|| case(&mut Draw(seed * 7919 + 1)));
        let portable = run(Isa::Portable);
        for isa in Isa::available().into_iter().filter(|isa| *isa != Isa::Portable) {
            for ((name, got), (_, want)) in run(isa).into_iter().zip(&portable) {
                assert_eq!(got.len(), want.len(), "{name} by {isa:?}, case {seed}");
                // Where nothing but zeros is wanted, the inputs are of about 1.
                let most = want.iter().fold(0.1f32, |most, value| most.max(value.abs()));
                let off = got.iter().zip(want).map(|(got, want)| (got - want).abs()).fold(0.0, f32::max);
                let all_numbers = got.iter().all(|value| value.is_finite());
                assert!(all_numbers && off <= 1e-4 * most, "{name} by {isa:?}, case {seed}: {off} of {most}");
            }
        }
    }
}

#[test]
fn activations() {
    each_isa_agrees(|draw| {
        let (rows, features) = (draw.size(90), draw.size(70));
        let [x, dy] = [draw.values(rows * features), draw.values(rows * features)];
        let (halves, slopes) = (draw.values(rows * 2 * features), draw.values(features));
        let leaky = leaky_relu(&x, 0.2);
        let dx = leaky_relu_backward(&leaky, &dy, 0.2);
        vec![
            ("gelu", gelu(&x)),
            ("gradient of gelu", gelu_backward(&x, &dy)),
            ("gated gelu", geglu(&halves, features)),
            ("leaky relu", leaky),
            ("gradient of leaky relu", dx),
            ("prelu", prelu(&x, &slopes)),
            ("gradients of prelu", prelu_backward(&x, &slopes, &dy)),
        ]
    });
}

#[test]
fn norms() {
    each_isa_agrees(|draw| {
        let (batch, pixels, groups) = (draw.size(3), draw.size(1500), draw.size(5));
        let channels = groups * draw.size(20);
        let n = GroupNorm { batch, pixels, channels, groups, epsilon: 1e-3, silu: draw.coin() };
        let [x, dy] = [draw.values(batch * pixels * channels), draw.values(batch * pixels * channels)];
        let [weight, bias] = [draw.values(channels), draw.values(channels)];
        let gradients = n.backward(&x, &weight, &bias, &dy);
        let moments = GroupNorm { batch: 1, ..n }.moments(&x[..pixels * channels]);
        vec![
            ("group norm", n.forward(&x, &weight, &bias)),
            ("gradient of group norm", gradients.input),
            ("weight of group norm", gradients.weight),
            ("bias of group norm", gradients.bias),
            ("moments", moments.into_iter().map(|value| value as f32).collect()),
            ("scaled and shifted", scale_and_shift(&[&x, &dy], &weight, &bias, n.silu)),
            ("layer norm", layer_norm(&x, &weight, &bias, 1e-3)),
            ("gradients of layer norm", layer_norm_backward(&x, &weight, 1e-3, &dy)),
        ]
    });
}

#[test]
fn attention() {
    each_isa_agrees(|draw| {
        let [batch, heads, width] = [3, 3, 70].map(|most| draw.size(most));
        let [queries, keys] = [draw.size(300), draw.size(300)];
        let bias = draw.coin().then(|| [batch, heads].map(|all| if draw.coin() { all } else { 1 }));
        let a = Attention { batch, heads, queries, keys, width, bias, products: Products::F32 };
        let [q, k, v, dy] =
            [queries, keys, keys, queries].map(|rows| draw.values(batch * heads * rows * width));
        let bias = bias.map(|[batches, heads]| draw.values(batches * heads * queries * keys));
        let of = |data, rows| Heads::interleaved(data, rows, heads, width);
        let (q, k, v, dy) = (of(&q, queries), of(&k, keys), of(&v, keys), of(&dy, queries));
        let (y, logarithms) = a.forward(q, k, v, bias.as_deref());
        let gradients = a.backward(q, k, v, bias.as_deref(), &y, &logarithms, dy);
        vec![
            ("attention", y),
            ("logarithms", logarithms),
            ("gradient of queries", gradients.q),
            ("gradient of keys", gradients.k),
            ("gradient of values", gradients.v),
            ("gradient of the bias", gradients.bias),
        ]
    });
}

#[test]
fn attention_in_windows() {
    each_isa_agrees(|draw| {
        let [batch, heads, width, window] = [2, 3, 40, 9].map(|most| draw.size(most));
        let [rows, columns] = [window * draw.size(3), window * draw.size(3)];
        let shift = draw.next() as usize % window;
        let sizes =
            WindowAttention { batch, rows, columns, heads, width, window, shift, products: Products::F32 };
        let tokens = window * window;
        let parts = draw.values(batch * rows * columns * 3 * heads * width);
        let bias = draw.values(heads * tokens * tokens);
        let mask = draw.coin().then(|| draw.values(rows * columns * tokens));
        vec![("attention in windows", sizes.forward(&parts, &bias, mask.as_deref()))]
    });
}

#[test]
fn convolutions() {
    each_isa_agrees(|draw| {
        let [batch, height, width, in_channels, out_channels] =
            [2, 20, 30, 50, 50].map(|most| draw.size(most));
        let doubled = draw.next().is_multiple_of(4);
        let kernel = if doubled { 3 } else { draw.size(4) };
        let stride = if doubled { 1 } else { draw.size(3) };
        let pad_before = if doubled { 1 } else { draw.next() as usize % kernel };
        // What is smaller than the kernel gets the zeros that it needs.
        let missing = kernel.saturating_sub(height.min(width) + pad_before);
        let pad_after = if doubled { 1 } else { missing.max(draw.next() as usize % kernel) };
        let c = Conv2d {
            batch,
            height,
            width,
            in_channels,
            out_channels,
            kernel,
            stride,
            pad_before,
            pad_after,
            doubled,
            products: Products::F32,
        };
        let (out_height, out_width) = c.out_size();
        let x = draw.values(batch * height * width * in_channels);
        let weight = draw.values(out_channels * kernel * kernel * in_channels);
        let bias = draw.values(out_channels);
        let dy = draw.values(batch * out_height * out_width * out_channels);
        let shape = [out_channels, kernel, kernel, in_channels];
        let pack = if doubled { PackedWeight::doubled } else { PackedWeight::new };
        let packed = pack(&weight, shape, Products::F32);
        let rectifier = [Rectifier::None, Rectifier::Relu, Rectifier::Leaky(0.2)][draw.next() as usize % 3];
        let after = After { rest: draw.coin().then_some(dy.as_slice()), rectifier };
        let mut results = vec![
            ("convolution", c.forward(&x, &weight, &bias)),
            ("packed convolution", c.forward_packed(&x, &packed, &bias, after)),
            ("gradient of the input", c.backward_input(&dy, &weight)),
            ("gradient of the weight", c.backward_weight(&x, &dy)),
            ("gradient of the bias", c.backward_bias(&dy)),
        ];
        if !doubled {
            results.push(("trained convolution", c.forward_to_train(&x, &weight, &bias)));
        }
        if kernel == 1 && out_channels.is_multiple_of(2) {
            results.push(("gated linear map", gated_linear(&x, &packed, &bias)));
        }
        results
    });
}
