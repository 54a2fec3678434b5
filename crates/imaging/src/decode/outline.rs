//! What a file says of its picture before the pixels are decoded, and what decoding them takes.

use super::jxl::Jxl;
use super::{Facts, Kind, Refusal, Table, beside_pixels, bmp, check_size, jpeg, kind_of, png, tiff, webp};
use crate::error::DecodeError;
use crate::metadata::Metadata;
use crate::profile::{Profile, Reading};
use image::codecs::{bmp::BmpDecoder, jpeg::JpegDecoder, tiff::TiffDecoder, webp::WebPDecoder};
use image::metadata::Orientation;
use image::{ColorType, ImageDecoder, ImageError};
use std::io::Cursor;

/// A picture whose pixels are not decoded yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outline {
    /// Pixels a row, once it is upright.
    pub width_px: usize,
    /// Rows.
    pub height_px: usize,
    /// 1 for grey, 3 for RGB.
    pub channels: usize,
    /// Whether it has opacity.
    pub has_alpha: bool,
    /// Whether samples have more than 8 bits.
    pub is_deep: bool,
    /// Whether its colours have to be converted to sRGB.
    pub is_converted: bool,
    /// Bytes that decoding it takes beside what comes of it.
    pub decoding: usize,
}

/// Bytes a pixel that rawler holds, read from its code and not measured.
#[cfg(feature = "raw")]
const RAW_BYTES: usize = 40;

impl Outline {
    /// RGB of 8 bits in sRGB, without opacity.
    pub fn rgb(width_px: usize, height_px: usize) -> Self {
        Self {
            width_px,
            height_px,
            channels: 3,
            has_alpha: false,
            is_deep: false,
            is_converted: false,
            decoding: 0,
        }
    }

    /// Of a file's bytes; `file` is its name in errors.
    pub fn of(bytes: &[u8], file: &str) -> Result<Self, DecodeError> {
        let kind = kind_of(bytes, file)?;
        let outline = Self::of_kind(kind, bytes).map_err(|refusal| refusal.in_file(file))?;
        let side = |px: usize| u32::try_from(px).unwrap_or(u32::MAX);
        check_size((side(outline.width_px), side(outline.height_px)), file)?;
        Ok(outline)
    }

    fn of_kind(kind: Kind, bytes: &[u8]) -> Result<Self, Refusal> {
        let reader = Cursor::new(bytes);
        let own = |error: ImageError| Refusal::of(error);
        // What the file says beside its pixels may be broken where its size is not.
        let facts = |facts: Result<Facts, Refusal>| facts.unwrap_or_default();
        let outline = match kind {
            Kind::Png => Self::by(png::decoder(bytes).map_err(own)?, facts(png::inspect(bytes))),
            Kind::Jpeg => {
                let outline = Self::by(JpegDecoder::new(reader).map_err(own)?, facts(jpeg::inspect(bytes)));
                // A copy of the file; coefficients of all scans.
                let kept = 2.0 * jpeg::kept_values(bytes).unwrap_or(0.0) * outline.pixels() as f64;
                outline.read_with(bytes.len() + kept as usize)
            }
            Kind::WebP => {
                let outline = Self::by(WebPDecoder::new(reader).map_err(own)?, facts(webp::inspect(bytes)));
                // A copy of the file; planes of half the resolution, with opacity once more in one and apart; or, without
                // loss, a picture with opacity, whether it has any or not.
                let a_pixel = match (webp::is_lossy(bytes), outline.has_alpha) {
                    (true, true) => 6.5,
                    (true, false) => 1.5,
                    (false, _) => 4.0,
                };
                outline.read_with(bytes.len() + (a_pixel * outline.pixels() as f64) as usize)
            }
            Kind::Tiff => {
                let facts = facts(tiff::inspect(bytes));
                let outline = match tiff::GreyWithOpacity::of(bytes) {
                    Some(decoder) => Self::by(decoder, facts),
                    None => Self::by(TiffDecoder::new(reader).map_err(own)?, facts),
                };
                // The library reads all before it hands it over.
                outline.read_with(outline.bytes())
            }
            Kind::Bmp => Self::by(BmpDecoder::new(reader).map_err(own)?, facts(bmp::inspect(bytes))),
            Kind::Jxl => {
                let decoder = Jxl::open(bytes)?;
                let (decoding, facts) = (decoder.decoding(), facts(decoder.inspect()));
                Self::by(decoder, facts).read_with(bytes.len() + decoding)
            }
            #[cfg(feature = "heic")]
            Kind::Heic => super::heic::outline(bytes)?,
            #[cfg(feature = "raw")]
            Kind::Raw => {
                let (width, height) = super::raw::size(bytes)?;
                let outline = Self::rgb(width as usize, height as usize);
                Self { is_deep: true, decoding: RAW_BYTES * outline.pixels(), ..outline }
            }
        };
        // The file itself is in memory all the while.
        Ok(Self { decoding: outline.decoding + bytes.len(), ..outline })
    }

    /// By a decoder that has no buffers but for what it makes.
    fn by(mut decoder: impl ImageDecoder, facts: Facts) -> Self {
        use Orientation::{Rotate90, Rotate90FlipH, Rotate270, Rotate270FlipH};
        let (metadata, orientation) = beside_pixels(&mut decoder, facts.metadata);
        let (across, down) = decoder.dimensions();
        let lies = matches!(orientation, Rotate90 | Rotate90FlipH | Rotate270 | Rotate270FlipH);
        let (width_px, height_px) = if lies { (down, across) } else { (across, down) };
        let colours = decoder.color_type();
        let is_grey = |metadata: &Metadata| facts.table == Some(Table::Greys) && metadata.icc.is_none();
        let channels = if colours.has_color() && !is_grey(&metadata) { 3 } else { 1 };
        let is_deep = !matches!(colours, ColorType::L8 | ColorType::La8 | ColorType::Rgb8 | ColorType::Rgba8);
        let is_converted =
            metadata.icc.is_some_and(|icc| matches!(Profile::read(&icc, channels), Reading::Convert(_)));
        let outline = Self {
            width_px: width_px as usize,
            height_px: height_px as usize,
            channels,
            has_alpha: colours.has_alpha(),
            is_deep,
            is_converted,
            decoding: 0,
        };
        let read = usize::from(colours.bytes_per_pixel()) * outline.pixels();
        // Turned pixels and opacity apart are made beside those that were read, and greys beside the table's colours.
        let most = match facts.table {
            _ if lies || outline.has_alpha => 2 * read,
            Some(_) => read + outline.pixels(),
            None => read,
        };
        Self { decoding: most - outline.bytes(), ..outline }
    }

    /// Where so much is held as pixels are read, which goes before they are turned or parted.
    fn read_with(self, held: usize) -> Self {
        Self { decoding: self.decoding.max(held), ..self }
    }

    /// Width and height in pixels.
    pub fn size(&self) -> (usize, usize) {
        (self.width_px, self.height_px)
    }

    /// How many pixels it has.
    pub fn pixels(&self) -> usize {
        self.width_px * self.height_px
    }

    /// Bytes of a sample.
    pub fn sample_bytes(&self) -> usize {
        1 + usize::from(self.is_deep)
    }

    /// Bytes of its pixels, decoded.
    pub fn bytes(&self) -> usize {
        (self.channels + usize::from(self.has_alpha)) * self.sample_bytes() * self.pixels()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::decode_bytes;
    use crate::{Encoded, Format, Samples};

    fn file(format: Format, deep: bool, channels: usize, alpha: bool) -> Vec<u8> {
        let values = |count: usize| match deep {
            true => Samples::U16((0..count).map(|value| value as u16).collect()),
            false => Samples::U8((0..count).map(|value| value as u8).collect()),
        };
        let (samples, alpha) = (values(6 * channels), alpha.then(|| values(6)));
        let metadata = Metadata {
            icc: (channels == 3).then(|| moxcms::ColorProfile::new_display_p3().encode().unwrap()),
            ..Metadata::default()
        };
        let (alpha, metadata) = (alpha.as_ref(), &metadata);
        let picture = Encoded { width_px: 3, height_px: 2, channels, samples: &samples, alpha, metadata };
        picture.to_bytes(format, None).unwrap()
    }

    #[test]
    fn a_file_says_what_its_pixels_will_be() {
        for (format, deep, channels, alpha) in [
            (Format::Png, true, 1, true),
            (Format::Png, false, 3, true),
            (Format::Tiff, true, 3, false),
            (Format::Tiff, false, 1, true),
            (Format::Jpeg, false, 1, false),
            (Format::Jpeg, false, 3, false),
            (Format::WebP, false, 3, true),
        ] {
            let file = file(format, deep, channels, alpha);
            let (outline, photo) = (Outline::of(&file, "a").unwrap(), decode_bytes(&file, "a").unwrap());
            assert_eq!(outline.size(), (photo.width_px, photo.height_px));
            assert_eq!(
                (outline.channels, outline.is_deep, outline.has_alpha, outline.is_converted),
                (photo.channels, photo.is_deep(), photo.alpha.is_some(), photo.profile.is_some()),
                "{format:?}"
            );
            assert!(outline.decoding >= file.len());
        }
    }

    #[test]
    fn values_that_wait_for_the_last_scan_follow_from_the_sampling() {
        let kept = |marker, sampling: [u8; 3], scan: u8| {
            let components = sampling.iter().flat_map(|&sampling| [1, sampling, 0]);
            let frame = [0xff, 0xd8, 0xff, marker, 0, 17, 8, 0, 2, 0, 3, 3].into_iter().chain(components);
            jpeg::kept_values(&frame.chain([0xff, 0xda, 0, 3, scan]).collect::<Vec<u8>>())
        };
        assert_eq!(kept(0xc2, [0x22, 0x11, 0x11], 3), Some(1.5));
        assert_eq!(kept(0xc2, [0x11, 0x11, 0x11], 3), Some(3.0));
        assert_eq!(kept(0xc2, [0x21, 0x12, 0x12], 3), Some(1.5));
        assert_eq!(kept(0xc0, [0x11, 0x11, 0x11], 3), None);
        assert_eq!(kept(0xc0, [0x11, 0x11, 0x11], 1), Some(3.0));
    }
}
