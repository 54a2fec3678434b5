//! 3x3 convolution by Winograd's algorithm F(2x2, 3x3) (Lavin and Gray 2015, arXiv 1509.09308): a tile of 2 x 2 output
//! pixels takes 16 products for each pair of channels, where the definition takes 36. Where networks are trained.
//!
//! `y = A^T [(G g G^T) * (B^T d B)] A`, element by element: sums of tiles of 4 x 4 pixels, then one product of matrices for
//! each of their 16 elements, then sums of what these give. Tiles begin at the first pixel of each image, so that a
//! result depends on the place of a pixel in its picture, in its last bits: as even or odd rows and columns are made of other
//! sums. It depends neither on the batch nor on the number of threads. All factors are 1 or a half; the largest errors, of sizes
//! like those of the tests, are .3 to 1.3 times those of the definition in f32.

mod gradient;
#[cfg(test)]
mod tests;
mod transform;

pub(super) use gradient::weight;

use super::Conv2d;
use super::packed::Panels;
use crate::pack::Right;
use crate::products::Products;
use crate::share::{Shared, filled};
use crate::simd::Isa;
use crate::tile::{self, Onto, Then, Tile, even_parts};
use rayon::prelude::*;
use std::cell::RefCell;
use std::ops::Range;
use transform::{PLANES, SIDE};

/// Floats of a line of memory.
const LINE: usize = 16;

/// Tiles of one task of the convolution: what it makes of them stays in the second cache.
const STRIP: usize = 28;

/// Tiles of one task at least, if there are as many.
const LEAST: usize = 14;

/// Summed channels of one pass over a tile of registers.
const PASS: usize = 256;

/// Fewest channels: with 16 it takes 1.2 times the time, with 32 it takes .6 to .7.
const CHANNELS: usize = 32;

/// Pairs of channels for each tile of an image at most: beyond, the transform of the kernels outweighs what is won. At 1280
/// channels 16 x 16 pixels still win (.9 and .75 of the time, forward and weight), 8 x 8 lose (2.5 and 1.4 times).
const PAIRS: usize = 1 << 15;

/// Whether it takes less time than the definition: measured on Zen 4 with one thread (`cargo bench -p diffbir-kernels`). It
/// does not depend on the batch, nor may it.
pub(super) fn wins(c: &Conv2d) -> bool {
    let usual = [c.kernel, c.stride, c.pad_before, c.pad_after] == [3, 1, 1, 1];
    let fits = usual && !c.doubled && c.products == Products::F32;
    let tiles = pictures(&Conv2d { batch: 1, ..*c }, 0).tiles();
    // Edges of odd pictures are tiles of which a half is for nothing.
    let products = 3 * 16 * tiles <= 2 * 9 * c.height * c.width;
    let channels = c.in_channels.min(c.out_channels) >= CHANNELS;
    fits && products && channels && c.in_channels * c.out_channels <= PAIRS * tiles
}

/// Pictures, and their tiles one after the other.
#[derive(Clone, Copy)]
struct Pictures {
    batch: usize,
    height: usize,
    width: usize,
    channels: usize,
}

impl Pictures {
    fn len(&self) -> usize {
        self.batch * self.height * self.width * self.channels
    }

    fn tiles(&self) -> usize {
        self.batch * self.height.div_ceil(2) * self.width.div_ceil(2)
    }

    /// Image, and row and column of the first output pixel.
    fn tile(&self, index: usize) -> [usize; 3] {
        let (high, wide) = (self.height.div_ceil(2), self.width.div_ceil(2));
        [index / (high * wide), index / wide % high * 2, index % wide * 2]
    }

    /// What `at` makes of where in the pictures the pixels of a tile of `SIDE x SIDE` begin, the first of which is `before`
    /// pixels before the tile's in each direction; `outside` of the picture.
    #[inline(always)]
    fn pixels<P: Copy, const SIDE: usize, const N: usize>(
        &self,
        index: usize,
        before: usize,
        outside: P,
        at: impl Fn(usize) -> P,
    ) -> [P; N] {
        let [image, row, col] = self.tile(index);
        let mut pixels = [outside; N];
        for (y, pixels) in pixels.chunks_exact_mut(SIDE).enumerate() {
            let y = (row + y).wrapping_sub(before);
            if y < self.height {
                let line = (image * self.height + y) * self.width;
                for (x, pixel) in pixels.iter_mut().enumerate() {
                    let x = (col + x).wrapping_sub(before);
                    if x < self.width {
                        *pixel = at((line + x) * self.channels);
                    }
                }
            }
        }
        pixels
    }
}

thread_local! {
    /// Kept from call to call: fresh memory would cost as much as the sums that are written there.
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Memory of a thread.
#[derive(Default)]
struct Scratch {
    left: Planes,
    right: Planes,
    /// Pixels outside of the picture.
    zeros: Vec<f32>,
}

/// Sixteen planes of tiles.
#[derive(Default)]
struct Planes {
    memory: Vec<f32>,
    /// From one tile to the next: an odd number of lines, or tiles would fall into the same few places of the first cache.
    row: usize,
    /// From one plane to the next; odd too.
    stride: usize,
}

impl Planes {
    /// Room for so many, the start of which is returned: that of a line.
    fn room(&mut self, tiles: usize, channels: usize) -> *mut f32 {
        self.row = (channels.div_ceil(LINE) | 1) * LINE;
        self.stride = ((tiles * self.row / LINE) | 1) * LINE;
        let length = PLANES * self.stride + LINE;
        if self.memory.len() < length {
            self.memory = vec![0.0; length];
        }
        let at = self.memory.as_mut_ptr();
        let ahead = at.align_offset(LINE * size_of::<f32>());
        // The standard lets it be unknown.
        at.wrapping_add(if ahead < LINE { ahead } else { 0 })
    }
}

/// `B^T d B` of some tiles of these channels, on planes; where they begin.
fn seen(
    isa: Isa,
    pictures: Pictures,
    x: &[f32],
    tiles: Range<usize>,
    channels: Range<usize>,
    planes: &mut Planes,
    zeros: &mut Vec<f32>,
) -> *const f32 {
    assert!(x.len() == pictures.len() && tiles.end <= pictures.tiles(), "pictures");
    assert!(channels.end <= pictures.channels, "channels");
    zeros.resize(zeros.len().max(channels.len()), 0.0);
    let to = planes.room(tiles.len(), channels.len());
    let mut from = tiles.map(|tile| {
        let at = |at: usize| x.as_ptr().wrapping_add(at + channels.start);
        pictures.pixels::<_, SIDE, PLANES>(tile, 1, zeros.as_ptr(), at)
    });
    // SAFETY: pixels and channels lie within the pictures, and there are as many zeros as channels; the planes have room.
    unsafe { transform::input(isa, &mut from, channels.len(), to, planes.row, planes.stride) };
    to
}

/// `y[batch, height, width, out]` of a convolution that [`wins`], from `weight[out, 3, 3, in]`.
pub(super) fn forward(c: &Conv2d, isa: Isa, x: &[f32], weight: &[f32], bias: &[f32]) -> Vec<f32> {
    assert_eq!(bias.len(), c.out_channels, "bias");
    let data = &kernels(isa, weight, c.in_channels);
    let right = Right::Columns { data, depth: PLANES * c.in_channels };
    let panels = Panels::new(right, [c.out_channels, PLANES, c.in_channels], Products::F32);
    run(isa, pictures(c, c.in_channels), x, c.out_channels, &panels, Some(bias))
}

/// The gradient of its input: a convolution of `dy` with the kernels turned round, which swaps the first and the last row and
/// column of their transforms.
pub(super) fn backward_input(c: &Conv2d, isa: Isa, dy: &[f32], weight: &[f32]) -> Vec<f32> {
    let data = &kernels(isa, weight, c.in_channels);
    let turned = |i: usize| [3, 1, 2, 0][i];
    let order: [usize; PLANES] = std::array::from_fn(|i| SIDE * turned(i / SIDE) + turned(i % SIDE));
    let right = Right::Taps { data, taps: PLANES, order: &order, columns: c.in_channels };
    let panels = Panels::new(right, [c.in_channels, PLANES, c.out_channels], Products::F32);
    run(isa, pictures(c, c.out_channels), dy, c.in_channels, &panels, None)
}

fn pictures(c: &Conv2d, channels: usize) -> Pictures {
    Pictures { batch: c.batch, height: c.height, width: c.width, channels }
}

/// `G g G^T` of `weight[out, 3, 3, in]`: `[out, 4, 4, in]`.
fn kernels(isa: Isa, weight: &[f32], inputs: usize) -> Vec<f32> {
    let outputs = weight.len() / (9 * inputs);
    assert_eq!(weight.len(), outputs * 9 * inputs, "weight");
    // Some kernels a task.
    let some = (1 << 12) / inputs + 1;
    // SAFETY: the machine has the instructions; all of each chunk is written.
    unsafe {
        filled(outputs * PLANES * inputs, |room| {
            let tasks = weight.par_chunks(some * 9 * inputs).zip(room.par_chunks_mut(some * PLANES * inputs));
            tasks.for_each(|(weight, room)| transform::kernels(isa, weight, inputs, room));
        })
    }
}

/// The convolution of `x` to `outputs` channels, with the transformed kernels as if they were of 4 x 4.
fn run(
    isa: Isa,
    pictures: Pictures,
    x: &[f32],
    outputs: usize,
    weight: &Panels,
    bias: Option<&[f32]>,
) -> Vec<f32> {
    assert_eq!(x.len(), pictures.len(), "input");
    assert_eq!(weight.size(), [outputs, PLANES * pictures.channels], "weight");
    let to = Pictures { channels: outputs, ..pictures };
    let (threads, tiles) = (rayon::current_num_threads(), pictures.tiles());
    // As many as give all threads the same; then groups of channels, if strips are few.
    let strips = tiles.div_ceil(STRIP).next_multiple_of(threads.min(tiles.div_ceil(LEAST)).max(1));
    let strips: Vec<_> = even_parts(tiles, tiles.div_ceil(strips.max(1)).max(1)).collect();
    let panels = outputs.div_ceil(isa.max_columns());
    let groups = (2 * threads).div_ceil(strips.len().max(1)).min(panels);
    let write = |output: Shared| {
        (0..strips.len() * groups).into_par_iter().for_each(|task| {
            let ((first, count), group) = (strips[task / groups], task % groups);
            let columns = |group: usize| outputs.min(group * panels / groups * isa.max_columns());
            let columns = columns(group)..columns(group + 1);
            let tiles = first..first + count;
            SCRATCH.with_borrow_mut(|scratch| {
                strip(isa, pictures, x, weight, bias, tiles, columns, scratch, (to, output));
            });
        });
    };
    // SAFETY: strips cover all tiles, tiles all pixels, and groups all channels.
    unsafe { filled(to.len(), |room| write(Shared::room(room))) }
}

/// Some channels of the output of some tiles.
#[allow(clippy::too_many_arguments, reason = "the loop body of run")]
fn strip(
    isa: Isa,
    pictures: Pictures,
    x: &[f32],
    weight: &Panels,
    bias: Option<&[f32]>,
    tiles: Range<usize>,
    columns: Range<usize>,
    scratch: &mut Scratch,
    (to, output): (Pictures, Shared),
) {
    let Scratch { left, right: sums, zeros } = scratch;
    let inputs = pictures.channels;
    let a = seen(isa, pictures, x, tiles.clone(), 0..inputs, left, zeros);
    let c = sums.room(tiles.len(), columns.len());
    let width = isa.max_columns();
    for plane in 0..PLANES {
        for start in columns.clone().step_by(width) {
            let count = width.min(columns.end - start);
            for (pass, len) in even_parts(inputs, PASS) {
                let (cells, b_k) = weight.at(plane * inputs + pass, start);
                assert!(cells.len() + b_k >= len * b_k + count, "the panel holds the pass");
                for (row, rows) in even_parts(tiles.len(), isa.max_rows()) {
                    // SAFETY: the panel is as asserted, the planes have room for all tiles and channels.
                    unsafe {
                        let tile = Tile {
                            a: a.add(plane * left.stride + row * left.row + pass),
                            a_row: left.row,
                            a_k: 1,
                            a_run: 0,
                            b: cells.as_ptr(),
                            b_k,
                            b_run: 0,
                            runs: 1,
                            len,
                            c: c.add(plane * sums.stride + row * sums.row + start - columns.start),
                            c_row: sums.row,
                            onto: if pass > 0 { Onto::Output } else { Onto::Nothing },
                            then: Then::NOTHING,
                        };
                        tile::run(isa, &tile, rows, count);
                    }
                }
            }
        }
    }
    let bias = bias.map_or(std::ptr::null(), |bias| bias[columns.clone()].as_ptr());
    let mut pixels = tiles.map(|tile| {
        // SAFETY: the pixel lies within the pictures.
        let at = |at: usize| unsafe { output.at(at + columns.start) };
        to.pixels::<_, 2, 4>(tile, 0, std::ptr::null_mut(), at)
    });
    // SAFETY: pixels lie within the output, no other task has these channels of these tiles, and the bias is sliced.
    unsafe { transform::output(isa, &mut pixels, columns.len(), bias, c, sums.row, sums.stride) };
}
