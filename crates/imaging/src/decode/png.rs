//! PNG's chunks: metadata wherever it lies, also behind the pixels, and what the file says of its colours.

use super::{Facts, Refusal, Table};
use crate::metadata::{Density, Metadata, XMP_SIGNATURE, iptc_resource};
use crate::profile;
use image::codecs::png::PngDecoder;
use image::{ImageResult, Limits};
use std::io::{Cursor, Read};

/// Bytes that all compressed metadata of a file may grow to: a megabyte can hold a thousand times as much.
const UNPACKED_LIMIT: u64 = 32 << 20;

/// A decoder that does not unpack an endless profile, whatever it is asked for.
pub(super) fn decoder(bytes: &[u8]) -> ImageResult<PngDecoder<Cursor<&[u8]>>> {
    let row_bytes = long(bytes, 16).map_or(0, |width_px| u64::from(width_px) * 8);
    let mut limits = Limits::no_limits();
    // Chunks as they lie in the file, copied as they grow, and two rows of pixels.
    limits.max_alloc = Some(UNPACKED_LIMIT + 4 * bytes.len() as u64 + 2 * row_bytes);
    PngDecoder::with_limits(Cursor::new(bytes), limits)
}

pub(super) fn inspect(bytes: &[u8]) -> Result<Facts, Refusal> {
    let mut facts = Facts::default();
    let mut room = UNPACKED_LIMIT;
    let metadata = &mut facts.metadata;
    let mut colours = Colours::default();
    for (kind, contents) in chunks(bytes) {
        match &kind {
            b"IHDR" => {
                facts.size = long(contents, 0).zip(long(contents, 4));
                facts.table = (contents.get(9) == Some(&3)).then_some(Table::Colours);
                colours.grey = matches!(contents.get(9), Some(0 | 4));
            }
            b"PLTE" if facts.table.is_some() => {
                facts.table = Some(Table::of(contents.as_chunks().0.iter()));
            }
            b"acTL" => {
                return Err(Refusal::unsupported("an animated PNG", "save one of its frames as a picture"));
            }
            b"iCCP" => {
                colours.told = true;
                match profile_of(contents, &mut room) {
                    Some(profile) => colours.profile = colours.profile.take().or(Some(profile)),
                    None => metadata.unread("a broken colour profile"),
                }
            }
            b"sRGB" => colours.told = true,
            b"gAMA" => colours.gamma = long(contents, 0).filter(|&gamma| gamma > 0).map(per_100_000),
            b"cHRM" => {
                let xy: Option<Vec<f32>> = (0..8).map(|i| long(contents, 4 * i).map(per_100_000)).collect();
                colours.chromaticities = xy.and_then(|xy| xy.try_into().ok());
            }
            b"cICP" => colours.code_points = contents.first_chunk().copied(),
            // The only unit is the metre.
            b"pHYs" if contents.get(8) == Some(&1) => {
                let across_down = long(contents, 0).zip(long(contents, 4));
                metadata.density = across_down.and_then(|(x, y)| Density::per_metre(x, y));
            }
            b"eXIf" => metadata.exif = Some(contents.to_vec()),
            b"tEXt" | b"zTXt" | b"iTXt" => match text(kind, contents, &mut room) {
                Some((keyword, text)) => keep(metadata, keyword, text),
                None => metadata.unread("a broken text"),
            },
            _ => {}
        }
    }
    let profile = colours.profile.take();
    colours.into_profile(metadata)?;
    metadata.icc = metadata.icc.take().or(profile);
    Ok(facts)
}

/// What the file says of its colours.
#[derive(Default)]
struct Colours {
    grey: bool,
    /// Whether a profile tells them, or the words that they are sRGB.
    told: bool,
    profile: Option<Vec<u8>>,
    /// The power from light to stored values.
    gamma: Option<f32>,
    /// x and y of white, red, green and blue.
    chromaticities: Option<[f32; 8]>,
    /// Primaries, transfer, matrix, and whether the range is full, by ITU-T H.273.
    code_points: Option<[u8; 4]>,
}

impl Colours {
    const SRGB_GAMMA: f32 = 0.45455;
    const SRGB_CHROMATICITIES: [f32; 8] = [0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06];

    /// Puts a profile in place of what is not sRGB. The code points come before a profile of the file's, the
    /// gamma and the chromaticities behind it (PNG specification, third edition, 4.3).
    fn into_profile(self, metadata: &mut Metadata) -> Result<(), Refusal> {
        const HINT: &str = "save it without HDR first";
        match self.code_points {
            Some([_, 16, ..]) => return Err(Refusal::unsupported("an HDR picture (PQ)", HINT)),
            Some([_, 18, ..]) => return Err(Refusal::unsupported("an HDR picture (HLG)", HINT)),
            Some([1, 13, 0, 1]) => return Ok(()),
            // Other primaries make no other grey.
            Some([_, 13, 0, 1]) if self.grey => return Ok(()),
            Some([primaries, transfer, 0, 1]) if !self.grey => {
                metadata.icc = profile::of_code_points(primaries, transfer);
            }
            _ => {}
        }
        if self.code_points.is_some() && metadata.icc.is_none() {
            metadata.unread("its colour code points");
        }
        if self.told || metadata.icc.is_some() {
            return Ok(());
        }
        let near = |a: f32, b: f32| (a - b).abs() < 0.005;
        let gamma = self.gamma.filter(|&gamma| !near(gamma, Self::SRGB_GAMMA));
        let chromaticities = self
            .chromaticities
            .filter(|xy| !xy.iter().zip(Self::SRGB_CHROMATICITIES).all(|(&a, b)| near(a, b)));
        if self.grey && gamma.is_some() {
            metadata.unread("a gamma of greys");
        }
        if !self.grey && (gamma.is_some() || chromaticities.is_some()) {
            let power = self.gamma.unwrap_or(Self::SRGB_GAMMA).recip();
            metadata.icc = profile::of_power(power, chromaticities);
        }
        Ok(())
    }
}

fn per_100_000(value: u32) -> f32 {
    value as f32 / 100_000.0
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
fn text<'a>(kind: [u8; 4], contents: &'a [u8], room: &mut u64) -> Option<(&'a [u8], Vec<u8>)> {
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
    Some((keyword, unpacked(rest, room)?))
}

/// The colour profile: behind its name and the method, of which there is one.
fn profile_of(contents: &[u8], room: &mut u64) -> Option<Vec<u8>> {
    let name = contents.iter().position(|&byte| byte == 0)?;
    unpacked(contents.get(name + 2..)?, room)
}

/// What was compressed, where there is room for it.
fn unpacked(packed: &[u8], room: &mut u64) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = flate2::read::ZlibDecoder::new(packed).take(*room).read_to_end(&mut bytes);
    *room -= bytes.len() as u64;
    read.ok().filter(|_| *room > 0)?;
    Some(bytes)
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
            None => metadata.exif = metadata.exif.take().or(Some(block)),
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
