//! From a file's bytes to a photograph. What a file is follows from its content, never from its name.

use crate::error::DecodeError;
use crate::exif::Directories;
use crate::metadata::{Density, Metadata};
use crate::photo::{Photo, Samples};
use crate::profile::{Profile, Reading};
use image::codecs::{
    bmp::BmpDecoder, jpeg::JpegDecoder, png::PngDecoder, tiff::TiffDecoder, webp::WebPDecoder,
};
use image::{DynamicImage, ImageDecoder, ImageFormat, Limits};
use std::io::Cursor;
use std::path::Path;

/// Pixels that a picture may have. A decoded 16-bit RGBA picture of this size takes 3.2 GB.
const LIMIT_MEGAPIXELS: u64 = 400;

/// Reads and decodes a file.
pub fn decode(path: &Path) -> Result<Photo, DecodeError> {
    let file = path.display().to_string();
    let bytes = std::fs::read(path).map_err(|source| DecodeError::Read { file: file.clone(), source })?;
    decode_bytes(&bytes, &file)
}

/// Decodes a file's bytes; `file` is its name in errors.
pub fn decode_bytes(bytes: &[u8], file: &str) -> Result<Photo, DecodeError> {
    let name = || file.to_string();
    if bytes.is_empty() {
        return Err(DecodeError::Empty { file: name() });
    }
    if let Some((format, hint)) = refused(bytes) {
        return Err(DecodeError::Unsupported { file: name(), format: format.into(), hint: hint.into() });
    }
    let format = image::guess_format(bytes).map_err(|_| DecodeError::NotAPicture { file: name() })?;
    let damaged = |error: image::ImageError| DecodeError::Damaged { file: name(), reason: error.to_string() };
    let unsupported = |format: &str, hint: &str| DecodeError::Unsupported {
        file: name(),
        format: format.into(),
        hint: hint.into(),
    };
    let reader = Cursor::new(bytes);
    let mut metadata = Metadata::default();
    let mut photo = match format {
        ImageFormat::Png => {
            let decoder = PngDecoder::new(reader).map_err(damaged)?;
            if decoder.is_apng().map_err(damaged)? {
                return Err(unsupported("an animated PNG", "save one of its frames as a picture"));
            }
            metadata.density = png_density(bytes);
            read(decoder, metadata, file)?
        }
        ImageFormat::Jpeg => {
            let scan = JpegScan::of(bytes);
            if scan.components == 4 {
                return Err(unsupported("a CMYK picture", "convert it to RGB first"));
            }
            if !scan.complete {
                return Err(DecodeError::Damaged { file: name(), reason: "its end is missing".into() });
            }
            metadata.density = scan.density;
            read(JpegDecoder::new(reader).map_err(damaged)?, metadata, file)?
        }
        ImageFormat::WebP => {
            let decoder = WebPDecoder::new(reader).map_err(damaged)?;
            if decoder.has_animation() {
                return Err(unsupported("an animated WebP", "save one of its frames as a picture"));
            }
            read(decoder, metadata, file)?
        }
        ImageFormat::Tiff => {
            let facts = TiffFacts::of(bytes);
            if facts.pages > 1 {
                let format = format!("a TIFF of {} pages", facts.pages);
                return Err(unsupported(&format, "split it into files of one page each"));
            }
            metadata.density = facts.density;
            metadata.iptc = facts.iptc;
            metadata.exif = facts.exif;
            read(TiffDecoder::new(reader).map_err(damaged)?, metadata, file)?
        }
        ImageFormat::Bmp => read(BmpDecoder::new(reader).map_err(damaged)?, metadata, file)?,
        _ => return Err(DecodeError::NotAPicture { file: name() }),
    };
    if let Some(icc) = &photo.metadata.icc {
        match Profile::read(icc, photo.channels) {
            Reading::AsIs => {}
            Reading::Convert(profile) => photo.profile = Some(profile),
            Reading::Unsupported(space) => {
                return Err(unsupported(&format!("a picture in {space}"), "convert it to RGB first"));
            }
        }
    }
    Ok(photo)
}

/// What a picture's file is, in one line for a person.
pub fn describe(bytes: &[u8], file: &str) -> Result<String, DecodeError> {
    let photo = decode_bytes(bytes, file)?;
    let format = image::guess_format(bytes).map_or("picture", |format| format.extensions_str()[0]);
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

fn read<D: ImageDecoder>(mut decoder: D, mut metadata: Metadata, file: &str) -> Result<Photo, DecodeError> {
    let damaged =
        |error: image::ImageError| DecodeError::Damaged { file: file.into(), reason: error.to_string() };
    let (width, height) = decoder.dimensions();
    if u64::from(width) * u64::from(height) > LIMIT_MEGAPIXELS * 1_000_000 {
        let file = file.into();
        return Err(DecodeError::TooLarge { file, width, height, limit_megapixels: LIMIT_MEGAPIXELS });
    }
    // Metadata that cannot be read is no reason to refuse the pixels.
    metadata.icc = decoder.icc_profile().ok().flatten();
    metadata.exif = metadata.exif.or(decoder.exif_metadata().ok().flatten());
    metadata.xmp = decoder.xmp_metadata().ok().flatten();
    metadata.iptc = metadata.iptc.or(decoder.iptc_metadata().ok().flatten());
    // Behind the metadata, because the TIFF decoder counts the size of tags against the limit of pixels.
    let mut limits = Limits::no_limits();
    // Decoders with buffers of their own need a multiple of the picture.
    limits.max_alloc = Some(u64::from(width) * u64::from(height) * 32 + (64 << 20));
    decoder.set_limits(limits).map_err(damaged)?;
    let orientation = match metadata.take_orientation() {
        image::metadata::Orientation::NoTransforms => {
            decoder.orientation().unwrap_or(image::metadata::Orientation::NoTransforms)
        }
        orientation => orientation,
    };
    let mut picture = DynamicImage::from_decoder(decoder).map_err(damaged)?;
    picture.apply_orientation(orientation);
    let (width_px, height_px) = (picture.width() as usize, picture.height() as usize);
    let photo = |channels, samples, alpha| Photo {
        width_px,
        height_px,
        channels,
        samples,
        alpha,
        metadata,
        profile: None,
    };
    Ok(match picture {
        DynamicImage::ImageLuma8(image) => photo(1, Samples::U8(image.into_raw()), None),
        DynamicImage::ImageRgb8(image) => photo(3, Samples::U8(image.into_raw()), None),
        DynamicImage::ImageLumaA8(image) => {
            let (samples, alpha) = split(&image.into_raw(), 1);
            photo(1, Samples::U8(samples), Some(Samples::U8(alpha)))
        }
        DynamicImage::ImageRgba8(image) => {
            let (samples, alpha) = split(&image.into_raw(), 3);
            photo(3, Samples::U8(samples), Some(Samples::U8(alpha)))
        }
        DynamicImage::ImageLuma16(image) => photo(1, Samples::U16(image.into_raw()), None),
        DynamicImage::ImageRgb16(image) => photo(3, Samples::U16(image.into_raw()), None),
        DynamicImage::ImageLumaA16(image) => {
            let (samples, alpha) = split(&image.into_raw(), 1);
            photo(1, Samples::U16(samples), Some(Samples::U16(alpha)))
        }
        DynamicImage::ImageRgba16(image) => {
            let (samples, alpha) = split(&image.into_raw(), 3);
            photo(3, Samples::U16(samples), Some(Samples::U16(alpha)))
        }
        _ => {
            return Err(DecodeError::Unsupported {
                file: file.into(),
                format: "a picture of 32-bit floats".into(),
                hint: "save it with 16 bits a channel".into(),
            });
        }
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

/// Formats that people try and that are not decoded, with what to do.
fn refused(bytes: &[u8]) -> Option<(&'static str, &'static str)> {
    const CONVERT: &str = "convert it to JPEG, PNG or TIFF first";
    const DEVELOP: &str = "develop it to a 16-bit TIFF first";
    let at = |offset: usize, magic: &[u8]| bytes.get(offset..offset + magic.len()) == Some(magic);
    if at(4, b"ftyp") {
        let brand = bytes.get(8..12).unwrap_or_default();
        return Some(match brand {
            b"avif" | b"avis" => ("AVIF", CONVERT),
            b"crx " => ("camera RAW (CR3)", DEVELOP),
            b"heic" | b"heix" | b"mif1" | b"msf1" | b"heim" | b"heis" | b"hevc" => ("HEIC", CONVERT),
            _ => ("a film", "take a frame out of it as a picture"),
        });
    }
    if at(0, b"\xff\x0a") || at(0, b"\0\0\0\x0cJXL \r\n\x87\n") {
        return Some(("JPEG XL", CONVERT));
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
    if at(0, b"FUJIFILMCCD-RAW")
        || at(0, b"IIU\0")
        || at(0, b"IIRO")
        || at(0, b"IIRS")
        || at(0, b"MMOR")
        || at(8, b"CR\x02")
    {
        return Some(("camera RAW", DEVELOP));
    }
    if (at(0, b"II*\0") || at(0, b"MM\0*")) && TiffFacts::is_raw(bytes) {
        return Some(("camera RAW", DEVELOP));
    }
    None
}

/// What the markers of a JPEG say.
struct JpegScan {
    components: u8,
    complete: bool,
    density: Option<Density>,
}

impl JpegScan {
    fn of(bytes: &[u8]) -> Self {
        let mut scan = Self { components: 0, complete: false, density: None };
        let mut at = 2;
        while let Some(&[0xff, marker, high, low]) = bytes.get(at..at + 4) {
            if marker == 0xff {
                at += 1;
                continue;
            }
            let segment = bytes.get(at + 4..).unwrap_or_default();
            match marker {
                // The frame headers, which are not the tables and extensions between them.
                0xc0..=0xcf if !matches!(marker, 0xc4 | 0xc8 | 0xcc) => {
                    scan.components = segment.get(5).copied().unwrap_or(0);
                }
                0xe0 if segment.starts_with(b"JFIF\0") => scan.density = jfif_density(segment),
                // Behind the start of the scan an end marker cannot be data.
                0xda => {
                    scan.complete = segment.windows(2).any(|pair| pair == [0xff, 0xd9]);
                    return scan;
                }
                _ => {}
            }
            at += 2 + usize::from(u16::from_be_bytes([high, low]));
        }
        scan
    }
}

fn jfif_density(segment: &[u8]) -> Option<Density> {
    let per_inch = match segment.get(7)? {
        1 => 1.0,
        2 => 2.54,
        _ => return None,
    };
    let read = |at: usize| Some(f64::from(u16::from_be_bytes([*segment.get(at)?, *segment.get(at + 1)?])));
    Some(Density { x_dpi: read(8)? * per_inch, y_dpi: read(10)? * per_inch })
}

fn png_density(bytes: &[u8]) -> Option<Density> {
    let png = img_parts::png::Png::from_bytes(bytes.to_vec().into()).ok()?;
    let chunk = png.chunk_by_type(*b"pHYs")?.contents().clone();
    let read = |at: usize| Some(f64::from(u32::from_be_bytes(chunk.get(at..at + 4)?.try_into().ok()?)));
    // The only unit is the metre.
    (chunk.get(8) == Some(&1)).then_some(())?;
    Some(Density { x_dpi: read(0)? * 0.0254, y_dpi: read(4)? * 0.0254 })
}

/// What the tags of a TIFF say.
struct TiffFacts {
    pages: usize,
    density: Option<Density>,
    iptc: Option<Vec<u8>>,
    exif: Option<Vec<u8>>,
}

impl TiffFacts {
    fn of(bytes: &[u8]) -> Self {
        use tiff::tags::Tag;
        let mut facts = Self { pages: 1, density: None, iptc: None, exif: None };
        let Ok(mut decoder) = tiff::decoder::Decoder::new(Cursor::new(bytes)) else { return facts };
        let number = |decoder: &mut tiff::decoder::Decoder<_>, tag| match decoder.get_tag(tag) {
            Ok(tiff::decoder::ifd::Value::Rational(n, d)) if d > 0 => Some(f64::from(n) / f64::from(d)),
            _ => None,
        };
        let per_inch = match decoder.get_tag_u32(Tag::ResolutionUnit) {
            Ok(3) => Some(2.54),
            Ok(1) => None,
            _ => Some(1.0),
        };
        if let (Some(per_inch), Some(x), Some(y)) =
            (per_inch, number(&mut decoder, Tag::XResolution), number(&mut decoder, Tag::YResolution))
        {
            facts.density = Some(Density { x_dpi: x * per_inch, y_dpi: y * per_inch });
        }
        facts.iptc = decoder.get_tag_u8_vec(Tag::Unknown(34377)).ok();
        facts.exif = Directories::of_file(&mut decoder).and_then(|exif| exif.to_block());
        while decoder.more_images() && decoder.next_image().is_ok() {
            facts.pages += 1;
        }
        facts
    }

    /// Whether a TIFF structure holds a camera's raw data: the DNG version tag, or a colour filter array.
    fn is_raw(bytes: &[u8]) -> bool {
        let Ok(mut decoder) = tiff::decoder::Decoder::new(Cursor::new(bytes)) else { return false };
        let has = |decoder: &mut tiff::decoder::Decoder<_>, tag: u16| {
            decoder.find_tag(tiff::tags::Tag::Unknown(tag)).is_ok_and(|value| value.is_some())
        };
        has(&mut decoder, 50706) || has(&mut decoder, 33422)
    }
}
