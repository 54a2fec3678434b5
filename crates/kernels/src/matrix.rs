//! Matrix products on slices: a safe face for the `gemm` crate.

/// A matrix view: a slice with the distance between rows and between columns, in elements.
#[derive(Clone, Copy)]
pub struct View<'a> {
    /// The elements.
    pub data: &'a [f32],
    /// Elements from one row to the next.
    pub row_stride: usize,
    /// Elements from one column to the next.
    pub col_stride: usize,
}

impl<'a> View<'a> {
    /// A row-major matrix of `cols` columns.
    pub fn rows(data: &'a [f32], cols: usize) -> Self {
        View { data, row_stride: cols, col_stride: 1 }
    }

    /// The transpose of this view; nothing moves.
    pub fn transposed(self) -> Self {
        View { data: self.data, row_stride: self.col_stride, col_stride: self.row_stride }
    }
}

/// `out[m, n] (+)= a[m, k] · b[k, n]`, `out` row-major, on the calling thread.
///
/// With `accumulate` the product is added to what `out` holds.
///
/// # Panics
/// When a slice is shorter than its dimensions ask for.
pub fn product(out: &mut [f32], a: View, b: View, [m, n, k]: [usize; 3], accumulate: bool) {
    if m == 0 || n == 0 {
        return;
    }
    if k == 0 {
        if !accumulate {
            out[..m * n].fill(0.0);
        }
        return;
    }
    assert!(out.len() >= m * n, "output too small");
    assert!(a.data.len() > (m - 1) * a.row_stride + (k - 1) * a.col_stride, "left side too small");
    assert!(b.data.len() > (k - 1) * b.row_stride + (n - 1) * b.col_stride, "right side too small");
    // SAFETY: the three assertions above bound every element that the product reads or writes, and
    // `out` is borrowed mutably, so it overlaps neither input.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            n as isize,
            accumulate,
            a.data.as_ptr(),
            a.col_stride as isize,
            a.row_stride as isize,
            b.data.as_ptr(),
            b.col_stride as isize,
            b.row_stride as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}
