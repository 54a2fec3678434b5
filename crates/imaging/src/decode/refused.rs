//! Formats that people try and that are not decoded, with what to do.

use super::{CONVERT, Refusal};
use crate::fields::Fields;

const DEVELOP: &str = "develop it to a 16-bit TIFF first, or build with `--features raw`";

const CONVERT_OR_BUILD: &str = "convert it to JPEG, PNG or TIFF first, or build with `--features heic`";

pub(super) fn check(bytes: &[u8]) -> Result<(), Refusal> {
    match named(bytes) {
        Some((format, hint)) => Err(Refusal::unsupported(format, hint)),
        None => Ok(()),
    }
}

fn named(bytes: &[u8]) -> Option<(&'static str, &'static str)> {
    let at = |offset: usize, magic: &[u8]| has(bytes, offset, magic);
    if cfg!(feature = "heic") && is_heic(bytes) || cfg!(feature = "raw") && is_raw(bytes) {
        return None;
    }
    if let Some(brands) = brands(bytes) {
        return Some(by_brand(&brands));
    }
    if at(0, b"GIF8") {
        return Some(("GIF", "save one of its frames as PNG"));
    }
    if at(0, b"%PDF") {
        return Some(("PDF", "take its pictures out first"));
    }
    if at(0, b"8BPS") {
        return Some(("Photoshop's PSD", "save it flat as TIFF or PNG"));
    }
    is_raw(bytes).then_some(("camera RAW", DEVELOP))
}

fn has(bytes: &[u8], offset: usize, magic: &[u8]) -> bool {
    bytes.get(offset..offset + magic.len()) == Some(magic)
}

/// Whether a file is JPEG XL, bare or in its container.
pub(super) fn is_jxl(bytes: &[u8]) -> bool {
    has(bytes, 0, b"\xff\x0a") || has(bytes, 0, b"\0\0\0\x0cJXL \r\n\x87\n")
}

/// Whether a file is HEIC by its brands.
pub(super) fn is_heic(bytes: &[u8]) -> bool {
    brands(bytes).is_some_and(|brands| by_brand(&brands).0 == HEIC)
}

/// Whether a file is a camera's raw data.
pub(super) fn is_raw(bytes: &[u8]) -> bool {
    let starts = [&b"FUJIFILMCCD-RAW"[..], b"IIU\0", b"IIRO", b"IIRS", b"MMOR"];
    starts.iter().any(|start| bytes.starts_with(start))
        || has(bytes, 8, b"CR\x02")
        || brands(bytes).is_some_and(|brands| by_brand(&brands).0 == CR3)
        || Fields::of(bytes).is_some_and(|tiff| holds_raw(&tiff))
}

const HEIC: &str = "HEIC";

const CR3: &str = "camera RAW (CR3)";

/// What a file in the container that films came with says it follows.
fn brands(bytes: &[u8]) -> Option<Vec<[u8; 4]>> {
    if !has(bytes, 4, b"ftyp") {
        return None;
    }
    let length = bytes.first_chunk().map_or(0, |length| u32::from_be_bytes(*length) as usize);
    let header = bytes.get(..length).unwrap_or(bytes);
    Some(header.get(8..).unwrap_or_default().as_chunks::<4>().0.to_vec())
}

/// The formats in that container.
fn by_brand(brands: &[[u8; 4]]) -> (&'static str, &'static str) {
    // The brand that leads may name the container only; those that follow behind a version are as good.
    let any = |names: &[&[u8; 4]]| brands.iter().any(|brand| names.contains(&brand));
    if any(&[b"avif", b"avis"]) {
        ("AVIF", CONVERT)
    } else if any(&[b"crx "]) {
        (CR3, DEVELOP)
    } else if any(&[b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1"]) {
        (HEIC, CONVERT_OR_BUILD)
    } else {
        ("a film", "take a frame out of it as a picture")
    }
}

/// Whether a TIFF structure holds a camera's raw data in any of its directories: DNG's version, a colour
/// filter array, or a camera maker's compression.
fn holds_raw(tiff: &Fields) -> bool {
    const SUB_DIRECTORIES: u16 = 330;
    let mut open = vec![tiff.first()];
    // A file with more directories than this is no camera's, or goes in circles.
    for _ in 0..64 {
        let Some(directory) = open.pop() else { return false };
        let is = |tag, values: &[u32]| {
            tiff.entry(directory, tag)
                .is_some_and(|entry| tiff.numbers(entry).iter().any(|value| values.contains(value)))
        };
        if tiff.entry(directory, 50706).is_some()
            || tiff.entry(directory, 33422).is_some()
            || is(262, &[32803, 34892])
            || is(259, &[32767, 32769, 32770, 34713, 65535, 65000])
        {
            return true;
        }
        let below = tiff.entry(directory, SUB_DIRECTORIES).map_or(Vec::new(), |entry| tiff.numbers(entry));
        open.extend(below.into_iter().chain([tiff.next(directory)]).filter(|&at| at != 0));
    }
    false
}
