//! What a file says of its picture beside the pixels.

use crate::encode::Format;
use image::metadata::Orientation;

/// Pixels per unit of length.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Density {
    /// Across, per inch.
    pub x_dpi: f64,
    /// Down, per inch.
    pub y_dpi: f64,
}

/// Metadata as blocks of bytes, kept as they are; only the orientation is changed, since pixels come out
/// upright.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metadata {
    /// A TIFF structure, as in JPEG's APP1 behind `Exif\0\0`.
    pub exif: Option<Vec<u8>>,
    /// An XML text.
    pub xmp: Option<Vec<u8>>,
    /// Photoshop image resources with the IPTC record inside, as in JPEG's APP13 behind `Photoshop 3.0\0`.
    pub iptc: Option<Vec<u8>>,
    /// The colour profile of the samples.
    pub icc: Option<Vec<u8>>,
    /// For print.
    pub density: Option<Density>,
}

impl Metadata {
    /// The blocks at hand that a format cannot carry, in words.
    pub fn lost_in(&self, format: Format) -> Vec<&'static str> {
        let lost = match format {
            Format::Png | Format::Jpeg | Format::Tiff => [None; 2],
            Format::WebP => [self.iptc.as_ref().map(|_| "IPTC"), self.density.map(|_| "a resolution")],
        };
        lost.into_iter().flatten().collect()
    }

    /// Takes the orientation out of the EXIF block, leaving 1 there.
    pub(crate) fn take_orientation(&mut self) -> Orientation {
        self.exif
            .as_mut()
            .and_then(|exif| Orientation::remove_from_exif_chunk(exif))
            .unwrap_or(Orientation::NoTransforms)
    }
}
