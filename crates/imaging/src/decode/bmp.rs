//! BMP's header.

use super::{Facts, Refusal, Table};
use crate::metadata::Density;

/// Whether bytes that begin with BMP's two letters have one of its headers behind them.
pub(super) fn is(bytes: &[u8]) -> bool {
    let length = bytes.get(14..18).and_then(|bytes| bytes.try_into().ok()).map(u32::from_le_bytes);
    length.is_some_and(|length| [12, 16, 40, 52, 56, 64, 108, 124].contains(&length))
}

pub(super) fn inspect(bytes: &[u8]) -> Result<Facts, Refusal> {
    let mut facts = Facts::default();
    let long = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let short = |at: usize| Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
    // Older headers have neither a density nor sizes beyond the limit.
    if long(14).is_some_and(|header| header >= 40) {
        // Rows are counted below zero in a picture from the top down.
        facts.size = long(18).zip(long(22).map(|rows| (rows as i32).unsigned_abs()));
        facts.table = short(28).filter(|&bits| bits <= 8).map(|bits| {
            let colours =
                long(46).filter(|&colours| colours > 0).unwrap_or(1 << bits).min(1 << bits) as usize;
            let start = 14 + long(14).unwrap_or(0) as usize;
            let table = bytes.get(start..start + 4 * colours);
            table.map_or(Table::Colours, |table| {
                Table::of(table.as_chunks::<4>().0.iter().filter_map(|colour| colour.first_chunk()))
            })
        });
        facts.metadata.density = long(38).zip(long(42)).and_then(|(x, y)| Density::per_metre(x, y));
    }
    Ok(facts)
}
