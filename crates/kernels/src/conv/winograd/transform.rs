//! The sums of F(2x2, 3x3), over the channels of one tile at a time: only additions, and exact halves.
//!
//! A matrix of 4 x 4 is handed on as 16 planes, `stride` apart, with the channels of a tile side by side in each.

use crate::simd::{Array8, Isa, Lanes};
use std::mem::MaybeUninit;

/// Rows of a tile of the input, and of its transform.
pub(super) const SIDE: usize = 4;
/// Planes of a transform.
pub(super) const PLANES: usize = SIDE * SIDE;

/// `(d0 - d2, d1 + d2, d2 - d1, d1 - d3)`: a column of `B^T d`.
#[inline(always)]
unsafe fn seen<V: Lanes>([d0, d1, d2, d3]: [V; 4]) -> [V; 4] {
    // SAFETY: as the caller.
    unsafe { [d0.sub(d2), d1.add(d2), d2.sub(d1), d1.sub(d3)] }
}

/// `(m0 + m1 + m2, m1 - m2 - m3)`: a column of `A^T m`.
#[inline(always)]
unsafe fn given<V: Lanes>([m0, m1, m2, m3]: [V; 4]) -> [V; 2] {
    // SAFETY: as the caller.
    unsafe { [m0.add(m1).add(m2), m1.sub(m2).sub(m3)] }
}

/// `(a, a + b, a - b, b)`: a column of `A y` but for the sign of its last element, which [`tap_gradients`] minds.
#[inline(always)]
unsafe fn spread<V: Lanes>([a, b]: [V; 2]) -> [V; 4] {
    // SAFETY: as the caller.
    unsafe { [a, a.add(b), a.sub(b), b] }
}

/// `(g0, (g0 + g1 + g2) / 2, (g0 - g1 + g2) / 2, g2)`: a column of `G g`.
#[inline(always)]
unsafe fn taps<V: Lanes>([g0, g1, g2]: [V; 3]) -> [V; 4] {
    // SAFETY: as the caller.
    unsafe {
        let (ends, middle) = (halved(g0.add(g2)), halved(g1));
        [g0, ends.add(middle), ends.sub(middle), g2]
    }
}

/// `(m0 + (m1 + m2) / 2, (m1 - m2) / 2, (m1 + m2) / 2 - m3)`: a column of `G^T m`, the sign of [`spread`] minded.
#[inline(always)]
unsafe fn tap_gradients<V: Lanes>([m0, m1, m2, m3]: [V; 4]) -> [V; 3] {
    // SAFETY: as the caller.
    unsafe {
        let half = halved(m1.add(m2));
        [m0.add(half), halved(m1.sub(m2)), half.sub(m3)]
    }
}

#[inline(always)]
unsafe fn halved<V: Lanes>(value: V) -> V {
    // SAFETY: as the caller. A negative zero added changes nothing.
    unsafe { value.mul_add(V::splat(0.5), V::splat(-0.0)) }
}

/// `column` of all columns, then of all rows: from `N x N` to `M x M`.
macro_rules! both_ways {
    ($column:ident, $matrix:expr, $n:literal to $m:literal) => {{
        let matrix = $matrix;
        let mut half = [[V::splat(0.0); $n]; $m];
        for j in 0..$n {
            let column = $column(std::array::from_fn::<_, $n, _>(|i| matrix[$n * i + j]));
            for i in 0..$m {
                half[i][j] = column[i];
            }
        }
        let mut whole = [V::splat(0.0); $m * $m];
        for i in 0..$m {
            let row = $column(half[i]);
            for j in 0..$m {
                whole[$m * i + j] = row[j];
            }
        }
        whole
    }};
}

/// Calls `$do` for each vector of `$channels`, with the first channel and how many there are.
macro_rules! each_vector {
    ($channels:expr, |$first:ident, $load:ident, $store:ident| $do:expr) => {{
        let whole = $channels / V::LANES * V::LANES;
        for $first in (0..whole).step_by(V::LANES) {
            let $load = |from: *const f32| V::load(from);
            let $store = |value: V, to: *mut f32| value.store(to);
            $do
        }
        if whole < $channels {
            let ($first, count) = (whole, $channels - whole);
            let $load = |from: *const f32| V::load_first(from, count);
            let $store = |value: V, to: *mut f32| value.store_first(to, count);
            $do
        }
    }};
}

#[inline(always)]
unsafe fn input_tiles<V: Lanes>(
    tiles: &mut dyn Iterator<Item = [*const f32; 16]>,
    channels: usize,
    to: *mut f32,
    row: usize,
    stride: usize,
) {
    for (index, from) in tiles.enumerate() {
        // SAFETY: as the caller.
        unsafe {
            let to = to.add(index * row);
            each_vector!(channels, |first, load, store| {
                let tile: [V; 16] = std::array::from_fn(|i| load(from[i].add(first)));
                for (plane, value) in both_ways!(seen, tile, 4 to 4).into_iter().enumerate() {
                    store(value, to.add(plane * stride + first));
                }
            });
        }
    }
}

#[inline(always)]
unsafe fn gradient_tiles<V: Lanes>(
    tiles: &mut dyn Iterator<Item = [*const f32; 4]>,
    channels: usize,
    to: *mut f32,
    row: usize,
    stride: usize,
) {
    for (index, from) in tiles.enumerate() {
        // SAFETY: as the caller.
        unsafe {
            let to = to.add(index * row);
            each_vector!(channels, |first, load, store| {
                let tile: [V; 4] = std::array::from_fn(|i| load(from[i].add(first)));
                for (plane, value) in both_ways!(spread, tile, 2 to 4).into_iter().enumerate() {
                    store(value, to.add(plane * stride + first));
                }
            });
        }
    }
}

#[inline(always)]
unsafe fn output_tiles<V: Lanes>(
    tiles: &mut dyn Iterator<Item = [*mut f32; 4]>,
    channels: usize,
    bias: *const f32,
    from: *const f32,
    row: usize,
    stride: usize,
) {
    for (index, to) in tiles.enumerate() {
        // SAFETY: as the caller.
        unsafe {
            let from = from.add(index * row);
            each_vector!(channels, |first, load, store| {
                let planes: [V; 16] = std::array::from_fn(|i| load(from.add(i * stride + first)));
                let bias = if bias.is_null() { V::splat(0.0) } else { load(bias.add(first)) };
                for (value, to) in both_ways!(given, planes, 4 to 2).into_iter().zip(to) {
                    if !to.is_null() {
                        store(value.add(bias), to.add(first));
                    }
                }
            });
        }
    }
}

#[inline(always)]
unsafe fn kernels_of<V: Lanes>(weight: &[f32], channels: usize, to: &mut [MaybeUninit<f32>]) {
    let kernels = weight.chunks_exact(9 * channels).zip(to.chunks_exact_mut(PLANES * channels));
    for (from, to) in kernels {
        let (from, to) = (from.as_ptr(), to.as_mut_ptr().cast::<f32>());
        // SAFETY: as the caller; the chunks have 9 and 16 times `channels`.
        unsafe {
            each_vector!(channels, |first, load, store| {
                let kernel: [V; 9] = std::array::from_fn(|tap| load(from.add(tap * channels + first)));
                for (plane, value) in both_ways!(taps, kernel, 3 to 4).into_iter().enumerate() {
                    store(value, to.add(plane * channels + first));
                }
            });
        }
    }
}

#[inline(always)]
unsafe fn kernel_gradient_of<V: Lanes>(
    parts: usize,
    part: usize,
    stride: usize,
    channels: usize,
    from: *const f32,
    to: *mut f32,
) {
    // SAFETY: as the caller.
    unsafe {
        each_vector!(channels, |first, load, store| {
            let mut planes: [V; 16] = std::array::from_fn(|i| load(from.add(i * stride + first)));
            for index in 1..parts {
                let from = from.add(index * part + first);
                for (i, sum) in planes.iter_mut().enumerate() {
                    *sum = sum.add(load(from.add(i * stride)));
                }
            }
            for (tap, value) in both_ways!(tap_gradients, planes, 4 to 3).into_iter().enumerate() {
                store(value, to.add(tap * channels + first));
            }
        });
    }
}

/// A function for each instruction set.
macro_rules! for_each_isa {
    ($(#[$doc:meta])* $name:ident($($argument:ident: $type:ty),* $(,)?) = $body:ident) => {
        $(#[$doc])*
        pub(super) unsafe fn $name(isa: Isa, $($argument: $type),*) {
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f")]
            unsafe fn avx512($($argument: $type),*) {
                // SAFETY: as the caller.
                unsafe { $body::<std::arch::x86_64::__m512>($($argument),*) }
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            unsafe fn avx2($($argument: $type),*) {
                // SAFETY: as the caller.
                unsafe { $body::<std::arch::x86_64::__m256>($($argument),*) }
            }
            // SAFETY: as the caller; an Isa says what the machine has.
            unsafe {
                match isa {
                    #[cfg(target_arch = "x86_64")]
                    Isa::Avx512 => avx512($($argument),*),
                    #[cfg(target_arch = "x86_64")]
                    Isa::Avx2 => avx2($($argument),*),
                    #[cfg(target_arch = "aarch64")]
                    Isa::Neon => $body::<crate::simd::Pair>($($argument),*),
                    Isa::Portable => $body::<Array8>($($argument),*),
                }
            }
        }
    };
}

for_each_isa! {
    /// `B^T d B` of each tile, given by its 16 pixels: tiles `row` apart, planes `stride`.
    ///
    /// # Safety
    /// `channels` elements may be read from each pixel, and written in each row of each plane.
    input(
        tiles: &mut dyn Iterator<Item = [*const f32; 16]>,
        channels: usize,
        to: *mut f32,
        row: usize,
        stride: usize,
    ) = input_tiles
}

for_each_isa! {
    /// `A y A^T` of each tile of the output's gradient, given by its 4 pixels, but for the signs of the last row and
    /// column; the rest as [`input`].
    ///
    /// # Safety
    /// As [`input`].
    gradient(
        tiles: &mut dyn Iterator<Item = [*const f32; 4]>,
        channels: usize,
        to: *mut f32,
        row: usize,
        stride: usize,
    ) = gradient_tiles
}

for_each_isa! {
    /// `A^T m A`, and the bias unless it is null, to those of the 4 pixels of each tile that are not null.
    ///
    /// # Safety
    /// `channels` elements may be read from each row of each plane and from the bias, and written in each pixel.
    output(
        tiles: &mut dyn Iterator<Item = [*mut f32; 4]>,
        channels: usize,
        bias: *const f32,
        from: *const f32,
        row: usize,
        stride: usize,
    ) = output_tiles
}

for_each_isa! {
    /// `G g G^T` of kernels `weight[.., 3, 3, channels]`, `to[.., 4, 4, channels]`, which is written whole.
    ///
    /// # Safety
    /// The machine has the instructions.
    kernels(weight: &[f32], channels: usize, to: &mut [MaybeUninit<f32>]) = kernels_of
}

for_each_isa! {
    /// `G^T m G` of the sum of `parts` matrices, which lie `part` apart, planes `stride`: `to[3, 3, channels]`.
    ///
    /// # Safety
    /// `channels` elements of each plane of each part may be read, and 9 times as many written.
    kernel_gradient(
        parts: usize,
        part: usize,
        stride: usize,
        channels: usize,
        from: *const f32,
        to: *mut f32,
    ) = kernel_gradient_of
}
