//! The register-blocked heart of all products: a tile of `rows x columns` sums, held in registers while
//! the summed index runs.
//!
//! `c[m][n] (+)= sum over k of a[m][k] · b[k][n]`, `k` in order, every sum by itself: a result depends
//! neither on the size of the tile nor on the place of an element in it, nor (with fused products) on the
//! width of the vectors.
//!
//! Memory is counted in cells of four bytes: an `f32`, or the bits of two bf16 that follow one another in the
//! summed index, the first in the lower half.

use crate::conv::Rectifier;
#[cfg(target_arch = "aarch64")]
use crate::simd::Pair;
use crate::simd::{Array8, Isa, Lanes};

/// One tile. Strides are in cells. The summed index runs over `runs` runs of `len` cells of the right side.
#[derive(Clone, Copy)]
pub(crate) struct Tile {
    /// Left side: cell of row 0, k 0.
    pub a: *const f32,
    /// From one row of the left side to the next.
    pub a_row: usize,
    /// From one k to the next within a run.
    pub a_k: usize,
    /// From one run to the next.
    pub a_run: usize,
    /// Right side: cell of k 0, column 0. Columns lie side by side.
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
    /// What is done then.
    pub then: Then,
}

/// What is done to sums before they are stored.
#[derive(Clone, Copy)]
pub(crate) struct Then {
    /// Element of row 0, column 0 of what is added, of the output's strides; none if null.
    pub rest: *const f32,
    /// What becomes of negative results then.
    pub rectifier: Rectifier,
}

impl Then {
    pub(crate) const NOTHING: Then = Then { rest: std::ptr::null(), rectifier: Rectifier::None };
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
    /// The same, each row multiplied by one of the values from here on.
    Scaled(*const f32),
}

/// What the cells of both sides hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cells {
    /// `f32` and `f32`.
    Single,
    /// Two `f32` on the left to each pair of bf16 on the right, which is widened: exact products, added one
    /// after the other.
    Widened,
    /// Pairs of bf16 on both sides, multiplied and added by one instruction of AVX-512 bf16.
    #[cfg(target_arch = "x86_64")]
    Pairs,
}

/// [`Cells`] for the compiler: how one cell of the right side is used up.
trait Product<V: Lanes> {
    /// Cells of the left side to one of the right.
    const LEFT: usize;

    /// What the `part`-th of these is multiplied by.
    ///
    /// # Safety
    /// As [`Lanes`].
    unsafe fn factor(right: V, part: usize) -> V;

    /// The sum with the product added.
    ///
    /// # Safety
    /// As [`Lanes`].
    unsafe fn add(left: V, right: V, sum: V) -> V;
}

struct Single;

impl<V: Lanes> Product<V> for Single {
    const LEFT: usize = 1;

    #[inline(always)]
    unsafe fn factor(right: V, _: usize) -> V {
        right
    }

    #[inline(always)]
    unsafe fn add(left: V, right: V, sum: V) -> V {
        // SAFETY: as the caller.
        unsafe { left.mul_add(right, sum) }
    }
}

struct Widened;

impl<V: Lanes> Product<V> for Widened {
    const LEFT: usize = 2;

    #[inline(always)]
    unsafe fn factor(right: V, part: usize) -> V {
        // SAFETY: as the caller.
        unsafe { if part == 0 { right.low_bf16() } else { right.high_bf16() } }
    }

    #[inline(always)]
    unsafe fn add(left: V, right: V, sum: V) -> V {
        // SAFETY: as the caller.
        unsafe { left.mul_add(right, sum) }
    }
}

#[cfg(target_arch = "x86_64")]
struct Pairs;

#[cfg(target_arch = "x86_64")]
impl Product<__m512> for Pairs {
    const LEFT: usize = 1;

    #[inline(always)]
    unsafe fn factor(right: __m512, _: usize) -> __m512 {
        right
    }

    #[inline(always)]
    unsafe fn add(left: __m512, right: __m512, sum: __m512) -> __m512 {
        // SAFETY: as the caller; vectors of the same size, any bits are bf16.
        unsafe {
            let pairs = |cells: __m512| std::mem::transmute::<__m512, __m512bh>(cells);
            _mm512_dpbf16_ps(sum, pairs(left), pairs(right))
        }
    }
}

/// Adds one run to the sums; `last` elements of the last vector of the right side are there, all if `WHOLE`.
///
/// # Safety
/// As [`run`].
#[inline(always)]
unsafe fn add_run<V: Lanes, P: Product<V>, const WHOLE: bool, const M: usize, const W: usize>(
    t: &Tile,
    run: usize,
    last: usize,
    sums: &mut [[V; W]; M],
) {
    // SAFETY: the caller promises that a and b hold the cells that the strides reach.
    unsafe {
        // Rows are reached from several pointers: from one, the additions would be one long chain.
        let mut a = [t.a.add(run * t.a_run); 4];
        for (group, a) in a.iter_mut().enumerate() {
            *a = a.wrapping_add(4 * group * t.a_row);
        }
        let mut b = t.b.add(run * t.b_run);
        for _ in 0..t.len {
            for part in 0..P::LEFT {
                let mut right = [V::splat(0.0); W];
                for (w, right) in right.iter_mut().enumerate() {
                    let from = b.add(w * V::LANES);
                    let cells = if WHOLE || w + 1 < W { V::load(from) } else { V::load_first(from, last) };
                    *right = P::factor(cells, part);
                }
                for (m, sums) in sums.iter_mut().enumerate() {
                    let left = V::splat(*a[m / 4].add(m % 4 * t.a_row + part));
                    for (sum, right) in sums.iter_mut().zip(right) {
                        *sum = P::add(left, right, *sum);
                    }
                }
            }
            for a in &mut a {
                *a = a.wrapping_add(t.a_k);
            }
            b = b.wrapping_add(t.b_k);
        }
    }
}

/// The tile of up to `rows x vectors` (const parameters `M` and `W`) for one instruction set.
///
/// # Safety
/// As [`run`]; the machine must have the instruction set of `V`.
#[inline(always)]
unsafe fn tile<V: Lanes, P: Product<V>, const M: usize, const W: usize>(t: &Tile, columns: usize) {
    let whole = columns == W * V::LANES;
    // Elements of the last vector.
    let last = columns - (W - 1) * V::LANES;
    // SAFETY: the caller promises that a, b and c hold the elements that the strides reach.
    unsafe {
        let mut sums = [[V::splat(0.0); W]; M];
        for run in 0..t.runs {
            if whole {
                add_run::<V, P, true, M, W>(t, run, last, &mut sums);
            } else {
                add_run::<V, P, false, M, W>(t, run, last, &mut sums);
            }
        }
        if whole {
            store::<V, true, M, W>(t, last, sums);
        } else {
            store::<V, false, M, W>(t, last, sums);
        }
    }
}

/// Stores the sums, after what they are added to and what is done then. One small loop after the other: the compiler has to
/// unroll them all, or the sums would not be held in registers.
///
/// # Safety
/// As [`run`].
#[inline(always)]
unsafe fn store<V: Lanes, const WHOLE: bool, const M: usize, const W: usize>(
    t: &Tile,
    last: usize,
    mut sums: [[V; W]; M],
) {
    macro_rules! each {
        (|$sum:ident, $m:ident, $w:ident, $count:ident| $do:expr) => {
            for ($m, sums) in sums.iter_mut().enumerate() {
                for ($w, $sum) in sums.iter_mut().enumerate() {
                    let $count = if WHOLE || $w + 1 < W { V::LANES } else { last };
                    $do;
                }
            }
        };
    }
    // SAFETY: the caller promises that c and what is added hold the elements that the strides reach.
    unsafe {
        let load = |from: *const f32, count| if WHOLE { V::load(from) } else { V::load_first(from, count) };
        match t.onto {
            Onto::Nothing => {}
            Onto::Bias(bias) => {
                let mut biases = [V::splat(0.0); W];
                for (w, to) in biases.iter_mut().enumerate() {
                    let count = if WHOLE || w + 1 < W { V::LANES } else { last };
                    *to = load(bias.add(w * V::LANES), count);
                }
                each!(|sum, _m, w, _count| *sum = sum.add(biases[w]));
            }
            Onto::Output => each!(|sum, m, w, count| {
                *sum = load(t.c.add(m * t.c_row + w * V::LANES), count).add(*sum);
            }),
            Onto::Scaled(factors) => each!(|sum, m, w, count| {
                let before = load(t.c.add(m * t.c_row + w * V::LANES), count);
                *sum = before.mul_add(V::splat(*factors.add(m)), *sum);
            }),
        }
        if !t.then.rest.is_null() {
            each!(|sum, m, w, count| {
                *sum = sum.add(load(t.then.rest.add(m * t.c_row + w * V::LANES), count));
            });
        }
        match t.then.rectifier {
            Rectifier::None => {}
            Rectifier::Relu => each!(|sum, _m, _w, _count| *sum = sum.where_negative(V::splat(0.0))),
            Rectifier::Leaky(slope) => {
                let slope = V::splat(slope);
                // A negative zero added changes nothing.
                each!(|sum, _m, _w, _count| {
                    *sum = sum.where_negative(sum.mul_add(slope, V::splat(-0.0)));
                });
            }
        }
        each!(|sum, m, w, count| {
            let to = t.c.add(m * t.c_row + w * V::LANES);
            if WHOLE { sum.store(to) } else { sum.store_first(to, count) }
        });
    }
}

/// Calls the tile of `M` and `W` that `rows` and `columns` ask for.
macro_rules! by_size {
    ($function:ident, $product:ty, $vector:ty, $t:expr, $rows:expr, $columns:expr, [$($m:literal)*]) => {
        match ($rows, $columns <= <$vector>::LANES) {
            // SAFETY: as the caller.
            $(($m, true) => unsafe { $function::<$product, $m, 1>($t, $columns) },)*
            // SAFETY: as the caller.
            $(($m, false) => unsafe { $function::<$product, $m, 2>($t, $columns) },)*
            _ => unreachable!("a tile has at most max_rows rows"),
        }
    };
}

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{__m256, __m512, __m512bh, _mm512_dpbf16_ps};

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn tile_avx512<P: Product<__m512>, const M: usize, const W: usize>(t: &Tile, columns: usize) {
    // SAFETY: as the caller.
    unsafe { tile::<__m512, P, M, W>(t, columns) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn tile_avx512_bf16<P: Product<__m512>, const M: usize, const W: usize>(t: &Tile, columns: usize) {
    // SAFETY: as the caller.
    unsafe { tile::<__m512, P, M, W>(t, columns) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn tile_avx2<P: Product<__m256>, const M: usize, const W: usize>(t: &Tile, columns: usize) {
    // SAFETY: as the caller.
    unsafe { tile::<__m256, P, M, W>(t, columns) }
}

#[cfg(target_arch = "aarch64")]
unsafe fn tile_neon<P: Product<Pair>, const M: usize, const W: usize>(t: &Tile, columns: usize) {
    // SAFETY: as the caller.
    unsafe { tile::<Pair, P, M, W>(t, columns) }
}

unsafe fn tile_portable<P: Product<Array8>, const M: usize, const W: usize>(t: &Tile, columns: usize) {
    // SAFETY: as the caller.
    unsafe { tile::<Array8, P, M, W>(t, columns) }
}

impl Cells {
    /// Rows of the largest tile of these cells; widening takes registers.
    pub(crate) fn max_rows(self, isa: Isa) -> usize {
        match (self, isa) {
            #[cfg(target_arch = "x86_64")]
            (Cells::Widened, Isa::Avx512) => 11,
            #[cfg(target_arch = "x86_64")]
            (Cells::Widened, Isa::Avx2) => 5,
            #[cfg(target_arch = "aarch64")]
            (Cells::Widened, Isa::Neon) => 5,
            _ => isa.max_rows(),
        }
    }
}

impl Isa {
    /// Rows of the largest tile of `f32`: as many as leave registers for the right side and one element of the left.
    pub(crate) fn max_rows(self) -> usize {
        match self {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => 14,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => 6,
            // Four registers a row, of 32.
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => 6,
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

/// Computes `t` with `rows` rows, `1..=isa.max_rows()`, and `columns` columns, `1..=isa.max_columns()`, of
/// `f32` cells.
///
/// # Safety
/// As [`run_cells`].
pub(crate) unsafe fn run(isa: Isa, t: &Tile, rows: usize, columns: usize) {
    // SAFETY: as the caller.
    unsafe { run_cells(isa, Cells::Single, t, rows, columns) }
}

/// [`run`] with cells of any kind, at most [`Cells::max_rows`] rows of them.
///
/// # Safety
/// The machine has `isa`, and AVX-512 bf16 for pairs on both sides. Every cell that the strides of `t` reach
/// within `rows`, `columns`, `runs` and `len` lies in memory that may be read (`a`, `b`, bias, factors) or written by
/// this thread alone (`c`).
pub(crate) unsafe fn run_cells(isa: Isa, cells: Cells, t: &Tile, rows: usize, columns: usize) {
    #[cfg(target_arch = "x86_64")]
    macro_rules! avx512 {
        ($function:ident, $product:ty, $($more:literal)*) => {
            by_size!(
                $function, $product, __m512, t, rows, columns, [1 2 3 4 5 6 7 8 9 10 11 $($more)*]
            )
        };
    }
    match (isa, cells) {
        #[cfg(target_arch = "x86_64")]
        (Isa::Avx512, Cells::Single) => avx512!(tile_avx512, Single, 12 13 14),
        #[cfg(target_arch = "x86_64")]
        (Isa::Avx512, Cells::Widened) => avx512!(tile_avx512, Widened,),
        #[cfg(target_arch = "x86_64")]
        (Isa::Avx512, Cells::Pairs) => avx512!(tile_avx512_bf16, Pairs, 12 13 14),
        #[cfg(target_arch = "x86_64")]
        (Isa::Avx2, Cells::Single) => by_size!(tile_avx2, Single, __m256, t, rows, columns, [1 2 3 4 5 6]),
        #[cfg(target_arch = "x86_64")]
        (Isa::Avx2, Cells::Widened) => by_size!(tile_avx2, Widened, __m256, t, rows, columns, [1 2 3 4 5]),
        #[cfg(target_arch = "aarch64")]
        (Isa::Neon, Cells::Single) => by_size!(tile_neon, Single, Pair, t, rows, columns, [1 2 3 4 5 6]),
        #[cfg(target_arch = "aarch64")]
        (Isa::Neon, Cells::Widened) => by_size!(tile_neon, Widened, Pair, t, rows, columns, [1 2 3 4 5]),
        (Isa::Portable, Cells::Single) => {
            by_size!(tile_portable, Single, Array8, t, rows, columns, [1 2 3 4])
        }
        (Isa::Portable, Cells::Widened) => {
            by_size!(tile_portable, Widened, Array8, t, rows, columns, [1 2 3 4])
        }
        #[cfg(target_arch = "x86_64")]
        (_, Cells::Pairs) => unreachable!("pairs on both sides are for AVX-512"),
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
