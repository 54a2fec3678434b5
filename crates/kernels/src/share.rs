//! An output that several threads write at once.

/// Start of an output whose elements are divided among tasks, each element written by one task alone.
#[derive(Clone, Copy)]
pub(crate) struct Shared(*mut f32);

impl Shared {
    pub(crate) fn new(output: &mut [f32]) -> Self {
        Shared(output.as_mut_ptr())
    }

    /// The element at `index`.
    ///
    /// # Safety
    /// It lies within the output.
    pub(crate) unsafe fn at(self, index: usize) -> *mut f32 {
        // SAFETY: as the caller.
        unsafe { self.0.add(index) }
    }
}

// SAFETY: whoever writes through the pointer keeps to the elements of the own task, as said there.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

/// Zeros for an output, in large pages where the system gives them: the first touch of fresh memory in
/// small pages can cost as much as the computation.
pub(crate) fn zeros(length: usize) -> Vec<f32> {
    let zeros = vec![0.0f32; length];
    #[cfg(target_os = "linux")]
    {
        const LARGE: usize = 2 << 20;
        let start = (zeros.as_ptr() as usize).next_multiple_of(4096);
        let end = (zeros.as_ptr() as usize + length * size_of::<f32>()) & !4095;
        if end.saturating_sub(start) >= 2 * LARGE {
            // SAFETY: the range lies within memory that is ours; the advice changes no content. If it is
            // refused, pages stay small.
            unsafe { libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_HUGEPAGE) };
        }
    }
    zeros
}
