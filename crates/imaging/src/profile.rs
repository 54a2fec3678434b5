//! Colour profiles: RGB pictures in another space than sRGB are converted for the networks and back.

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
