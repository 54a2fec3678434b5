use super::*;

/// A deterministic filling in [-1, 1).
pub(super) fn noise(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
    (0..count)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect()
}

/// The definition, in f64.
pub(super) fn reference(c: &Conv2d, x: &[f32], w: &[f32], b: &[f32]) -> Vec<f64> {
    let (oh, ow) = c.out_size();
    let mut y = Vec::new();
    for n in 0..c.batch {
        for oy in 0..oh {
            for ox in 0..ow {
                for o in 0..c.out_channels {
                    let mut sum = f64::from(b[o]);
                    for ky in 0..c.kernel {
                        for kx in 0..c.kernel {
                            let iy = (oy * c.stride + ky).wrapping_sub(c.pad_before);
                            let ix = (ox * c.stride + kx).wrapping_sub(c.pad_before);
                            if iy >= c.height || ix >= c.width {
                                continue;
                            }
                            for i in 0..c.in_channels {
                                let xv = x[((n * c.height + iy) * c.width + ix) * c.in_channels + i];
                                let wv = w[((o * c.kernel + ky) * c.kernel + kx) * c.in_channels + i];
                                sum += f64::from(xv) * f64::from(wv);
                            }
                        }
                    }
                    y.push(sum);
                }
            }
        }
    }
    y
}

pub(super) fn cases() -> Vec<Conv2d> {
    let base = Conv2d {
        batch: 2,
        height: 7,
        width: 9,
        in_channels: 3,
        out_channels: 5,
        kernel: 3,
        stride: 1,
        pad_before: 1,
        pad_after: 1,
        doubled: false,
        products: Products::F32,
    };
    vec![
        base,
        Conv2d { stride: 2, ..base },
        Conv2d { stride: 2, height: 8, width: 6, pad_before: 0, ..base },
        Conv2d { stride: 2, height: 8, width: 9, ..base },
        Conv2d { kernel: 1, pad_before: 0, pad_after: 0, ..base },
        Conv2d { height: 1, width: 1, ..base },
        Conv2d { batch: 1, height: 24, width: 31, in_channels: 17, out_channels: 9, ..base },
        Conv2d { kernel: 5, pad_before: 2, pad_after: 2, ..base },
        Conv2d { in_channels: 1, out_channels: 1, ..base },
        Conv2d { kernel: 2, stride: 2, pad_before: 0, pad_after: 1, ..base },
        Conv2d { kernel: 1, stride: 2, pad_before: 0, pad_after: 0, out_channels: 33, ..base },
        Conv2d { kernel: 4, stride: 3, pad_before: 3, pad_after: 0, height: 11, width: 10, ..base },
        Conv2d { kernel: 7, pad_before: 3, pad_after: 3, height: 2, width: 3, ..base },
        // Wide enough for several strips, deep enough for several passes, tails everywhere.
        Conv2d { batch: 1, height: 3, width: 61, in_channels: 203, out_channels: 47, ..base },
        Conv2d { batch: 1, height: 1, width: 4500, kernel: 1, pad_before: 0, pad_after: 0, ..base },
        Conv2d { batch: 1, height: 1, width: 4500, ..base },
    ]
}

#[test]
fn forward_equals_the_definition() {
    for c in cases() {
        let x = noise(c.batch * c.height * c.width * c.in_channels, 1);
        let w = noise(c.out_channels * c.depth(), 2);
        let b = noise(c.out_channels, 3);
        let expected = reference(&c, &x, &w, &b);
        for isa in Isa::available() {
            let got = c.forward_with(isa, &x, &w, &b);
            assert_eq!(got.len(), expected.len(), "{c:?}");
            for (g, e) in got.iter().zip(&expected) {
                assert!((f64::from(*g) - e).abs() < 1e-4, "{isa:?} {c:?}: {g} is not {e}");
            }
        }
    }
}

/// <dy, conv(x)> is linear in x and in w, so the gradients must give the same inner product.
#[test]
fn gradients_are_the_adjoints() {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        assert_eq!(a.len(), b.len());
        a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    };
    for c in cases() {
        let x = noise(c.batch * c.height * c.width * c.in_channels, 4);
        let w = noise(c.out_channels * c.depth(), 5);
        let zero = vec![0.0; c.out_channels];
        let y = c.forward(&x, &w, &zero);
        let dy = noise(y.len(), 6);
        let whole = dot(&y, &dy);
        let by_input = dot(&c.backward_input(&dy, &w), &x);
        let by_weight = dot(&c.backward_weight(&x, &dy), &w);
        assert!((whole - by_input).abs() < 1e-3 * (1.0 + whole.abs()), "{c:?}: {whole} {by_input}");
        assert!((whole - by_weight).abs() < 1e-3 * (1.0 + whole.abs()), "{c:?}: {whole} {by_weight}");
        let ones = vec![1.0; c.out_channels];
        let by_bias = dot(&c.backward_bias(&dy), &ones);
        assert!((by_bias - dy.iter().map(|v| f64::from(*v)).sum::<f64>()).abs() < 1e-3);
    }
}

/// The result at one output position alone: the input that it sees, cut out with its zeros.
pub(super) fn alone(
    c: &Conv2d,
    x: &[f32],
    image: usize,
    oy: usize,
    ox: usize,
    forward: impl Fn(&Conv2d, &[f32]) -> Vec<f32>,
) -> Vec<f32> {
    let mut cut = Vec::new();
    for ky in 0..c.kernel {
        for kx in 0..c.kernel {
            let y = (oy * c.stride + ky).wrapping_sub(c.pad_before);
            let x_at = (ox * c.stride + kx).wrapping_sub(c.pad_before);
            if y < c.height && x_at < c.width {
                let at = ((image * c.height + y) * c.width + x_at) * c.in_channels;
                cut.extend_from_slice(&x[at..at + c.in_channels]);
            } else {
                cut.resize(cut.len() + c.in_channels, 0.0);
            }
        }
    }
    let sizes =
        Conv2d { batch: 1, height: c.kernel, width: c.kernel, stride: 1, pad_before: 0, pad_after: 0, ..*c };
    forward(&sizes, &cut)
}

#[test]
fn an_element_does_not_depend_on_its_place_or_what_is_around_it() {
    for c in cases() {
        let x = noise(c.batch * c.height * c.width * c.in_channels, 7);
        let w = noise(c.out_channels * c.depth(), 8);
        let b = noise(c.out_channels, 9);
        let all = c.forward(&x, &w, &b);
        let (out_h, out_w) = c.out_size();
        for (index, pixel) in all.chunks_exact(c.out_channels).enumerate().step_by(1 + all.len() / 7000) {
            let (image, y, x_at) = (index / (out_h * out_w), index / out_w % out_h, index % out_w);
            let single = alone(&c, &x, image, y, x_at, |c, x| c.forward(x, &w, &b));
            assert_eq!(pixel, single, "{c:?} at {image} {y} {x_at}");
        }
        // One output channel by itself.
        let o = c.out_channels / 2;
        let one = Conv2d { out_channels: 1, ..c };
        let single = one.forward(&x, &w[o * c.depth()..(o + 1) * c.depth()], &b[o..=o]);
        let column: Vec<f32> = all.iter().skip(o).step_by(c.out_channels).copied().collect();
        assert_eq!(single, column, "{c:?} channel {o}");
    }
}

#[test]
fn nothing_depends_on_the_number_of_threads() {
    let base = Conv2d { batch: 2, height: 40, width: 37, in_channels: 18, out_channels: 35, ..cases()[0] };
    for c in [base, Conv2d { stride: 2, ..base }, Conv2d { kernel: 1, pad_before: 0, pad_after: 0, ..base }] {
        let x = noise(c.batch * c.height * c.width * c.in_channels, 10);
        let w = noise(c.out_channels * c.depth(), 11);
        let b = noise(c.out_channels, 12);
        let run = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let y = c.forward(&x, &w, &b);
                [c.backward_input(&y, &w), c.backward_weight(&x, &y), c.backward_bias(&y), y]
            })
        };
        let one = run(1);
        for threads in [2, 3, 16] {
            assert!(one == run(threads), "{c:?} with {threads} threads");
        }
    }
}

/// AVX-512 and AVX2 round alike, so that machines with either give the same pictures.
#[test]
fn fused_instruction_sets_agree_in_every_bit() {
    let fused: Vec<Isa> = Isa::available().into_iter().filter(|isa| *isa != Isa::Portable).collect();
    for c in cases() {
        let x = noise(c.batch * c.height * c.width * c.in_channels, 13);
        let w = noise(c.out_channels * c.depth(), 14);
        let b = noise(c.out_channels, 15);
        let run = |isa| {
            let y = c.forward_with(isa, &x, &w, &b);
            [
                c.backward_input_with(isa, Cells::Single, &y, &w),
                c.backward_weight_with(isa, Cells::Single, &x, &y),
                y,
            ]
        };
        let results: Vec<_> = fused.iter().map(|&isa| run(isa)).collect();
        assert!(results.windows(2).all(|pair| pair[0] == pair[1]), "{c:?}");
    }
}

#[test]
fn sizes_that_would_wrap_around_are_refused() {
    let c = Conv2d {
        batch: 1,
        height: 2,
        width: 2,
        in_channels: 1,
        out_channels: 1,
        kernel: 1,
        stride: 1,
        pad_before: 0,
        pad_after: 0,
        doubled: false,
        products: Products::F32,
    };
    let refused = |c: Conv2d, weights: usize| {
        let run = || c.forward(&[0.0; 4], &vec![0.0; weights], &[0.0]);
        std::panic::catch_unwind(run).is_err()
    };
    assert!(!refused(c, 1));
    // A picture smaller than the kernel.
    assert!(refused(Conv2d { kernel: 5, pad_before: 1, ..c }, 25));
    // Products and sums of sizes that are small again.
    assert!(refused(Conv2d { kernel: 1 << 32, pad_before: (1 << 32) - 4, ..c }, 0));
    assert!(refused(Conv2d { pad_before: usize::MAX, pad_after: 1, ..c }, 1));
    assert!(refused(Conv2d { batch: (1 << 62) + 1, ..c }, 1));
}
