//! An output that several threads write at once.

/// Start of an output whose elements are divided among tasks, each element written by one task alone.
#[derive(Clone, Copy)]
pub(crate) struct Shared(pub *mut f32);

// SAFETY: whoever writes through the pointer keeps to the elements of the own task, as said there.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}
