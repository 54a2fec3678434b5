//! From a file's bytes to a photograph. What a file is follows from its content, never from its name.

mod bmp;
#[cfg(feature = "heic")]
mod heic;
mod jpeg;
mod jxl;
mod kind;
mod outline;
mod png;
#[cfg(feature = "raw")]
mod raw;
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
use image::{DynamicImage, ImageDecoder, ImageError, Limits};
use jxl::Jxl;
use kind::Kind;
pub use kind::{EXTENSIONS, FORMATS};
pub use outline::Outline;
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
    /// Out of which the colours come, if they do.
    table: Option<Table>,
    /// Whether the colours are already multiplied by the opacity.
    premultiplied: bool,
}

/// A table of colours.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Table {
    /// All it has are greys.
    Greys,
    /// What pixels take of it may still be greys.
    Colours,
}

impl Table {
    /// Of its colours, in any order of red, green and blue.
    fn of<'a>(mut colours: impl Iterator<Item = &'a [u8; 3]>) -> Self {
        if colours.all(|[r, g, b]| r == g && g == b) { Self::Greys } else { Self::Colours }
    }
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
    of_file(path, decode_bytes)
}

/// What a file says of its picture; pixels are not decoded.
pub fn outline(path: &Path) -> Result<Outline, DecodeError> {
    of_file(path, Outline::of)
}

/// What is made of a file's bytes and its name.
fn of_file<T>(
    path: &Path,
    make: impl FnOnce(&[u8], &str) -> Result<T, DecodeError>,
) -> Result<T, DecodeError> {
    let file = path.display().to_string();
    let bytes = std::fs::read(path).map_err(|source| DecodeError::Read { file: file.clone(), source })?;
    make(&bytes, &file)
}

/// The usual ending of names for what a file's bytes are, where they are a picture that is decoded.
pub fn extension_of(bytes: &[u8]) -> Option<&'static str> {
    Kind::of(bytes).map(Kind::extension)
}

/// The format of a file's bytes, if they are a picture that is decoded.
fn kind_of(bytes: &[u8], file: &str) -> Result<Kind, DecodeError> {
    if bytes.is_empty() {
        return Err(DecodeError::Empty { file: file.into() });
    }
    refused::check(bytes).map_err(|refusal| refusal.in_file(file))?;
    Kind::of(bytes).ok_or_else(|| DecodeError::NotAPicture { file: file.into() })
}

/// Decodes a file's bytes; `file` is its name in errors.
pub fn decode_bytes(bytes: &[u8], file: &str) -> Result<Photo, DecodeError> {
    let refuse = |refusal: Refusal| refusal.in_file(file);
    let failed = |error| Refusal::of(error).in_file(file);
    let inspected = |facts: Result<Facts, Refusal>| {
        let facts = facts.map_err(refuse)?;
        facts.size.map_or(Ok(()), |size| check_size(size, file))?;
        Ok::<_, DecodeError>(facts)
    };
    let reader = Cursor::new(bytes);
    let mut photo = match kind_of(bytes, file)? {
        Kind::Png => {
            let facts = inspected(png::inspect(bytes))?;
            read(png::decoder(bytes).map_err(failed)?, facts, file)
        }
        Kind::Jpeg => {
            let facts = inspected(jpeg::inspect(bytes))?;
            jpeg::check_whole(bytes).map_err(refuse)?;
            read(JpegDecoder::new(reader).map_err(failed)?, facts, file)
        }
        Kind::WebP => {
            let facts = inspected(webp::inspect(bytes))?;
            read(WebPDecoder::new(reader).map_err(failed)?, facts, file)
        }
        Kind::Tiff => {
            let facts = inspected(tiff::inspect(bytes))?;
            match tiff::GreyWithOpacity::of(bytes) {
                Some(decoder) => read(decoder, facts, file),
                None => read(TiffDecoder::new(reader).map_err(failed)?, facts, file),
            }
        }
        Kind::Bmp => {
            let facts = inspected(bmp::inspect(bytes))?;
            read(BmpDecoder::new(reader).map_err(failed)?, facts, file)
        }
        Kind::Jxl => {
            let decoder = Jxl::open(bytes).map_err(refuse)?;
            let facts = inspected(decoder.inspect())?;
            read(decoder, facts, file)
        }
        #[cfg(feature = "heic")]
        Kind::Heic => {
            let (picture, facts) = heic::decode(bytes, file)?;
            photo(picture, facts, file)
        }
        #[cfg(feature = "raw")]
        Kind::Raw => {
            let (picture, facts) = raw::decode(bytes, file)?;
            photo(picture, facts, file)
        }
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

/// Refuses a size that no picture has, or one of more than 400 megapixels.
pub fn check_size((width, height): (u32, u32), file: &str) -> Result<(), DecodeError> {
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
    let format = extension_of(bytes).unwrap_or("picture");
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

/// Metadata of a picture that its container has turned already.
fn upright(mut metadata: Metadata) -> Metadata {
    metadata.take_orientation();
    metadata
}

fn read<D: ImageDecoder>(mut decoder: D, mut facts: Facts, file: &str) -> Result<Photo, DecodeError> {
    let failed = |error| Refusal::of(error).in_file(file);
    let (width, height) = decoder.dimensions();
    check_size((width, height), file)?;
    let (metadata, orientation) = beside_pixels(&mut decoder, std::mem::take(&mut facts.metadata));
    // Behind the metadata, because the TIFF decoder counts the size of tags against the limit of pixels.
    let mut limits = Limits::no_limits();
    // Decoders with buffers of their own need a multiple of the picture.
    limits.max_alloc = Some(u64::from(width) * u64::from(height) * 32 + (64 << 20));
    decoder.set_limits(limits).map_err(failed)?;
    let mut picture = DynamicImage::from_decoder(decoder).map_err(failed)?;
    picture.apply_orientation(orientation);
    photo(picture, Facts { metadata, ..facts }, file)
}

/// All that a file says beside its pixels, of which `metadata` is a part, and how they are turned.
fn beside_pixels(decoder: &mut impl ImageDecoder, mut metadata: Metadata) -> (Metadata, Orientation) {
    // What cannot be read is no reason to refuse the pixels.
    metadata.icc = metadata.icc.or_else(|| decoder.icc_profile().ok().flatten());
    metadata.exif = metadata.exif.or_else(|| decoder.exif_metadata().ok().flatten());
    // Some writers put JPEG's signature in front in other formats too.
    metadata.exif = metadata.exif.map(|exif| match exif.strip_prefix(EXIF_SIGNATURE) {
        Some(bare) => bare.to_vec(),
        None => exif,
    });
    metadata.xmp = metadata.xmp.or_else(|| decoder.xmp_metadata().ok().flatten());
    let orientation = match metadata.take_orientation() {
        Orientation::NoTransforms => decoder.orientation().unwrap_or(Orientation::NoTransforms),
        orientation => orientation,
    };
    (metadata, orientation)
}

/// A photograph of upright pixels.
fn photo(picture: DynamicImage, facts: Facts, file: &str) -> Result<Photo, DecodeError> {
    let metadata = facts.metadata;
    let (width_px, height_px) = (picture.width() as usize, picture.height() as usize);
    let (channels, samples, alpha) = planes(picture).map_err(|refusal| refusal.in_file(file))?;
    let mut photo = Photo { width_px, height_px, channels, samples, alpha, metadata, profile: None };
    if facts.premultiplied {
        photo.unpremultiply();
    }
    // A table of greys is how some formats write grey; a profile tells colours that look like it.
    if facts.table.is_some() && photo.metadata.icc.is_none() {
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
    let mut own = Vec::with_capacity(colours * pixels().len());
    own.extend(pixels().flat_map(|pixel| &pixel[..colours]));
    (own, pixels().map(|pixel| pixel[colours]).collect())
}
