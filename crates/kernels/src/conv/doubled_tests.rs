//! Doubled convolutions against those of the repeated picture.

use super::tests::{noise, reference};
use super::*;

fn cases() -> Vec<Conv2d> {
    [(1, 1, 1, 1, 1), (2, 5, 7, 3, 5), (1, 4, 8, 64, 48), (3, 8, 4, 17, 33), (1, 13, 61, 40, 70)]
        .map(|(batch, height, width, in_channels, out_channels)| Conv2d {
            batch,
            height,
            width,
            in_channels,
            out_channels,
            kernel: 3,
            stride: 1,
            pad_before: 1,
            pad_after: 1,
            doubled: true,
            products: Products::F32,
        })
        .into()
}

fn inputs(c: &Conv2d) -> [Vec<f32>; 3] {
    let sizes = [c.batch * c.height * c.width * c.in_channels, c.out_channels * c.depth(), c.out_channels];
    [(sizes[0], 31), (sizes[1], 32), (sizes[2], 33)].map(|(size, seed)| noise(size, seed))
}

/// The convolution of the large picture, and that picture.
fn large(c: &Conv2d, x: &[f32]) -> (Conv2d, Vec<f32>) {
    let twice: Vec<f32> = (0..c.batch * 4 * c.height * c.width)
        .flat_map(|index| {
            let (image, y, x_at) = (
                index / (4 * c.height * c.width),
                index / (2 * c.width) % (2 * c.height),
                index % (2 * c.width),
            );
            let at = ((image * c.height + y / 2) * c.width + x_at / 2) * c.in_channels;
            x[at..at + c.in_channels].to_vec()
        })
        .collect();
    (Conv2d { height: 2 * c.height, width: 2 * c.width, doubled: false, ..*c }, twice)
}

#[test]
fn it_is_the_convolution_of_the_repeated_picture() {
    for c in cases() {
        let [x, w, b] = inputs(&c);
        let (at_large, twice) = large(&c, &x);
        let expected = reference(&at_large, &twice, &w, &b);
        let shape = [c.out_channels, 3, 3, c.in_channels];
        let packed = PackedWeight::doubled(&w, shape, Products::F32);
        for isa in Isa::available() {
            let got = c.forward_with(isa, &x, &w, &b);
            assert_eq!(got.len(), expected.len(), "{c:?}");
            for (g, e) in got.iter().zip(&expected) {
                assert!((f64::from(*g) - e).abs() < 1e-4, "{isa:?} {c:?}: {g} is not {e}");
            }
            assert!(
                c.forward_packed_with(isa, Cells::Widened, &x, &packed, &b, After::default()) == got,
                "{isa:?} {c:?}"
            );
        }
        let packed = PackedWeight::doubled(&w, shape, Products::Bf16);
        for (isa, cells) in crate::bf16::tests::kernels() {
            // Half a unit of bf16 for each number of each product.
            let most = 2f64.powi(-8) * (2.0 * 9.0 * c.in_channels as f64).sqrt();
            let got = c.forward_packed_with(isa, cells, &x, &packed, &b, After::default());
            for (g, e) in got.iter().zip(&expected) {
                assert!((f64::from(*g) - e).abs() < most, "{isa:?} {cells:?} {c:?}: {g} is not {e}");
            }
        }
    }
}

#[test]
fn its_gradients_are_those_of_the_repeated_picture() {
    for c in cases() {
        let [x, w, _] = inputs(&c);
        let (at_large, twice) = large(&c, &x);
        let dy = noise(c.batch * 4 * c.height * c.width * c.out_channels, 34);
        let mut dx = vec![0f64; x.len()];
        for (index, pixel) in at_large.backward_input(&dy, &w).chunks_exact(c.in_channels).enumerate() {
            let (image, y, x_at) = (
                index / (4 * c.height * c.width),
                index / (2 * c.width) % (2 * c.height),
                index % (2 * c.width),
            );
            let at = ((image * c.height + y / 2) * c.width + x_at / 2) * c.in_channels;
            dx[at..].iter_mut().zip(pixel).for_each(|(sum, value)| *sum += f64::from(*value));
        }
        let dw = at_large.backward_weight(&twice, &dy);
        for isa in Isa::available() {
            for (g, e) in c.backward_input_with(isa, Cells::Single, &dy, &w).iter().zip(&dx) {
                assert!((f64::from(*g) - e).abs() < 1e-4 * (1.0 + e.abs()), "{isa:?} {c:?}: {g} is not {e}");
            }
            for (g, e) in c.backward_weight_with(isa, Cells::Single, &x, &dy).iter().zip(&dw) {
                assert!((g - e).abs() < 1e-4 * (1.0 + e.abs()), "{isa:?} {c:?}: {g} is not {e}");
            }
        }
        // In bf16 sums of the weight are rounded, not their parts: near, by the length of the difference.
        let far = |got: &[f32], want: &mut dyn Iterator<Item = f64>| {
            let [error, size] = got.iter().zip(want).fold([0.0; 2], |[error, size], (got, want)| {
                [error + (f64::from(*got) - want).powi(2), size + want * want]
            });
            (error / size).sqrt()
        };
        for (isa, cells) in crate::bf16::tests::kernels() {
            let by_input = far(&c.backward_input_with(isa, cells, &dy, &w), &mut dx.iter().copied());
            let by_weight =
                far(&c.backward_weight_with(isa, cells, &x, &dy), &mut dw.iter().map(|e| f64::from(*e)));
            assert!(by_input < 1e-2 && by_weight < 1e-2, "{isa:?} {cells:?} {c:?}: {by_input} {by_weight}");
        }
    }
}

#[test]
fn it_does_not_depend_on_the_number_of_threads_or_the_batch() {
    for c in cases() {
        let [x, w, b] = inputs(&c);
        let run = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let y = c.forward(&x, &w, &b);
                [c.backward_input(&y, &w), c.backward_weight(&x, &y), y]
            })
        };
        let all = run(1);
        for threads in [2, 5] {
            assert!(all == run(threads), "{c:?} with {threads} threads");
        }
        let one = Conv2d { batch: 1, ..c };
        let (size, out) = (x.len() / c.batch, all[2].len() / c.batch);
        assert!(one.forward(&x[x.len() - size..], &w, &b) == all[2][all[2].len() - out..], "{c:?}");
    }
}
