//! What a file says of its picture beside the pixels.

use crate::encode::Format;
use crate::fields;
use image::metadata::Orientation;

/// Pixels per unit of length.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Density {
    /// Across, per inch.
    pub x_dpi: f64,
    /// Down, per inch.
    pub y_dpi: f64,
}

impl Density {
    /// Of pixels per metre; nothing if the file leaves them open.
    pub(crate) fn per_metre(x: u32, y: u32) -> Option<Self> {
        let per_inch = |value: u32| f64::from(value) * 0.0254;
        (x > 0 && y > 0).then(|| Self { x_dpi: per_inch(x), y_dpi: per_inch(y) })
    }
}

/// Metadata as blocks of bytes, kept as they are but for what would be wrong of the result: its orientation,
/// since pixels come out upright, its size, and EXIF's thumbnail.
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
    /// What the file carried beside these and is not read, in words.
    pub unread: Vec<&'static str>,
}

impl Metadata {
    /// What the file said and a file of this format will not say, in words.
    pub fn lost_in(&self, format: Format) -> Vec<&'static str> {
        let mut lost = self.unread.clone();
        let mut unless = |carried: bool, what: &'static str| {
            if !carried {
                lost.push(what);
            }
        };
        match format {
            Format::Png | Format::Tiff => {}
            Format::Jpeg => {
                unless(fits_jpeg(EXIF_SIGNATURE, &self.exif), "EXIF of more than 64 kB");
                unless(fits_jpeg(XMP_SIGNATURE, &self.xmp), "XMP of more than 64 kB");
                unless(fits_jpeg(IPTC_SIGNATURE, &self.iptc), "IPTC of more than 64 kB");
            }
            Format::WebP => {
                unless(self.iptc.is_none(), "IPTC");
                unless(self.density.is_none(), "a resolution");
                unless(!self.is_grey_profile(), "a profile of greys");
            }
        }
        lost
    }

    /// Whether the profile is of greys, which a file that knows RGB only cannot have.
    pub(crate) fn is_grey_profile(&self) -> bool {
        self.icc.as_ref().is_some_and(|icc| icc.get(16..20) == Some(b"GRAY"))
    }

    /// Notes something that is left behind, once.
    pub(crate) fn unread(&mut self, what: &'static str) {
        if !self.unread.contains(&what) {
            self.unread.push(what);
        }
    }

    /// Takes the orientation out of the EXIF block, leaving 1 there and in the XMP text.
    pub(crate) fn take_orientation(&mut self) -> Orientation {
        if let Some(xmp) = &mut self.xmp {
            make_xmp_upright(xmp);
        }
        self.exif.as_mut().map_or(Orientation::NoTransforms, |exif| fields::make_upright(exif))
    }
}

/// What EXIF begins with in a JPEG.
pub(crate) const EXIF_SIGNATURE: &[u8] = b"Exif\0\0";

/// What XMP begins with in a JPEG.
pub(crate) const XMP_SIGNATURE: &[u8] = b"http://ns.adobe.com/xap/1.0/\0";

/// What Photoshop's resources begin with in a JPEG.
pub(crate) const IPTC_SIGNATURE: &[u8] = b"Photoshop 3.0\0";

/// Whether one segment of a JPEG holds a block. A larger one would need the extended forms that few read.
pub(crate) fn fits_jpeg(signature: &[u8], block: &Option<Vec<u8>>) -> bool {
    const SEGMENT_BYTES: usize = 65_533;
    block.as_ref().is_none_or(|block| signature.len() + block.len() <= SEGMENT_BYTES)
}

/// An IPTC record as Photoshop's resource, unless it is one already.
pub(crate) fn iptc_resource(record: &[u8]) -> Vec<u8> {
    if record.starts_with(b"8BIM") {
        return record.to_vec();
    }
    // Number, no name, length; a resource has an even length.
    let length = (record.len() as u32).to_be_bytes();
    let padding = &[0][..record.len() % 2];
    [b"8BIM\x04\x04\0\0", &length[..], record, padding].concat()
}

/// The IPTC record among Photoshop's resources.
pub(crate) fn iptc_record(mut resources: &[u8]) -> Option<&[u8]> {
    loop {
        let (number, rest) = resources.strip_prefix(b"8BIM")?.split_first_chunk::<2>()?;
        // The name has a byte of length; with it, it takes an even number of bytes.
        let name = (1 + usize::from(*rest.first()?)).next_multiple_of(2);
        let (length, rest) = rest.get(name..)?.split_first_chunk::<4>()?;
        let length = u32::from_be_bytes(*length) as usize;
        if *number == [4, 4] {
            return rest.get(..length);
        }
        resources = rest.get(length.checked_next_multiple_of(2)?..)?;
    }
}

/// Says in an XMP text that the pixels are upright, where it says anything, as an attribute or an element.
fn make_xmp_upright(xmp: &mut [u8]) {
    const NAME: &[u8] = b"tiff:Orientation";
    for at in 1..xmp.len().saturating_sub(NAME.len()) {
        // The end of an element has no value behind it.
        if xmp[at - 1] == b'/' {
            continue;
        }
        let Some(behind) = xmp[at..].strip_prefix(NAME) else { continue };
        let value = behind.iter().position(|byte| !b" \t\r\n=>'\"".contains(byte)).unwrap_or(0);
        if let Some(digit @ b'0'..=b'9') = xmp.get_mut(at + NAME.len() + value) {
            *digit = b'1';
        }
    }
}
