//! What can go wrong in a restoration.

use std::fmt;

/// A part of the pipeline, as it is named to people and programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Looking for faces.
    Detect,
    /// Removing the degradation.
    Stage1,
    /// From the stage-1 picture to its latent.
    Encode,
    /// Giving the detail back.
    Sample,
    /// From the latent to the picture.
    Decode,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Self::Detect => "find faces",
            Self::Stage1 => "stage 1",
            Self::Encode => "encode",
            Self::Sample => "sample",
            Self::Decode => "decode",
        })
    }
}

/// Why there is no restored picture.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An option that this model or build cannot honour.
    #[error("{0}")]
    Option(String),
    /// The weights.
    #[error(transparent)]
    Weights(#[from] diffbir_nn::WeightError),
    /// A network gave no numbers.
    #[error(
        "{0} gave values that are not numbers, so there is no picture: please report it with the picture and the command line"
    )]
    NotFinite(Stage),
    /// Whoever watches the progress asked to stop.
    #[error("stopped")]
    Stopped,
}
