//! A 3x3 convolution of a picture that was made twice as large by repeating its pixels, without the large picture: an
//! output pixel sees two rows and columns of the small one, so that weights of repeated pixels are summed first and
//! 4 products take the place of 9.

use super::Conv2d;
use super::direct::{Direct, Grid};
use std::ops::Range;

/// Rows of the kernel of three that one row of a kernel of four is the sum of: the doubled convolution is the adjoint
/// of one with kernel 4, step 2 and padding 1, from the large picture to the small one.
const SUMMED: [Range<usize>; 4] = [2..3, 1..3, 0..2, 0..1];

/// The kernel that even (0) or odd (1) rows of the output see, its two rows as rows of the kernel of four.
const SEEN: [[usize; 2]; 2] = [[3, 1], [2, 0]];

/// The four kinds of output pixels: row and column even or odd.
pub(super) const PHASES: [[usize; 2]; 4] = [[0, 0], [0, 1], [1, 0], [1, 1]];

/// `[out, rows, cols, in]`: sums of `weight[out, 3, 3, in]`, for these rows and columns of the kernel of four.
fn summed(weight: &[f32], [outputs, inputs]: [usize; 2], rows: &[usize], cols: &[usize]) -> Vec<f32> {
    assert_eq!(weight.len(), outputs * 9 * inputs, "a kernel of 3 x 3");
    let mut sums = vec![0.0; outputs * rows.len() * cols.len() * inputs];
    let kernels =
        weight.chunks_exact(9 * inputs).zip(sums.chunks_exact_mut(rows.len() * cols.len() * inputs));
    for (weight, sums) in kernels {
        let places = rows.iter().flat_map(|row| cols.iter().map(move |col| (*row, *col)));
        for ((row, col), sums) in places.zip(sums.chunks_exact_mut(inputs)) {
            for tap in SUMMED[row].clone().flat_map(|y| SUMMED[col].clone().map(move |x| 3 * y + x)) {
                let weight = &weight[tap * inputs..][..inputs];
                sums.iter_mut().zip(weight).for_each(|(sum, weight)| *sum += weight);
            }
        }
    }
    sums
}

/// The kernels of the four kinds of output pixels, `[out, 2, 2, in]` each; `channels` are out and in.
pub(super) fn kernels(weight: &[f32], channels: [usize; 2]) -> [Vec<f32>; 4] {
    PHASES.map(|[row, col]| summed(weight, channels, &SEEN[row], &SEEN[col]))
}

/// The convolution that computes one kind of output pixels.
pub(super) fn direct(c: &Conv2d, phase: [usize; 2]) -> Direct {
    Direct {
        batch: c.batch,
        height: c.height,
        width: c.width,
        channels: c.in_channels,
        kernel: [2; 2],
        stride: 1,
        pad: phase.map(|odd| 1 - odd as isize),
        out: [c.height, c.width],
        columns: c.out_channels,
        onto: Grid { size: [2 * c.height, 2 * c.width], first: phase, step: 2 },
    }
}

/// The kernel of four, `[out, 4, 4, in]`.
pub(super) fn kernel_of_four(weight: &[f32], channels: [usize; 2]) -> Vec<f32> {
    summed(weight, channels, &[0, 1, 2, 3], &[0, 1, 2, 3])
}

/// The convolution whose adjoint the doubled one is.
pub(super) fn adjoint(c: &Conv2d) -> Conv2d {
    Conv2d {
        height: 2 * c.height,
        width: 2 * c.width,
        in_channels: c.out_channels,
        out_channels: c.in_channels,
        kernel: 4,
        stride: 2,
        doubled: false,
        ..*c
    }
}

/// The gradient of the weight, `[out, 3, 3, in]`, from that of the adjoint's, `[in, 4, 4, out]`.
pub(super) fn weight_gradient(c: &Conv2d, of_four: &[f32]) -> Vec<f32> {
    let (inputs, outputs) = (c.in_channels, c.out_channels);
    let mut gradient = vec![0.0; outputs * 9 * inputs];
    for (index, of_four) in of_four.chunks_exact(outputs).enumerate() {
        let (input, row, col) = (index / 16, index / 4 % 4, index % 4);
        for tap in SUMMED[row].clone().flat_map(|y| SUMMED[col].clone().map(move |x| 3 * y + x)) {
            for (output, value) in of_four.iter().enumerate() {
                gradient[(output * 9 + tap) * inputs + input] += value;
            }
        }
    }
    gradient
}
