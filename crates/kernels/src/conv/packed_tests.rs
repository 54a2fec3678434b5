//! Packed weights: in f32 they change nothing, in bf16 all kernels compute the same definition.

use super::tests::{alone, cases, noise, reference};
use super::*;
use crate::bf16::tests::{by_arithmetic, kernels};

/// More than `cases`: the channels that networks have, few and many, on small and odd pictures.
fn all_cases() -> Vec<Conv2d> {
    let mut all = cases();
    let mut sizes = noise(1000, 99).into_iter().map(|value| ((value + 1.0) * 500.0) as usize);
    let mut up_to = |most: usize| 1 + sizes.next().unwrap() % most;
    for channels in [1, 3, 4, 5, 17, 48, 320] {
        for (kernel, stride) in [(1, 1), (1, 2), (3, 1), (3, 2)] {
            let (pad, out_channels) = (kernel / 2, up_to(70));
            let (batch, height, width) = (up_to(3), up_to(9), up_to(35));
            all.push(Conv2d {
                batch,
                height,
                width,
                in_channels: channels,
                out_channels,
                kernel,
                stride,
                pad_before: pad,
                pad_after: pad,
                doubled: false,
                products: Products::F32,
            });
        }
    }
    all
}

fn inputs(c: &Conv2d) -> [Vec<f32>; 3] {
    let sizes = [c.batch * c.height * c.width * c.in_channels, c.out_channels * c.depth(), c.out_channels];
    [(sizes[0], 21), (sizes[1], 22), (sizes[2], 23)].map(|(size, seed)| noise(size, seed))
}

fn pack(c: &Conv2d, w: &[f32], products: Products) -> PackedWeight {
    PackedWeight::new(w, [c.out_channels, c.kernel, c.kernel, c.in_channels], products)
}

#[test]
fn packing_in_f32_changes_no_bit() {
    for c in all_cases() {
        let [x, w, b] = inputs(&c);
        let packed = pack(&c, &w, Products::F32);
        assert_eq!(packed.bytes(), 4 * w.len(), "{c:?}");
        for isa in Isa::available() {
            let plain = c.forward_with(isa, &x, &w, &b);
            assert!(
                c.forward_packed_with(isa, Cells::Widened, &x, &packed, &b, After::default()) == plain,
                "{isa:?} {c:?}"
            );
        }
    }
}

#[test]
fn some_rows_are_those_of_the_whole() {
    for c in all_cases().into_iter().filter(|c| !c.doubled && c.batch == 1) {
        let [x, w, b] = inputs(&c);
        let (height, width) = c.out_size();
        let rest = noise(height * width * c.out_channels, 24);
        for products in [Products::F32, Products::Bf16] {
            let packed = pack(&c, &w, products);
            let after = |rest| After { rest: Some(rest), rectifier: Rectifier::Leaky(0.1) };
            let whole = c.forward_packed(&x, &packed, &b, after(&rest));
            let rows = [0..height, 0..height / 2, height / 2..height, height / 3..height - height / 4];
            for rows in rows.into_iter().filter(|rows| !rows.is_empty()) {
                let row = width * c.out_channels;
                let part = row * rows.start..row * rows.end;
                let found = c.forward_packed_rows(&x, &packed, &b, after(&rest[part.clone()]), rows.clone());
                assert!(found == whole[part], "{rows:?} of {c:?}");
            }
        }
    }
}

#[test]
fn bf16_equals_the_definition_on_rounded_numbers() {
    for c in all_cases() {
        let [x, w, b] = inputs(&c);
        let packed = pack(&c, &w, Products::Bf16);
        assert_eq!(packed.bytes() * c.in_channels, 2 * w.len() * c.in_channels.next_multiple_of(2), "{c:?}");
        let expected = reference(&c, &by_arithmetic(&x), &by_arithmetic(&w), &b);
        for (isa, cells) in kernels() {
            let got = c.forward_packed_with(isa, cells, &x, &packed, &b, After::default());
            assert_eq!(got.len(), expected.len(), "{c:?}");
            for (g, e) in got.iter().zip(&expected) {
                assert!((f64::from(*g) - e).abs() < 1e-4, "{isa:?} {cells:?} {c:?}: {g} is not {e}");
            }
        }
    }
}

#[test]
fn an_element_in_bf16_does_not_depend_on_its_place_or_what_is_around_it() {
    for c in all_cases() {
        let [x, w, b] = inputs(&c);
        let packed = pack(&c, &w, Products::Bf16);
        let (out_h, out_w) = c.out_size();
        let one = Conv2d { out_channels: 1, ..c };
        let o = c.out_channels / 2;
        let channel = pack(&one, &w[o * c.depth()..(o + 1) * c.depth()], Products::Bf16);
        for (isa, cells) in kernels() {
            let all = c.forward_packed_with(isa, cells, &x, &packed, &b, After::default());
            let forward =
                |c: &Conv2d, x: &[f32]| c.forward_packed_with(isa, cells, x, &packed, &b, After::default());
            for (index, pixel) in all.chunks_exact(c.out_channels).enumerate().step_by(1 + all.len() / 700) {
                let (image, y, x_at) = (index / (out_h * out_w), index / out_w % out_h, index % out_w);
                let single = alone(&c, &x, image, y, x_at, forward);
                assert!(pixel == single, "{isa:?} {cells:?} {c:?} at {image} {y} {x_at}");
            }
            let single = one.forward_packed_with(isa, cells, &x, &channel, &b[o..=o], After::default());
            let column: Vec<f32> = all.iter().skip(o).step_by(c.out_channels).copied().collect();
            assert!(single == column, "{isa:?} {cells:?} {c:?} channel {o}");
        }
    }
}

#[test]
fn no_packed_result_depends_on_the_number_of_threads() {
    let base = Conv2d { batch: 2, height: 40, width: 37, in_channels: 17, out_channels: 67, ..cases()[0] };
    for c in [base, Conv2d { stride: 2, ..base }, Conv2d { kernel: 1, pad_before: 0, pad_after: 0, ..base }] {
        let [x, w, b] = inputs(&c);
        let run = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let mut results =
                    vec![c.forward_packed(&x, &pack(&c, &w, Products::F32), &b, After::default())];
                let packed = pack(&c, &w, Products::Bf16);
                for (isa, cells) in kernels() {
                    results.push(c.forward_packed_with(isa, cells, &x, &packed, &b, After::default()));
                }
                results
            })
        };
        let one = run(1);
        for threads in [2, 3, 16] {
            assert!(one == run(threads), "{c:?} with {threads} threads");
        }
    }
}

#[test]
fn gradients_in_bf16_are_those_of_rounded_numbers() {
    for c in all_cases() {
        let [x, w, b] = inputs(&c);
        let dy = noise(c.forward(&x, &w, &b).len(), 25);
        let [rounded_x, rounded_w, rounded_dy] = [&x, &w, &dy].map(|values| by_arithmetic(values));
        let want = [c.backward_input(&rounded_dy, &rounded_w), c.backward_weight(&rounded_x, &rounded_dy)];
        let run = |isa, cells| {
            [c.backward_input_with(isa, cells, &dy, &w), c.backward_weight_with(isa, cells, &x, &dy)]
        };
        for (isa, cells) in kernels() {
            for (got, want) in run(isa, cells).iter().zip(&want) {
                assert_eq!(got.len(), want.len(), "{c:?}");
                for (g, e) in got.iter().zip(want) {
                    assert!(
                        (g - e).abs() < 1e-4 * (1.0 + e.abs()),
                        "{isa:?} {cells:?} {c:?}: {g} is not {e}"
                    );
                }
            }
        }
        let fused = Isa::available().into_iter().filter(|isa| *isa != Isa::Portable);
        let results: Vec<_> = fused.map(|isa| run(isa, Cells::Widened)).collect();
        assert!(results.windows(2).all(|pair| pair[0] == pair[1]), "{c:?}");
    }
}

/// Nor on what else is in the batch.
#[test]
fn no_gradient_in_bf16_depends_on_the_number_of_threads() {
    let base = Conv2d {
        batch: 3,
        height: 40,
        width: 37,
        in_channels: 17,
        out_channels: 67,
        products: Products::Bf16,
        ..cases()[0]
    };
    let pointwise = Conv2d { kernel: 1, pad_before: 0, pad_after: 0, ..base };
    for c in [base, Conv2d { stride: 2, ..base }, pointwise, Conv2d { doubled: true, ..base }] {
        let [x, w, b] = inputs(&c);
        let run = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let y = c.forward(&x, &w, &b);
                [c.backward_input(&y, &w), c.backward_weight(&x, &y), y]
            })
        };
        let one = run(1);
        for threads in [2, 3, 16] {
            assert!(one == run(threads), "{c:?} with {threads} threads");
        }
        let alone = Conv2d { batch: 1, ..c };
        let (x, y) = (&x[x.len() / 3..2 * x.len() / 3], &one[2][one[2].len() / 3..2 * one[2].len() / 3]);
        assert!(alone.forward(x, &w, &b) == y, "{c:?}");
        assert!(alone.backward_input(y, &w) == one[0][x.len()..2 * x.len()], "{c:?}");
    }
}

/// Machines without the instruction give the same pictures, whatever their vectors.
#[test]
fn widened_bf16_agrees_in_every_bit_where_products_are_fused() {
    for c in all_cases() {
        let [x, w, b] = inputs(&c);
        let packed = pack(&c, &w, Products::Bf16);
        let results: Vec<_> = Isa::available()
            .into_iter()
            .filter(|isa| *isa != Isa::Portable)
            .map(|isa| c.forward_packed_with(isa, Cells::Widened, &x, &packed, &b, After::default()))
            .collect();
        assert!(results.windows(2).all(|pair| pair[0] == pair[1]), "{c:?}");
    }
}

#[test]
fn what_follows_is_applied_to_every_element_once() {
    let doubled =
        |c: Conv2d| Conv2d { doubled: [c.kernel, c.stride, c.pad_before, c.pad_after] == [3, 1, 1, 1], ..c };
    for c in all_cases().into_iter().flat_map(|c| [c, doubled(c)]) {
        let [x, w, b] = inputs(&c);
        let shape = [c.out_channels, c.kernel, c.kernel, c.in_channels];
        for (isa, cells) in kernels() {
            for products in [Products::F32, Products::Bf16] {
                let packed = if c.doubled {
                    PackedWeight::doubled(&w, shape, products)
                } else {
                    PackedWeight::new(&w, shape, products)
                };
                let run = |after: After| c.forward_packed_with(isa, cells, &x, &packed, &b, after);
                let plain = run(After::default());
                let rest = noise(plain.len(), 24);
                for (rectifier, slope) in
                    [(Rectifier::None, 1.0), (Rectifier::Relu, 0.0), (Rectifier::Leaky(0.2), 0.2)]
                {
                    let bent = |y: f32| if y < 0.0 { slope * y } else { y };
                    let alone = run(After { rest: None, rectifier });
                    assert!(alone.iter().zip(&plain).all(|(y, x)| *y == bent(*x)), "{isa:?} {c:?}");
                    let both = run(After { rest: Some(&rest), rectifier });
                    let want = plain.iter().zip(&rest).map(|(y, rest)| bent(y + rest));
                    assert!(both.iter().zip(want).all(|(y, want)| *y == want), "{isa:?} {c:?}");
                }
            }
        }
    }
}
