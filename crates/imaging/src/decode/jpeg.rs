//! JPEG's markers.

use super::{CONVERT, Facts, Refusal, TO_RGB, scan};
use crate::metadata::{Density, IPTC_SIGNATURE};

const XMP_EXTENSION: &[u8] = b"http://ns.adobe.com/xmp/extension/\0";

/// The segments up to the end of the picture: marker, contents, and what lies behind.
pub(super) fn segments(bytes: &[u8]) -> impl Iterator<Item = (u8, &[u8], &[u8])> {
    let mut rest = bytes.get(2..).unwrap_or_default();
    std::iter::from_fn(move || {
        while rest.starts_with(&[0xff, 0xff]) {
            rest = &rest[1..];
        }
        let (&[0xff, marker, high, low], behind) = rest.split_first_chunk::<4>()? else { return None };
        if marker == END {
            return None;
        }
        let length = usize::from(u16::from_be_bytes([high, low])).checked_sub(2)?;
        let (contents, behind) = behind.split_at_checked(length)?;
        rest = if marker == SCAN { &behind[data_bytes(behind)..] } else { behind };
        Some((marker, contents, behind))
    })
}

const SCAN: u8 = 0xda;
const END: u8 = 0xd9;

/// The length of a scan's data, up to a marker that does not belong to it.
fn data_bytes(data: &[u8]) -> usize {
    let ends = |pair: &[u8]| pair[0] == 0xff && !matches!(pair[1], 0 | 0xd0..=0xd7 | 0xff);
    data.windows(2).position(ends).unwrap_or(data.len())
}

/// Values of all components for each pixel, where they come in several scans and are kept until the last: in a progressive
/// picture, and where the first scan has not all components.
pub(super) fn kept_values(bytes: &[u8]) -> Option<f64> {
    let (marker, frame, _) = segments(bytes).find(|(marker, ..)| matches!(marker, 0xc0..=0xc2))?;
    // Behind precision, sides and number of components: name, sampling across and down, table.
    let components = frame.get(6..)?.chunks_exact(3);
    let in_first_scan = segments(bytes).find(|(marker, ..)| *marker == SCAN)?.1.first()?;
    if marker != 0xc2 && usize::from(*in_first_scan) >= components.len() {
        return None;
    }
    let sampling: Vec<[u8; 2]> = components.map(|component| [component[1] >> 4, component[1] & 15]).collect();
    let most = |way: usize| sampling.iter().map(|each| each[way]).max().filter(|most| *most > 0);
    let whole = f64::from(most(0)?) * f64::from(most(1)?);
    Some(sampling.iter().map(|[across, down]| f64::from(*across) * f64::from(*down)).sum::<f64>() / whole)
}

pub(super) fn inspect(bytes: &[u8]) -> Result<Facts, Refusal> {
    let mut facts = Facts::default();
    let metadata = &mut facts.metadata;
    let mut iptc = Vec::new();
    for (marker, contents, _) in segments(bytes) {
        match marker {
            // The frame headers, which are not the tables and extensions between them.
            0xc0..=0xcf if !matches!(marker, 0xc4 | 0xc8 | 0xcc) => {
                let &[precision, rows, rows_low, across, across_low, components, ..] = contents else {
                    continue;
                };
                let kind = match marker {
                    _ if components == 4 => return Err(Refusal::unsupported("a CMYK picture", TO_RGB)),
                    0xc9..=0xcf => "an arithmetic-coded JPEG",
                    0xc3 => "a lossless JPEG",
                    0xc5..=0xc7 => "a hierarchical JPEG",
                    _ if precision != 8 => "a JPEG of more than 8 bits",
                    _ => "",
                };
                if !kind.is_empty() {
                    return Err(Refusal::unsupported(kind, CONVERT));
                }
                let pair = |high, low| u32::from(u16::from_be_bytes([high, low]));
                facts.size = Some((pair(across, across_low), pair(rows, rows_low)));
            }
            0xe0 if contents.starts_with(b"JFIF\0") => metadata.density = density(contents),
            0xe1 if contents.starts_with(XMP_EXTENSION) => metadata.unread("extended XMP"),
            SCAN => break,
            0xed => {
                // A block that one segment cannot hold goes on in the next.
                iptc.extend(contents.strip_prefix(IPTC_SIGNATURE).unwrap_or_default());
            }
            _ => {}
        }
    }
    metadata.iptc = Some(iptc).filter(|iptc| !iptc.is_empty());
    Ok(facts)
}

/// Whether the data of the picture goes on to its end.
pub(super) fn check_whole(bytes: &[u8]) -> Result<(), Refusal> {
    let damaged = |reason: &str| Refusal::Damaged(reason.into());
    let (_, _, last) = segments(bytes).last().ok_or_else(|| damaged("it has no segments"))?;
    if last.get(data_bytes(last)..).and_then(|rest| rest.get(1)) != Some(&END) {
        return Err(damaged("its end is missing"));
    }
    scan::check(bytes).map_err(damaged)
}

fn density(contents: &[u8]) -> Option<Density> {
    let per_inch = match contents.get(7)? {
        1 => 1.0,
        2 => 2.54,
        _ => return None,
    };
    let read = |at: usize| Some(f64::from(u16::from_be_bytes([*contents.get(at)?, *contents.get(at + 1)?])));
    Some(Density { x_dpi: read(8)? * per_inch, y_dpi: read(10)? * per_inch })
}
