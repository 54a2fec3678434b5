//! In which numbers products are formed.

use crate::bf16;
use crate::tile::Cells;

/// In which numbers factors are multiplied; sums are always `f32`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Products {
    /// As they are.
    #[default]
    F32,
    /// Both factors rounded to bf16 (8 bits of mantissa). Twice as fast where [`crate::bf16_is_fast`], and half the
    /// memory for a weight everywhere.
    Bf16,
}

impl Products {
    /// The cells to form them with on this machine.
    pub(crate) fn cells(self) -> Cells {
        match self {
            Products::F32 => Cells::Single,
            Products::Bf16 => bf16::cells(),
        }
    }
}
