//! Pictures outside the networks: decoding and encoding with their metadata, resampling, the colour fix,
//! and the geometry of tiles. No tensors.

pub mod colour_fix;
mod decode;
mod disk;
mod encode;
mod error;
mod exif;
mod fields;
mod metadata;
mod photo;
mod profile;
mod raster;
pub mod resize;
pub mod tiles;

pub use decode::{decode, decode_bytes, describe, extension_of, size};
pub use disk::{Partial, remove_orphans, write_atomic, write_atomic_with};
pub use encode::{Encoded, Format, JPEG_QUALITY, encode_rgb};
pub use error::{DecodeError, EncodeError};
pub use metadata::{Density, Metadata};
pub use photo::{Depth, Photo, Samples};
pub use raster::Raster;
