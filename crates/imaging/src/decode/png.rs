//! PNG's chunks: metadata wherever it lies, also behind the pixels, and what the file says of its colours.

use super::{Facts, Refusal};
use crate::metadata::{Density, EXIF_SIGNATURE, Metadata, XMP_SIGNATURE, iptc_resource};
use std::io::Read;

/// Bytes that a compressed text may grow to.
const TEXT_LIMIT: u64 = 64 << 20;

pub(super) fn inspect(bytes: &[u8]) -> Result<Facts, Refusal> {
    let mut facts = Facts::default();
    let metadata = &mut facts.metadata;
    for (kind, contents) in chunks(bytes) {
        match &kind {
            b"IHDR" => {
                facts.size = long(contents, 0).zip(long(contents, 4));
                facts.indexed = contents.get(9) == Some(&3);
            }
            b"acTL" => {
                return Err(Refusal::unsupported("an animated PNG", "save one of its frames as a picture"));
            }
            // The only unit is the metre.
            b"pHYs" if contents.get(8) == Some(&1) => {
                let across_down = long(contents, 0).zip(long(contents, 4));
                metadata.density = across_down.and_then(|(x, y)| Density::per_metre(x, y));
            }
            b"eXIf" => metadata.exif = Some(contents.to_vec()),
            b"tEXt" | b"zTXt" | b"iTXt" => match text(kind, contents) {
                Some((keyword, text)) => keep(metadata, keyword, text),
                None => metadata.unread("a broken text"),
            },
            _ => {}
        }
    }
    Ok(facts)
}

/// Kinds and contents, as far as they are whole.
fn chunks(bytes: &[u8]) -> impl Iterator<Item = ([u8; 4], &[u8])> {
    let mut rest = bytes.get(8..).unwrap_or_default();
    std::iter::from_fn(move || {
        let (length, behind) = rest.split_first_chunk::<4>()?;
        let (kind, behind) = behind.split_first_chunk::<4>()?;
        let (contents, behind) = behind.split_at_checked(u32::from_be_bytes(*length) as usize)?;
        // Behind the checksum.
        rest = behind.get(4..).unwrap_or_default();
        Some((*kind, contents))
    })
}

fn long(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// The keyword and the text of any of the three kinds of chunks for text.
fn text(kind: [u8; 4], contents: &[u8]) -> Option<(&[u8], Vec<u8>)> {
    let cut = |bytes: &'_ [u8]| bytes.iter().position(|&byte| byte == 0);
    let (keyword, rest) = contents.split_at_checked(cut(contents)?)?;
    let mut rest = rest.get(1..)?;
    let mut packed = kind == *b"zTXt";
    if kind == *b"iTXt" {
        packed = *rest.first()? == 1;
        rest = rest.get(1..)?;
    }
    if kind != *b"tEXt" {
        // The method, of which there is one.
        rest = rest.get(1..)?;
    }
    if kind == *b"iTXt" {
        // The language, and the keyword in it.
        for _ in 0..2 {
            rest = rest.get(cut(rest)? + 1..)?;
        }
    }
    if !packed {
        return Some((keyword, rest.to_vec()));
    }
    let mut text = Vec::new();
    flate2::read::ZlibDecoder::new(rest).take(TEXT_LIMIT).read_to_end(&mut text).ok()?;
    Some((keyword, text))
}

/// Takes a text as the block of metadata that it holds.
fn keep(metadata: &mut Metadata, keyword: &[u8], text: Vec<u8>) {
    if keyword == b"XML:com.adobe.xmp" {
        metadata.xmp = Some(text);
        return;
    }
    let Some(name) = keyword.strip_prefix(b"Raw profile type ") else { return metadata.unread("texts") };
    let Some(block) = hex(&text) else { return metadata.unread("a broken block of metadata") };
    match name {
        b"exif" | b"app1" | b"APP1" => match block.strip_prefix(XMP_SIGNATURE) {
            Some(xmp) => metadata.xmp = metadata.xmp.take().or_else(|| Some(xmp.to_vec())),
            None => {
                let exif = block.strip_prefix(EXIF_SIGNATURE).unwrap_or(&block);
                metadata.exif = metadata.exif.take().or_else(|| Some(exif.to_vec()));
            }
        },
        b"iptc" | b"8bim" => metadata.iptc = metadata.iptc.take().or_else(|| Some(iptc_resource(&block))),
        b"xmp" => metadata.xmp = metadata.xmp.take().or(Some(block)),
        _ => metadata.unread("a block of metadata"),
    }
}

/// A block as ImageMagick began to write it: a line for its name, one for its length, then digits in base 16.
fn hex(text: &[u8]) -> Option<Vec<u8>> {
    let text = str::from_utf8(text).ok()?.trim_start();
    let (_, behind) = text.split_once('\n')?;
    let (length, digits) = behind.trim_start().split_once('\n')?;
    let digits: Vec<u8> =
        digits.chars().filter_map(|digit| digit.to_digit(16)).map(|digit| digit as u8).collect();
    let block: Vec<u8> = digits.as_chunks::<2>().0.iter().map(|[high, low]| high << 4 | low).collect();
    (block.len() == length.trim().parse().ok()?).then_some(block)
}
