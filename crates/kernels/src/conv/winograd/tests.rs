use super::*;
use crate::conv::tests::{noise, reference};
use crate::tile::Cells;

fn sizes(batch: usize, [height, width]: [usize; 2], [in_channels, out_channels]: [usize; 2]) -> Conv2d {
    Conv2d {
        batch,
        height,
        width,
        in_channels,
        out_channels,
        kernel: 3,
        stride: 1,
        pad_before: 1,
        pad_after: 1,
        doubled: false,
        products: Products::F32,
    }
}

/// Odd and even sides, single rows, columns and pixels, tails of vectors, several strips, parts, passes and blocks.
fn cases() -> Vec<Conv2d> {
    vec![
        sizes(1, [1, 1], [1, 1]),
        sizes(3, [1, 1], [17, 3]),
        sizes(2, [1, 6], [5, 33]),
        sizes(1, [7, 1], [32, 32]),
        sizes(2, [2, 2], [35, 40]),
        sizes(2, [3, 5], [33, 47]),
        sizes(1, [8, 6], [64, 64]),
        sizes(1, [4, 3], [300, 20]),
        sizes(1, [3, 4], [20, 130]),
        sizes(3, [27, 30], [18, 35]),
    ]
}

fn inputs(c: &Conv2d) -> [Vec<f32>; 4] {
    let pixels = c.batch * c.height * c.width;
    let lengths =
        [pixels * c.in_channels, c.out_channels * c.depth(), c.out_channels, pixels * c.out_channels];
    [(0, 31), (1, 32), (2, 33), (3, 34)].map(|(index, seed)| noise(lengths[index], seed))
}

/// Forward and both gradients, whether it wins or not.
fn all(c: &Conv2d, isa: Isa, [x, w, b, dy]: &[Vec<f32>; 4]) -> [Vec<f32>; 3] {
    [forward(c, isa, x, w, b), backward_input(c, isa, dy, w), weight(c, isa, x, dy)]
}

/// The gradients by the definition, in f64.
fn gradients(c: &Conv2d, [x, w, _, dy]: &[Vec<f32>; 4]) -> [Vec<f64>; 2] {
    let (mut dx, mut dw) = (vec![0.0; x.len()], vec![0.0; w.len()]);
    for (index, dy) in dy.chunks_exact(c.out_channels).enumerate() {
        let [image, row, col] = [index / (c.height * c.width), index / c.width % c.height, index % c.width];
        for tap in 0..9 {
            let (y, left) = ((row + tap / 3).wrapping_sub(1), (col + tap % 3).wrapping_sub(1));
            if y >= c.height || left >= c.width {
                continue;
            }
            let pixel = ((image * c.height + y) * c.width + left) * c.in_channels;
            for (o, dy) in dy.iter().enumerate() {
                let kernel = (o * 9 + tap) * c.in_channels;
                for i in 0..c.in_channels {
                    dx[pixel + i] += f64::from(*dy) * f64::from(w[kernel + i]);
                    dw[kernel + i] += f64::from(*dy) * f64::from(x[pixel + i]);
                }
            }
        }
    }
    [dx, dw]
}

/// The largest error as a part of the mean size of what is right.
fn error(got: &[f32], want: &[f64]) -> f64 {
    assert_eq!(got.len(), want.len());
    let size = (want.iter().map(|value| value * value).sum::<f64>() / want.len() as f64).sqrt();
    got.iter().zip(want).map(|(got, want)| (f64::from(*got) - want).abs()).fold(0.0, f64::max) / size
}

/// 2 millionths of the size of a result: the definition in f32 is off by 1 to 3 of them with 32 to 320 channels.
#[test]
fn results_equal_the_definition() {
    for c in cases() {
        let inputs = inputs(&c);
        let [dx, dw] = gradients(&c, &inputs);
        let want = [reference(&c, &inputs[0], &inputs[1], &inputs[2]), dx, dw];
        for isa in Isa::available() {
            for ((got, want), what) in all(&c, isa, &inputs).iter().zip(&want).zip(["y", "dx", "dw"]) {
                let error = error(got, want);
                assert!(error < 2e-6, "{isa:?} {c:?}: {what} off by {error:e}");
            }
        }
    }
}

#[test]
fn fused_instruction_sets_agree_in_every_bit() {
    for c in cases() {
        let inputs = inputs(&c);
        let fused = Isa::available().into_iter().filter(|isa| *isa != Isa::Portable);
        let results: Vec<_> = fused.map(|isa| all(&c, isa, &inputs)).collect();
        assert!(results.windows(2).all(|pair| pair[0] == pair[1]), "{c:?}");
    }
}

#[test]
fn nothing_depends_on_the_number_of_threads_or_the_batch() {
    for c in [sizes(3, [29, 28], [40, 70]), sizes(3, [4, 4], [130, 66])] {
        let inputs = inputs(&c);
        let run = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| all(&c, Isa::detect(), &inputs))
        };
        let one = run(1);
        for threads in [2, 3, 16] {
            assert!(one == run(threads), "{c:?} with {threads} threads");
        }
        let alone = Conv2d { batch: 1, ..c };
        let middle = |values: &[f32]| values[values.len() / 3..values.len() / 3 * 2].to_vec();
        let [x, w, b, dy] = &inputs;
        let [y, dx, _] = all(&alone, Isa::detect(), &[middle(x), w.clone(), b.clone(), middle(dy)]);
        assert!(y == middle(&one[0]) && dx == middle(&one[1]), "{c:?}");
    }
}

/// It is what training takes, and nothing else.
#[test]
fn only_what_is_trained_is_computed_so() {
    let c = sizes(2, [9, 12], [64, 48]);
    assert!(wins(&c));
    let inputs = inputs(&c);
    let [x, w, b, dy] = &inputs;
    let [y, dx, dw] = all(&c, Isa::detect(), &inputs);
    assert!(
        c.forward_to_train(x, w, b) == y && c.backward_input(dy, w) == dx && c.backward_weight(x, dy) == dw
    );
    let packed = super::super::PackedWeight::new(w, [48, 3, 3, 64], Products::F32);
    let direct = c.forward_packed(x, &packed, b, Default::default());
    assert!(c.forward(x, w, b) == direct && direct != y);
    // In bf16 nothing changes either.
    let rounding = Conv2d { products: Products::Bf16, ..c };
    assert!(!wins(&rounding) && rounding.forward_to_train(x, w, b) == rounding.forward(x, w, b));
    let [strided, doubled] = [Conv2d { stride: 2, ..c }, Conv2d { doubled: true, ..c }];
    assert!(!wins(&strided) && !wins(&doubled));
    let apart = Conv2d { pad_before: 0, ..c };
    assert!(!wins(&apart) && !wins(&Conv2d { in_channels: 3, ..c }));
    // Where little or nothing is won.
    assert!(!wins(&sizes(1, [3, 3], [64, 64])) && !wins(&sizes(1, [1, 64], [64, 64])));
    assert!(wins(&sizes(1, [16, 16], [1280, 1280])) && !wins(&sizes(9, [8, 8], [1280, 1280])));
    let cells = c.backward_weight_with(Isa::detect(), Cells::Single, x, dy);
    assert!(cells == dw);
}

#[test]
fn a_batch_of_none_is_none() {
    let c = sizes(0, [4, 4], [32, 32]);
    let w = noise(32 * c.depth(), 1);
    assert!(forward(&c, Isa::detect(), &[], &w, &[0.0; 32]).is_empty());
    assert!(backward_input(&c, Isa::detect(), &[], &w).is_empty());
    assert!(weight(&c, Isa::detect(), &[], &[]).iter().all(|value| *value == 0.0));
}
