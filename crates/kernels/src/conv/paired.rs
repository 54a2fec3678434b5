//! The gradient of a convolution's weight in bf16: what is summed are pixels, so pairs are of neighbouring pixels of one
//! channel. They are joined, zeros around the picture, for some pixels at a time, and then every tap reads them.

use super::Conv2d;
use super::gradient::{Part, Pass, parts, passes};
use crate::bf16;
use crate::share::Shared;
use crate::simd::Isa;
use crate::tile::{self, Cells, Onto, Then, Tile, even_parts};
use rayon::prelude::*;

/// Output pixels that are summed in one pass over a tile.
const PASS_PIXELS: usize = 512;

/// About how many cells are joined at a time: they stay in the last cache.
const JOINED: usize = 1 << 18;

/// A gradient that is computed.
struct Gradient<'a> {
    c: &'a Conv2d,
    isa: Isa,
    cells: Cells,
    /// Cells of a pair on the left side.
    left: usize,
    /// Pixels of the input that a pair of output pixels takes: every column of the kernel sees one, and neighbours share
    /// what both see.
    step: usize,
}

/// Writes `dw`, of at least one element, as [`super::gradient::weight`] does.
pub(super) fn add_weight(c: &Conv2d, isa: Isa, cells: Cells, x: &[f32], dy: &[f32], output: Shared) {
    let (left, step) = (bf16::left_cells(cells, 2), c.kernel.min(2 * c.stride));
    let gradient = Gradient { c, isa, cells, left, step };
    let passes = passes(c, PASS_PIXELS);
    let most =
        passes.iter().map(|pass| gradient.size(pass)).fold([0; 2], |a, b| [a[0].max(b[0]), a[1].max(b[1])]);
    let size = most[0] + most[1];
    let room = (JOINED / size.max(1)).clamp(1, passes.len().max(1));
    let mut joined = vec![0.0; size * room];
    let parts = parts(c, cells.max_rows(isa));
    for (index, passes) in passes.chunks(room).enumerate() {
        joined.par_chunks_exact_mut(size).zip(passes).for_each(|(joined, pass)| {
            let (left, right) = joined.split_at_mut(most[0]);
            gradient.join_output(pass, dy, left);
            gradient.join_input(pass, x, right);
        });
        parts.par_iter().for_each(|part| {
            for (at, (joined, pass)) in joined.chunks_exact(size).zip(passes).enumerate() {
                let onto = if index + at > 0 { Onto::Output } else { Onto::Nothing };
                gradient.add(pass, joined.split_at(most[0]), part, onto, output);
            }
        });
    }
}

impl Gradient<'_> {
    /// Cells of the left and of the right side of a pass.
    fn size(&self, pass: &Pass) -> [usize; 2] {
        let pairs = pass.cols.len().div_ceil(2);
        let rows = (pass.rows.len() - 1) * self.c.stride + self.c.kernel;
        [pass.rows.len() * pairs * self.c.out_channels * self.left, rows * self.line(pass)]
    }

    /// Cells of a row of the right side.
    fn line(&self, pass: &Pass) -> usize {
        ((pass.cols.len().div_ceil(2) - 1) * self.step + self.c.kernel) * self.c.in_channels
    }

    /// `[row][pair][out]`, a zero beside the last pixel of an odd number.
    fn join_output(&self, pass: &Pass, dy: &[f32], to: &mut [f32]) {
        let (outputs, (out_h, out_w)) = (self.c.out_channels, self.c.out_size());
        let zeros = vec![0.0; outputs];
        let mut cells = to.chunks_exact_mut(outputs * self.left);
        for row in pass.rows.clone() {
            let line = &dy[(pass.image * out_h + row) * out_w * outputs..][..out_w * outputs];
            let line = &line[pass.cols.start * outputs..pass.cols.end * outputs];
            for pair in line.chunks(2 * outputs) {
                let (first, second) = pair.split_at(outputs);
                let second = if second.is_empty() { &zeros } else { second };
                let to = cells.next().expect("there is room for all pairs");
                bf16::join_left(self.isa, self.cells, first, second, to);
            }
        }
    }

    /// `[row][pixel][in]`: each pixel that is the first of a pair at some tap, and the one that this tap sees next.
    fn join_input(&self, pass: &Pass, x: &[f32], to: &mut [f32]) {
        let Conv2d { height, width, in_channels: inputs, stride, pad_before, .. } = *self.c;
        let rows = (pass.rows.len() - 1) * stride + self.c.kernel;
        let line = self.line(pass);
        let zeros = vec![0.0; inputs];
        for (row, to) in to.chunks_exact_mut(line.max(1)).take(rows).enumerate() {
            let y = (pass.rows.start * stride + row).wrapping_sub(pad_before);
            if y >= height {
                to.fill(0.0);
                continue;
            }
            let from = &x[(pass.image * height + y) * width * inputs..][..width * inputs];
            let pixel = |col: usize| if col < width { &from[col * inputs..][..inputs] } else { &zeros };
            // Pixels that are neighbours in both.
            let run = if self.step == 2 * stride { line / inputs } else { self.step };
            for (index, to) in to.chunks_mut(run * inputs).enumerate() {
                let first = ((pass.cols.start + 2 * index) * stride) as isize - pad_before as isize;
                let count = to.len() / inputs;
                // Those whose pair lies in the picture.
                let start = (-first).clamp(0, count as isize) as usize;
                let end = ((width - stride.min(width)) as isize - first).clamp(start as isize, count as isize)
                    as usize;
                let inside = &mut to[start * inputs..end * inputs];
                let col = (first + start as isize) as usize;
                if !inside.is_empty() {
                    let [a, b] = [col, col + stride].map(|col| &from[col * inputs..][..inside.len()]);
                    bf16::join(self.isa, self.cells, a, b, inside);
                }
                for at in (0..start).chain(end..count) {
                    // Outside of the picture on the left is far outside on the right.
                    let col = (first + at as isize) as usize;
                    let (a, b) = (pixel(col), pixel(col.wrapping_add(stride)));
                    bf16::join(self.isa, self.cells, a, b, &mut to[at * inputs..][..inputs]);
                }
            }
        }
    }

    /// Adds one pass to a part of the weight.
    fn add(&self, pass: &Pass, (a, b): (&[f32], &[f32]), part: &Part, onto: Onto, output: Shared) {
        let Conv2d { in_channels: inputs, out_channels: outputs, kernel, stride, .. } = *self.c;
        let (isa, pairs, line) = (self.isa, pass.cols.len().div_ceil(2), self.line(pass));
        let [a_size, b_size] = self.size(pass);
        assert!(a.len() >= a_size && b.len() >= b_size, "the sides hold the pass");
        for tap in part.taps.clone() {
            let (ky, kx) = (tap / kernel, tap % kernel);
            for (o, count) in even_parts(part.outputs.len(), self.cells.max_rows(isa)) {
                let o = part.outputs.start + o;
                for i in (0..inputs).step_by(isa.max_columns()) {
                    let columns = isa.max_columns().min(inputs - i);
                    // SAFETY: both sides hold all rows and pairs of the pass, as asserted, the right one for every tap; no
                    // other task has these outputs of this tap.
                    unsafe {
                        let tile = Tile {
                            a: a.as_ptr().add(o * self.left),
                            a_row: self.left,
                            a_k: outputs * self.left,
                            a_run: pairs * outputs * self.left,
                            b: b.as_ptr().add(ky * line + kx * inputs + i),
                            b_k: self.step * inputs,
                            b_run: stride * line,
                            runs: pass.rows.len(),
                            len: pairs,
                            c: output.at((o * kernel * kernel + tap) * inputs + i),
                            c_row: kernel * kernel * inputs,
                            onto,
                            then: Then::NOTHING,
                        };
                        tile::run_cells(isa, self.cells, &tile, count, columns);
                    }
                }
            }
        }
    }
}
