//! HEIC (ISO/IEC 23008-12 with HEVC), by heic-decoder; a feature, because HEVC is under patents.

use super::{Facts, Outline, Refusal, check_size, upright};
use crate::error::DecodeError;
use crate::metadata::Metadata;
use crate::profile;
use heic_decoder::{DecodedImage, HeifError};
use image::{DynamicImage, ImageBuffer};

/// What the container says of its picture.
pub(super) fn outline(bytes: &[u8]) -> Result<Outline, Refusal> {
    let info = heic_decoder::probe(bytes).map_err(refusal)?;
    let has_alpha = info.alpha_bit_depth.is_some();
    // Planes of 16 bits: brightness, two of colours, which may be halved in one or both ways, and opacity; as they were coded,
    // filtered, and turned.
    let halves = [2, 3, 4, 6][info.chroma_format_idc.min(3) as usize] + if has_alpha { 2 } else { 0 };
    let outline = Outline::rgb(info.width, info.height);
    Ok(Outline {
        channels: if info.chroma_format_idc == 0 { 1 } else { 3 },
        has_alpha,
        is_deep: info.bit_depth_luma > 8,
        // Telephones write a wider space than sRGB; which one is not known before.
        is_converted: true,
        decoding: 3 * halves * outline.pixels(),
        ..outline
    })
}

/// The picture, turned as its container says, and what the file says beside it.
pub(super) fn decode(bytes: &[u8], file: &str) -> Result<(DynamicImage, Facts), DecodeError> {
    let refuse = |refusal: Refusal| refusal.in_file(file);
    // Sides beyond 32 bits are beyond any limit.
    let side = |px: usize| u32::try_from(px).unwrap_or(u32::MAX);
    let (width, height) = outline(bytes).map_err(refuse)?.size();
    check_size((side(width), side(height)), file)?;
    let mut image = heic_decoder::decode(bytes).map_err(|error| refuse(refusal(error)))?;
    let metadata = std::mem::take(&mut image.metadata);
    let icc = match metadata.icc_profile {
        Some(icc) => Some(icc),
        None => profile_of(&image).map_err(refuse)?,
    };
    let metadata = upright(Metadata { exif: metadata.exif, xmp: metadata.xmp, icc, ..Metadata::default() });
    let premultiplied = image.alpha.as_ref().is_some_and(|alpha| alpha.premultiplied);
    // Pictures without colour planes come out with three equal channels.
    let grey = image.chroma_format_idc == 0;
    let picture = pixels(&image).map_err(|error| refuse(refusal(error)))?;
    let picture = match (grey, &image.alpha) {
        (true, None) if image.bit_depth_luma > 8 => picture.into_luma16().into(),
        (true, None) => picture.into_luma8().into(),
        (true, Some(_)) if image.bit_depth_luma > 8 => picture.into_luma_alpha16().into(),
        (true, Some(_)) => picture.into_luma_alpha8().into(),
        (false, _) => picture,
    };
    Ok((picture, Facts { metadata, premultiplied, ..Facts::default() }))
}

fn pixels(image: &DecodedImage) -> Result<DynamicImage, HeifError> {
    let (width, height) = (image.width as u32, image.height as u32);
    let deep = image.bit_depth_luma > 8;
    let picture = match (deep, image.alpha.is_some()) {
        (false, false) => {
            ImageBuffer::from_raw(width, height, image.to_rgb8()?.data).map(DynamicImage::ImageRgb8)
        }
        (false, true) => {
            ImageBuffer::from_raw(width, height, image.to_rgba8()?.data).map(DynamicImage::ImageRgba8)
        }
        (true, false) => {
            ImageBuffer::from_raw(width, height, image.to_rgb16()?.data).map(DynamicImage::ImageRgb16)
        }
        (true, true) => {
            ImageBuffer::from_raw(width, height, image.to_rgba16()?.data).map(DynamicImage::ImageRgba16)
        }
    };
    picture.ok_or(HeifError::MalformedBox("its planes do not fit its size"))
}

/// The profile of colours that numbers of ITU-T H.273 tell. What is not told is sRGB, and so is the curve of
/// television, which programs show by sRGB's.
fn profile_of(image: &DecodedImage) -> Result<Option<Vec<u8>>, Refusal> {
    const UNKNOWN: u16 = 2;
    let Some(colours) = image.color_info else { return Ok(None) };
    let transfer = match colours.transfer_characteristics {
        16 | 18 => return Err(Refusal::unsupported("an HDR picture", "save it without HDR first")),
        1 | UNKNOWN | 6 | 14 | 15 => 13,
        other => other,
    };
    let primaries = if colours.color_primaries == UNKNOWN { 1 } else { colours.color_primaries };
    if (primaries, transfer) == (1, 13) || image.chroma_format_idc == 0 {
        return Ok(None);
    }
    let byte = |number: u16| u8::try_from(number).unwrap_or_default();
    Ok(profile::of_code_points(byte(primaries), byte(transfer)))
}

fn refusal(error: HeifError) -> Refusal {
    match error {
        HeifError::Unsupported(what) => {
            Refusal::unsupported(format!("this kind of HEIC ({what})"), super::CONVERT)
        }
        error => Refusal::Damaged(error.to_string()),
    }
}
