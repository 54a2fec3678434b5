//! From a file's bytes to a photograph. What a file is follows from its content, never from its name.

mod bmp;
mod jpeg;
mod png;
mod refused;
mod scan;
mod tiff;
mod webp;

use crate::error::DecodeError;
use crate::metadata::{EXIF_SIGNATURE, Metadata};
use crate::photo::{Photo, Samples};
use crate::profile::{Profile, Reading};
use image::codecs::{bmp::BmpDecoder, jpeg::JpegDecoder, tiff::TiffDecoder, webp::WebPDecoder};
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, Limits};
use std::io::Cursor;
use std::path::Path;

/// Pixels that a picture may have. A decoded 16-bit RGBA picture of this size takes 3.2 GB.
const LIMIT_MEGAPIXELS: u64 = 400;

/// What a file says of its picture before the pixels are decoded.
#[derive(Default)]
struct Facts {
    /// What the library's decoder does not find, or not rightly.
    metadata: Metadata,
    /// Pixels a row and rows, as far as they are read here.
    size: Option<(u32, u32)>,
    /// Whether the colours come out of a table.
    indexed: bool,
    /// Whether the colours are already multiplied by the opacity.
    premultiplied: bool,
}

/// Why a file is refused, without its name.
enum Refusal {
    /// The kind of picture in it, and what to do.
    Unsupported(String, &'static str),
    /// What is wrong with it.
    Damaged(String),
}

impl Refusal {
    fn unsupported(kind: impl Into<String>, hint: &'static str) -> Self {
        Self::Unsupported(kind.into(), hint)
    }

    fn of(error: ImageError) -> Self {
        match error {
            ImageError::Unsupported(error) => {
                Self::unsupported(format!("this kind of picture ({error})"), CONVERT)
            }
            error => Self::Damaged(error.to_string()),
        }
    }

    fn in_file(self, file: &str) -> DecodeError {
        let file = file.to_string();
        match self {
            Self::Unsupported(format, hint) => DecodeError::Unsupported { file, format, hint: hint.into() },
            Self::Damaged(reason) => DecodeError::Damaged { file, reason },
        }
    }
}

/// What to do with a picture that other programs can read.
const CONVERT: &str = "convert it to JPEG, PNG or TIFF of 8 or 16 bits first";

/// What to do with CMYK and its like.
const TO_RGB: &str = "convert it to RGB first";

/// Reads and decodes a file.
pub fn decode(path: &Path) -> Result<Photo, DecodeError> {
    let file = path.display().to_string();
    let bytes = std::fs::read(path).map_err(|source| DecodeError::Read { file: file.clone(), source })?;
    decode_bytes(&bytes, &file)
}

/// Width and height that a file's bytes claim; pixels are not decoded.
pub fn size(bytes: &[u8], file: &str) -> Result<(u32, u32), DecodeError> {
    let format = picture_format(bytes, file)?;
    let reader = Cursor::new(bytes);
    let size = match format {
        ImageFormat::Png => png::decoder(bytes).map(|decoder| decoder.dimensions()),
        ImageFormat::Jpeg => JpegDecoder::new(reader).map(|decoder| decoder.dimensions()),
        ImageFormat::WebP => WebPDecoder::new(reader).map(|decoder| decoder.dimensions()),
        ImageFormat::Tiff => match tiff::GreyWithOpacity::of(bytes) {
            Some(decoder) => Ok(decoder.dimensions()),
            None => TiffDecoder::new(reader).map(|decoder| decoder.dimensions()),
        },
        _ => BmpDecoder::new(reader).map(|decoder| decoder.dimensions()),
    }
    .map_err(|error| Refusal::of(error).in_file(file))?;
    check_size(size, file)?;
    Ok(size)
}

/// The usual ending of names for what a file's bytes are, where they are a picture that is decoded.
pub fn extension_of(bytes: &[u8]) -> Option<&'static str> {
    Some(match format_of(bytes)? {
        ImageFormat::Png => "png",
        ImageFormat::Jpeg => "jpg",
        ImageFormat::WebP => "webp",
        ImageFormat::Tiff => "tiff",
        _ => "bmp",
    })
}

/// The format of a file's bytes, if they are a picture that is decoded.
fn picture_format(bytes: &[u8], file: &str) -> Result<ImageFormat, DecodeError> {
    if bytes.is_empty() {
        return Err(DecodeError::Empty { file: file.into() });
    }
    refused::check(bytes).map_err(|refusal| refusal.in_file(file))?;
    format_of(bytes).ok_or_else(|| DecodeError::NotAPicture { file: file.into() })
}

/// Decodes a file's bytes; `file` is its name in errors.
pub fn decode_bytes(bytes: &[u8], file: &str) -> Result<Photo, DecodeError> {
    let format = picture_format(bytes, file)?;
    let refuse = |refusal: Refusal| refusal.in_file(file);
    let facts = match format {
        ImageFormat::Png => png::inspect(bytes),
        ImageFormat::Jpeg => jpeg::inspect(bytes),
        ImageFormat::WebP => webp::inspect(bytes),
        ImageFormat::Tiff => tiff::inspect(bytes),
        _ => bmp::inspect(bytes),
    }
    .map_err(refuse)?;
    if let Some(size) = facts.size {
        check_size(size, file)?;
    }
    if format == ImageFormat::Jpeg {
        jpeg::check_whole(bytes).map_err(refuse)?;
    }
    let reader = Cursor::new(bytes);
    let failed = |error| Refusal::of(error).in_file(file);
    let mut photo = match format {
        ImageFormat::Png => read(png::decoder(bytes).map_err(failed)?, facts, file),
        ImageFormat::Jpeg => read(JpegDecoder::new(reader).map_err(failed)?, facts, file),
        ImageFormat::WebP => read(WebPDecoder::new(reader).map_err(failed)?, facts, file),
        ImageFormat::Tiff => match tiff::GreyWithOpacity::of(bytes) {
            Some(decoder) => read(decoder, facts, file),
            None => read(TiffDecoder::new(reader).map_err(failed)?, facts, file),
        },
        _ => read(BmpDecoder::new(reader).map_err(failed)?, facts, file),
    }?;
    if let Some(icc) = &photo.metadata.icc {
        match Profile::read(icc, photo.channels) {
            Reading::AsIs => {}
            Reading::Convert(profile) => photo.profile = Some(profile),
            Reading::Unsupported(space) => {
                return Err(refuse(Refusal::unsupported(format!("a picture in {space}"), TO_RGB)));
            }
        }
    }
    Ok(photo)
}

/// One of the formats that are decoded.
fn format_of(bytes: &[u8]) -> Option<ImageFormat> {
    use ImageFormat::{Bmp, Jpeg, Png, Tiff, WebP};
    // The library does not know the start of TIFFs with long offsets.
    if bytes.starts_with(b"II+\0") || bytes.starts_with(b"MM\0+") {
        return Some(Tiff);
    }
    let format = image::guess_format(bytes).ok()?;
    // Texts may begin with the two letters of BMP.
    ([Jpeg, Png, Tiff, WebP].contains(&format) || format == Bmp && bmp::is(bytes)).then_some(format)
}

fn check_size((width, height): (u32, u32), file: &str) -> Result<(), DecodeError> {
    if width == 0 || height == 0 {
        return Err(Refusal::Damaged("it claims no pixels".into()).in_file(file));
    }
    if u64::from(width) * u64::from(height) <= LIMIT_MEGAPIXELS * 1_000_000 {
        return Ok(());
    }
    Err(DecodeError::TooLarge { file: file.into(), width, height, limit_megapixels: LIMIT_MEGAPIXELS })
}

/// What a picture's file is, in one line for a person.
pub fn describe(bytes: &[u8], file: &str) -> Result<String, DecodeError> {
    let photo = decode_bytes(bytes, file)?;
    let format = format_of(bytes).map_or("picture", |format| format.extensions_str()[0]);
    let has = |block: &Option<Vec<u8>>, name: &str| block.as_ref().map(|_| name.to_string());
    let mut parts = vec![
        format.to_uppercase(),
        format!("{} x {} pixels", photo.width_px, photo.height_px),
        format!("{} bits", if photo.is_deep() { 16 } else { 8 }),
        (if photo.channels == 1 { "grey" } else { "RGB" }).to_string(),
    ];
    parts.extend(photo.alpha.as_ref().map(|_| "alpha".to_string()));
    let meta = &photo.metadata;
    parts.extend(meta.density.map(|d| format!("{:.0} dpi", d.x_dpi)));
    for block in
        [has(&meta.icc, "ICC"), has(&meta.exif, "EXIF"), has(&meta.xmp, "XMP"), has(&meta.iptc, "IPTC")]
    {
        parts.extend(block);
    }
    Ok(parts.join(", "))
}

fn read<D: ImageDecoder>(mut decoder: D, facts: Facts, file: &str) -> Result<Photo, DecodeError> {
    let failed = |error| Refusal::of(error).in_file(file);
    let (width, height) = decoder.dimensions();
    check_size((width, height), file)?;
    // Metadata that cannot be read is no reason to refuse the pixels.
    let mut metadata = facts.metadata;
    metadata.icc = metadata.icc.or_else(|| decoder.icc_profile().ok().flatten());
    metadata.exif = metadata.exif.or_else(|| decoder.exif_metadata().ok().flatten());
    // Some writers put JPEG's signature in front in other formats too.
    metadata.exif = metadata.exif.map(|exif| match exif.strip_prefix(EXIF_SIGNATURE) {
        Some(bare) => bare.to_vec(),
        None => exif,
    });
    metadata.xmp = metadata.xmp.or_else(|| decoder.xmp_metadata().ok().flatten());
    // Behind the metadata, because the TIFF decoder counts the size of tags against the limit of pixels.
    let mut limits = Limits::no_limits();
    // Decoders with buffers of their own need a multiple of the picture.
    limits.max_alloc = Some(u64::from(width) * u64::from(height) * 32 + (64 << 20));
    decoder.set_limits(limits).map_err(failed)?;
    let orientation = match metadata.take_orientation() {
        Orientation::NoTransforms => decoder.orientation().unwrap_or(Orientation::NoTransforms),
        orientation => orientation,
    };
    let mut picture = DynamicImage::from_decoder(decoder).map_err(failed)?;
    picture.apply_orientation(orientation);
    let (width_px, height_px) = (picture.width() as usize, picture.height() as usize);
    let (channels, samples, alpha) = planes(picture).map_err(|refusal| refusal.in_file(file))?;
    let mut photo = Photo { width_px, height_px, channels, samples, alpha, metadata, profile: None };
    if facts.premultiplied {
        photo.unpremultiply();
    }
    // A table of greys is how some formats write grey; a profile tells colours that look like it.
    if facts.indexed && photo.metadata.icc.is_none() {
        photo.grey_if_equal();
    }
    Ok(photo)
}

/// Channels, colours and opacity.
fn planes(picture: DynamicImage) -> Result<(usize, Samples, Option<Samples>), Refusal> {
    use DynamicImage::{
        ImageLuma8, ImageLuma16, ImageLumaA8, ImageLumaA16, ImageRgb8, ImageRgb16, ImageRgba8, ImageRgba16,
    };
    let with_alpha = |channels: usize, (samples, alpha): (Samples, Samples)| (channels, samples, Some(alpha));
    let split8 = |all: Vec<u8>, colours| {
        let (samples, alpha) = split(&all, colours);
        (Samples::U8(samples), Samples::U8(alpha))
    };
    let split16 = |all: Vec<u16>, colours| {
        let (samples, alpha) = split(&all, colours);
        (Samples::U16(samples), Samples::U16(alpha))
    };
    Ok(match picture {
        ImageLuma8(image) => (1, Samples::U8(image.into_raw()), None),
        ImageRgb8(image) => (3, Samples::U8(image.into_raw()), None),
        ImageLumaA8(image) => with_alpha(1, split8(image.into_raw(), 1)),
        ImageRgba8(image) => with_alpha(3, split8(image.into_raw(), 3)),
        ImageLuma16(image) => (1, Samples::U16(image.into_raw()), None),
        ImageRgb16(image) => (3, Samples::U16(image.into_raw()), None),
        ImageLumaA16(image) => with_alpha(1, split16(image.into_raw(), 1)),
        ImageRgba16(image) => with_alpha(3, split16(image.into_raw(), 3)),
        _ => return Err(Refusal::unsupported("a picture of floats", CONVERT)),
    })
}

/// Colour and opacity apart.
fn split<T: Copy>(samples: &[T], colours: usize) -> (Vec<T>, Vec<T>) {
    let pixels = || samples.chunks_exact(colours + 1);
    (
        pixels().flat_map(|pixel| &pixel[..colours]).copied().collect(),
        pixels().map(|pixel| pixel[colours]).collect(),
    )
}
