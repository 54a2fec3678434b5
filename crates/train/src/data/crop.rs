//! Square crops of training pictures (reference 5.3), on 8-bit RGB as Pillow computes it.

use diffbir_imaging::Raster;
use diffbir_imaging::resize::{self, Filter};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// How a square is taken of a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Crop {
    /// The whole picture, which must have the size already.
    None,
    /// Its middle, after the shorter side was resized to the square's.
    Center,
    /// Anywhere, after the shorter side was resized to between once and 1 / .7 times the square's.
    Random,
    /// Anywhere, at the picture's own scale.
    Inside,
}

/// Ways to vary a crop, each taken half of the time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Augment {
    /// Left becomes right.
    pub mirror: bool,
    /// Top becomes bottom.
    pub flip: bool,
    /// Rows become columns.
    pub transpose: bool,
}

/// A picture as it is kept: 8 bits a value to hold many.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Stored {
    pub width_px: usize,
    pub height_px: usize,
    /// `[height, width, 3]`
    pub rgb: Vec<u8>,
}

impl Stored {
    fn short(&self) -> usize {
        self.width_px.min(self.height_px)
    }

    fn resized(&self, (width_px, height_px): (usize, usize), filter: Filter) -> Self {
        let rgb = resize::pil(&self.rgb, (self.width_px, self.height_px), 3, (width_px, height_px), filter);
        Self { width_px, height_px, rgb }
    }
}

/// A random crop is of at least this share of the shorter side.
const LEAST_SHARE: f64 = 0.7;

/// By how much a picture is enlarged at most: a line of pixels would become a picture of gigabytes.
const MOST_ENLARGED: usize = 16;

impl Crop {
    /// Why a picture of this size cannot be cropped to `side` pixels, if so.
    pub(super) fn refuses(self, (width_px, height_px): (usize, usize), side: usize) -> Option<String> {
        let short = width_px.min(height_px);
        let needed = match self {
            Self::Center | Self::Random if short * MOST_ENLARGED >= side => return None,
            Self::Center | Self::Random => {
                return Some(format!(
                    "has {width_px} x {height_px} pixels, too few to be enlarged to {side}"
                ));
            }
            Self::None if (width_px, height_px) == (side, side) => return None,
            Self::Inside if short >= side => return None,
            Self::None => "exactly ",
            Self::Inside => "",
        };
        let are = if needed.is_empty() { "are needed" } else { "are needed where nothing is cropped" };
        Some(format!("has {width_px} x {height_px} pixels, but {needed}{side} x {side} {are}"))
    }

    /// The longest shorter side that a picture is resized to.
    fn most_px(self, side: usize) -> usize {
        match self {
            Self::Random => (side as f64 / LEAST_SHARE).ceil() as usize,
            _ => side,
        }
    }

    /// A picture as far as all crops of it go the same way: what is kept of a large one is small.
    pub(super) fn prepare(self, picture: Stored, side: usize) -> Stored {
        match self {
            Self::None | Self::Inside => picture,
            Self::Center | Self::Random => halved(&picture, self.most_px(side)).into_owned(),
        }
    }

    /// The square of `side` pixels, which the picture is not refused for.
    pub(super) fn of(
        self,
        picture: &Stored,
        side: usize,
        augment: Augment,
        random: &mut ChaCha8Rng,
    ) -> Raster {
        let scaled = match self {
            Self::None | Self::Inside => Cow::Borrowed(picture),
            Self::Center => Cow::Owned(short_side_to(picture, side)),
            Self::Random => {
                Cow::Owned(short_side_to(picture, random.random_range(side..=self.most_px(side))))
            }
        };
        let (right, down) = (scaled.width_px - side, scaled.height_px - side);
        let (left, top) = match self {
            Self::None | Self::Center => (right / 2, down / 2),
            Self::Random | Self::Inside => (random.random_range(0..=right), random.random_range(0..=down)),
        };
        let mut draw = |wanted: bool| wanted && random.random::<bool>();
        let (mirror, flip, transpose) = (draw(augment.mirror), draw(augment.flip), draw(augment.transpose));
        let mut data = Vec::with_capacity(side * side * 3);
        for row in 0..side {
            for column in 0..side {
                // Mirrored, flipped, then transposed.
                let (x, y) = if transpose { (row, column) } else { (column, row) };
                let x = if mirror { side - 1 - x } else { x };
                let y = if flip { side - 1 - y } else { y };
                let at = ((top + y) * scaled.width_px + left + x) * 3;
                data.extend(scaled.rgb[at..at + 3].iter().map(|&value| f32::from(value) / 255.0));
            }
        }
        Raster { width_px: side, height_px: side, channels: 3, data }
    }
}

/// Halved while the shorter side stays at least `short`.
fn halved(picture: &Stored, short: usize) -> Cow<'_, Stored> {
    let mut now = Cow::Borrowed(picture);
    while now.short() >= 2 * short {
        now = Cow::Owned(now.resized((now.width_px / 2, now.height_px / 2), Filter::Box));
    }
    now
}

/// The picture with its shorter side resized to `short` pixels: halved, then bicubic.
fn short_side_to(picture: &Stored, short: usize) -> Stored {
    let now = halved(picture, short);
    let scale = short as f64 / now.short() as f64;
    // As Python rounds.
    let scaled = |side: usize| (side as f64 * scale).round_ties_even() as usize;
    now.resized((scaled(now.width_px), scaled(now.height_px)), Filter::Bicubic)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use std::collections::HashSet;

    fn numbered(width_px: usize, height_px: usize) -> Stored {
        let rgb = (0..width_px * height_px).flat_map(|i| [i as u8, (i >> 8) as u8, 7]).collect();
        Stored { width_px, height_px, rgb }
    }

    #[test]
    fn centred_crops_are_pillows() {
        let golden = include_bytes!("../../tests/goldens/crops.safetensors");
        let golden = safetensors::SafeTensors::deserialize(golden).unwrap();
        for (name, crop) in golden.iter() {
            let numbers: Vec<usize> = name.split(['x', ' ']).filter_map(|part| part.parse().ok()).collect();
            let &[width_px, height_px, side] = &numbers[..] else { panic!("{name}") };
            let value = |y: usize, x: usize, c: usize| (x * 7 + y * 13 + c * 29 + x * y / 8) as u8;
            let rgb = (0..width_px * height_px * 3)
                .map(|i| value(i / 3 / width_px, i / 3 % width_px, i % 3))
                .collect();
            let picture = Stored { width_px, height_px, rgb };
            let mut random = ChaCha8Rng::seed_from_u64(1);
            let own = Crop::Center.of(&picture, side, Augment::default(), &mut random);
            assert_eq!(own.to_u8_rounding(), crop.data(), "{name}");
        }
        assert_eq!(golden.len(), 5);
    }

    #[test]
    fn random_crops_vary_in_scale_and_keep_their_size() {
        let picture = numbered(90, 61);
        let mut seen = HashSet::new();
        for seed in 0..40 {
            let mut random = ChaCha8Rng::seed_from_u64(seed);
            let crop = Crop::Random.of(&picture, 20, Augment::default(), &mut random);
            assert_eq!((crop.size(), crop.data.len()), ((20, 20), 1200));
            seen.insert(crop.to_u8_rounding());
        }
        assert!(seen.len() > 30, "{}", seen.len());
        let small = short_side_to(&numbered(7, 5), 20);
        assert_eq!((small.width_px, small.height_px), (28, 20));
    }

    #[test]
    fn crops_of_a_prepared_picture_are_those_of_the_whole() {
        for crop in [Crop::Center, Crop::Random, Crop::Inside] {
            let whole = numbered(203, 331);
            let prepared = crop.prepare(whole.clone(), 20);
            assert_eq!(
                prepared.width_px,
                if crop == Crop::Inside {
                    203
                } else if crop == Crop::Center {
                    25
                } else {
                    50
                }
            );
            for seed in 0..20 {
                let of = |picture: &Stored| {
                    crop.of(picture, 20, Augment::default(), &mut ChaCha8Rng::seed_from_u64(seed))
                };
                assert_eq!(of(&whole), of(&prepared));
            }
        }
    }

    #[test]
    fn augmentation_gives_the_eight_views_evenly() {
        let picture = numbered(3, 3);
        let all = Augment { mirror: true, flip: true, transpose: true };
        let mut random = ChaCha8Rng::seed_from_u64(1);
        let mut seen = std::collections::HashMap::<Vec<u8>, usize>::new();
        for _ in 0..800 {
            *seen.entry(Crop::None.of(&picture, 3, all, &mut random).to_u8_rounding()).or_default() += 1;
        }
        assert_eq!(seen.len(), 8);
        assert!(seen.values().all(|count| (60..140).contains(count)), "{seen:?}");
        let plain = Crop::None.of(&picture, 3, Augment::default(), &mut random);
        assert_eq!(plain.to_u8_rounding(), picture.rgb);
    }

    #[test]
    fn what_cannot_be_cropped_is_refused() {
        assert_eq!(Crop::Center.refuses((40, 32), 512), None);
        assert_eq!(Crop::Inside.refuses((512, 600), 512), None);
        let told = Crop::Inside.refuses((511, 600), 512).unwrap();
        assert_eq!(told, "has 511 x 600 pixels, but 512 x 512 are needed");
        assert!(Crop::Random.refuses((9000, 1), 512).unwrap().ends_with("too few to be enlarged to 512"));
        let told = Crop::None.refuses((512, 600), 512).unwrap();
        assert_eq!(told, "has 512 x 600 pixels, but exactly 512 x 512 are needed where nothing is cropped");
    }
}
