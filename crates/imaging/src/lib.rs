//! Pictures outside the networks: decoding and encoding with their metadata, resampling, the colour fix,
//! turning and masking, and the geometry of tiles. No tensors.

pub mod colour_fix;
mod decode;
mod disk;
mod encode;
mod error;
mod exif;
mod fields;
pub mod mask;
mod metadata;
pub mod opencv;
mod photo;
mod profile;
mod raster;
pub mod resize;
pub mod similarity;
pub mod tiles;
pub mod warp;

pub use decode::{
    EXTENSIONS, FORMATS, Outline, check_size, decode, decode_bytes, describe, extension_of, outline,
};
pub use disk::{Partial, remove_orphans, remove_partials, write_atomic, write_atomic_with};
pub use encode::{Encoded, Format, JPEG_QUALITY, encode_rgb};
pub use error::{DecodeError, EncodeError};
pub use metadata::{Density, Metadata};
pub use photo::{Depth, Photo, Samples};
pub use raster::Raster;
pub use similarity::Similarity;
