//! WebP's first chunk.

use super::{Facts, Refusal};

pub(super) fn inspect(bytes: &[u8]) -> Result<Facts, Refusal> {
    let mut facts = Facts::default();
    // Only the extended header can name sizes beyond the limit, or an animation.
    if bytes.get(12..16) == Some(b"VP8X") {
        if bytes.get(20).is_some_and(|flags| flags & 2 != 0) {
            return Err(Refusal::unsupported("an animated WebP", "save one of its frames as a picture"));
        }
        let size = |at: usize| {
            let value = bytes.get(at..at + 3)?;
            Some(1 + u32::from_le_bytes([value[0], value[1], value[2], 0]))
        };
        facts.size = size(24).zip(size(27));
    }
    Ok(facts)
}

/// Whether its colours are compressed with loss.
pub(super) fn is_lossy(bytes: &[u8]) -> bool {
    let mut rest = bytes.get(12..).unwrap_or_default();
    while let Some((head, behind)) = rest.split_first_chunk::<8>() {
        match &head[..4] {
            b"VP8 " => return true,
            b"VP8L" => return false,
            _ => {}
        }
        let length = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
        rest = behind.get(length.next_multiple_of(2)..).unwrap_or_default();
    }
    false
}
