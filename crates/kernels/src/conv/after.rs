//! What the sums of a convolution go through while they are still near: written once, they need not be read again.

use crate::math::for_each_isa;
use crate::share::Shared;
use crate::simd::Isa;

/// What becomes of negative results.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Rectifier {
    /// They stay.
    #[default]
    None,
    /// They become 0.
    Relu,
    /// They are multiplied by this.
    Leaky(f32),
}

/// What follows a convolution, in this order.
#[derive(Clone, Copy, Debug, Default)]
pub struct After<'a> {
    /// Is added; of the output's shape.
    pub rest: Option<&'a [f32]>,
    /// Is applied.
    pub rectifier: Rectifier,
}

/// A part of the output: `rows` of `columns` sums.
#[derive(Clone, Copy)]
pub(super) struct Part {
    /// Of the first sum, in the output.
    pub at: usize,
    pub rows: usize,
    /// From one row to the next.
    pub row: usize,
    pub columns: usize,
}

impl After<'_> {
    /// Applies it to a part of the output.
    ///
    /// # Safety
    /// The part lies within the output, was written, and belongs to the caller's task; `rest` is as long as the output.
    pub(super) unsafe fn apply(&self, isa: Isa, output: Shared, part: Part) {
        if self.rest.is_none() && self.rectifier == Rectifier::None {
            return;
        }
        // SAFETY: as the caller says.
        let y = unsafe { output.at(part.at) };
        finish(isa, Rows { y, part }, self.rest.map(|rest| &rest[part.at..]), self.rectifier);
    }
}

/// Made where the part may be written.
struct Rows {
    y: *mut f32,
    part: Part,
}

#[inline(always)]
fn finish_rows<const FUSED: bool>(rows: Rows, rest: Option<&[f32]>, rectifier: Rectifier) {
    let Part { rows: count, row, columns, .. } = rows.part;
    for index in 0..count {
        // SAFETY: as who made the rows says.
        let y = unsafe { std::slice::from_raw_parts_mut(rows.y.add(index * row), columns) };
        if let Some(rest) = rest {
            for (y, rest) in y.iter_mut().zip(&rest[index * row..][..columns]) {
                *y += *rest;
            }
        }
        match rectifier {
            Rectifier::None => {}
            // Comparing so lets what is not a number through.
            Rectifier::Relu => y.iter_mut().for_each(|y| *y = if *y < 0.0 { 0.0 } else { *y }),
            Rectifier::Leaky(slope) => {
                y.iter_mut().for_each(|y| *y = if *y < 0.0 { slope * *y } else { *y });
            }
        }
    }
}

for_each_isa! {
    fn finish(rows: Rows, rest: Option<&[f32]>, rectifier: Rectifier) = finish_rows
}
