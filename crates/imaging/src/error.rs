//! What can be wrong with a picture, said for the person.

use crate::decode::FORMATS;
use std::io;

/// Why a file could not be read as a picture. Each names the file.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The file system.
    #[error("{file}: cannot be read")]
    Read {
        /// The file.
        file: String,
        /// Why.
        source: io::Error,
    },
    /// No bytes.
    #[error("{file}: is empty (0 bytes)")]
    Empty {
        /// The file.
        file: String,
    },
    /// A format that is known but not decoded.
    #[error("{file}: {format} is not supported: {hint}")]
    Unsupported {
        /// The file.
        file: String,
        /// Its format or the kind of picture in it.
        format: String,
        /// What to do.
        hint: String,
    },
    /// Not a picture.
    #[error("{file}: is not a picture in {FORMATS}, whatever its name says")]
    NotAPicture {
        /// The file.
        file: String,
    },
    /// Too many pixels.
    #[error(
        "{file}: claims {width} x {height} pixels, more than the limit of {limit_megapixels} megapixels: crop or reduce it first"
    )]
    TooLarge {
        /// The file.
        file: String,
        /// Pixels a row.
        width: u32,
        /// Rows.
        height: u32,
        /// The limit.
        limit_megapixels: u64,
    },
    /// Cut off or broken.
    #[error("{file}: is damaged or cut off ({reason}): get a whole copy of it")]
    Damaged {
        /// The file.
        file: String,
        /// What the decoder says.
        reason: String,
    },
}

/// Why a picture could not be written.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// The file system.
    #[error("{file}: cannot be written")]
    Write {
        /// The file.
        file: String,
        /// Why.
        source: io::Error,
    },
    /// The encoder.
    #[error("the picture cannot be written as {format}: {reason}")]
    Format {
        /// The format.
        format: &'static str,
        /// Why.
        reason: String,
    },
}

/// An error of the disk without the name of the temporary file, which it carries and nobody knows.
pub(crate) fn nameless(error: io::Error) -> io::Error {
    if error.get_ref().is_some() { error.kind().into() } else { error }
}
