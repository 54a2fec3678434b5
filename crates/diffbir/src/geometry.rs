//! How pictures are brought to the sizes that the networks take, and back (reference 3.1 to 3.3, 4.3).

use diffbir_imaging::resize::{self, Filter, short_side_to};
use diffbir_imaging::{Depth, Photo, Raster};
use serde::{Deserialize, Serialize};

/// Largest output that is made without being asked for less, in pixels.
pub const MAX_OUTPUT_PIXELS: usize = 24_000_000;

/// The shorter side that the reference's networks get at least, in pixels.
pub(crate) const SHORT_SIDE_PX: usize = 512;

/// The reference's denoiser gets sides that are multiples of this, in pixels.
pub(crate) const REFERENCE_MULTIPLE_PX: usize = 64;

/// Whose way of sizing is followed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Geometry {
    /// Any size is taken as it is; edges are repeated up to the networks' multiples.
    #[default]
    Free,
    /// The reference's: small pictures are enlarged to a shorter side of 512 for the networks, and edges
    /// are filled with zeros.
    Reference,
    /// That of the article's demo (v1): likewise, but sizes are rounded up, what is resized has 8 bits, the
    /// filled edges go through all networks, and the way back is by Lanczos.
    Article,
}

impl Geometry {
    /// The size of the output for a photograph of this size, in whole pixels, and the factor that it took:
    /// less than asked for where the output would be larger than [`MAX_OUTPUT_PIXELS`].
    pub fn output_size(self, width: usize, height: usize, upscale: f64) -> ((usize, usize), f64) {
        let largest = (MAX_OUTPUT_PIXELS as f64 / (width * height) as f64).sqrt();
        let upscale = upscale.min(largest.max(1.0).min(upscale));
        let side = |px: usize| {
            let side = px as f64 * upscale;
            (if self == Self::Article { side.ceil() } else { side } as usize).max(1)
        };
        ((side(width), side(height)), upscale)
    }

    /// How results become 8 bits.
    pub fn depth(self) -> Depth {
        match self {
            Self::Free => Depth::Eight,
            Self::Reference | Self::Article => Depth::EightCutOff,
        }
    }

    /// The photograph at the size of the output, as a network that does not enlarge sees it; the article's get
    /// a shorter side of `least_px` at least, and edges that stay filled through all of them.
    pub(crate) fn resized(self, photo: &Photo, (width, height): (usize, usize), least_px: usize) -> Raster {
        let resized = photo.resized(width, height, Filter::Bicubic);
        let resized = match self.working_size((width, height), least_px) {
            size if size == (width, height) => resized,
            size => resize_8_bit(&resized, size, Filter::Bicubic),
        };
        if self == Self::Article { resized.pad_end(REFERENCE_MULTIPLE_PX) } else { resized }
    }

    /// The size of [`Geometry::resized`] without its filled edges.
    pub(crate) fn working_size(self, (width, height): (usize, usize), least_px: usize) -> (usize, usize) {
        if self != Self::Article || width.min(height) >= least_px {
            return (width, height);
        }
        let ratio = least_px as f64 / width.min(height) as f64;
        let side = |px: usize| (px as f64 * ratio).ceil() as usize;
        (side(width), side(height))
    }

    /// Which part of what stage 1 made is the picture, for an output of `size`; the rest is filled edges.
    pub(crate) fn inner_size(self, stage1: &Raster, size: (usize, usize), least_px: usize) -> (usize, usize) {
        match self {
            Self::Article => self.working_size(size, least_px),
            Self::Free | Self::Reference => (stage1.width_px, stage1.height_px),
        }
    }

    /// Whether the networks want a picture of this size larger, to a shorter side of `least_px`.
    pub(crate) fn enlarges(self, (width, height): (usize, usize), least_px: usize) -> bool {
        self == Self::Reference && width.min(height) < least_px
    }

    /// The size that the networks want a picture of this size to have.
    pub(crate) fn enlarged(self, size: (usize, usize), least_px: usize) -> (usize, usize) {
        if self.enlarges(size, least_px) { short_side_to(least_px, size.0, size.1) } else { size }
    }

    /// The picture with its right and lower edge filled up to a multiple.
    pub(crate) fn padded(self, picture: &Raster, multiple_px: usize) -> Raster {
        match self {
            Self::Free => picture.repeat_end(multiple_px),
            Self::Reference | Self::Article => picture.pad_end(multiple_px),
        }
    }

    /// The way back: the part of a result that is the picture, `inner`, at the size of the output.
    pub(crate) fn finished(self, result: &Raster, inner: (usize, usize), size: (usize, usize)) -> Raster {
        let result = result.crop(0, 0, inner.0, inner.1);
        match self {
            Self::Article => resize_8_bit(&result, size, Filter::Lanczos),
            Self::Free | Self::Reference => to_size(result, size),
        }
    }
}

/// Resizes if the size differs.
pub(crate) fn to_size(picture: Raster, (width, height): (usize, usize)) -> Raster {
    if (picture.width_px, picture.height_px) == (width, height) {
        return picture;
    }
    resize::float(&picture, width, height, Filter::Bicubic)
}

/// The picture resized to this shorter side.
pub(crate) fn to_short_side(picture: &Raster, side_px: usize) -> Raster {
    let (width, height) = short_side_to(side_px, picture.width_px, picture.height_px);
    resize::float(picture, width, height, Filter::Bicubic)
}

/// Cut off to 8 bits and resized by Pillow's arithmetic.
pub(crate) fn resize_8_bit(picture: &Raster, (width, height): (usize, usize), filter: Filter) -> Raster {
    let (size, channels) = ((picture.width_px, picture.height_px), picture.channels);
    let pixels = resize::pil(&picture.to_u8_truncating(), size, channels, (width, height), filter);
    Raster::from_u8(width, height, channels, &pixels)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_are_whole_pixels_and_limited() {
        assert_eq!(Geometry::Free.output_size(101, 77, 1.5), ((151, 115), 1.5));
        assert_eq!(Geometry::Article.output_size(101, 77, 1.5), ((152, 116), 1.5));
        let ((width, height), upscale) = Geometry::Free.output_size(4000, 3000, 4.0);
        assert!(width * height <= MAX_OUTPUT_PIXELS && upscale > 1.4, "{width} x {height}");
        // A picture that is larger than the limit already keeps its size.
        assert_eq!(Geometry::Free.output_size(8000, 6000, 4.0).0, (8000, 6000));
        assert_eq!(Geometry::Free.output_size(1, 1, 0.1).0, (1, 1));
    }

    #[test]
    fn the_reference_enlarges_to_a_shorter_side_of_512() {
        assert!(
            Geometry::Reference.enlarges((96, 80), 512) && !Geometry::Reference.enlarges((700, 512), 512)
        );
        assert!(!Geometry::Free.enlarges((96, 80), 512));
        let picture = to_short_side(&Raster::new(96, 80, 3), SHORT_SIDE_PX);
        assert_eq!((picture.width_px, picture.height_px), (614, 512));
    }

    #[test]
    fn edges_are_repeated_or_filled_with_zeros() {
        let picture = Raster { width_px: 2, height_px: 1, channels: 1, data: vec![1.0, 2.0] };
        assert_eq!(Geometry::Free.padded(&picture, 3).data, [1.0, 2.0, 2.0, 1.0, 2.0, 2.0, 1.0, 2.0, 2.0]);
        assert_eq!(Geometry::Reference.padded(&picture, 3).data, [1.0, 2.0, 0.0, 0., 0., 0., 0., 0., 0.]);
    }

    #[test]
    fn eight_bits_survive_the_way_through_floats() {
        let all: Vec<u8> = (0..=255).collect();
        let picture = Raster::from_u8(256, 1, 1, &all);
        assert_eq!(resize_8_bit(&picture, (256, 1), Filter::Lanczos).to_u8_truncating(), all);
    }
}
