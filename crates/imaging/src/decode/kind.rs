//! Which formats are decoded, and how a file's content tells them.

use super::{bmp, refused};
use image::ImageFormat;

/// A format that is decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Png,
    Jpeg,
    WebP,
    Tiff,
    Bmp,
    Jxl,
    #[cfg(feature = "heic")]
    Heic,
    #[cfg(feature = "raw")]
    Raw,
}

/// Endings of the names of pictures that are decoded, in lower case. What a file is follows from its content;
/// by its name it is searched for.
pub const EXTENSIONS: &[&str] = &[
    "png",
    "jpg",
    "jpeg",
    "jpe",
    "jfif",
    "webp",
    "tif",
    "tiff",
    "bmp",
    "jxl",
    #[cfg(feature = "heic")]
    "heic",
    #[cfg(feature = "heic")]
    "heif",
    #[cfg(feature = "heic")]
    "hif",
    #[cfg(feature = "raw")]
    "dng",
    #[cfg(feature = "raw")]
    "cr2",
    #[cfg(feature = "raw")]
    "cr3",
    #[cfg(feature = "raw")]
    "nef",
    #[cfg(feature = "raw")]
    "nrw",
    #[cfg(feature = "raw")]
    "arw",
    #[cfg(feature = "raw")]
    "raf",
    #[cfg(feature = "raw")]
    "orf",
    #[cfg(feature = "raw")]
    "rw2",
    #[cfg(feature = "raw")]
    "pef",
    #[cfg(feature = "raw")]
    "srw",
    #[cfg(feature = "raw")]
    "iiq",
];

/// What is decoded, for messages; HEIC and camera RAW are not part of every build.
pub const FORMATS: &str = if cfg!(all(feature = "heic", feature = "raw")) {
    "PNG, JPEG, WebP, TIFF, BMP, JPEG XL, HEIC or camera RAW"
} else if cfg!(feature = "heic") {
    "PNG, JPEG, WebP, TIFF, BMP, JPEG XL or HEIC"
} else if cfg!(feature = "raw") {
    "PNG, JPEG, WebP, TIFF, BMP, JPEG XL or camera RAW"
} else {
    "PNG, JPEG, WebP, TIFF, BMP or JPEG XL"
};

impl Kind {
    /// What a file's bytes are, by their start.
    pub fn of(bytes: &[u8]) -> Option<Self> {
        #[cfg(feature = "heic")]
        if refused::is_heic(bytes) {
            return Some(Self::Heic);
        }
        // Before TIFF, whose structure many of them have.
        #[cfg(feature = "raw")]
        if refused::is_raw(bytes) {
            return Some(Self::Raw);
        }
        if refused::is_jxl(bytes) {
            return Some(Self::Jxl);
        }
        // The library does not know the start of TIFFs with long offsets.
        if bytes.starts_with(b"II+\0") || bytes.starts_with(b"MM\0+") {
            return Some(Self::Tiff);
        }
        match image::guess_format(bytes).ok()? {
            ImageFormat::Png => Some(Self::Png),
            ImageFormat::Jpeg => Some(Self::Jpeg),
            ImageFormat::WebP => Some(Self::WebP),
            ImageFormat::Tiff => Some(Self::Tiff),
            // Texts may begin with the two letters of BMP.
            ImageFormat::Bmp if bmp::is(bytes) => Some(Self::Bmp),
            _ => None,
        }
    }

    /// The usual ending of names.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Png => "png",
            Self::Jpeg => "jpg",
            Self::WebP => "webp",
            Self::Tiff => "tiff",
            Self::Bmp => "bmp",
            Self::Jxl => "jxl",
            #[cfg(feature = "heic")]
            Self::Heic => "heic",
            #[cfg(feature = "raw")]
            Self::Raw => "raw",
        }
    }
}
