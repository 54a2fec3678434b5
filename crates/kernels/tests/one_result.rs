//! Every operation gives the same bits whatever the number of threads and whatever stands beside a picture in its batch.
//! Convolutions and linear maps have tests of that of their own.

use diffbir_kernels::activation::{
    geglu, gelu, gelu_backward, leaky_relu, leaky_relu_backward, prelu, prelu_backward, relu, relu_backward,
};
use diffbir_kernels::adamw::{AdamW, Moments, sum_of_squares};
use diffbir_kernels::attention::{Attention, Heads, WindowAttention};
use diffbir_kernels::channels::{add_to_images, join, sum};
use diffbir_kernels::norm::{GroupNorm, scale_and_shift};
use diffbir_kernels::{Products, layer_norm, layer_norm_backward};

/// Values in -2..2 that repeat after no length that is used here.
fn drawn(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed;
    let next = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 22) as f32 - 2.0
    };
    (0..count).map(next).collect()
}

const CHANNELS: usize = 20;
/// Of a picture that windows of 4 x 4 tokens fill.
const SIDE: usize = 12;
const PIXELS: usize = SIDE * SIDE;

fn norm(batch: usize, pixels: usize) -> GroupNorm {
    GroupNorm { batch, pixels, channels: CHANNELS, groups: 4, epsilon: 1e-5, silu: true }
}

/// What an operation is called, and its results.
type Row = (&'static str, Vec<f32>);

/// Operations on images `[batch, PIXELS, CHANNELS]` whose results are as long for each of them.
fn of_images(batch: usize, x: &[f32], dy: &[f32]) -> Vec<Row> {
    let (weight, bias) = (drawn(CHANNELS, 3), drawn(CHANNELS, 4));
    let (heads, width) = (2, CHANNELS / 2);
    let mut rows = vec![
        ("group norm", norm(batch, PIXELS).forward(x, &weight, &bias)),
        ("gradient of group norm", norm(batch, PIXELS).backward(x, &weight, &bias, dy).input),
        ("layer norm", layer_norm(x, &weight, &bias, 1e-5)),
        ("gradient of layer norm", layer_norm_backward(x, &weight, 1e-5, dy)[..x.len()].to_vec()),
        ("gelu", gelu(x)),
        ("gradient of gelu", gelu_backward(x, dy)),
        ("gated gelu", geglu(x, width)),
        ("relu", relu(x)),
        ("gradient of relu", relu_backward(x, dy)),
        ("leaky relu", leaky_relu(x, 0.2)),
        ("gradient of leaky relu", leaky_relu_backward(x, dy, 0.2)),
        ("prelu", prelu(x, &weight)),
        ("sum", sum(x, dy)),
        ("side by side", join(x, dy, Some(dy), [CHANNELS; 2])),
    ];
    for products in [Products::F32, Products::Bf16] {
        let sizes = Attention { batch, heads, queries: PIXELS, keys: PIXELS, width, bias: None, products };
        let of = |data| Heads::interleaved(data, PIXELS, heads, width);
        let (y, logarithms) = sizes.forward(of(x), of(dy), of(x), None);
        let gradients = sizes.backward(of(x), of(dy), of(x), None, &y, &logarithms, of(dy));
        rows.extend([
            ("attention", y),
            ("gradient of queries", gradients.q),
            ("gradient of keys", gradients.k),
            ("gradient of values", gradients.v),
        ]);
        let sizes =
            WindowAttention { batch, rows: SIDE, columns: SIDE, heads, width, window: 4, shift: 2, products };
        let parts: Vec<f32> = [x, dy, x].concat();
        rows.push((
            "attention in windows",
            sizes.forward(&interleaved(&parts), &drawn(heads * 256, 7), None),
        ));
    }
    rows
}

/// Three vectors of equal length as `[pixel][vector][channel]`.
fn interleaved(parts: &[f32]) -> Vec<f32> {
    let length = parts.len() / 3;
    let pixel = |first: usize| [0, 1, 2].map(|part| &parts[part * length + first..][..CHANNELS]).concat();
    (0..length).step_by(CHANNELS).flat_map(pixel).collect()
}

/// Operations whose results sum over a batch, or know none.
fn of_all(x: &[f32], dy: &[f32]) -> Vec<Row> {
    let (weight, bias) = (drawn(CHANNELS, 3), drawn(CHANNELS, 4));
    let pixels = x.len() / CHANNELS;
    let gradients = norm(1, pixels).backward(x, &weight, &bias, dy);
    let step = AdamW {
        beta1: 0.9,
        beta2: 0.99,
        corrections: [0.1, 0.01],
        epsilon: 1e-8,
        rate: 0.1,
        weight_decay: 0.01,
        scale: 1.0,
        average_decay: Some(0.9),
    };
    let square: Vec<f32> = x.iter().map(|value| value * value).collect();
    let before = Moments { value: x, mean: dy, square: &square, average: dy };
    vec![
        ("group norm", norm(1, pixels).forward(x, &weight, &bias)),
        ("gradient of group norm", gradients.input),
        ("weight of group norm", gradients.weight),
        ("bias of group norm", gradients.bias),
        ("gradients of layer norm", layer_norm_backward(x, &weight, 1e-5, dy)),
        ("gelu", gelu(x)),
        ("gated gelu", geglu(x, CHANNELS / 2)),
        ("prelu", prelu(x, &weight)),
        ("gradients of prelu", prelu_backward(x, &weight, dy)),
        ("added to images", add_to_images(x, &bias, CHANNELS)),
        ("side by side", join(x, dy, None, [CHANNELS; 2])),
        ("scaled and shifted", scale_and_shift(&[x, dy], &weight, &bias, true)),
        ("moments", norm(1, pixels).moments(x).into_iter().map(|value| value as f32).collect()),
        ("a step of AdamW", step.step(before, dy)),
        ("sum of squares", vec![sum_of_squares(x) as f32]),
    ]
}

#[test]
fn nothing_depends_on_the_number_of_threads() {
    let (x, dy) = (drawn(3 * PIXELS * CHANNELS, 1), drawn(3 * PIXELS * CHANNELS, 2));
    // Long enough for several pieces of work of every operation.
    let (long_x, long_dy) = (drawn(7001 * CHANNELS, 5), drawn(7001 * CHANNELS, 6));
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
        pool.install(|| {
            let mut rows = of_images(3, &x, &dy);
            rows.extend(of_all(&long_x, &long_dy));
            rows
        })
    };
    let one = run(1);
    for threads in [2, 3, 16] {
        for ((name, values), (_, expected)) in run(threads).into_iter().zip(&one) {
            assert!(values == *expected, "{name} with {threads} threads");
        }
    }
}

#[test]
fn nothing_depends_on_the_batch() {
    let count = PIXELS * CHANNELS;
    let (x, dy) = (drawn(3 * count, 1), drawn(3 * count, 2));
    let together = of_images(3, &x, &dy);
    for image in 0..3 {
        let part = image * count..(image + 1) * count;
        let alone = of_images(1, &x[part.clone()], &dy[part]);
        for ((name, values), (_, expected)) in together.iter().zip(&alone) {
            let length = expected.len();
            assert!(values[image * length..(image + 1) * length] == *expected, "{name} of image {image}");
        }
    }
}
