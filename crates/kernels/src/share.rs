//! The threads, and memory for outputs, which several of them write at once.

use std::mem::MaybeUninit;

/// Runs `work` on one of the threads that kernels share their work among. Called from any other thread, each kernel
/// would hand over to them and sleep.
pub fn on_workers<R: Send>(work: impl FnOnce() -> R + Send) -> R {
    rayon::scope(|_| work())
}

/// Start of an output whose elements are divided among tasks, each element written by one task alone.
#[derive(Clone, Copy)]
pub(crate) struct Shared(*mut f32);

impl Shared {
    pub(crate) fn new(output: &mut [f32]) -> Self {
        Shared(output.as_mut_ptr())
    }

    /// Of an output in which nothing stands yet.
    pub(crate) fn room(room: &mut [MaybeUninit<f32>]) -> Self {
        Shared(room.as_mut_ptr().cast())
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

/// Zeros for an output that is added to.
pub(crate) fn zeros(length: usize) -> Vec<f32> {
    let zeros = vec![0.0f32; length];
    in_large_pages(zeros.as_ptr(), length);
    zeros
}

/// An output of `length` elements that `write` fills; zeros would only be written for nothing, and by one thread.
///
/// # Safety
/// `write` writes every element before it returns, and reads none that it has not written.
pub(crate) unsafe fn filled(length: usize, write: impl FnOnce(&mut [MaybeUninit<f32>])) -> Vec<f32> {
    let mut output = Vec::with_capacity(length);
    in_large_pages(output.as_ptr(), length);
    write(&mut output.spare_capacity_mut()[..length]);
    // SAFETY: the elements lie within the capacity and, as the caller says, were written.
    unsafe { output.set_len(length) };
    output
}

/// Asks for large pages: the first touch of fresh memory in small pages can cost as much as the computation.
fn in_large_pages(at: *const f32, length: usize) {
    #[cfg(target_os = "linux")]
    {
        const LARGE: usize = 2 << 20;
        let start = (at as usize).next_multiple_of(4096);
        let end = (at as usize + length * size_of::<f32>()) & !4095;
        if end.saturating_sub(start) >= 2 * LARGE {
            // SAFETY: the range lies within memory that is ours; the advice changes no content. If it is
            // refused, pages stay small.
            unsafe { libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_HUGEPAGE) };
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (at, length);
}
