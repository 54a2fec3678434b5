//! A decoded photograph, and the way between its own colours and the networks' sRGB.
//!
//! A photograph with a profile is converted for the networks, whose sRGB cuts off what lies beyond it: the
//! reds, greens and cyans that Display P3 or Adobe RGB are chosen for. What was cut off is not lost. The
//! photograph goes to sRGB and back into its own space without a network; the difference to what it was is
//! nothing for colours within sRGB and exactly the part cut off for the others. Enlarged to the size of the
//! result, it is added to the result there. A flat patch so comes back as it was, whatever its colour; detail
//! comes from the networks, only the excess of colour has the sharpness (and the noise) of the input.

use crate::Raster;
use crate::metadata::Metadata;
use crate::profile::Profile;
use crate::resize::{self, Filter};
use std::borrow::Cow;

/// Interleaved samples at the depth of the file.
#[derive(Clone, Debug, PartialEq)]
pub enum Samples {
    /// 8 bits.
    U8(Vec<u8>),
    /// 16 bits.
    U16(Vec<u16>),
}

/// A photograph: upright pixels in the file's own colours, and what else the file said.
#[derive(Clone, Debug)]
pub struct Photo {
    /// Pixels a row.
    pub width_px: usize,
    /// Rows.
    pub height_px: usize,
    /// 1 for grey, 3 for RGB.
    pub channels: usize,
    /// `height · width · channels` values.
    pub samples: Samples,
    /// Opacity, `height · width` values.
    pub alpha: Option<Samples>,
    /// Kept for the output.
    pub metadata: Metadata,
    pub(crate) profile: Option<Profile>,
}

/// In which whole numbers a result is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// 8 bits, to the nearest level.
    Eight,
    /// 8 bits, cut off: half a level darker on average, as the reference does.
    EightCutOff,
    /// 16 bits, to the nearest level.
    Sixteen,
}

impl Photo {
    /// A picture of three channels in sRGB, rounded to 8 bits.
    ///
    /// # Panics
    /// When it has another number of channels.
    pub fn of_raster(picture: &Raster) -> Self {
        assert_eq!(picture.channels, 3, "a photograph here has three channels");
        Self {
            width_px: picture.width_px,
            height_px: picture.height_px,
            channels: 3,
            samples: Samples::U8(picture.to_u8_rounding()),
            alpha: None,
            metadata: Metadata::default(),
            profile: None,
        }
    }

    /// Whether samples have more than 8 bits.
    pub fn is_deep(&self) -> bool {
        matches!(self.samples, Samples::U16(_))
    }

    /// One channel of three where they are the same everywhere.
    pub(crate) fn grey_if_equal(&mut self) {
        fn grey<T: Copy + PartialEq>(samples: &[T]) -> Option<Vec<T>> {
            let (pixels, _) = samples.as_chunks::<3>();
            let all = pixels.iter().all(|[r, g, b]| r == g && g == b);
            all.then(|| pixels.iter().map(|&[r, ..]| r).collect())
        }
        let found = match &self.samples {
            _ if self.channels == 1 => None,
            Samples::U8(samples) => grey(samples).map(Samples::U8),
            Samples::U16(samples) => grey(samples).map(Samples::U16),
        };
        if let Some(samples) = found {
            self.samples = samples;
            self.channels = 1;
        }
    }

    /// Takes the opacity out of colours that were multiplied by it.
    pub(crate) fn unpremultiply(&mut self) {
        fn divide<T: Copy + Into<u32> + TryFrom<u32>>(
            samples: &mut [T],
            alpha: &[T],
            channels: usize,
            full: T,
        ) {
            let full_value: u32 = full.into();
            for (pixel, &alpha) in samples.chunks_exact_mut(channels).zip(alpha) {
                let alpha: u32 = alpha.into();
                for value in pixel.iter_mut().filter(|_| alpha > 0) {
                    let colour: u32 = (*value).into();
                    // 65535 squared and a half of 65535 are still within 32 bits.
                    *value = T::try_from((colour * full_value + alpha / 2) / alpha).unwrap_or(full);
                }
            }
        }
        match (&mut self.samples, &self.alpha) {
            (Samples::U8(samples), Some(Samples::U8(alpha))) => {
                divide(samples, alpha, self.channels, u8::MAX)
            }
            (Samples::U16(samples), Some(Samples::U16(alpha))) => {
                divide(samples, alpha, self.channels, u16::MAX);
            }
            _ => {}
        }
    }

    /// The picture in sRGB, three channels.
    pub fn to_raster(&self) -> Raster {
        self.resized(self.width_px, self.height_px, Filter::Bicubic)
    }

    /// The picture in sRGB, three channels, at another size: by Pillow's arithmetic if it has 8 bits, in
    /// floats if it has more.
    pub fn resized(&self, width: usize, height: usize, filter: Filter) -> Raster {
        let size = (self.width_px, self.height_px);
        match &self.samples {
            Samples::U8(samples) => {
                let (channels, samples) = match &self.profile {
                    Some(profile) => (3, profile.to_srgb_u8(samples).into()),
                    None => (self.channels, Cow::from(samples)),
                };
                let samples = resize::pil(&samples, size, channels, (width, height), filter);
                in_rgb(Raster::from_u8(width, height, channels, &samples))
            }
            Samples::U16(samples) => {
                let (channels, samples) = match &self.profile {
                    Some(profile) => (3, profile.to_srgb_u16(samples).into()),
                    None => (self.channels, Cow::from(samples)),
                };
                let picture = from_u16(size, channels, &samples);
                drop(samples);
                in_rgb(match picture.size() == (width, height) {
                    true => picture,
                    false => resize::float(&picture, width, height, filter),
                })
            }
        }
    }

    /// The opacity at another size, one channel.
    pub fn resized_alpha(&self, width: usize, height: usize, filter: Filter) -> Option<Raster> {
        let size = (self.width_px, self.height_px);
        Some(match self.alpha.as_ref()? {
            Samples::U8(alpha) => {
                Raster::from_u8(width, height, 1, &resize::pil(alpha, size, 1, (width, height), filter))
            }
            Samples::U16(alpha) => resize::float(&from_u16(size, 1, alpha), width, height, filter),
        })
    }

    /// A result of the networks (sRGB, three channels) in this photograph's own colours and channels, with the
    /// colours that sRGB does not hold.
    pub fn to_own_colours(&self, result: &Raster, depth: Depth) -> Samples {
        if let Some(profile) = &self.profile {
            let own = self.with_profile(profile, result);
            return match depth {
                Depth::Sixteen => Samples::U16(own.to_u16_rounding()),
                // The reference knows no profiles, so there is nothing to follow.
                Depth::Eight | Depth::EightCutOff => Samples::U8(own.to_u8_rounding()),
            };
        }
        let grey = self.channels == 1;
        let eight = |rgb: Vec<u8>| {
            Samples::U8(match grey {
                true => rgb.chunks_exact(3).map(|pixel| luma(pixel).round() as u8).collect(),
                false => rgb,
            })
        };
        match depth {
            Depth::Eight => eight(result.to_u8_rounding()),
            Depth::EightCutOff => eight(result.to_u8_truncating()),
            Depth::Sixteen => {
                let rgb = result.to_u16_rounding();
                Samples::U16(match grey {
                    true => rgb.chunks_exact(3).map(|pixel| luma(pixel).round() as u16).collect(),
                    false => rgb,
                })
            }
        }
    }

    fn with_profile(&self, profile: &Profile, result: &Raster) -> Raster {
        let (width, height) = (result.width_px, result.height_px);
        let mut own = from_u16((width, height), 3, &profile.to_own_u16(&result.to_u16_rounding()));
        if let Some(beyond) = self.beyond_srgb(profile) {
            let beyond = resize::float(&beyond, width, height, Filter::Bilinear);
            for (value, excess) in own.data.iter_mut().zip(beyond.data) {
                *value += excess;
            }
        }
        own
    }

    /// What sRGB cuts off of the photograph's colours, in its own space; nothing if it holds them all.
    fn beyond_srgb(&self, profile: &Profile) -> Option<Raster> {
        // Half a step of 8 bits: as much comes of rounding.
        const NOTHING: f32 = 0.5 / 255.0;
        let own: Vec<u16> = match &self.samples {
            Samples::U8(samples) => samples.iter().map(|&value| u16::from(value) * 257).collect(),
            Samples::U16(samples) => samples.clone(),
        };
        let held = profile.to_own_u16(&profile.to_srgb_u16(&own));
        let data: Vec<f32> =
            own.iter().zip(&held).map(|(&own, &held)| (f32::from(own) - f32::from(held)) / 65535.0).collect();
        let (width_px, height_px) = (self.width_px, self.height_px);
        let all_held = data.iter().all(|excess| excess.abs() < NOTHING);
        (!all_held).then_some(Raster { width_px, height_px, channels: 3, data })
    }
}

fn luma<T: Copy + Into<f64>>(pixel: &[T]) -> f64 {
    0.299 * pixel[0].into() + 0.587 * pixel[1].into() + 0.114 * pixel[2].into()
}

/// Three channels, where there is one.
fn in_rgb(picture: Raster) -> Raster {
    if picture.channels == 3 {
        return picture;
    }
    let mut data = Vec::with_capacity(3 * picture.data.len());
    data.extend(picture.data.iter().flat_map(|&value| [value; 3]));
    Raster { channels: 3, data, ..picture }
}

fn from_u16((width_px, height_px): (usize, usize), channels: usize, samples: &[u16]) -> Raster {
    let data = samples.iter().map(|&value| f32::from(value) / 65535.0).collect();
    Raster { width_px, height_px, channels, data }
}
