//! Memory of the tests: a buffer of `f32` lies between pages that nobody may touch and ends, of four of them three, where
//! its pages end (the fourth begins where they begin), so that a kernel that leaves its slices by one element dies.

use libc::{MAP_ANON, MAP_FAILED, MAP_PRIVATE, PROT_NONE, PROT_READ, PROT_WRITE, mmap, mprotect, munmap};
use std::alloc::{GlobalAlloc, Layout, System};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicUsize, Ordering};

#[global_allocator]
static GUARDED: Guarded = Guarded;

struct Guarded;

const PAGE: usize = 4096;

/// Buffers of `f32`, known by their alignment.
fn is_guarded(layout: Layout) -> bool {
    layout.align() == align_of::<f32>()
}

// SAFETY: a guarded block is a mapping of its own, the others are the system's.
unsafe impl GlobalAlloc for Guarded {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        if !is_guarded(layout) {
            // SAFETY: as the caller.
            return unsafe { System.alloc(layout) };
        }
        let size = layout.size().next_multiple_of(PAGE);
        let behind = if COUNT.fetch_add(1, Ordering::Relaxed) % 4 == 3 { 0 } else { size - layout.size() };
        // SAFETY: a new mapping, of which all but the first and the last page are opened.
        unsafe {
            let start = mmap(null_mut(), size + 2 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANON, -1, 0);
            if start == MAP_FAILED || mprotect(start.byte_add(PAGE), size, PROT_READ | PROT_WRITE) != 0 {
                return null_mut();
            }
            start.byte_add(PAGE + behind).cast()
        }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        if !is_guarded(layout) {
            // SAFETY: as the caller.
            return unsafe { System.dealloc(at, layout) };
        }
        let size = layout.size().next_multiple_of(PAGE);
        // SAFETY: the mapping that `alloc` made begins a page before the one that the block begins in.
        unsafe { munmap(at.byte_sub(at as usize % PAGE + PAGE).cast(), size + 2 * PAGE) };
    }
}

#[test]
fn what_lies_beside_a_buffer_cannot_be_read() {
    let mut ends = [0; 2];
    // SAFETY: the call writes two descriptors.
    assert_eq!(unsafe { libc::pipe(ends.as_mut_ptr()) }, 0);
    // SAFETY: the kernel reads one byte, or says that it may not.
    let readable = |at: *const f32| unsafe { libc::write(ends[1], at.cast(), 1) == 1 };
    let (mut behind, mut before) = (0, 0);
    for length in 1..400 {
        let buffer = vec![1.0f32; 7 * length];
        let at = buffer.as_ptr();
        assert!(readable(at) && readable(at.wrapping_add(buffer.len() - 1)));
        behind += usize::from(!readable(at.wrapping_add(buffer.len())));
        before += usize::from(!readable(at.wrapping_sub(1)));
    }
    // SAFETY: both are ours.
    ends.iter().for_each(|end| assert_eq!(unsafe { libc::close(*end) }, 0));
    assert!(behind > 200 && before > 20, "{behind} guarded behind, {before} before");
}
