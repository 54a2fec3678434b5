//! The register-blocked heart of all products: a tile of `rows x columns` sums, held in registers while
//! the summed index runs.
//!
//! `c[m][n] (+)= sum over k of a[m][k] · b[k][n]`, `k` in order, every sum by itself: a result depends
//! neither on the size of the tile nor on the place of an element in it, nor (with fused products) on the
//! width of the vectors.

use crate::simd::{Array8, Isa, Lanes};

/// One tile. Strides are in elements. The summed index runs over `runs` runs of `len`.
#[derive(Clone, Copy)]
pub(crate) struct Tile {
    /// Left side: element of row 0, k 0.
    pub a: *const f32,
    /// From one row of the left side to the next.
    pub a_row: usize,
    /// From one k to the next within a run.
    pub a_k: usize,
    /// From one run to the next.
    pub a_run: usize,
    /// Right side: element of k 0, column 0. Columns lie side by side.
    pub b: *const f32,
    /// From one k to the next within a run.
    pub b_k: usize,
    /// From one run to the next.
    pub b_run: usize,
    /// Number of runs.
    pub runs: usize,
    /// Length of a run.
    pub len: usize,
    /// Output: element of row 0, column 0.
    pub c: *mut f32,
    /// From one row of the output to the next.
    pub c_row: usize,
    /// What the sums are added to.
    pub onto: Onto,
}

/// What the sums of a tile are added to.
#[derive(Clone, Copy)]
pub(crate) enum Onto {
    /// Zero.
    Nothing,
    /// One value a column, from here.
    Bias(*const f32),
    /// What the output holds.
    Output,
}

/// The tile of up to `rows x vectors` (const parameters `M` and `W`) for one instruction set.
///
/// # Safety
/// As [`run`]; the machine must have the instruction set of `V`.
#[inline(always)]
unsafe fn tile<V: Lanes, const M: usize, const W: usize>(t: &Tile, columns: usize) {
    let whole = columns == W * V::LANES;
    // Elements of the last vector.
    let last = columns - (W - 1) * V::LANES;
    // SAFETY: the caller promises that a, b and c hold the elements that the strides reach.
    unsafe {
        let mut sums = [[V::splat(0.0); W]; M];
        for run in 0..t.runs {
            // Rows are reached from several pointers: from one, the additions would be one long chain.
            let mut a = [t.a.add(run * t.a_run); 4];
            for (group, a) in a.iter_mut().enumerate() {
                *a = a.wrapping_add(4 * group * t.a_row);
            }
            let mut b = t.b.add(run * t.b_run);
            if whole {
                for _ in 0..t.len {
                    let mut right = [V::splat(0.0); W];
                    for (w, right) in right.iter_mut().enumerate() {
                        *right = V::load(b.add(w * V::LANES));
                    }
                    for (m, sums) in sums.iter_mut().enumerate() {
                        let left = V::splat(*a[m / 4].add(m % 4 * t.a_row));
                        for (sum, right) in sums.iter_mut().zip(right) {
                            *sum = left.mul_add(right, *sum);
                        }
                    }
                    for a in &mut a {
                        *a = a.wrapping_add(t.a_k);
                    }
                    b = b.wrapping_add(t.b_k);
                }
            } else {
                for _ in 0..t.len {
                    let mut right = [V::splat(0.0); W];
                    for (w, right) in right.iter_mut().enumerate() {
                        let from = b.add(w * V::LANES);
                        *right = if w + 1 < W { V::load(from) } else { V::load_first(from, last) };
                    }
                    for (m, sums) in sums.iter_mut().enumerate() {
                        let left = V::splat(*a[m / 4].add(m % 4 * t.a_row));
                        for (sum, right) in sums.iter_mut().zip(right) {
                            *sum = left.mul_add(right, *sum);
                        }
                    }
                    for a in &mut a {
                        *a = a.wrapping_add(t.a_k);
                    }
                    b = b.wrapping_add(t.b_k);
                }
            }
        }
        for (m, sums) in sums.iter().enumerate() {
            for (w, &sum) in sums.iter().enumerate() {
                let count = if w + 1 < W { V::LANES } else { last };
                let to = t.c.add(m * t.c_row + w * V::LANES);
                let value = match t.onto {
                    Onto::Nothing => sum,
                    Onto::Bias(bias) => sum.add(V::load_first(bias.add(w * V::LANES), count)),
                    Onto::Output => V::load_first(to, count).add(sum),
                };
                value.store_first(to, count);
            }
        }
    }
}

/// Calls the tile of `M` and `W` that `rows` and `columns` ask for.
macro_rules! by_size {
    ($function:ident, $vector:ty, $t:expr, $rows:expr, $columns:expr, [$($m:literal)*]) => {
        match ($rows, $columns <= <$vector>::LANES) {
            // SAFETY: as the caller.
            $(($m, true) => unsafe { $function::<$m, 1>($t, $columns) },)*
            // SAFETY: as the caller.
            $(($m, false) => unsafe { $function::<$m, 2>($t, $columns) },)*
            _ => unreachable!("a tile has at most max_rows rows"),
        }
    };
}

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{__m256, __m512};

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn tile_avx512<const M: usize, const W: usize>(t: &Tile, columns: usize) {
    // SAFETY: as the caller.
    unsafe { tile::<__m512, M, W>(t, columns) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn tile_avx2<const M: usize, const W: usize>(t: &Tile, columns: usize) {
    // SAFETY: as the caller.
    unsafe { tile::<__m256, M, W>(t, columns) }
}

unsafe fn tile_portable<const M: usize, const W: usize>(t: &Tile, columns: usize) {
    // SAFETY: as the caller.
    unsafe { tile::<Array8, M, W>(t, columns) }
}

impl Isa {
    /// Rows of the largest tile: as many as leave registers for the right side and one element of the left.
    pub(crate) fn max_rows(self) -> usize {
        match self {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => 14,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => 6,
            Isa::Portable => 4,
        }
    }

    /// Columns of the largest tile: two vectors.
    pub(crate) fn max_columns(self) -> usize {
        match self {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => 32,
            _ => 16,
        }
    }
}

/// Computes `t` with `rows` rows, `1..=isa.max_rows()`, and `columns` columns, `1..=isa.max_columns()`.
///
/// # Safety
/// The machine has `isa`. Every element that the strides of `t` reach within `rows`, `columns`, `runs`
/// and `len` lies in memory that may be read (`a`, `b`, bias) or written by this thread alone (`c`).
pub(crate) unsafe fn run(isa: Isa, t: &Tile, rows: usize, columns: usize) {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => {
            by_size!(tile_avx512, __m512, t, rows, columns, [1 2 3 4 5 6 7 8 9 10 11 12 13 14])
        }
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => by_size!(tile_avx2, __m256, t, rows, columns, [1 2 3 4 5 6]),
        Isa::Portable => by_size!(tile_portable, Array8, t, rows, columns, [1 2 3 4]),
    }
}

/// Cuts `0..count` into the fewest parts of at most `most`, as even as can be: (start, length).
pub(crate) fn even_parts(count: usize, most: usize) -> impl Iterator<Item = (usize, usize)> {
    let parts = count.div_ceil(most);
    (0..parts).map(move |i| {
        let start = i * count / parts;
        (start, (i + 1) * count / parts - start)
    })
}
