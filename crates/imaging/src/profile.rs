//! Colour profiles: RGB pictures in another space than sRGB are converted for the networks and back.

use moxcms::{
    Chromaticity, CicpColorPrimaries, CicpProfile, ColorPrimaries, MatrixCoefficients, ToneReprCurve,
    TransferCharacteristics,
};
use moxcms::{ColorProfile, DataColorSpace, Layout, RenderingIntent, TransformOptions};
use rayon::prelude::*;

/// An RGB profile that is not sRGB.
#[derive(Clone, Debug)]
pub(crate) struct Profile {
    own: Box<ColorProfile>,
    srgb: Box<ColorProfile>,
}

/// What a profile's data means for us.
pub(crate) enum Reading {
    /// Nothing to convert: sRGB, grey, or data that is no profile.
    AsIs,
    /// To be converted.
    Convert(Profile),
    /// Colours that we do not process, by name.
    Unsupported(&'static str),
}

/// Values converted at once.
const CHUNK: usize = 3 * 16 * 1024;

impl Profile {
    pub(crate) fn read(icc: &[u8], channels: usize) -> Reading {
        let Ok(own) = ColorProfile::new_from_slice(icc) else { return Reading::AsIs };
        match own.color_space {
            DataColorSpace::Rgb if channels == 3 => {}
            DataColorSpace::Cmyk => return Reading::Unsupported("CMYK"),
            DataColorSpace::Lab => return Reading::Unsupported("Lab"),
            // A grey curve is kept with its samples; the networks see them as they are.
            _ => return Reading::AsIs,
        }
        let profile = Self { own: Box::new(own), srgb: Box::new(ColorProfile::new_srgb()) };
        // A probe tells sRGB under whatever name from the rest.
        let probe: Vec<u8> = (0u8..=255).flat_map(|v| [v, 255 - v, v / 2 + 60]).collect();
        let converted = profile.to_srgb_u8(&probe);
        let same = probe.iter().zip(&converted).all(|(a, b)| a.abs_diff(*b) <= 1);
        if same { Reading::AsIs } else { Reading::Convert(profile) }
    }

    pub(crate) fn to_srgb_u8(&self, rgb: &[u8]) -> Vec<u8> {
        transform_u8(&self.own, &self.srgb, rgb)
    }

    pub(crate) fn to_srgb_u16(&self, rgb: &[u16]) -> Vec<u16> {
        transform_u16(&self.own, &self.srgb, rgb)
    }

    pub(crate) fn to_own_u16(&self, rgb: &[u16]) -> Vec<u16> {
        transform_u16(&self.srgb, &self.own, rgb)
    }
}

/// The profile of colours that are told by a power from stored to linear values, and by the chromaticities
/// x, y of white, red, green and blue (sRGB's if there are none).
pub(crate) fn of_power(power: f32, chromaticities: Option<[f32; 8]>) -> Option<Vec<u8>> {
    let mut profile = ColorProfile::new_srgb();
    if let Some([white_x, white_y, red_x, red_y, green_x, green_y, blue_x, blue_y]) = chromaticities {
        let primaries = ColorPrimaries {
            red: Chromaticity::new(red_x, red_y),
            green: Chromaticity::new(green_x, green_y),
            blue: Chromaticity::new(blue_x, blue_y),
        };
        profile.update_rgb_colorimetry(Chromaticity::new(white_x, white_y).to_xyyb(), primaries);
    }
    let curve = ToneReprCurve::Parametric(vec![power]);
    profile.red_trc = Some(curve.clone());
    profile.green_trc = Some(curve.clone());
    profile.blue_trc = Some(curve);
    named(profile)
}

/// The profile of colours that are told by the numbers of ITU-T H.273; nothing for those that are not known.
pub(crate) fn of_code_points(primaries: u8, transfer: u8) -> Option<Vec<u8>> {
    let code_points = CicpProfile {
        color_primaries: CicpColorPrimaries::try_from(primaries).ok()?,
        transfer_characteristics: TransferCharacteristics::try_from(transfer).ok()?,
        matrix_coefficients: MatrixCoefficients::Identity,
        full_range: true,
    };
    let profile = ColorProfile::new_from_cicp(code_points);
    profile.red_trc.as_ref()?;
    named(profile)
}

/// A profile's bytes, without a name that would be another's.
fn named(mut profile: ColorProfile) -> Option<Vec<u8>> {
    profile.description = None;
    // It speaks louder than the curves.
    profile.cicp = None;
    profile.encode().ok()
}

fn options() -> TransformOptions {
    TransformOptions { rendering_intent: RenderingIntent::RelativeColorimetric, ..Default::default() }
}

fn transform_u8(from: &ColorProfile, to: &ColorProfile, rgb: &[u8]) -> Vec<u8> {
    let Ok(transform) = from.create_transform_8bit(Layout::Rgb, to, Layout::Rgb, options()) else {
        return rgb.to_vec();
    };
    let mut out = vec![0; rgb.len()];
    out.par_chunks_mut(CHUNK).zip(rgb.par_chunks(CHUNK)).for_each(|(out, rgb)| {
        transform.transform(rgb, out).expect("both sides have the same length");
    });
    out
}

fn transform_u16(from: &ColorProfile, to: &ColorProfile, rgb: &[u16]) -> Vec<u16> {
    let Ok(transform) = from.create_transform_16bit(Layout::Rgb, to, Layout::Rgb, options()) else {
        return rgb.to_vec();
    };
    let mut out = vec![0; rgb.len()];
    out.par_chunks_mut(CHUNK).zip(rgb.par_chunks(CHUNK)).for_each(|(out, rgb)| {
        transform.transform(rgb, out).expect("both sides have the same length");
    });
    out
}
