//! From pixels to a file's bytes, with the metadata that the format can carry.

use crate::error::EncodeError;
use crate::exif::Directories;
use crate::fields::set_size;
use crate::metadata::{
    Density, EXIF_SIGNATURE, IPTC_SIGNATURE, Metadata, XMP_SIGNATURE, fits_jpeg, iptc_record,
};
use crate::photo::Samples;
use image::codecs::jpeg::{JpegEncoder, PixelDensity, PixelDensityUnit};
use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::codecs::webp::WebPEncoder;
use image::{ExtendedColorType, ImageEncoder};
use img_parts::riff::{RiffChunk, RiffContent};
use img_parts::webp::{CHUNK_EXIF, CHUNK_XMP, WebP};
use img_parts::{Bytes, ImageICC};
use std::io::{Cursor, Write};
use tiff::tags::{PhotometricInterpretation, SampleFormat};

/// JPEG's quality where none is asked for.
pub const JPEG_QUALITY: u8 = 95;

/// Formats that are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Lossless, 8 or 16 bits.
    Png,
    /// Lossy, 8 bits, no opacity.
    Jpeg,
    /// Lossless or lossy, 8 bits.
    WebP,
    /// Lossless, 8 or 16 bits.
    Tiff,
}

impl Format {
    /// By a file name's extension.
    pub fn from_extension(extension: &str) -> Option<Self> {
        match extension.to_lowercase().as_str() {
            "png" => Some(Self::Png),
            "jpg" | "jpeg" => Some(Self::Jpeg),
            "webp" => Some(Self::WebP),
            "tif" | "tiff" => Some(Self::Tiff),
            _ => None,
        }
    }

    /// The usual extension.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Png => "png",
            Self::Jpeg => "jpg",
            Self::WebP => "webp",
            Self::Tiff => "tiff",
        }
    }

    /// Whether it can hold 16 bits a channel.
    pub fn is_deep(self) -> bool {
        matches!(self, Self::Png | Self::Tiff)
    }

    /// Whether it can trade fidelity for bytes.
    pub fn takes_quality(self) -> bool {
        matches!(self, Self::Jpeg | Self::WebP)
    }

    /// As people call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Png => "PNG",
            Self::Jpeg => "JPEG",
            Self::WebP => "WebP",
            Self::Tiff => "TIFF",
        }
    }
}

/// A picture to be encoded.
pub struct Encoded<'a> {
    /// Pixels a row.
    pub width_px: usize,
    /// Rows.
    pub height_px: usize,
    /// 1 for grey, 3 for RGB.
    pub channels: usize,
    /// Interleaved colours.
    pub samples: &'a Samples,
    /// Opacity, at the same depth. JPEG lays the picture on white.
    pub alpha: Option<&'a Samples>,
    /// Written as far as the format can carry it: see [`Metadata::lost_in`].
    pub metadata: &'a Metadata,
}

/// The file's bytes of an RGB picture of 8 bits, `[height, width, 3]`, without any metadata.
pub fn encode_rgb(
    (width_px, height_px): (usize, usize),
    rgb: Vec<u8>,
    format: Format,
    quality: Option<u8>,
) -> Result<Vec<u8>, EncodeError> {
    let (samples, metadata) = (Samples::U8(rgb), Metadata::default());
    let picture =
        Encoded { width_px, height_px, channels: 3, samples: &samples, alpha: None, metadata: &metadata };
    picture.to_bytes(format, quality)
}

impl Encoded<'_> {
    /// The file's bytes. `quality` is 1 to 100: without it JPEG takes [`JPEG_QUALITY`] and WebP is lossless;
    /// PNG and TIFF always are.
    pub fn to_bytes(&self, format: Format, quality: Option<u8>) -> Result<Vec<u8>, EncodeError> {
        let mut metadata = self.metadata.clone();
        if let Some(exif) = &mut metadata.exif {
            let (width, height) = self.size();
            set_size(exif, width, height);
        }
        let own = Encoded { metadata: &metadata, ..*self };
        let written = match format {
            Format::Png => own.png(),
            Format::Jpeg => own.jpeg(quality.unwrap_or(JPEG_QUALITY)),
            Format::WebP => own.webp(quality),
            Format::Tiff => own.tiff(),
        };
        written.map_err(|reason| EncodeError::Format { format: format.name(), reason })
    }

    fn size(&self) -> (u32, u32) {
        (self.width_px as u32, self.height_px as u32)
    }

    /// Bytes in native order, opacity interleaved, and what they mean.
    fn interleaved(&self) -> (Vec<u8>, ExtendedColorType) {
        use ExtendedColorType::{L8, L16, La8, La16, Rgb8, Rgb16, Rgba8, Rgba16};
        let grey = self.channels == 1;
        match (self.samples, self.alpha) {
            (Samples::U8(samples), None) => (samples.clone(), if grey { L8 } else { Rgb8 }),
            (Samples::U8(samples), Some(Samples::U8(alpha))) => {
                (join(samples, alpha, self.channels), if grey { La8 } else { Rgba8 })
            }
            (Samples::U16(samples), Some(Samples::U16(alpha))) => {
                let joined = join(samples, alpha, self.channels);
                (to_bytes(&joined), if grey { La16 } else { Rgba16 })
            }
            (Samples::U16(samples), _) => (to_bytes(samples), if grey { L16 } else { Rgb16 }),
            (Samples::U8(samples), Some(Samples::U16(alpha))) => {
                let alpha: Vec<u8> = alpha.iter().map(|value| (value >> 8) as u8).collect();
                (join(samples, &alpha, self.channels), if grey { La8 } else { Rgba8 })
            }
        }
    }

    fn png(&self) -> Result<Vec<u8>, String> {
        let mut bytes = Vec::new();
        let mut encoder =
            PngEncoder::new_with_quality(&mut bytes, CompressionType::Default, FilterType::Adaptive);
        // The library writes these two itself.
        let Metadata { exif, xmp, iptc, icc, density, .. } = self.metadata;
        if let Some(icc) = icc {
            let _ = encoder.set_icc_profile(icc.clone());
        }
        if let Some(exif) = exif {
            let _ = encoder.set_exif_metadata(exif.clone());
        }
        let (pixels, colour) = self.interleaved();
        let (width, height) = self.size();
        encoder.write_image(&pixels, width, height, colour).map_err(|error| error.to_string())?;
        let mut chunks = Vec::new();
        if let Some(Density { x_dpi, y_dpi }) = density {
            let per_metre = |dpi: f64| ((dpi / 0.0254).round() as u32).to_be_bytes();
            chunks.push((*b"pHYs", [&per_metre(*x_dpi)[..], &per_metre(*y_dpi), &[1]].concat()));
        }
        if let Some(xmp) = xmp {
            // Keyword, no compression, no language, no translation.
            chunks.push((*b"iTXt", [b"XML:com.adobe.xmp\0\0\0\0\0", xmp.as_slice()].concat()));
        }
        if let Some(iptc) = iptc {
            let hex: String = iptc.iter().map(|byte| format!("{byte:02x}")).collect();
            let lines: Vec<&str> = hex
                .as_bytes()
                .chunks(72)
                .map(|line| std::str::from_utf8(line).expect("hex is ASCII"))
                .collect();
            let text = format!("\niptc\n{:>8}\n{}\n", iptc.len(), lines.join("\n"));
            chunks.push((*b"tEXt", [b"Raw profile type iptc\0", text.as_bytes()].concat()));
        }
        if chunks.is_empty() {
            return Ok(bytes);
        }
        let mut png = img_parts::png::Png::from_bytes(bytes.into()).map_err(|error| error.to_string())?;
        for (kind, contents) in chunks {
            // Behind the header, before the pixels.
            png.chunks_mut().insert(1, img_parts::png::PngChunk::new(kind, contents.into()));
        }
        Ok(png.encoder().bytes().to_vec())
    }

    fn jpeg(&self, quality: u8) -> Result<Vec<u8>, String> {
        let (width, height) = self.size();
        if width.max(height) > 65535 {
            return Err("a side is longer than 65535 pixels: choose --format png".into());
        }
        let Samples::U8(samples) = self.samples else { return Err("it holds 8 bits a channel only".into()) };
        let flat;
        let pixels = match self.alpha {
            Some(Samples::U8(alpha)) => {
                flat = on_white(samples, alpha, self.channels);
                &flat
            }
            _ => samples,
        };
        let mut bytes = Vec::new();
        let mut encoder = JpegEncoder::new_with_quality(&mut bytes, quality);
        if let Some(Density { x_dpi, y_dpi }) = self.metadata.density {
            let density = (x_dpi.round() as u16, y_dpi.round() as u16);
            encoder.set_pixel_density(PixelDensity { density, unit: PixelDensityUnit::Inches });
        }
        let Metadata { exif, xmp, iptc, icc, .. } = self.metadata;
        if let Some(icc) = icc {
            let _ = encoder.set_icc_profile(icc.clone());
        }
        let colour = if self.channels == 1 { ExtendedColorType::L8 } else { ExtendedColorType::Rgb8 };
        encoder.write_image(pixels, width, height, colour).map_err(|error| error.to_string())?;
        let blocks = [(0xed, IPTC_SIGNATURE, iptc), (0xe1, XMP_SIGNATURE, xmp), (0xe1, EXIF_SIGNATURE, exif)];
        let segments: Vec<(u8, Vec<u8>)> = blocks
            .into_iter()
            .filter(|(_, signature, block)| fits_jpeg(signature, block))
            .filter_map(|(marker, signature, block)| Some((marker, [signature, block.as_ref()?].concat())))
            .collect();
        if segments.is_empty() {
            return Ok(bytes);
        }
        let mut jpeg = img_parts::jpeg::Jpeg::from_bytes(bytes.into()).map_err(|error| error.to_string())?;
        for (marker, contents) in segments {
            let segment = img_parts::jpeg::JpegSegment::new_with_contents(marker, Bytes::from(contents));
            // Behind JFIF's own.
            jpeg.segments_mut().insert(1, segment);
        }
        Ok(jpeg.encoder().bytes().to_vec())
    }

    fn webp(&self, quality: Option<u8>) -> Result<Vec<u8>, String> {
        let (width, height) = self.size();
        if width.max(height) > 16383 {
            return Err("a side is longer than 16383 pixels: choose --format png".into());
        }
        let Samples::U8(samples) = self.samples else { return Err("it holds 8 bits a channel only".into()) };
        let bytes = match quality {
            None => {
                let mut bytes = Vec::new();
                let (pixels, colour) = self.interleaved();
                WebPEncoder::new_lossless(&mut bytes)
                    .write_image(&pixels, width, height, colour)
                    .map_err(|error| error.to_string())?;
                bytes
            }
            Some(quality) => {
                let rgb = three(samples, self.channels);
                let (pixels, layout) = match self.alpha {
                    Some(Samples::U8(alpha)) => (join(&rgb, alpha, 3), webp::PixelLayout::Rgba),
                    _ => (rgb, webp::PixelLayout::Rgb),
                };
                let encoder = webp::Encoder::new(&pixels, layout, width, height);
                let written = encoder.encode_simple(false, f32::from(quality));
                written.map_err(|error| format!("{error:?}"))?.to_vec()
            }
        };
        let Metadata { exif, xmp, icc, .. } = self.metadata;
        let mut file = WebP::from_bytes(bytes.into()).map_err(|error| error.to_string())?;
        for (id, block) in [(CHUNK_EXIF, exif), (CHUNK_XMP, xmp)] {
            if let Some(block) = block {
                let chunk = RiffChunk::new(id, RiffContent::Data(Bytes::from(block.clone())));
                file.chunks_mut().push(chunk);
            }
        }
        // Last, because it writes the header that names the other blocks.
        let icc = icc.clone().filter(|_| !self.metadata.is_grey_profile());
        file.set_icc_profile(icc.map(Bytes::from));
        Ok(file.encoder().bytes().to_vec())
    }

    fn tiff(&self) -> Result<Vec<u8>, String> {
        use tiff::encoder::{Compression, TiffEncoder, colortype as kind};
        let mut bytes = Cursor::new(Vec::new());
        let mut encoder = TiffEncoder::new(&mut bytes)
            .map_err(|error| error.to_string())?
            .with_compression(Compression::Deflate(tiff::encoder::DeflateLevel::Balanced))
            .with_predictor(tiff::encoder::Predictor::Horizontal);
        let (width, height) = self.size();
        let exif = self.metadata.exif.as_deref().and_then(Directories::of_block);
        let pointers = match &exif {
            Some(exif) => exif.write_further(&mut encoder).map_err(|error| error.to_string())?,
            None => Vec::new(),
        };
        let alpha8 = |alpha: &Samples| match alpha {
            Samples::U8(alpha) => alpha.clone(),
            Samples::U16(alpha) => alpha.iter().map(|value| (value >> 8) as u8).collect(),
        };
        macro_rules! write {
            ($kind:ty, $pixels:expr) => {{
                let mut image =
                    encoder.new_image::<$kind>(width, height).map_err(|error| error.to_string())?;
                self.tiff_tags(image.encoder()).map_err(|error| error.to_string())?;
                if let Some(exif) = &exif {
                    exif.write_main(image.encoder(), &pointers).map_err(|error| error.to_string())?;
                }
                image.write_data($pixels).map_err(|error| error.to_string())?;
            }};
        }
        match (self.samples, self.alpha, self.channels) {
            (Samples::U8(samples), None, 1) => write!(kind::Gray8, samples),
            (Samples::U8(samples), None, _) => write!(kind::RGB8, samples),
            (Samples::U16(samples), None, 1) => write!(kind::Gray16, samples),
            (Samples::U16(samples), None, _) => write!(kind::RGB16, samples),
            (Samples::U8(samples), Some(alpha), 1) => write!(GreyAlpha8, &join(samples, &alpha8(alpha), 1)),
            (Samples::U8(samples), Some(alpha), _) => write!(kind::RGBA8, &join(samples, &alpha8(alpha), 3)),
            (Samples::U16(samples), Some(Samples::U16(alpha)), 1) => {
                write!(GreyAlpha16, &join(samples, alpha, 1));
            }
            (Samples::U16(samples), Some(Samples::U16(alpha)), _) => {
                write!(kind::RGBA16, &join(samples, alpha, 3));
            }
            (Samples::U16(_), Some(Samples::U8(_)), _) => {
                return Err("colour and opacity differ in depth".into());
            }
        }
        Ok(bytes.into_inner())
    }

    fn tiff_tags<W: Write + std::io::Seek, K: tiff::encoder::TiffKind>(
        &self,
        directory: &mut tiff::encoder::DirectoryEncoder<W, K>,
    ) -> tiff::TiffResult<()> {
        use tiff::encoder::Rational;
        use tiff::tags::{ResolutionUnit, Tag};
        let Metadata { xmp, iptc, icc, density, .. } = self.metadata;
        if self.alpha.is_some() {
            // Opacity that is not multiplied into the colours.
            directory.write_tag(Tag::ExtraSamples, &[2u16][..])?;
        }
        if let Some(Density { x_dpi, y_dpi }) = density {
            let ratio = |dpi: f64| Rational { n: (dpi * 100.0).round() as u32, d: 100 };
            directory.write_tag(Tag::XResolution, ratio(*x_dpi))?;
            directory.write_tag(Tag::YResolution, ratio(*y_dpi))?;
            directory.write_tag(Tag::ResolutionUnit, ResolutionUnit::Inch.to_u16())?;
        }
        directory.write_tag(Tag::Orientation, 1u16)?;
        // Programs look for the IPTC record by itself as well as in Photoshop's resources.
        let record = iptc.as_deref().and_then(iptc_record);
        let blocks =
            [(700, xmp.as_deref()), (33723, record), (34377, iptc.as_deref()), (34675, icc.as_deref())];
        for (tag, block) in blocks {
            if let Some(block) = block {
                directory.write_tag(Tag::from_u16_exhaustive(tag), block)?;
            }
        }
        Ok(())
    }
}

/// Grey with opacity, which the library has no name for.
macro_rules! grey_alpha {
    ($name:ident, $value:ty, $bits:literal) => {
        struct $name;

        impl tiff::encoder::colortype::ColorType for $name {
            type Inner = $value;
            const TIFF_VALUE: PhotometricInterpretation = PhotometricInterpretation::BlackIsZero;
            const BITS_PER_SAMPLE: &'static [u16] = &[$bits; 2];
            const SAMPLE_FORMAT: &'static [SampleFormat] = &[SampleFormat::Uint; 2];

            /// Values less those of the pixel before.
            fn horizontal_predict(row: &[$value], result: &mut Vec<$value>) {
                result.extend(row.iter().take(2));
                result.extend(
                    row.iter().zip(row.iter().skip(2)).map(|(before, value)| value.wrapping_sub(*before)),
                );
            }
        }
    };
}

grey_alpha!(GreyAlpha8, u8, 8);
grey_alpha!(GreyAlpha16, u16, 16);

fn to_bytes(samples: &[u16]) -> Vec<u8> {
    samples.iter().flat_map(|value| value.to_ne_bytes()).collect()
}

/// Colour and opacity interleaved.
fn join<T: Copy>(samples: &[T], alpha: &[T], channels: usize) -> Vec<T> {
    let pixels = samples.chunks_exact(channels).zip(alpha);
    pixels.flat_map(|(pixel, &alpha)| pixel.iter().copied().chain([alpha])).collect()
}

fn three<T: Copy>(samples: &[T], channels: usize) -> Vec<T> {
    if channels == 3 { samples.to_vec() } else { samples.iter().flat_map(|&value| [value; 3]).collect() }
}

fn on_white(samples: &[u8], alpha: &[u8], channels: usize) -> Vec<u8> {
    let mut flat = samples.to_vec();
    for (pixel, &alpha) in flat.chunks_exact_mut(channels).zip(alpha) {
        for value in pixel {
            let (colour, cover) = (u32::from(*value), u32::from(alpha));
            *value = ((colour * cover + 255 * (255 - cover) + 127) / 255) as u8;
        }
    }
    flat
}
