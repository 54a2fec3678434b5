//! Through files in memory: what real codecs leave of a picture.

use super::DegradeError;
use diffbir_imaging::{Format, Raster, decode_bytes, encode_rgb};

/// Through a JPEG file, chroma at half the size.
pub(super) fn jpeg(picture: &Raster, quality: u8) -> Result<Raster, DegradeError> {
    let (width, height) = size(picture, "JPEG", u16::MAX)?;
    let mut bytes = Vec::new();
    let mut encoder = jpeg_encoder::Encoder::new(&mut bytes, quality);
    encoder.set_sampling_factor(jpeg_encoder::SamplingFactor::F_2_2);
    encoder
        .encode(&picture.to_u8_rounding(), width, height, jpeg_encoder::ColorType::Rgb)
        .expect("a picture below 65536 pixels a side encodes in memory");
    Ok(decode_bytes(&bytes, "degraded.jpg").expect("our own JPEG is whole").to_raster())
}

/// Through a lossy WebP file.
pub(super) fn webp(picture: &Raster, quality: u8) -> Result<Raster, DegradeError> {
    size(picture, "WebP", 16383)?;
    let bytes = encode_rgb(picture.size(), picture.to_u8_rounding(), Format::WebP, Some(quality))
        .expect("a picture of that size is a WebP");
    Ok(decode_bytes(&bytes, "degraded.webp").expect("our own WebP is whole").to_raster())
}

fn size(picture: &Raster, codec: &'static str, most_px: u16) -> Result<(u16, u16), DegradeError> {
    let (width_px, height_px) = (picture.width_px, picture.height_px);
    let side = |px: usize| u16::try_from(px).ok().filter(|px| *px <= most_px);
    match (side(width_px), side(height_px)) {
        (Some(width), Some(height)) => Ok((width, height)),
        _ => Err(DegradeError { codec, width_px, height_px, most_px }),
    }
}
