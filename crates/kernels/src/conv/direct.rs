//! The convolution itself, for the forward pass and for the gradient of the input.

use super::after::After;
use super::packed::Panels;
use crate::bf16;
use crate::pack::Right;
use crate::share::Shared;
use crate::simd::Isa;
use crate::tile::{self, Cells, Onto, Then, Tile, even_parts};
use rayon::prelude::*;
use std::ops::Range;

/// Output pixels of one task: enough that packing the weight for them anew costs little, few enough that
/// their input stays near.
const STRIP_PIXELS: Range<usize> = 512..2048;

/// Cells of a strip's input that stay in the second cache, if no weight need be packed for each strip.
const STRIP_CELLS: usize = 1 << 18;

/// About how many columns a strip has.
const NARROW: usize = 170;

/// Summed cells of one pass over a tile: the packed weight of a pass stays in the first two caches.
/// Longer sums are made of parts, which is also kinder to their last bits.
pub(super) const PASS: usize = 512;

/// A convolution of `[batch, height, width, channels]` to `out` pixels of `columns` channels.
pub(super) struct Direct {
    pub batch: usize,
    pub height: usize,
    pub width: usize,
    pub channels: usize,
    /// Rows and columns of the kernel.
    pub kernel: [usize; 2],
    pub stride: usize,
    /// Zeros before the first row and column, or, where negative, what is left out there; behind the last come as
    /// many as `out` asks for.
    pub pad: [isize; 2],
    /// Rows and columns that are computed.
    pub out: [usize; 2],
    pub columns: usize,
    pub onto: Grid,
}

/// Where the computed pixels are in the output: every `step`-th row and column, from `first` on.
#[derive(Clone, Copy)]
pub(super) struct Grid {
    /// Rows and columns of the output.
    pub size: [usize; 2],
    pub first: [usize; 2],
    pub step: usize,
}

impl Grid {
    /// All of an output of this size.
    pub(super) fn whole(size: [usize; 2]) -> Self {
        Grid { size, first: [0; 2], step: 1 }
    }

    /// Where the computed pixel of this image, row and column is.
    fn pixel(&self, [image, row, col]: [usize; 3]) -> usize {
        let ([height, width], [top, left]) = (self.size, self.first);
        (image * height + top + row * self.step) * width + left + col * self.step
    }
}

/// The weight, and with it how it is multiplied.
pub(super) enum Weight<'a> {
    /// Packed as it is needed.
    Plain(Right<'a>),
    /// Packed before, of these cells.
    Packed(&'a Panels, Cells),
}

/// How cells of input and weight go together.
#[derive(Clone, Copy)]
struct Layout {
    cells: Cells,
    /// Cells of an input pixel.
    left: usize,
    /// Cells of a pixel of the kernel, for one output channel.
    right: usize,
}

impl Layout {
    fn new(cells: Cells, channels: usize) -> Self {
        let right = if cells == Cells::Single { channels } else { channels.div_ceil(2) };
        Layout { cells, left: bf16::left_cells(cells, channels), right }
    }

    /// Cells of the input for one of the weight.
    fn ratio(self) -> usize {
        self.left / self.right.max(1)
    }
}

/// Some rows and columns of one image's output, or all of several images.
struct Strip {
    images: Range<usize>,
    rows: Range<usize>,
    cols: Range<usize>,
}

/// The input of a strip.
struct Input<'a> {
    /// From the first pixel that is seen on.
    cells: &'a [f32],
    /// From one row to the next.
    line: usize,
    /// From one image to the next.
    image: usize,
}

/// A part of the sum: `len` cells of the weight from `start` on in each of the kernel's `rows`.
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
        let size = [self.height, self.width];
        let pointwise = self.kernel == [1; 2] && self.stride == 1 && self.pad == [0; 2];
        if pointwise && self.out == size && self.onto.size == size {
            let pixels = self.batch * self.height * self.width;
            let onto = Grid::whole([1, pixels]);
            Self { batch: 1, height: 1, width: pixels, out: [1, pixels], onto, ..self }
        } else {
            self
        }
    }

    fn passes(&self, layout: Layout) -> Vec<Pass> {
        // A row of the kernel is one run of neighbours in memory.
        let [rows, cols] = self.kernel;
        let run = cols * layout.right;
        if rows * run <= PASS {
            return vec![Pass { rows: 0..rows, start: 0, len: run }];
        }
        (0..rows)
            .flat_map(|row| {
                even_parts(run, PASS).map(move |(start, len)| Pass { rows: row..row + 1, start, len })
            })
            .collect()
    }

    fn strips(&self, pixels: usize) -> Vec<Strip> {
        let [height, width] = self.out;
        let mut strips = Vec::new();
        let images = STRIP_PIXELS.start / (height * width);
        if images > 1 {
            for (image, images) in even_parts(self.batch, images) {
                strips.push(Strip { images: image..image + images, rows: 0..height, cols: 0..width });
            }
            return strips;
        }
        let cols = if width >= 2 * pixels {
            pixels
        } else if self.kernel[0] > 1 && height > 1 {
            // Rows that neighbouring strips share are made up by both: few of them if strips are high.
            width.min(NARROW)
        } else {
            width
        };
        let rows = (pixels / cols).max(1);
        for image in 0..self.batch {
            for (row, row_count) in even_parts(height, rows) {
                for (col, col_count) in even_parts(width, cols) {
                    let (rows, cols) = (row..row + row_count, col..col + col_count);
                    strips.push(Strip { images: image..image + 1, rows, cols });
                }
            }
        }
        strips
    }

    /// The input that a strip reads. What lies outside of the picture is made up in `window`, and so is all that must
    /// be rounded.
    fn input<'a>(
        &self,
        isa: Isa,
        layout: Layout,
        x: &'a [f32],
        strip: &Strip,
        window: &'a mut Vec<f32>,
    ) -> Input<'a> {
        let span = |out: &Range<usize>, kernel: usize| (out.len() - 1) * self.stride + kernel;
        let (high, wide) = (span(&strip.rows, self.kernel[0]), span(&strip.cols, self.kernel[1]));
        let first = |out: &Range<usize>, pad: isize| (out.start * self.stride) as isize - pad;
        let (top, left) = (first(&strip.rows, self.pad[0]), first(&strip.cols, self.pad[1]));
        let line = self.width * self.channels;
        let size = self.height * line;
        let images = &x[strip.images.start * size..strip.images.end * size];
        let inside = |start: isize, length: usize, size: usize| start >= 0 && start as usize + length <= size;
        let single = layout.cells == Cells::Single;
        if single && inside(top, high, self.height) && inside(left, wide, self.width) {
            let cells = &images[top as usize * line + left as usize * self.channels..];
            return Input { cells, line, image: size };
        }
        let padded = wide * layout.left;
        window.resize(strip.images.len() * high * padded, 0.0);
        // The window's columns that lie in the picture.
        let first = (-left).clamp(0, wide as isize) as usize;
        let last = (self.width as isize - left).clamp(first as isize, wide as isize) as usize;
        let rows = images.chunks_exact(size).flat_map(|image| (0..high).map(move |row| (image, row)));
        for ((image, y), row) in rows.zip(window.chunks_exact_mut(padded)) {
            let y = top + y as isize;
            if y < 0 || y >= self.height as isize || first == last {
                row.fill(0.0);
                continue;
            }
            let from = y as usize * line + (left + first as isize) as usize * self.channels;
            let from = &image[from..from + (last - first) * self.channels];
            let (first, last) = (first * layout.left, last * layout.left);
            row[..first].fill(0.0);
            if single {
                row[first..last].copy_from_slice(from);
            } else {
                bf16::round_pixels(isa, layout.cells, from, self.channels, &mut row[first..last]);
            }
            row[last..].fill(0.0);
        }
        Input { cells: window, line: padded, image: high * padded }
    }

    /// Writes the output, a bias of `[columns]` added. What is added `after` is as long as the output.
    pub(super) fn run(
        self,
        isa: Isa,
        x: &[f32],
        weight: Weight,
        bias: Option<&[f32]>,
        after: After,
        output: Shared,
    ) {
        let this = self.flattened();
        let layout = match weight {
            Weight::Plain(_) => Layout::new(Cells::Single, this.channels),
            Weight::Packed(_, cells) => Layout::new(cells, this.channels),
        };
        assert_eq!(x.len(), this.batch * this.height * this.width * this.channels, "input");
        assert!(bias.is_none_or(|bias| bias.len() == this.columns), "bias");
        if let Weight::Packed(kernel, _) = weight {
            assert_eq!(
                kernel.size(),
                [this.columns, this.kernel[0] * this.kernel[1] * layout.right],
                "weight"
            );
        }
        let pixels = this.batch * this.out[0] * this.out[1];
        if pixels * this.columns == 0 {
            return;
        }
        let tasks = 4 * rayon::current_num_threads();
        let panels = this.columns.div_ceil(isa.max_columns());
        let Range { start, end } = STRIP_PIXELS;
        let strips = this.strips(match weight {
            Weight::Plain(_) => (pixels * panels / tasks).clamp(start, end),
            // Several tasks for one strip would each make up its input.
            Weight::Packed(..) => {
                (pixels / tasks).clamp(start, (STRIP_CELLS / layout.left).clamp(start, end))
            }
        });
        let groups = tasks.div_ceil(strips.len()).min(panels);
        let passes = this.passes(layout);
        (0..strips.len() * groups).into_par_iter().for_each_init(Scratch::default, |scratch, task| {
            let (strip, group) = (task / groups, task % groups);
            let columns = |group: usize| this.columns.min(group * panels / groups * isa.max_columns());
            let columns = columns(group)..columns(group + 1);
            let to = (after, output);
            this.strip(isa, layout, x, &weight, bias, &strips[strip], columns, &passes, scratch, to);
        });
    }

    /// One strip of some output channels.
    #[allow(clippy::too_many_arguments, reason = "the loop body of run")]
    fn strip(
        &self,
        isa: Isa,
        layout: Layout,
        x: &[f32],
        weight: &Weight,
        bias: Option<&[f32]>,
        strip: &Strip,
        columns: Range<usize>,
        passes: &[Pass],
        scratch: &mut Scratch,
        (after, output): (After, Shared),
    ) {
        let input = self.input(isa, layout, x, strip, &mut scratch.window);
        let width = isa.max_columns();
        let (run, ratio) = (self.kernel[1] * layout.right, layout.ratio());
        let step = self.stride * layout.left;
        let reach = (strip.images.len() - 1) * input.image
            + ((strip.rows.len() - 1) * self.stride + self.kernel[0] - 1) * input.line
            + (strip.cols.len() - 1) * step
            + run * ratio;
        assert!(input.cells.len() >= reach, "the window holds what the strip reads");
        for start in columns.clone().step_by(width) {
            let panel = start..columns.end.min(start + width);
            for (index, pass) in passes.iter().enumerate() {
                let first = pass.rows.start * run + pass.start;
                let depth = pass.rows.len() * pass.len;
                let (cells, b_k) = match weight {
                    Weight::Plain(right) => {
                        // Narrow panels are packed narrowly.
                        let packed = width.min(panel.len().next_multiple_of(width / 2));
                        scratch.panel.resize(scratch.panel.len().max(depth * packed), 0.0);
                        right.pack(isa, first..first + depth, panel.clone(), packed, &mut scratch.panel);
                        (scratch.panel.as_slice(), packed)
                    }
                    Weight::Packed(weight, _) => weight.at(first, start),
                };
                assert!(cells.len() + b_k >= depth * b_k + panel.len(), "the panel holds the pass");
                let rows =
                    strip.images.clone().flat_map(|image| strip.rows.clone().map(move |row| (image, row)));
                for (image, row) in rows {
                    for (x, count) in even_parts(strip.cols.len(), layout.cells.max_rows(isa)) {
                        let a = (image - strip.images.start) * input.image
                            + ((row - strip.rows.start) * self.stride + pass.rows.start) * input.line
                            + x * step
                            + pass.start * ratio;
                        let pixel = self.onto.pixel([image, row, strip.cols.start + x]);
                        // SAFETY: the assertions above bound what is read of the input and of the panel; the
                        // output is as long as all pixels and channels, and no other task has these pixels
                        // and channels.
                        unsafe {
                            let tile = Tile {
                                a: input.cells.as_ptr().add(a),
                                a_row: step,
                                a_k: ratio,
                                a_run: input.line,
                                b: cells.as_ptr(),
                                b_k,
                                b_run: pass.len * b_k,
                                runs: pass.rows.len(),
                                len: pass.len,
                                c: output.at(pixel * self.columns + panel.start),
                                c_row: self.onto.step * self.columns,
                                onto: match bias {
                                    _ if index > 0 => Onto::Output,
                                    Some(bias) => Onto::Bias(bias.as_ptr().add(panel.start)),
                                    None => Onto::Nothing,
                                },
                                then: if index + 1 < passes.len() {
                                    Then::NOTHING
                                } else {
                                    let rest = after.rest.map_or(std::ptr::null(), |rest| {
                                        rest.as_ptr().add(pixel * self.columns + panel.start)
                                    });
                                    Then { rest, rectifier: after.rectifier }
                                },
                            };
                            tile::run_cells(isa, layout.cells, &tile, count, panel.len());
                        }
                    }
                }
            }
        }
    }
}
