use super::*;
use crate::bf16::tests::{by_arithmetic, kernels};

fn wave(count: usize, step: f32) -> Vec<f32> {
    (0..count).map(|i| (i as f32 * step).sin() * 1.5 + 0.1).collect()
}

/// Without an order in which sums would cancel.
fn rough(count: usize, step: f64) -> Vec<f32> {
    (0..count).map(|i| ((i * i) as f64 * step).sin() as f32).collect()
}

fn case(
    batch: usize,
    heads: usize,
    queries: usize,
    keys: usize,
    width: usize,
    bias: Option<[usize; 2]>,
) -> Attention {
    Attention { batch, heads, queries, keys, width, bias, products: Products::F32 }
}

fn cases() -> Vec<Attention> {
    vec![
        case(1, 1, 1, 1, 1, None),
        case(2, 3, 5, 77, 8, None),
        case(1, 2, 300, 1, 40, None),
        case(1, 1, 19, 700, 160, None),
        case(2, 2, 64, 64, 30, Some([1, 2])),
        case(3, 2, 64, 64, 32, Some([3, 2])),
        case(10, 1, 9, 33, 16, Some([1, 1])),
        case(2, 3, 70, 300, 7, Some([2, 1])),
    ]
}

/// Inputs in the order [batch, rows, heads, width], and a bias with some of it masked.
struct Inputs {
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    bias: Vec<f32>,
}

fn inputs(a: &Attention) -> Inputs {
    let size = a.batch * a.heads * a.width;
    let mut bias = a.bias.map_or(vec![], |[b, h]| wave(b * h * a.queries * a.keys, 0.77));
    bias.iter_mut().step_by(7).for_each(|value| *value = -100.0);
    Inputs {
        q: wave(size * a.queries, 0.37),
        k: wave(size * a.keys, 0.91),
        v: wave(size * a.keys, 1.3),
        bias,
    }
}

impl Inputs {
    fn views(&self, a: &Attention) -> (Heads<'_>, Heads<'_>, Heads<'_>, Option<&[f32]>) {
        let view = |data, rows| Heads::interleaved(data, rows, a.heads, a.width);
        let bias = a.bias.map(|_| self.bias.as_slice());
        (view(&self.q, a.queries), view(&self.k, a.keys), view(&self.v, a.keys), bias)
    }
}

/// The definition, in f64, from q, k, v and bias one after the other.
fn definition(a: &Attention, all: &[f64]) -> Vec<f64> {
    let size = a.batch * a.heads * a.width;
    let (q, rest) = all.split_at(size * a.queries);
    let (k, rest) = rest.split_at(size * a.keys);
    let (v, bias) = rest.split_at(size * a.keys);
    let mut y = vec![0.0; size * a.queries];
    for b in 0..a.batch {
        for h in 0..a.heads {
            let at = |rows: usize, row: usize| ((b * rows + row) * a.heads + h) * a.width;
            for query in 0..a.queries {
                let q = &q[at(a.queries, query)..][..a.width];
                let scores: Vec<f64> = (0..a.keys)
                    .map(|key| {
                        let dot: f64 = q.iter().zip(&k[at(a.keys, key)..]).map(|(q, k)| q * k).sum();
                        let bias = a.bias.map_or(0.0, |[batches, heads]| {
                            bias[(((b % batches) * heads + h % heads) * a.queries + query) * a.keys + key]
                        });
                        dot / (a.width as f64).sqrt() + bias
                    })
                    .collect();
                let most = scores.iter().copied().fold(f64::MIN, f64::max);
                let sum: f64 = scores.iter().map(|s| (s - most).exp()).sum();
                for (key, score) in scores.iter().enumerate() {
                    let p = (score - most).exp() / sum;
                    for i in 0..a.width {
                        y[at(a.queries, query) + i] += p * v[at(a.keys, key) + i];
                    }
                }
            }
        }
    }
    y
}

fn wide(inputs: &Inputs) -> Vec<f64> {
    [&inputs.q, &inputs.k, &inputs.v, &inputs.bias].into_iter().flatten().map(|&v| f64::from(v)).collect()
}

#[test]
fn forward_equals_the_definition() {
    for a in cases() {
        let inputs = inputs(&a);
        let (q, k, v, bias) = inputs.views(&a);
        let want = definition(&a, &wide(&inputs));
        for isa in Isa::available() {
            let (y, _) = a.forward_with(isa, Cells::Single, q, k, v, bias);
            assert_eq!(y.len(), want.len());
            for (got, want) in y.iter().zip(&want) {
                assert!((f64::from(*got) - want).abs() < 1e-5, "{isa:?} {a:?}: {got} is not {want}");
            }
        }
    }
}

#[test]
fn gradients_equal_differences_of_the_definition() {
    for a in cases() {
        let inputs = inputs(&a);
        let (q, k, v, bias) = inputs.views(&a);
        let (y, logarithms) = a.forward(q, k, v, bias);
        let dy = wave(y.len(), 0.53);
        let dy_view = Heads::interleaved(&dy, a.queries, a.heads, a.width);
        let got = a.backward(q, k, v, bias, &y, &logarithms, dy_view);
        let got = [got.q, got.k, got.v, got.bias].concat();
        let all = wide(&inputs);
        assert_eq!(got.len(), all.len());
        // In one direction for all of each input, then some elements.
        let loss = |all: &[f64]| -> f64 {
            definition(&a, all).iter().zip(&dy).map(|(y, dy)| y * f64::from(*dy)).sum()
        };
        let slope = |direction: &dyn Fn(usize) -> f64| {
            let moved = |step: f64| -> Vec<f64> {
                all.iter().enumerate().map(|(i, v)| v + step * direction(i)).collect()
            };
            (loss(&moved(1e-5)) - loss(&moved(-1e-5))) / 2e-5
        };
        let check = |name: &str, direction: &dyn Fn(usize) -> f64| {
            let want = slope(direction);
            let parts = got.iter().enumerate().map(|(i, g)| f64::from(*g) * direction(i));
            let size: f64 = parts.clone().map(f64::abs).sum();
            let found: f64 = parts.sum();
            assert!((found - want).abs() < 1e-5 * size + 1e-4, "{a:?} {name}: {found} is not {want}");
        };
        let size = a.batch * a.heads * a.width;
        let ends =
            [0, size * a.queries, size * (a.queries + a.keys), size * (a.queries + 2 * a.keys), all.len()];
        for (name, part) in ["q", "k", "v", "bias"].iter().zip(ends.windows(2)) {
            check(name, &|i| if (part[0]..part[1]).contains(&i) { (i as f64 * 0.61).cos() } else { 0.0 });
            if part[0] < part[1] {
                let middle = (part[0] + part[1]) / 2;
                check(name, &|i| f64::from(u8::from(i == middle)));
            }
        }
    }
}

#[test]
fn a_query_depends_neither_on_its_neighbours_nor_on_the_order_of_memory() {
    for a in cases() {
        let inputs = inputs(&a);
        let (q, k, v, bias) = inputs.views(&a);
        let (all, _) = a.forward(q, k, v, bias);
        // The last head of the last sequence, its last query alone, laid out anew.
        let (b, h, query) = (a.batch - 1, a.heads - 1, a.queries - 1);
        let gather = |heads: &Heads, rows: usize| -> Vec<f32> {
            (0..rows).flat_map(|r| heads.head(b, h)[r * heads.strides[2]..][..a.width].to_vec()).collect()
        };
        let (keys, values) = (gather(&k, a.keys), gather(&v, a.keys));
        let one = &q.head(b, h)[query * q.strides[2]..][..a.width];
        let single = case(1, 1, 1, a.keys, a.width, a.bias.map(|_| [1, 1]));
        let view = |data| Heads { data, strides: [0, 0, a.width] };
        let row = a.bias_of(bias, b, h).map(|bias| &bias[query * a.keys..]);
        let (alone, _) = single.forward(view(one), view(&keys), view(&values), row);
        assert_eq!(alone, all[all.len() - a.width..], "{a:?}");
    }
}

#[test]
fn nothing_depends_on_threads_or_the_width_of_vectors() {
    for a in cases() {
        let inputs = inputs(&a);
        let (q, k, v, bias) = inputs.views(&a);
        let run = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let (y, logarithms) = a.forward(q, k, v, bias);
                let dy = Heads::interleaved(&y, a.queries, a.heads, a.width);
                let d = a.backward(q, k, v, bias, &y, &logarithms, dy);
                [d.q, d.k, d.v, d.bias, y.clone(), logarithms]
            })
        };
        let one = run(1);
        assert!(one == run(2) && one == run(7), "{a:?}");
        for isa in Isa::available().into_iter().filter(|isa| *isa != Isa::Portable) {
            assert_eq!(a.forward_with(isa, Cells::Single, q, k, v, bias).0, one[4], "{isa:?} {a:?}");
        }
    }
}

fn bf16_cases() -> Vec<Attention> {
    let odd = [case(2, 1, 33, 1, 1, None), case(1, 2, 45, 515, 17, None), case(1, 3, 13, 77, 64, None)];
    cases().into_iter().chain(odd).collect()
}

#[test]
fn bf16_is_the_definition_on_rounded_inputs_but_for_rounded_probabilities() {
    for a in bf16_cases() {
        let mut inputs = inputs(&a);
        for values in [&mut inputs.q, &mut inputs.k, &mut inputs.v] {
            *values = by_arithmetic(values);
        }
        let (q, k, v, bias) = inputs.views(&a);
        let want = definition(&a, &wide(&inputs));
        for (isa, cells) in kernels() {
            let (y, _) = a.forward_with(isa, cells, q, k, v, bias);
            assert_eq!(y.len(), want.len());
            for (got, want) in y.iter().zip(&want) {
                // A probability is rounded by at most 2^-9 of itself, and values are at most 1.6.
                let error = (f64::from(*got) - want).abs();
                assert!(error < 1.6 / 512.0 + 1e-5, "{isa:?} {cells:?} {a:?}: {got} is not {want}");
            }
        }
    }
}

#[test]
fn bf16_kernels_agree() {
    for a in bf16_cases() {
        let inputs = inputs(&a);
        let (q, k, v, bias) = inputs.views(&a);
        let single = a.forward(q, k, v, bias).0;
        let results: Vec<_> =
            kernels().into_iter().map(|(isa, cells)| a.forward_with(isa, cells, q, k, v, bias).0).collect();
        for (result, kernel) in results.iter().zip(kernels()) {
            // Probabilities on the border between two bf16 may fall to either side.
            for ((got, want), single) in result.iter().zip(&results[0]).zip(&single) {
                assert!((got - want).abs() < 1e-3, "{kernel:?} {a:?}: {got} is not {want}");
                assert!((got - single).abs() < 5e-2, "{kernel:?} {a:?}: {got} is not {single}");
            }
        }
        let fused: Vec<_> = kernels()
            .into_iter()
            .zip(&results)
            .filter(|((isa, cells), _)| *isa != Isa::Portable && *cells == Cells::Widened)
            .collect();
        assert!(fused.windows(2).all(|pair| pair[0].1 == pair[1].1), "{a:?}");
    }
}

#[test]
fn gradients_in_bf16_are_near_those_in_f32() {
    for a in bf16_cases() {
        let mut inputs = inputs(&a);
        for (values, step) in [(&mut inputs.q, 0.37), (&mut inputs.k, 0.91), (&mut inputs.v, 1.3)] {
            *values = rough(values.len(), step);
        }
        let (q, k, v, bias) = inputs.views(&a);
        let (y, logarithms) = a.forward(q, k, v, bias);
        let dy = rough(y.len(), 0.53);
        let dy = Heads::interleaved(&dy, a.queries, a.heads, a.width);
        let parts = |all: AttentionGradients| [all.q, all.k, all.v, all.bias];
        let want = parts(a.backward(q, k, v, bias, &y, &logarithms, dy));
        let run = |(isa, cells), threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let (y, logarithms) = a.forward_with(isa, cells, q, k, v, bias);
                parts(a.backward_with(isa, cells, q, k, v, bias, &y, &logarithms, dy))
            })
        };
        let norm = |values: &mut dyn Iterator<Item = f32>| values.map(|v| v * v).sum::<f32>().sqrt();
        let mut fused = None;
        for kernel in kernels() {
            let got = run(kernel, 1);
            assert!(got == run(kernel, 3), "{kernel:?} {a:?}");
            for (got, want) in got.iter().zip(&want) {
                assert_eq!(got.len(), want.len(), "{a:?}");
                let size = norm(&mut want.iter().copied());
                let error = norm(&mut got.iter().zip(want).map(|(got, want)| got - want));
                assert!(error <= 1e-2 * size + 1e-5, "{kernel:?} {a:?}: {error} of {size}");
            }
            if kernel.0 != Isa::Portable && kernel.1 == Cells::Widened {
                assert!(*fused.get_or_insert_with(|| got.clone()) == got, "{kernel:?} {a:?}");
            }
        }
    }
}

#[test]
fn a_query_in_bf16_depends_neither_on_its_neighbours_nor_on_threads() {
    for a in bf16_cases() {
        let inputs = inputs(&a);
        let (q, k, v, bias) = inputs.views(&a);
        for (isa, cells) in kernels() {
            let run = |threads: usize| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                pool.install(|| a.forward_with(isa, cells, q, k, v, bias).0)
            };
            let all = run(1);
            assert!(all == run(2) && all == run(7), "{isa:?} {cells:?} {a:?}");
            if a.bias.is_some() {
                continue;
            }
            let query = a.queries / 2;
            let single = Attention { queries: 1, ..a };
            let shifted = Heads { data: &q.data[query * q.strides[2]..], ..q };
            let alone = single.forward_with(isa, cells, shifted, k, v, None).0;
            for batch in 0..a.batch {
                let size = a.heads * a.width;
                let row = &all[(batch * a.queries + query) * size..][..size];
                assert_eq!(alone[batch * size..][..size], *row, "{isa:?} {cells:?} {a:?}");
            }
        }
    }
}

/// Tokens of shifted windows, moved together, attend as sequences do.
#[test]
fn windows_attend_as_their_tokens_moved_together() {
    for (batch, down, across, heads, width, window, shift) in [
        (1, 1, 1, 1, 1, 1, 0),
        (2, 2, 3, 2, 7, 3, 1),
        (1, 3, 2, 6, 30, 8, 4),
        (2, 1, 2, 2, 32, 8, 0),
        (1, 2, 2, 1, 40, 7, 3),
        (1, 1, 1, 2, 33, 16, 8),
    ] {
        let sizes = WindowAttention {
            batch,
            rows: down * window,
            columns: across * window,
            heads,
            width,
            window,
            shift,
            products: Products::F32,
        };
        let (tokens, features, windows) = (window * window, heads * width, down * across);
        let parts = wave(batch * windows * tokens * 3 * features, 0.37);
        let bias = wave(heads * tokens * tokens, 0.77);
        // The first window has nothing to hide.
        let mut mask = vec![0.0; windows * tokens * tokens];
        mask.iter_mut().skip(tokens * tokens).step_by(3).for_each(|value| *value = -100.0);
        let place = |window_index: usize, token: usize| {
            let (grid, index) = (window_index / windows, window_index % windows);
            let row = (index / across * window + token / window + shift) % sizes.rows;
            let column = (index % across * window + token % window + shift) % sizes.columns;
            (grid * sizes.rows + row) * sizes.columns + column
        };
        let places: Vec<usize> = (0..batch * windows)
            .flat_map(|window| (0..tokens).map(move |token| (window, token)))
            .map(|(window, token)| place(window, token))
            .collect();
        let part = |part: usize| -> Vec<f32> {
            let at = |place: usize| &parts[(3 * place + part) * features..][..features];
            places.iter().flat_map(|place| at(*place).to_vec()).collect()
        };
        let [q, k, v] = [part(0), part(1), part(2)];
        let all: Vec<f32> = (0..batch * windows)
            .flat_map(|window| {
                let mask = mask[window % windows * tokens * tokens..].iter().take(tokens * tokens);
                let mask: Vec<f32> = mask.copied().collect();
                bias.iter().zip(mask.into_iter().cycle()).map(|(bias, mask)| bias + mask).collect::<Vec<_>>()
            })
            .collect();
        let flat = Attention {
            products: Products::F32,
            ..case(batch * windows, heads, tokens, tokens, width, None)
        };
        let flat = Attention { bias: Some([batch * windows, heads]), ..flat };
        let view = |data| Heads::interleaved(data, tokens, heads, width);
        for (isa, cells) in
            kernels().into_iter().chain(Isa::available().into_iter().map(|isa| (isa, Cells::Single)))
        {
            let (want, _) = flat.forward_with(isa, cells, view(&q), view(&k), view(&v), Some(&all));
            let got = sizes.forward_with(isa, cells, &parts, &bias, Some(&mask));
            for (place, want) in places.iter().zip(want.chunks_exact(features)) {
                assert!(got[place * features..][..features] == *want, "{isa:?} {cells:?} {sizes:?}");
            }
            let unmasked = sizes.forward_with(isa, cells, &parts, &bias, None);
            let first = places.iter().take(tokens);
            assert!(first.clone().all(|place| {
                let span = place * features..(place + 1) * features;
                unmasked[span.clone()] == got[span]
            }));
        }
    }
}

#[test]
fn rounded_probabilities_are_those_of_the_portable_path() {
    let (rows, stride) = (14, 96);
    let all = rough(2 * rows * stride, 0.37);
    let mut bias = rough(rows * stride, 0.11);
    bias.iter_mut().step_by(5).for_each(|bias| *bias = f32::NEG_INFINITY);
    // A row that is masked whole.
    bias[stride..2 * stride].fill(f32::NEG_INFINITY);
    for (keys, biased) in [(1, false), (15, true), (33, false), (64, true), (77, true), (96, false)] {
        let run = |isa: Isa, cells: Cells| {
            let (mut largest, mut sums) = (vec![f32::NEG_INFINITY; rows], vec![0.0; rows]);
            let (mut factors, mut out) =
                (vec![0.0; rows], vec![0.0; rows * crate::bf16::left_cells(cells, stride)]);
            // The second block's scores are larger.
            for (block, scores) in all.chunks_exact(rows * stride).enumerate() {
                let mut values: Vec<f32> = scores.iter().map(|score| score * (20.0 + block as f32)).collect();
                let bias = biased.then_some((bias.as_slice(), stride));
                let scores = super::Scores { values: &mut values, stride, keys, scale: 0.3, bias };
                let state = (largest.as_mut_slice(), sums.as_mut_slice(), factors.as_mut_slice());
                super::bf16::probabilities(isa, cells, scores, state, &mut out);
            }
            let halves =
                |cell: &f32| [cell.to_bits() << 16, cell.to_bits() & 0xffff_0000].map(f32::from_bits);
            let probabilities: Vec<f32> =
                if cells == Cells::Widened { out } else { out.iter().flat_map(halves).collect() };
            let rows = probabilities.chunks_exact(stride);
            let used: Vec<f32> = rows.flat_map(|row| row[..keys.next_multiple_of(2)].to_vec()).collect();
            (used, sums, largest, factors)
        };
        let near = |got: &[f32], want: &[f32], error: f32| {
            got.len() == want.len()
                && got.iter().zip(want).all(|(a, b)| a == b || (a - b).abs() <= error * b.abs())
        };
        let want = run(Isa::Portable, Cells::Widened);
        assert!(want.0.iter().any(|p| *p > 0.5) && want.1[0] > 0.0, "{keys}");
        for (isa, cells) in kernels() {
            let got = run(isa, cells);
            assert!(near(&got.0, &want.0, 1.0 / 128.0), "{isa:?} {cells:?} {keys}");
            assert!(near(&got.1, &want.1, 1e-5) && near(&got.2, &want.2, 1e-6), "{isa:?} {cells:?} {keys}");
            assert!(near(&got.3, &want.3, 1e-5), "{isa:?} {cells:?} {keys}");
            assert!(!biased || got.1[1] == 0.0, "{isa:?} {cells:?} {keys}");
        }
    }
}

#[test]
fn large_numbers_mask_keys_as_infinity_does() {
    let a = case(1, 2, 20, 300, 16, Some([1, 1]));
    let plain = inputs(&a);
    let dy = rough(a.batch * a.heads * a.queries * a.width, 0.71);
    for (isa, cells) in kernels().into_iter().chain([(Isa::detect(), Cells::Single)]) {
        // The first block of keys, a part of it and a block more; nothing.
        for masked in [0..256, 0..150, 0..299, 0..0] {
            let run = |mask: f32| {
                let mut inputs = inputs(&a);
                for row in inputs.bias.chunks_exact_mut(a.keys) {
                    row[masked.clone()].fill(mask);
                }
                let (q, k, v, bias) = inputs.views(&a);
                let (y, logarithms) = a.forward_with(isa, cells, q, k, v, bias);
                let dy = Heads::interleaved(&dy, a.queries, a.heads, a.width);
                let gradients = a.backward_with(isa, cells, q, k, v, bias, &y, &logarithms, dy);
                [y, gradients.q, gradients.k, gradients.v]
            };
            let want = run(f32::NEG_INFINITY);
            for mask in [-1e4, -1e30, f32::MIN] {
                for (got, want) in run(mask).iter().flatten().zip(want.iter().flatten()) {
                    assert!(
                        (got - want).abs() < 1e-5,
                        "{isa:?} {cells:?} {masked:?} {mask}: {got}, not {want}"
                    );
                }
            }
        }
    }
    // Keys that are all masked so are as good as each other.
    let (q, k, v, _) = plain.views(&a);
    let bias = vec![f32::MIN; a.queries * a.keys];
    for (isa, cells) in kernels() {
        let (y, _) = a.forward_with(isa, cells, q, k, v, Some(&bias));
        let mean =
            |feature: usize| plain.v.iter().skip(feature).step_by(a.heads * a.width).sum::<f32>() / 300.0;
        for (at, y) in y.iter().enumerate() {
            assert!((y - mean(at % (a.heads * a.width))).abs() < 0.01, "{isa:?} {cells:?}: {y}");
        }
    }
}

#[test]
fn scores_may_be_large() {
    // The root of three is not exact.
    let a = case(1, 1, 5, 300, 3, None);
    let mut inputs = inputs(&a);
    for values in [&mut inputs.q, &mut inputs.k] {
        values.iter_mut().for_each(|value| *value *= 1e8);
    }
    let (q, k, v, _) = inputs.views(&a);
    let want = definition(&a, &wide(&inputs));
    for (isa, cells) in Isa::available().into_iter().map(|isa| (isa, Cells::Single)).chain(kernels()) {
        let (y, _) = a.forward_with(isa, cells, q, k, v, None);
        assert!(y.iter().all(|y| y.is_finite()), "{isa:?} {cells:?}: {y:?}");
        if cells == Cells::Single {
            assert!(
                y.iter().zip(&want).all(|(y, want)| (f64::from(*y) - want).abs() < 1e-5),
                "{isa:?}: {y:?}"
            );
        }
    }
}

#[test]
fn vectors_and_biases_that_do_not_fit_are_refused() {
    let refused = |sizes: Attention, strides, bias: &[f32]| {
        let (data, bias) = ([0.0; 64], bias.to_vec());
        let heads = Heads { data: &data, strides };
        let run = || {
            sizes.forward(heads, heads, heads, Some(&bias).filter(|_| sizes.bias.is_some()).map(|b| &b[..]))
        };
        std::panic::catch_unwind(run).is_err()
    };
    let sizes =
        Attention { batch: 4, heads: 1, queries: 1, keys: 1, width: 8, bias: None, products: Products::F32 };
    assert!(!refused(sizes, [8, 0, 0], &[]));
    assert!(refused(Attention { queries: 9, keys: 9, ..sizes }, [0, 0, 1 << 61], &[]));
    assert!(refused(Attention { keys: 0, ..sizes }, [8, 0, 0], &[]));
    assert!(!refused(Attention { bias: Some([4, 1]), ..sizes }, [8, 0, 0], &[0.0; 4]));
    assert!(refused(Attention { bias: Some([2, 1]), ..sizes }, [8, 0, 0], &[0.0; 2]));
}
