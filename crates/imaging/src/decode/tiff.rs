//! TIFF's tags.

use super::{CONVERT, Facts, Refusal, TO_RGB};
use crate::exif::Directories;
use crate::metadata::{Density, iptc_resource};
use std::io::Cursor;
use tiff::TiffError;
use tiff::decoder::Decoder;
use tiff::decoder::ifd::Value;
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
    Some(match (photometric, format) {
        (Some(3), _) => ("a TIFF with a palette", CONVERT),
        (Some(5), _) => ("a CMYK picture", TO_RGB),
        (Some(6), _) => ("a TIFF in YCbCr", TO_RGB),
        (Some(8..=10), _) => ("a picture in Lab", TO_RGB),
        (_, 2) => ("a picture of signed numbers", CONVERT),
        (_, 3) => ("a picture of floats", CONVERT),
        _ if bits > 16 => ("a picture of more than 16 bits", CONVERT),
        (Some(0 | 1), _) if samples > 1 => ("a grey TIFF with opacity", "convert it to PNG first"),
        _ => return None,
    })
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
