//! The convolution itself, for the forward pass and for the gradient of the input.

use crate::pack::Right;
use crate::share::{Shared, zeros};
use crate::simd::Isa;
use crate::tile::{self, Onto, Tile, even_parts};
use rayon::prelude::*;
use std::ops::Range;

/// Output pixels of one task: enough that packing the weight for them anew costs little, few enough that
/// their input stays near.
const STRIP_PIXELS: Range<usize> = 512..2048;

/// Summed elements of one pass over a tile: the packed weight of a pass stays in the first two caches.
/// Longer sums are made of parts, which is also kinder to their last bits.
const PASS: usize = 512;

/// A convolution of `[batch, height, width, channels]` to `[batch, out.0, out.1, columns]`.
pub(super) struct Direct {
    pub batch: usize,
    pub height: usize,
    pub width: usize,
    pub channels: usize,
    pub kernel: usize,
    pub stride: usize,
    /// Zeros before the first row and column; behind the last come as many as `out` asks for.
    pub pad: usize,
    pub out: (usize, usize),
    pub columns: usize,
}

/// Some rows and columns of one image's output.
struct Strip {
    image: usize,
    rows: Range<usize>,
    cols: Range<usize>,
}

/// A part of the sum: `len` elements from `start` on in each of the kernel's `rows`.
struct Pass {
    rows: Range<usize>,
    start: usize,
    len: usize,
}

/// Memory of a thread.
#[derive(Default)]
struct Scratch {
    window: Vec<f32>,
    panel: Vec<f32>,
}

impl Direct {
    /// A pointwise convolution does not care where rows end: it is one row of all pixels.
    fn flattened(self) -> Self {
        let pointwise = self.kernel == 1 && self.stride == 1 && self.pad == 0;
        if pointwise && self.out == (self.height, self.width) {
            let pixels = self.batch * self.height * self.width;
            Self { batch: 1, height: 1, width: pixels, out: (1, pixels), ..self }
        } else {
            self
        }
    }

    fn passes(&self) -> Vec<Pass> {
        // A row of the kernel is one run of neighbours in memory.
        let run = self.kernel * self.channels;
        if self.kernel * run <= PASS {
            return vec![Pass { rows: 0..self.kernel, start: 0, len: run }];
        }
        (0..self.kernel)
            .flat_map(|row| {
                even_parts(run, PASS).map(move |(start, len)| Pass { rows: row..row + 1, start, len })
            })
            .collect()
    }

    fn strips(&self, pixels: usize) -> Vec<Strip> {
        let (height, width) = self.out;
        let cols = if width >= 2 * pixels { pixels } else { width };
        let rows = (pixels / cols).max(1);
        let mut strips = Vec::new();
        for image in 0..self.batch {
            for (row, row_count) in even_parts(height, rows) {
                for (col, col_count) in even_parts(width, cols) {
                    strips.push(Strip { image, rows: row..row + row_count, cols: col..col + col_count });
                }
            }
        }
        strips
    }

    /// The input that a strip reads: its first element, and the distance between rows. What lies outside of
    /// the picture is made up in `window`.
    fn input<'a>(&self, x: &'a [f32], strip: &Strip, window: &'a mut Vec<f32>) -> (&'a [f32], usize) {
        let span = |out: &Range<usize>| (out.len() - 1) * self.stride + self.kernel;
        let (high, wide) = (span(&strip.rows), span(&strip.cols));
        // Counted with the zeros before the picture.
        let (top, left) = (strip.rows.start * self.stride, strip.cols.start * self.stride);
        let image = &x[strip.image * self.height * self.width * self.channels..];
        let line = self.width * self.channels;
        let inside =
            |start: usize, length: usize, size: usize| start >= self.pad && start + length <= self.pad + size;
        if inside(top, high, self.height) && inside(left, wide, self.width) {
            return (&image[(top - self.pad) * line + (left - self.pad) * self.channels..], line);
        }
        let padded = wide * self.channels;
        window.resize(high * padded, 0.0);
        // The window's columns that lie in the picture.
        let first = self.pad.saturating_sub(left).min(wide);
        let last = (self.pad + self.width).saturating_sub(left).clamp(first, wide);
        for (y, row) in (top..).zip(window.chunks_exact_mut(padded)) {
            if y < self.pad || y >= self.pad + self.height || first == last {
                row.fill(0.0);
                continue;
            }
            let from = (y - self.pad) * line + (left + first - self.pad) * self.channels;
            let (first, last) = (first * self.channels, last * self.channels);
            row[..first].fill(0.0);
            row[first..last].copy_from_slice(&image[from..from + last - first]);
            row[last..].fill(0.0);
        }
        (window, padded)
    }

    /// The output, a bias of `[columns]` added.
    pub(super) fn run(self, isa: Isa, x: &[f32], weight: Right, bias: Option<&[f32]>) -> Vec<f32> {
        let this = self.flattened();
        assert_eq!(x.len(), this.batch * this.height * this.width * this.channels, "input");
        assert!(bias.is_none_or(|bias| bias.len() == this.columns), "bias");
        let pixels = this.batch * this.out.0 * this.out.1;
        let mut y = zeros(pixels * this.columns);
        if y.is_empty() {
            return y;
        }
        let tasks = 4 * rayon::current_num_threads();
        let panels = this.columns.div_ceil(isa.max_columns());
        let strips = this.strips((pixels * panels / tasks).clamp(STRIP_PIXELS.start, STRIP_PIXELS.end));
        let groups = tasks.div_ceil(strips.len()).min(panels);
        let passes = this.passes();
        let output = Shared::new(&mut y);
        (0..strips.len() * groups).into_par_iter().for_each_init(Scratch::default, |scratch, task| {
            let (strip, group) = (task / groups, task % groups);
            let columns = |group: usize| this.columns.min(group * panels / groups * isa.max_columns());
            let columns = columns(group)..columns(group + 1);
            this.strip(isa, x, &weight, bias, &strips[strip], columns, &passes, scratch, output);
        });
        y
    }

    /// One strip of some output channels.
    #[allow(clippy::too_many_arguments, reason = "the loop body of run")]
    fn strip(
        &self,
        isa: Isa,
        x: &[f32],
        weight: &Right,
        bias: Option<&[f32]>,
        strip: &Strip,
        columns: Range<usize>,
        passes: &[Pass],
        scratch: &mut Scratch,
        output: Shared,
    ) {
        let (input, line) = self.input(x, strip, &mut scratch.window);
        let width = isa.max_columns();
        let run = self.kernel * self.channels;
        let step = self.stride * self.channels;
        scratch
            .panel
            .resize(width * passes.iter().map(|pass| pass.rows.len() * pass.len).max().unwrap_or(0), 0.0);
        let reach = ((strip.rows.len() - 1) * self.stride + self.kernel - 1) * line
            + (strip.cols.len() - 1) * step
            + run;
        assert!(input.len() >= reach, "the window holds what the strip reads");
        for start in columns.clone().step_by(width) {
            let panel = start..columns.end.min(start + width);
            // Narrow panels are packed narrowly.
            let packed = width.min(panel.len().next_multiple_of(width / 2));
            for (index, pass) in passes.iter().enumerate() {
                let first = pass.rows.start * run + pass.start;
                let depth = pass.rows.len() * pass.len;
                weight.pack(isa, first..first + depth, panel.clone(), packed, &mut scratch.panel);
                for (y, row) in strip.rows.clone().enumerate() {
                    for (x, count) in even_parts(strip.cols.len(), isa.max_rows()) {
                        let a = (y * self.stride + pass.rows.start) * line + x * step + pass.start;
                        let pixel = (strip.image * self.out.0 + row) * self.out.1 + strip.cols.start + x;
                        // SAFETY: the assertion above bounds what is read of the input; the panel was
                        // packed for `depth` rows; the output is as long as all pixels and channels, and no
                        // other task has these pixels and channels.
                        unsafe {
                            let tile = Tile {
                                a: input.as_ptr().add(a),
                                a_row: step,
                                a_k: 1,
                                a_run: line,
                                b: scratch.panel.as_ptr(),
                                b_k: packed,
                                b_run: pass.len * packed,
                                runs: pass.rows.len(),
                                len: pass.len,
                                c: output.at(pixel * self.columns + panel.start),
                                c_row: self.columns,
                                onto: match bias {
                                    _ if index > 0 => Onto::Output,
                                    Some(bias) => Onto::Bias(bias.as_ptr().add(panel.start)),
                                    None => Onto::Nothing,
                                },
                            };
                            tile::run(isa, &tile, count, panel.len());
                        }
                    }
                }
            }
        }
    }
}
