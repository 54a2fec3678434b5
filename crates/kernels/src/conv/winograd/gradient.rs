//! The gradient of the weight: `G^T [sum over tiles of (B^T d B) * (A dy A^T)] G`.

use super::{PLANES, Pictures, Planes, SCRATCH, Scratch, pictures, seen, transform};
use crate::conv::Conv2d;
use crate::share::{Shared, filled};
use crate::simd::Isa;
use crate::tile::{self, Onto, Then, Tile, even_parts};
use rayon::prelude::*;
use std::ops::Range;

/// Tiles that are summed in one pass over a tile of registers.
const PASS: usize = 64;

/// Most channels of input and of output that a task sums at once, in vectors of 16.
const BLOCK: usize = 8;

/// Sums are made of at most so many parts, each with all of the planes.
const PARTS: usize = 16;

/// Elements of one plane of all parts together at most, if there are several: they take 64 MiB then.
const PLANE: usize = 1 << 20;

/// Tiles of a part at least.
const LEAST: usize = 4 * PASS;

/// `dw[out, 3, 3, in]` of a convolution that wins. Each element is summed over parts of the tiles that follow from the
/// sizes alone, and then over these in their order.
pub(in crate::conv) fn weight(c: &Conv2d, isa: Isa, x: &[f32], dy: &[f32]) -> Vec<f32> {
    let (inputs, outputs) = (c.in_channels, c.out_channels);
    let (from, to) = (pictures(c, inputs), pictures(c, outputs));
    assert_eq!(x.len(), from.len(), "input");
    assert_eq!(dy.len(), to.len(), "gradient of the output");
    let tiles = from.tiles();
    // Not of the threads: it says how sums are put together.
    let most = PARTS.min(tiles / LEAST).min(PLANE / (outputs * inputs).max(1)).max(1);
    let parts: Vec<_> = even_parts(tiles, tiles.div_ceil(most).max(1)).collect();
    if parts.is_empty() {
        return vec![0.0; outputs * 9 * inputs];
    }
    // Blocks, which are summed apart in any case, are smaller if threads would stand idle.
    let tasks = 2 * rayon::current_num_threads() - 1;
    let cut = |most: usize| [blocks(inputs, most), blocks(outputs, most)];
    let enough = |most: &usize| parts.len() * cut(*most).iter().map(Vec::len).product::<usize>() >= tasks;
    let [ins, outs] = cut([BLOCK, BLOCK / 2].into_iter().find(enough).unwrap_or(BLOCK / 4));
    let (blocks, plane) = (ins.len() * outs.len(), outputs * inputs);
    let add = |sums: Shared| {
        (0..parts.len() * blocks).into_par_iter().for_each(|task| {
            let (part, block) = (task / blocks, task % blocks);
            let (ins, outs) = (ins[block % ins.len()].clone(), outs[block / ins.len()].clone());
            let (first, count) = parts[part];
            for (start, count) in even_parts(count, PASS) {
                let tiles = first + start..first + start + count;
                let onto = if start > 0 { Onto::Output } else { Onto::Nothing };
                let at = part * PLANES * plane;
                SCRATCH.with_borrow_mut(|scratch| {
                    add_pass(isa, (from, x, &ins), (to, dy, &outs), tiles, scratch, onto, (sums, at));
                });
            }
        });
    };
    // SAFETY: blocks cover all channels of all planes of each part.
    let sums = unsafe { filled(parts.len() * PLANES * plane, |room| add(Shared::room(room))) };
    let write = |output: Shared| {
        (0..outputs).into_par_iter().with_min_len(8).for_each(|o| {
            // SAFETY: the sums have all planes of all parts, the output 9 x `inputs` for each `o`, which no other task has.
            unsafe {
                let (from, to) = (sums.as_ptr().add(o * inputs), output.at(o * 9 * inputs));
                transform::kernel_gradient(isa, parts.len(), PLANES * plane, plane, inputs, from, to);
            }
        });
    };
    // SAFETY: all kernels are written.
    unsafe { filled(outputs * 9 * inputs, |room| write(Shared::room(room))) }
}

/// Channels in blocks of whole vectors.
fn blocks(channels: usize, most: usize) -> Vec<Range<usize>> {
    let vectors = even_parts(channels.div_ceil(16), most);
    vectors.map(|(first, count)| 16 * first..channels.min(16 * (first + count))).collect()
}

/// `A dy A^T` of some tiles of these channels, on planes; where they begin.
fn spread(
    isa: Isa,
    pictures: Pictures,
    dy: &[f32],
    tiles: Range<usize>,
    channels: &Range<usize>,
    planes: &mut Planes,
    zeros: &mut Vec<f32>,
) -> *const f32 {
    assert!(dy.len() == pictures.len() && tiles.end <= pictures.tiles(), "pictures");
    assert!(channels.end <= pictures.channels, "channels");
    zeros.resize(zeros.len().max(channels.len()), 0.0);
    let to = planes.room(tiles.len(), channels.len());
    let mut from = tiles.map(|tile| {
        let at = |at: usize| dy.as_ptr().wrapping_add(at + channels.start);
        pictures.pixels::<_, 2, 4>(tile, 0, zeros.as_ptr(), at)
    });
    // SAFETY: pixels and channels lie within the pictures, and there are as many zeros as channels; the planes have room.
    unsafe { transform::gradient(isa, &mut from, channels.len(), to, planes.row, planes.stride) };
    to
}

/// Adds some tiles to a block of each plane of the sums that begin `at`.
fn add_pass(
    isa: Isa,
    (from, x, ins): (Pictures, &[f32], &Range<usize>),
    (to, dy, outs): (Pictures, &[f32], &Range<usize>),
    tiles: Range<usize>,
    scratch: &mut Scratch,
    onto: Onto,
    (sums, at): (Shared, usize),
) {
    let Scratch { left, right, zeros } = scratch;
    let len = tiles.len();
    let a = spread(isa, to, dy, tiles.clone(), outs, left, zeros);
    let b = seen(isa, from, x, tiles, ins.clone(), right, zeros);
    for plane in 0..PLANES {
        for (o, rows) in even_parts(outs.len(), isa.max_rows()) {
            for i in (0..ins.len()).step_by(isa.max_columns()) {
                let columns = isa.max_columns().min(ins.len() - i);
                let place = (plane * to.channels + outs.start + o) * from.channels + ins.start + i;
                // SAFETY: the planes hold all tiles and channels of both blocks; no other task has this one of these
                // sums.
                unsafe {
                    let tile = Tile {
                        a: a.add(plane * left.stride + o),
                        a_row: 1,
                        a_k: left.row,
                        a_run: 0,
                        b: b.add(plane * right.stride + i),
                        b_k: right.row,
                        b_run: 0,
                        runs: 1,
                        len,
                        c: sums.at(at + place),
                        c_row: from.channels,
                        onto,
                        then: Then::NOTHING,
                    };
                    tile::run(isa, &tile, rows, columns);
                }
            }
        }
    }
}
