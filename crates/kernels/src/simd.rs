//! Vectors of `f32` for each instruction set, and the choice between them at run time.
//!
//! A kernel is written once over [`Lanes`] and compiled once for each implementation, inside a function
//! that enables the instruction set; [`Isa::detect`] says which of these functions may be called.

use std::sync::LazyLock;

/// The instruction sets that kernels are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Isa {
    /// AVX-512 F, 16 lanes.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// AVX2 with FMA, 8 lanes.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// NEON, 8 lanes in two registers. Its tests ran under QEMU only.
    #[cfg(target_arch = "aarch64")]
    Neon,
    /// Whatever the compiler makes of arrays of 8.
    Portable,
}

#[cfg(test)]
thread_local! {
    static TAKEN_FOR_BEST: std::cell::Cell<Option<Isa>> = const { std::cell::Cell::new(None) };
}

impl Isa {
    /// The best set that this machine has.
    pub(crate) fn detect() -> Isa {
        static BEST: LazyLock<Isa> = LazyLock::new(|| *Isa::available().first().expect("portable code runs"));
        #[cfg(test)]
        if let Some(isa) = TAKEN_FOR_BEST.get() {
            return isa;
        }
        *BEST
    }

    /// `f` as on a machine that has nothing better. It chooses on this thread, whatever threads the work is shared by.
    #[cfg(test)]
    pub(crate) fn run<R>(self, f: impl FnOnce() -> R) -> R {
        TAKEN_FOR_BEST.set(Some(self));
        let result = f();
        TAKEN_FOR_BEST.set(None);
        result
    }

    /// All sets that this machine has, the best first.
    pub(crate) fn available() -> Vec<Isa> {
        let mut sets = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            let fma = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
            if fma && is_x86_feature_detected!("avx512f") {
                sets.push(Isa::Avx512);
            }
            if fma {
                sets.push(Isa::Avx2);
            }
        }
        #[cfg(target_arch = "aarch64")]
        sets.push(Isa::Neon);
        sets.push(Isa::Portable);
        sets
    }
}

/// The name of the instruction set that kernels use on this machine.
pub fn instruction_set() -> &'static str {
    match Isa::detect() {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => "AVX-512",
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => "AVX2",
        #[cfg(target_arch = "aarch64")]
        Isa::Neon => "NEON",
        Isa::Portable => "portable code",
    }
}

/// A vector of `f32`.
///
/// # Safety
/// Every function may be called only on a machine that has the instruction set of the implementation,
/// and only from code compiled for it (otherwise nothing is inlined). Loads and stores reach `LANES`
/// elements from the pointer, the `_first` ones `count <= LANES`; none asks for alignment.
pub(crate) trait Lanes: Copy {
    /// Elements of a vector.
    const LANES: usize;
    /// All lanes `value`.
    unsafe fn splat(value: f32) -> Self;
    /// `LANES` elements.
    unsafe fn load(from: *const f32) -> Self;
    /// `LANES` elements.
    unsafe fn store(self, to: *mut f32);
    /// The first `count` elements, zeros behind them.
    unsafe fn load_first(from: *const f32, count: usize) -> Self;
    /// The first `count` elements; what lies behind is left as it is.
    unsafe fn store_first(self, to: *mut f32, count: usize);
    /// `self + other`.
    unsafe fn add(self, other: Self) -> Self;
    /// `self - other`.
    unsafe fn sub(self, other: Self) -> Self;
    /// `self · factor + addend`, rounded once where the machine can.
    unsafe fn mul_add(self, factor: Self, addend: Self) -> Self;
    /// The lanes of `other` where those of `self` are below 0, else those of `self`.
    unsafe fn where_negative(self, other: Self) -> Self;
    /// Of lanes that hold the bits of two bf16 each, the ones in the lower halves.
    unsafe fn low_bf16(self) -> Self;
    /// The ones in the upper halves.
    unsafe fn high_bf16(self) -> Self;
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::Lanes;
    use std::arch::x86_64::*;

    impl Lanes for __m512 {
        const LANES: usize = 16;

        #[inline(always)]
        unsafe fn splat(value: f32) -> Self {
            // SAFETY: as the trait.
            unsafe { _mm512_set1_ps(value) }
        }

        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            // SAFETY: as the trait.
            unsafe { _mm512_loadu_ps(from) }
        }

        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            // SAFETY: as the trait.
            unsafe { _mm512_storeu_ps(to, self) }
        }

        #[inline(always)]
        unsafe fn load_first(from: *const f32, count: usize) -> Self {
            // SAFETY: as the trait; masked lanes are not touched.
            unsafe { _mm512_maskz_loadu_ps(((1u32 << count) - 1) as __mmask16, from) }
        }

        #[inline(always)]
        unsafe fn store_first(self, to: *mut f32, count: usize) {
            // SAFETY: as the trait; masked lanes are not touched.
            unsafe { _mm512_mask_storeu_ps(to, ((1u32 << count) - 1) as __mmask16, self) }
        }

        #[inline(always)]
        unsafe fn add(self, other: Self) -> Self {
            // SAFETY: as the trait.
            unsafe { _mm512_add_ps(self, other) }
        }

        #[inline(always)]
        unsafe fn sub(self, other: Self) -> Self {
            // SAFETY: as the trait.
            unsafe { _mm512_sub_ps(self, other) }
        }

        #[inline(always)]
        unsafe fn mul_add(self, factor: Self, addend: Self) -> Self {
            // SAFETY: as the trait.
            unsafe { _mm512_fmadd_ps(self, factor, addend) }
        }

        #[inline(always)]
        unsafe fn where_negative(self, other: Self) -> Self {
            // SAFETY: as the trait.
            unsafe {
                let negative = _mm512_cmp_ps_mask::<_CMP_LT_OQ>(self, _mm512_setzero_ps());
                _mm512_mask_blend_ps(negative, self, other)
            }
        }

        #[inline(always)]
        unsafe fn low_bf16(self) -> Self {
            // SAFETY: as the trait.
            unsafe { _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_castps_si512(self))) }
        }

        #[inline(always)]
        unsafe fn high_bf16(self) -> Self {
            // SAFETY: as the trait.
            unsafe {
                let upper = _mm512_set1_epi32(0xffff_0000_u32 as i32);
                _mm512_castsi512_ps(_mm512_and_si512(_mm512_castps_si512(self), upper))
            }
        }
    }

    /// The mask of the first `count` of eight lanes.
    #[inline(always)]
    unsafe fn mask(count: usize) -> __m256i {
        const ONES_THEN_ZEROS: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];
        // SAFETY: count is at most 8, so the eight elements lie within the sixteen.
        unsafe { _mm256_loadu_si256(ONES_THEN_ZEROS.as_ptr().add(8 - count).cast()) }
    }

    impl Lanes for __m256 {
        const LANES: usize = 8;

        #[inline(always)]
        unsafe fn splat(value: f32) -> Self {
            // SAFETY: as the trait.
            unsafe { _mm256_set1_ps(value) }
        }

        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            // SAFETY: as the trait.
            unsafe { _mm256_loadu_ps(from) }
        }

        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            // SAFETY: as the trait.
            unsafe { _mm256_storeu_ps(to, self) }
        }

        #[inline(always)]
        unsafe fn load_first(from: *const f32, count: usize) -> Self {
            // SAFETY: as the trait; masked lanes are not touched.
            unsafe { if count == 8 { Self::load(from) } else { _mm256_maskload_ps(from, mask(count)) } }
        }

        #[inline(always)]
        unsafe fn store_first(self, to: *mut f32, count: usize) {
            // SAFETY: as the trait; masked lanes are not touched. Masked stores are slow on some machines.
            unsafe { if count == 8 { self.store(to) } else { _mm256_maskstore_ps(to, mask(count), self) } }
        }

        #[inline(always)]
        unsafe fn add(self, other: Self) -> Self {
            // SAFETY: as the trait.
            unsafe { _mm256_add_ps(self, other) }
        }

        #[inline(always)]
        unsafe fn sub(self, other: Self) -> Self {
            // SAFETY: as the trait.
            unsafe { _mm256_sub_ps(self, other) }
        }

        #[inline(always)]
        unsafe fn mul_add(self, factor: Self, addend: Self) -> Self {
            // SAFETY: as the trait.
            unsafe { _mm256_fmadd_ps(self, factor, addend) }
        }

        #[inline(always)]
        unsafe fn where_negative(self, other: Self) -> Self {
            // SAFETY: as the trait.
            unsafe { _mm256_blendv_ps(self, other, _mm256_cmp_ps::<_CMP_LT_OQ>(self, _mm256_setzero_ps())) }
        }

        #[inline(always)]
        unsafe fn low_bf16(self) -> Self {
            // SAFETY: as the trait.
            unsafe { _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_castps_si256(self))) }
        }

        #[inline(always)]
        unsafe fn high_bf16(self) -> Self {
            // SAFETY: as the trait.
            unsafe {
                let upper = _mm256_set1_epi32(0xffff_0000_u32 as i32);
                _mm256_castsi256_ps(_mm256_and_si256(_mm256_castps_si256(self), upper))
            }
        }
    }
}

#[cfg(target_arch = "aarch64")]
mod neon {
    use super::Lanes;
    use std::arch::aarch64::*;

    /// Eight lanes in two registers.
    #[derive(Clone, Copy)]
    pub(crate) struct Pair(float32x4_t, float32x4_t);

    impl Lanes for Pair {
        const LANES: usize = 8;

        #[inline(always)]
        unsafe fn splat(value: f32) -> Self {
            // SAFETY: as the trait.
            unsafe { Pair(vdupq_n_f32(value), vdupq_n_f32(value)) }
        }

        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            // SAFETY: as the trait.
            unsafe { Pair(vld1q_f32(from), vld1q_f32(from.add(4))) }
        }

        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            // SAFETY: as the trait.
            unsafe {
                vst1q_f32(to, self.0);
                vst1q_f32(to.add(4), self.1);
            }
        }

        #[inline(always)]
        unsafe fn load_first(from: *const f32, count: usize) -> Self {
            let mut lanes = [0.0; 8];
            // SAFETY: `count` elements may be read, as the trait asks, and fit into the eight.
            unsafe {
                from.copy_to_nonoverlapping(lanes.as_mut_ptr(), count);
                Self::load(lanes.as_ptr())
            }
        }

        #[inline(always)]
        unsafe fn store_first(self, to: *mut f32, count: usize) {
            let mut lanes = [0.0; 8];
            // SAFETY: `count` elements may be written, as the trait asks.
            unsafe {
                self.store(lanes.as_mut_ptr());
                to.copy_from_nonoverlapping(lanes.as_ptr(), count);
            }
        }

        #[inline(always)]
        unsafe fn add(self, other: Self) -> Self {
            // SAFETY: as the trait.
            unsafe { Pair(vaddq_f32(self.0, other.0), vaddq_f32(self.1, other.1)) }
        }

        #[inline(always)]
        unsafe fn sub(self, other: Self) -> Self {
            // SAFETY: as the trait.
            unsafe { Pair(vsubq_f32(self.0, other.0), vsubq_f32(self.1, other.1)) }
        }

        #[inline(always)]
        unsafe fn mul_add(self, factor: Self, addend: Self) -> Self {
            // SAFETY: as the trait.
            unsafe { Pair(vfmaq_f32(addend.0, self.0, factor.0), vfmaq_f32(addend.1, self.1, factor.1)) }
        }

        #[inline(always)]
        unsafe fn where_negative(self, other: Self) -> Self {
            // SAFETY: as the trait.
            unsafe {
                Pair(
                    vbslq_f32(vcltzq_f32(self.0), other.0, self.0),
                    vbslq_f32(vcltzq_f32(self.1), other.1, self.1),
                )
            }
        }

        #[inline(always)]
        unsafe fn low_bf16(self) -> Self {
            // SAFETY: as the trait.
            unsafe {
                let low = |cells| vreinterpretq_f32_u32(vshlq_n_u32::<16>(vreinterpretq_u32_f32(cells)));
                Pair(low(self.0), low(self.1))
            }
        }

        #[inline(always)]
        unsafe fn high_bf16(self) -> Self {
            // SAFETY: as the trait.
            unsafe {
                let upper = vdupq_n_u32(0xffff_0000);
                let high = |cells| vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(cells), upper));
                Pair(high(self.0), high(self.1))
            }
        }
    }
}

#[cfg(target_arch = "aarch64")]
pub(crate) use neon::Pair;

/// Eight lanes that the compiler maps to what the target has in any case.
#[derive(Clone, Copy)]
pub(crate) struct Array8([f32; 8]);

impl Lanes for Array8 {
    const LANES: usize = 8;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        Array8([value; 8])
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: as the trait.
        Array8(unsafe { from.cast::<[f32; 8]>().read_unaligned() })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: as the trait.
        unsafe { to.cast::<[f32; 8]>().write_unaligned(self.0) }
    }

    #[inline(always)]
    unsafe fn load_first(from: *const f32, count: usize) -> Self {
        let mut lanes = [0.0; 8];
        // SAFETY: `count` elements may be read, as the trait asks, and fit into the eight.
        unsafe { from.copy_to_nonoverlapping(lanes.as_mut_ptr(), count) };
        Array8(lanes)
    }

    #[inline(always)]
    unsafe fn store_first(self, to: *mut f32, count: usize) {
        // SAFETY: `count` elements may be written, as the trait asks.
        unsafe { to.copy_from_nonoverlapping(self.0.as_ptr(), count) };
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        Array8(std::array::from_fn(|i| self.0[i] + other.0[i]))
    }

    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        Array8(std::array::from_fn(|i| self.0[i] - other.0[i]))
    }

    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, addend: Self) -> Self {
        // Without the instruction a fused product is a slow call into the C library.
        Array8(std::array::from_fn(|i| {
            if cfg!(any(target_feature = "fma", target_arch = "aarch64")) {
                self.0[i].mul_add(factor.0[i], addend.0[i])
            } else {
                self.0[i] * factor.0[i] + addend.0[i]
            }
        }))
    }

    #[inline(always)]
    unsafe fn where_negative(self, other: Self) -> Self {
        Array8(std::array::from_fn(|i| if self.0[i] < 0.0 { other.0[i] } else { self.0[i] }))
    }

    #[inline(always)]
    unsafe fn low_bf16(self) -> Self {
        Array8(self.0.map(|bits| f32::from_bits(bits.to_bits() << 16)))
    }

    #[inline(always)]
    unsafe fn high_bf16(self) -> Self {
        Array8(self.0.map(|bits| f32::from_bits(bits.to_bits() & 0xffff_0000)))
    }
}
