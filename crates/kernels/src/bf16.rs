//! bf16, the upper half of an `f32`: rounding to it, and whether the machine multiplies it fast.

use crate::math::for_each_isa;
use crate::simd::Isa;
use crate::tile::Cells;
use std::sync::LazyLock;

/// Whether this machine multiplies bf16 faster than `f32`. Results hardly depend on it: without, the same
/// rounded numbers are multiplied as `f32`.
///
/// AVX-512 bf16 alone does not say so: its product of pairs ran at twice the operations of `f32` on AMD's Zen 4
/// and at half of them on an Intel Xeon (family 6, model 207), which expects such work in AMX. Hence only AMD's.
pub fn bf16_is_fast() -> bool {
    static FAST: LazyLock<bool> = LazyLock::new(|| {
        #[cfg(target_arch = "x86_64")]
        if Isa::available().first().is_some_and(|isa| has_pairs(*isa)) {
            // The first four letters of "AuthenticAMD".
            return std::arch::x86_64::__cpuid(0).ebx.to_le_bytes() == *b"Auth";
        }
        false
    });
    *FAST
}

/// Whether kernels with pairs of bf16 on both sides run.
#[cfg(target_arch = "x86_64")]
pub(crate) fn has_pairs(isa: Isa) -> bool {
    isa == Isa::Avx512 && is_x86_feature_detected!("avx512bf16") && is_x86_feature_detected!("avx512bw")
}

/// The cells to multiply bf16 with on this machine.
pub(crate) fn cells() -> Cells {
    #[cfg(target_arch = "x86_64")]
    if bf16_is_fast() && has_pairs(Isa::detect()) {
        return Cells::Pairs;
    }
    Cells::Widened
}

/// The nearest `f32` whose lower half is zero, of two the one with an even last bit.
#[inline(always)]
pub(crate) fn nearest(x: f32) -> f32 {
    f32::from_bits(nearest_bits(x))
}

#[inline(always)]
fn nearest_bits(x: f32) -> u32 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1));
    // A NaN might be rounded to infinity.
    let upper = if x.is_nan() { bits | 0x40_0000 } else { rounded };
    upper & 0xffff_0000
}

/// A cell of two bf16.
#[inline(always)]
fn pair(first: f32, second: f32) -> f32 {
    f32::from_bits(nearest_bits(first) >> 16 | nearest_bits(second))
}

/// Rounds pixels of `channels` elements for `cells`, an odd number of channels filled up with a zero.
pub(crate) fn round_pixels(isa: Isa, cells: Cells, x: &[f32], channels: usize, out: &mut [f32]) {
    let left = left_cells(cells, channels);
    assert_eq!(x.len() / channels, out.len() / left, "pixels");
    // Pixels without filling are one row of memory.
    let (x_step, out_step) = if channels.is_multiple_of(2) { (x.len(), out.len()) } else { (channels, left) };
    if x.is_empty() {
        return;
    }
    for (x, out) in x.chunks_exact(x_step).zip(out.chunks_exact_mut(out_step)) {
        match cells {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the machine has the instructions, or there were no such cells.
            Cells::Pairs => unsafe { pairs_avx512(x, out) },
            _ => {
                rounded(isa, x, out);
                out[x.len()..].fill(0.0);
            }
        }
    }
}

/// The same as pairs, whatever `cells` the left side has: for the right side.
pub(crate) fn round_to_pairs(isa: Isa, cells: Cells, x: &[f32], channels: usize, out: &mut [f32]) {
    if cells != Cells::Widened {
        return round_pixels(isa, cells, x, channels, out);
    }
    for (x, out) in x.chunks_exact(channels).zip(out.chunks_exact_mut(channels.div_ceil(2))) {
        for (x, out) in x.chunks(2).zip(out) {
            *out = pair(x[0], x.get(1).copied().unwrap_or(0.0));
        }
    }
}

/// Cells of the left side that hold one pixel.
pub(crate) fn left_cells(cells: Cells, channels: usize) -> usize {
    match cells {
        Cells::Single => channels,
        Cells::Widened => channels.next_multiple_of(2),
        #[cfg(target_arch = "x86_64")]
        Cells::Pairs => channels.div_ceil(2),
    }
}

#[inline(always)]
fn rounded_loop<const FUSED: bool>(x: &[f32], out: &mut [f32]) {
    for (x, out) in x.iter().zip(out) {
        *out = nearest(*x);
    }
}

for_each_isa! {
    /// Each element rounded.
    fn rounded(x: &[f32], out: &mut [f32]) = rounded_loop
}

#[inline(always)]
fn join_loop<const FUSED: bool>(first: &[f32], second: &[f32], out: &mut [f32]) {
    for ((first, second), out) in first.iter().zip(second).zip(out) {
        *out = pair(*first, *second);
    }
}

for_each_isa! {
    fn joined(first: &[f32], second: &[f32], out: &mut [f32]) = join_loop
}

/// A pair of each element of one row and the one of the next, for the right side.
pub(crate) fn join(isa: Isa, cells: Cells, first: &[f32], second: &[f32], out: &mut [f32]) {
    match cells {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the machine has the instructions, or there were no such cells.
        Cells::Pairs => unsafe { join_avx512(first, second, out) },
        _ => joined(isa, first, second, out),
    }
}

#[inline(always)]
fn interleave_loop<const FUSED: bool>(first: &[f32], second: &[f32], out: &mut [f32]) {
    for ((first, second), out) in first.iter().zip(second).zip(out.chunks_exact_mut(2)) {
        out[0] = nearest(*first);
        out[1] = nearest(*second);
    }
}

for_each_isa! {
    fn interleaved(first: &[f32], second: &[f32], out: &mut [f32]) = interleave_loop
}

/// The same for the left side, whose pairs take [`left_cells`] of two.
pub(crate) fn join_left(isa: Isa, cells: Cells, first: &[f32], second: &[f32], out: &mut [f32]) {
    match cells {
        Cells::Widened => interleaved(isa, first, second, out),
        _ => join(isa, cells, first, second, out),
    }
}

/// Pairs of neighbours; a zero beside the last one of an odd number.
///
/// # Safety
/// The machine has AVX-512 F and bf16.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn pairs_avx512(x: &[f32], out: &mut [f32]) {
    use std::arch::x86_64::*;
    assert_eq!(x.len().div_ceil(2), out.len(), "pairs");
    let mask = |count: usize| ((1_u32 << count.min(16)) - 1) as __mmask16;
    let whole = x.len() / 32;
    for (x, out) in x.chunks_exact(32).zip(out.chunks_exact_mut(16)) {
        // SAFETY: the vectors are the chunks.
        unsafe {
            let (low, high) = (_mm512_loadu_ps(x.as_ptr()), _mm512_loadu_ps(x.as_ptr().add(16)));
            let pairs = std::mem::transmute::<__m512bh, __m512>(_mm512_cvtne2ps_pbh(high, low));
            _mm512_storeu_ps(out.as_mut_ptr(), pairs);
        }
    }
    for (x, out) in x[32 * whole..].chunks(32).zip(out[16 * whole..].chunks_mut(16)) {
        // SAFETY: masked lanes are not touched, the others lie within the slices.
        unsafe {
            let low = _mm512_maskz_loadu_ps(mask(x.len()), x.as_ptr());
            let high = _mm512_maskz_loadu_ps(mask(x.len().saturating_sub(16)), x.as_ptr().wrapping_add(16));
            let pairs = std::mem::transmute::<__m512bh, __m512>(_mm512_cvtne2ps_pbh(high, low));
            _mm512_mask_storeu_ps(out.as_mut_ptr(), mask(out.len()), pairs);
        }
    }
}

/// [`join`].
///
/// # Safety
/// The machine has AVX-512 F, BW and bf16.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn join_avx512(first: &[f32], second: &[f32], out: &mut [f32]) {
    use std::arch::x86_64::*;
    assert!(first.len() == out.len() && second.len() == out.len(), "pairs");
    let pairs = |first: __m512, second: __m512| {
        // Those of `first` and then those of `second`, to be taken in turns.
        let order: [u16; 32] = std::array::from_fn(|i| (i / 2 + i % 2 * 16) as u16);
        // SAFETY: vectors of the same size, any bits are bf16.
        unsafe {
            let order = std::mem::transmute::<[u16; 32], __m512i>(order);
            let rounded = std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(second, first));
            _mm512_castsi512_ps(_mm512_permutexvar_epi16(order, rounded))
        }
    };
    let whole = out.len() / 16 * 16;
    for at in (0..whole).step_by(16) {
        // SAFETY: sixteen elements from here on lie within the slices.
        unsafe {
            let [a, b] = [first, second].map(|x| _mm512_loadu_ps(x.as_ptr().add(at)));
            _mm512_storeu_ps(out.as_mut_ptr().add(at), pairs(a, b));
        }
    }
    if whole < out.len() {
        let mask = ((1_u32 << (out.len() - whole)) - 1) as __mmask16;
        // SAFETY: masked lanes are not touched, the others lie within the slices.
        unsafe {
            let [a, b] = [first, second].map(|x| _mm512_maskz_loadu_ps(mask, x.as_ptr().add(whole)));
            _mm512_mask_storeu_ps(out.as_mut_ptr().add(whole), mask, pairs(a, b));
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Every kernel for bf16 that this machine has.
    pub(crate) fn kernels() -> Vec<(Isa, Cells)> {
        let kernels = Isa::available().into_iter().map(|isa| (isa, Cells::Widened));
        #[cfg(target_arch = "x86_64")]
        let kernels = kernels.chain(has_pairs(Isa::detect()).then_some((Isa::detect(), Cells::Pairs)));
        kernels.collect()
    }

    /// Rounded by arithmetic: bf16 has eight bits of mantissa, the first of them not written.
    pub(crate) fn by_arithmetic(values: &[f32]) -> Vec<f32> {
        let round = |&value: &f32| {
            let unit = 2_f32.powi(value.abs().log2().floor() as i32 - 7);
            if value == 0.0 { 0.0 } else { (value / unit).round_ties_even() * unit }
        };
        values.iter().map(round).collect()
    }

    #[test]
    fn rounding_is_to_nearest_with_ties_to_even() {
        for (bits, want) in [
            (0x3f80_0000, 0x3f80_0000),
            (0x3f80_8000, 0x3f80_0000),
            (0x3f81_8000, 0x3f82_0000),
            (0x3f80_8001, 0x3f81_0000),
            (0xbf80_7fff, 0xbf80_0000),
            (0x7f7f_ffff, 0x7f80_0000),
            (0xff80_0000, 0xff80_0000),
            (0x8000_0000, 0x8000_0000),
        ] {
            assert_eq!(nearest_bits(f32::from_bits(bits)), want, "{bits:x}");
        }
        assert!(nearest(f32::from_bits(0x7f80_0001)).is_nan());
    }

    #[test]
    fn pixels_are_rounded_alike_for_all_cells() {
        for (pixels, channels) in [(1, 1), (3, 1), (5, 4), (2, 17), (3, 33), (1, 48), (4, 31)] {
            let x: Vec<f32> = (0..pixels * channels).map(|i| (i as f32 * 0.7).sin() * 1e3).collect();
            let want: Vec<f32> = x
                .chunks(channels)
                .flat_map(|pixel| {
                    let mut pixel = by_arithmetic(pixel);
                    pixel.resize(channels.next_multiple_of(2), 0.0);
                    pixel
                })
                .collect();
            for isa in Isa::available() {
                let mut out = vec![-1.0; want.len()];
                round_pixels(isa, Cells::Widened, &x, channels, &mut out);
                assert_eq!(out, want, "{isa:?} {channels}");
                #[cfg(target_arch = "x86_64")]
                if has_pairs(isa) {
                    let mut out = vec![-1.0; want.len() / 2];
                    round_pixels(isa, Cells::Pairs, &x, channels, &mut out);
                    let pairs: Vec<u32> = want.chunks(2).map(|p| pair(p[0], p[1]).to_bits()).collect();
                    assert_eq!(
                        out.iter().map(|cell| cell.to_bits()).collect::<Vec<_>>(),
                        pairs,
                        "{channels}"
                    );
                }
            }
        }
    }

    #[test]
    fn rows_are_joined_alike_for_all_cells() {
        for length in [1, 5, 16, 31, 48] {
            let row = |seed: f32| (0..length).map(|i| (i as f32 * seed).sin() * 1e3).collect::<Vec<f32>>();
            let (first, second) = (row(0.7), row(0.3));
            let rounded = by_arithmetic(&first).into_iter().zip(by_arithmetic(&second));
            let want: Vec<u32> =
                rounded.clone().map(|(first, second)| pair(first, second).to_bits()).collect();
            let apart: Vec<u32> = rounded.flat_map(|(a, b)| [a.to_bits(), b.to_bits()]).collect();
            for (isa, cells) in kernels() {
                let mut out = vec![-1.0; length];
                join(isa, cells, &first, &second, &mut out);
                let bits = |out: &[f32]| out.iter().map(|cell| cell.to_bits()).collect::<Vec<_>>();
                assert_eq!(bits(&out), want, "{isa:?} {cells:?} {length}");
                let mut left = vec![-1.0; left_cells(cells, 2) * length];
                join_left(isa, cells, &first, &second, &mut left);
                let want = if cells == Cells::Widened { &apart } else { &want };
                assert_eq!(bits(&left), *want, "{isa:?} {cells:?} {length}");
            }
        }
    }
}
