//! Packing of a product's right side: the columns of one tile side by side, in the order in which the
//! tile reads them.

use std::ops::Range;

/// The right side of a product, as it lies in memory.
#[derive(Clone, Copy)]
pub(crate) enum Right<'a> {
    /// Column after column, each `depth` long: the weight of a forward pass.
    Columns {
        /// `[columns, depth]`.
        data: &'a [f32],
        /// The summed index.
        depth: usize,
    },
    /// The same weight for the gradient of the input, `[k, taps, columns]` read as row (tap, k) of a
    /// matrix, the taps from the last to the first.
    Turned {
        /// `[k, taps, columns]`.
        data: &'a [f32],
        /// Pixels of the kernel.
        taps: usize,
        /// Columns.
        columns: usize,
    },
}

impl Right<'_> {
    /// Rows `k` of columns `columns` to `out[row][width]`, zeros behind the last column.
    pub(crate) fn pack(&self, k: Range<usize>, columns: Range<usize>, width: usize, out: &mut [f32]) {
        let out = &mut out[..k.len() * width];
        if columns.len() < width {
            out.fill(0.0);
        }
        match *self {
            Right::Columns { data, depth } => {
                // Sixteen rows at once: a line of memory is read as a whole.
                for (out, start) in out.chunks_mut(16 * width).zip(k.clone().step_by(16)) {
                    let rows = 16.min(k.end - start);
                    for (n, column) in columns.clone().enumerate() {
                        let from = &data[column * depth + start..column * depth + start + rows];
                        for (out, &value) in out.chunks_exact_mut(width).zip(from) {
                            out[n] = value;
                        }
                    }
                }
            }
            Right::Turned { data, taps, columns: stride } => {
                let outer = data.len() / (taps * stride);
                for (out, k) in out.chunks_exact_mut(width).zip(k) {
                    let from = ((k % outer) * taps + (taps - 1 - k / outer)) * stride;
                    out[..columns.len()].copy_from_slice(&data[from + columns.start..from + columns.end]);
                }
            }
        }
    }
}
