//! Camera RAW, developed by rawler (LGPL-2.1; a feature): the sensor's values by the file's own white balance and
//! colour matrix, in sRGB of 16 bits, without the maker's tone curve.

use super::{CONVERT, Facts, Refusal, check_size};
use crate::error::DecodeError;
use crate::exif::Directories;
use crate::metadata::Metadata;
use image::DynamicImage;
use image::metadata::Orientation;
use rawler::decoders::{Orientation as Turned, RawDecodeParams};
use rawler::imgop::develop::{Intermediate, RawDevelop};
use rawler::rawsource::RawSource;
use rawler::{RawImage, RawlerError};
use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Pixels a row and rows of the result, upright.
pub(super) fn size(bytes: &[u8]) -> Result<(u32, u32), Refusal> {
    let raw = unpacked(bytes, true)?;
    let area = raw.crop_area.or(raw.active_area).map_or((raw.width, raw.height), |area| (area.d.w, area.d.h));
    let (width, height) = if swaps(orientation(&raw)) { (area.1, area.0) } else { area };
    let side = |px: usize| u32::try_from(px).unwrap_or(u32::MAX);
    Ok((side(width), side(height)))
}

/// The developed picture, upright, and what the file says beside it.
pub(super) fn decode(bytes: &[u8], file: &str) -> Result<(DynamicImage, Facts), DecodeError> {
    let refuse = |refusal: Refusal| refusal.in_file(file);
    check_size(size(bytes).map_err(refuse)?, file)?;
    let raw = unpacked(bytes, false).map_err(refuse)?;
    let developed = guarded(|| RawDevelop::default().develop_intermediate(&raw)).map_err(refuse)?;
    let picture = match developed {
        // The fourth channel is a colour of the sensor, no opacity.
        Intermediate::FourColor(_) => None,
        developed => developed.to_dynamic_image(),
    };
    let mut picture = picture
        .ok_or_else(|| refuse(Refusal::unsupported("this kind of camera RAW (of four colours)", CONVERT)))?;
    picture.apply_orientation(orientation(&raw));
    // Most are TIFF by their structure; of the others no EXIF is kept.
    let exif = tiff::decoder::Decoder::new(Cursor::new(bytes))
        .ok()
        .and_then(|mut file| Directories::of_file(&mut file)?.to_block());
    let metadata = super::upright(Metadata { exif, ..Metadata::default() });
    Ok((picture, Facts { metadata, ..Facts::default() }))
}

/// The sensor's values; without them, but with their size, if `header_only`.
fn unpacked(bytes: &[u8], header_only: bool) -> Result<RawImage, Refusal> {
    let source = RawSource::new_from_slice(bytes);
    guarded(|| rawler::get_decoder(&source)?.raw_image(&source, &RawDecodeParams::default(), header_only))
}

/// What the library does of a file that may be broken: it leaves some cases to a panic.
fn guarded<T>(work: impl FnOnce() -> rawler::Result<T>) -> Result<T, Refusal> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(RawlerError::Unsupported { what, .. })) => {
            Err(Refusal::unsupported(format!("this camera's RAW ({what})"), CONVERT))
        }
        Ok(Err(error)) => Err(Refusal::Damaged(error.to_string())),
        Err(_) => Err(Refusal::Damaged("the decoder of camera RAW gave up".into())),
    }
}

fn orientation(raw: &RawImage) -> Orientation {
    match raw.orientation {
        Turned::Normal | Turned::Unknown => Orientation::NoTransforms,
        Turned::HorizontalFlip => Orientation::FlipHorizontal,
        Turned::Rotate180 => Orientation::Rotate180,
        Turned::VerticalFlip => Orientation::FlipVertical,
        Turned::Transpose => Orientation::Rotate90FlipH,
        Turned::Rotate90 => Orientation::Rotate90,
        Turned::Transverse => Orientation::Rotate270FlipH,
        Turned::Rotate270 => Orientation::Rotate270,
    }
}

fn swaps(orientation: Orientation) -> bool {
    use Orientation::{Rotate90, Rotate90FlipH, Rotate270, Rotate270FlipH};
    matches!(orientation, Rotate90 | Rotate90FlipH | Rotate270 | Rotate270FlipH)
}
