//! What can be wrong with pictures that are to be measured, said for the person.

use diffbir_imaging::DecodeError;
use diffbir_nn::WeightError;

/// Why there is no number.
#[derive(Debug, thiserror::Error)]
pub enum MetricError {
    /// The picture file.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The file of a network.
    #[error(transparent)]
    Weights(#[from] WeightError),
    /// The file of NIQE's parameters.
    #[error("{file}: {reason}: NIQE needs `niqe_pris_params.npz` of BasicSR")]
    Parameters {
        /// The file.
        file: String,
        /// What is wrong.
        reason: String,
    },
    /// The file of features.
    #[error(
        "{file}: {reason}: features are a matrix with a row for each picture (.npy, .npz, safetensors), or `mu` and `sigma` in .npz"
    )]
    Features {
        /// The file.
        file: String,
        /// What is wrong.
        reason: String,
    },
    /// Features of different networks.
    #[error("the features have {a} and {b} numbers a picture: they are not of the same network")]
    Widths {
        /// Numbers of the first.
        a: usize,
        /// Numbers of the second.
        b: usize,
    },
    /// Two pictures of different sizes.
    #[error("the pictures differ in size, {} x {} and {} x {}: bring them to one size first", .a[0], .a[1], .b[0], .b[1])]
    Sizes {
        /// Width and height of the first.
        a: [usize; 2],
        /// Width and height of the second.
        b: [usize; 2],
    },
    /// Not enough pixels.
    #[error("the picture has {width_px} x {height_px} pixels, {metric} needs {least_px} x {least_px}")]
    Small {
        /// The metric.
        metric: &'static str,
        /// Width.
        width_px: usize,
        /// Height.
        height_px: usize,
        /// Smallest width and height.
        least_px: usize,
    },
    /// Not enough blocks whose statistics can be taken.
    #[error(
        "NIQE finds {found} blocks of 96 x 96 pixels with texture in the picture and needs two: it is too small or flat"
    )]
    Flat {
        /// Blocks with texture.
        found: usize,
    },
}
