//! Packing of a product's right side: the columns of one tile side by side, in the order in which the
//! tile reads them.

use crate::simd::Isa;
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
    /// matrix.
    Taps {
        /// `[k, taps, columns]`.
        data: &'a [f32],
        /// Pixels of the kernel.
        taps: usize,
        /// Which of them are summed, in their order.
        order: &'a [usize],
        /// Columns.
        columns: usize,
    },
}

impl Right<'_> {
    /// Rows `k` of columns `columns` to `out[row][width]`, zeros behind the last column.
    pub(crate) fn pack(
        &self,
        isa: Isa,
        k: Range<usize>,
        columns: Range<usize>,
        width: usize,
        out: &mut [f32],
    ) {
        let out = &mut out[..k.len() * width];
        if columns.len() < width {
            out.fill(0.0);
        }
        match *self {
            Right::Columns { data, depth } => {
                // Sixteen rows at once: a line of memory is read as a whole.
                for (out, start) in out.chunks_mut(16 * width).zip(k.clone().step_by(16)) {
                    let rows = 16.min(k.end - start);
                    let whole = if rows == 16 { columns.len() / 16 * 16 } else { 0 };
                    let done = transpose(isa, data, columns.start * depth + start, depth, out, width, whole);
                    for (n, column) in columns.clone().enumerate().skip(done) {
                        let from = &data[column * depth + start..column * depth + start + rows];
                        for (out, &value) in out.chunks_exact_mut(width).zip(from) {
                            out[n] = value;
                        }
                    }
                }
            }
            Right::Taps { data, taps, order, columns: stride } => {
                let outer = data.len() / (taps * stride);
                for (out, k) in out.chunks_exact_mut(width).zip(k) {
                    let from = ((k % outer) * taps + order[k / outer]) * stride;
                    out[..columns.len()].copy_from_slice(&data[from + columns.start..from + columns.end]);
                }
            }
        }
    }
}

/// `columns` columns, a multiple of 16, of 16 elements each to 16 rows: `out[row * width + n]` from
/// `data[at + n * depth + row]`. Says how many columns it did: all or, without AVX-512, none.
fn transpose(
    isa: Isa,
    data: &[f32],
    at: usize,
    depth: usize,
    out: &mut [f32],
    width: usize,
    columns: usize,
) -> usize {
    #[cfg(target_arch = "x86_64")]
    if isa == Isa::Avx512 && columns > 0 {
        assert!(data.len() >= at + (columns - 1) * depth + 16, "columns");
        assert!(columns <= width && out.len() >= 16 * width, "rows");
        for n in (0..columns).step_by(16) {
            // SAFETY: the machine has AVX-512; the assertions above bound 16 columns of 16 elements from
            // here on, and 16 rows of `width`.
            unsafe {
                transpose_avx512(data.as_ptr().add(at + n * depth), depth, out.as_mut_ptr().add(n), width)
            }
        }
        return columns;
    }
    let _ = (isa, data, at, depth, out, width, columns);
    0
}

/// 16 rows of 16 elements, `from_row` apart, to 16 columns, `to_row` from element to element.
///
/// # Safety
/// All 256 elements on both sides lie in memory that may be read and written.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn transpose_avx512(from: *const f32, from_row: usize, to: *mut f32, to_row: usize) {
    use std::arch::x86_64::*;
    // SAFETY: as the caller.
    let rows: [__m512; 16] = std::array::from_fn(|i| unsafe { _mm512_loadu_ps(from.add(i * from_row)) });
    // Pairs of rows, then quarters of a vector with four rows of one column each.
    let mut fours = [_mm512_setzero_pd(); 16];
    for (fours, rows) in fours.chunks_exact_mut(4).zip(rows.chunks_exact(4)) {
        let low = |i: usize| _mm512_castps_pd(_mm512_unpacklo_ps(rows[i], rows[i + 1]));
        let high = |i: usize| _mm512_castps_pd(_mm512_unpackhi_ps(rows[i], rows[i + 1]));
        fours[0] = _mm512_unpacklo_pd(low(0), low(2));
        fours[1] = _mm512_unpackhi_pd(low(0), low(2));
        fours[2] = _mm512_unpacklo_pd(high(0), high(2));
        fours[3] = _mm512_unpackhi_pd(high(0), high(2));
    }
    for j in 0..4 {
        let [a, b, c, d] = [0, 4, 8, 12].map(|i| fours[i + j]);
        let even = [_mm512_shuffle_f64x2::<0x88>(a, b), _mm512_shuffle_f64x2::<0x88>(c, d)];
        let odd = [_mm512_shuffle_f64x2::<0xdd>(a, b), _mm512_shuffle_f64x2::<0xdd>(c, d)];
        let columns = [
            _mm512_shuffle_f64x2::<0x88>(even[0], even[1]),
            _mm512_shuffle_f64x2::<0x88>(odd[0], odd[1]),
            _mm512_shuffle_f64x2::<0xdd>(even[0], even[1]),
            _mm512_shuffle_f64x2::<0xdd>(odd[0], odd[1]),
        ];
        for (l, column) in columns.into_iter().enumerate() {
            // SAFETY: as the caller.
            unsafe { _mm512_storeu_ps(to.add((4 * l + j) * to_row), _mm512_castpd_ps(column)) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every instruction set packs what the definition says, and nothing behind the panel.
    #[test]
    fn columns_become_rows() {
        let depth = 83;
        let data: Vec<f32> = (0..40 * depth).map(|i| i as f32).collect();
        for isa in Isa::available() {
            for (k, columns, width) in [
                (0..83, 0..32, 32),
                (5..53, 8..40, 32),
                (3..20, 1..17, 16),
                (0..64, 2..25, 32),
                (82..83, 0..1, 16),
            ] {
                let mut out = vec![-1.0; k.len() * width + 16];
                Right::Columns { data: &data, depth }.pack(isa, k.clone(), columns.clone(), width, &mut out);
                for (i, &got) in out.iter().enumerate() {
                    let (row, n) = (i / width, i % width);
                    let want = if row >= k.len() {
                        -1.0
                    } else if n >= columns.len() {
                        0.0
                    } else {
                        data[(columns.start + n) * depth + k.start + row]
                    };
                    assert_eq!(got, want, "{isa:?} {k:?} {columns:?} row {row} column {n}");
                }
            }
        }
    }
}
