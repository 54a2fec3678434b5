//! TIFF's tags.

use super::{CONVERT, Facts, Refusal, TO_RGB};
use crate::exif::Directories;
use crate::metadata::{Density, iptc_resource};
use image::error::{DecodingError, ImageFormatHint};
use image::metadata::Orientation;
use image::{ColorType, ImageDecoder, ImageError, ImageFormat, ImageResult};
use std::io::Cursor;
use tiff::TiffError;
use tiff::decoder::ifd::Value;
use tiff::decoder::{Decoder, Limits};
use tiff::tags::{ByteOrder, Tag, Type, ValueBuffer};

type File<'a> = Decoder<Cursor<&'a [u8]>>;

pub(super) fn inspect(bytes: &[u8]) -> Result<Facts, Refusal> {
    let mut file = Decoder::new(Cursor::new(bytes)).map_err(|error| match error {
        TiffError::UnsupportedError(error) => {
            Refusal::unsupported(format!("this kind of TIFF ({error})"), CONVERT)
        }
        error => Refusal::Damaged(error.to_string()),
    })?;
    if let Some((kind, hint)) = unsupported(&mut file) {
        return Err(Refusal::unsupported(kind, hint));
    }
    let mut facts = Facts { size: file.dimensions().ok(), ..Facts::default() };
    // The first opacity is already multiplied into the colours.
    facts.premultiplied =
        file.get_tag_u16_vec(Tag::ExtraSamples).is_ok_and(|extra| extra.first() == Some(&1));
    facts.metadata.density = density(&mut file);
    // Photoshop's resources, or the record by itself.
    facts.metadata.iptc = block(&mut file, 34377).or_else(|| Some(iptc_resource(&block(&mut file, 33723)?)));
    facts.metadata.exif = Directories::of_file(&mut file).and_then(|exif| exif.to_block());
    let mut pages = 1;
    while file.more_images() && file.next_image().is_ok() {
        pages += 1;
    }
    if pages > 1 {
        let kind = format!("a TIFF of {pages} pages");
        return Err(Refusal::unsupported(kind, "split it into files of one page each"));
    }
    Ok(facts)
}

/// Kinds of pixels that are not decoded, by name.
fn unsupported(file: &mut File) -> Option<(&'static str, &'static str)> {
    let mut numbers = |tag| file.get_tag_u16_vec(tag).unwrap_or_default();
    let photometric = numbers(Tag::PhotometricInterpretation).first().copied();
    let format = numbers(Tag::SampleFormat).first().copied().unwrap_or(1);
    let bits = numbers(Tag::BitsPerSample).into_iter().max().unwrap_or(1);
    let samples = numbers(Tag::SamplesPerPixel).first().copied().unwrap_or(1);
    let compression = numbers(Tag::Compression).first().copied().unwrap_or(1);
    Some(match (photometric, format) {
        _ if compression == 50000 => ("a TIFF in ZSTD compression", CONVERT),
        _ if matches!(compression, 50002 | 52546) => ("a TIFF with JPEG XL inside", CONVERT),
        (Some(3), _) => ("a TIFF with a palette", CONVERT),
        (Some(5), _) => ("a CMYK picture", TO_RGB),
        (Some(6), _) => ("a TIFF in YCbCr", TO_RGB),
        (Some(8..=10), _) => ("a picture in Lab", TO_RGB),
        (_, 2) => ("a picture of signed numbers", CONVERT),
        (_, 3) => ("a picture of floats", CONVERT),
        _ if bits > 16 => ("a picture of more than 16 bits", CONVERT),
        (Some(0 | 1), _) if samples > 1 && !is_grey_with_opacity(file) => {
            ("a grey TIFF with further channels", CONVERT)
        }
        _ if !matches!(compression, 1..=8 | 32773 | 32946) => ("a TIFF in a rare compression", CONVERT),
        _ => return None,
    })
}

/// Grey pixels with their opacity behind each, which the library's decoder does not know.
pub(super) fn is_grey_with_opacity(file: &mut File) -> bool {
    let mut number = |tag| file.get_tag_u16_vec(tag).ok().and_then(|values| values.first().copied());
    number(Tag::PhotometricInterpretation) == Some(1)
        && number(Tag::SamplesPerPixel) == Some(2)
        && matches!(number(Tag::ExtraSamples), Some(1 | 2))
        && matches!(number(Tag::BitsPerSample), Some(8 | 16))
        && number(Tag::PlanarConfiguration).unwrap_or(1) == 1
}

/// A decoder for them.
pub(super) struct GreyWithOpacity<'a> {
    file: File<'a>,
    size: (u32, u32),
    deep: bool,
}

impl<'a> GreyWithOpacity<'a> {
    /// Nothing if the file is of another kind.
    pub fn of(bytes: &'a [u8]) -> Option<Self> {
        let mut file = Decoder::new(Cursor::new(bytes)).ok()?.with_limits(Limits::unlimited());
        if !is_grey_with_opacity(&mut file) {
            return None;
        }
        let size = file.dimensions().ok()?;
        let deep = file.get_tag_u16_vec(Tag::BitsPerSample).ok()?.first() == Some(&16);
        Some(Self { file, size, deep })
    }
}

impl ImageDecoder for GreyWithOpacity<'_> {
    fn dimensions(&self) -> (u32, u32) {
        self.size
    }

    fn color_type(&self) -> ColorType {
        if self.deep { ColorType::La16 } else { ColorType::La8 }
    }

    fn icc_profile(&mut self) -> ImageResult<Option<Vec<u8>>> {
        Ok(block(&mut self.file, 34675))
    }

    fn xmp_metadata(&mut self) -> ImageResult<Option<Vec<u8>>> {
        Ok(block(&mut self.file, 700))
    }

    fn orientation(&mut self) -> ImageResult<Orientation> {
        let said = self.file.get_tag_u32(Tag::Orientation).ok().and_then(|said| u8::try_from(said).ok());
        Ok(said.and_then(Orientation::from_exif).unwrap_or(Orientation::NoTransforms))
    }

    fn read_image(mut self, buffer: &mut [u8]) -> ImageResult<()> {
        self.file.read_image_bytes(buffer).map_err(|error| {
            ImageError::Decoding(DecodingError::new(ImageFormatHint::Exact(ImageFormat::Tiff), error))
        })
    }

    fn read_image_boxed(self: Box<Self>, buffer: &mut [u8]) -> ImageResult<()> {
        (*self).read_image(buffer)
    }
}

fn density(file: &mut File) -> Option<Density> {
    let per_inch = match file.get_tag_u32(Tag::ResolutionUnit) {
        Ok(3) => 2.54,
        Ok(1) => return None,
        _ => 1.0,
    };
    let mut number = |tag| match file.get_tag(tag) {
        Ok(Value::Rational(n, d)) if d > 0 => Some(f64::from(n) / f64::from(d) * per_inch),
        _ => None,
    };
    Some(Density { x_dpi: number(Tag::XResolution)?, y_dpi: number(Tag::YResolution)? })
}

/// The bytes of a tag as they lie in the file, whatever type it claims for them.
fn block(file: &mut File, tag: u16) -> Option<Vec<u8>> {
    let order: ByteOrder = file.byte_order();
    let mut value = ValueBuffer::empty(Type::BYTE);
    file.image_ifd().find_tag_buf(Tag::Unknown(tag), &mut value).ok()??;
    value.set_byte_order(order);
    Some(value.as_bytes().to_vec())
}
