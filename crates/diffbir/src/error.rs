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
    /// Laying restored faces back.
    Paste,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Self::Detect => "find faces",
            Self::Stage1 => "stage 1",
            Self::Encode => "encode",
            Self::Sample => "sample",
            Self::Decode => "decode",
            Self::Paste => "paste",
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
    /// The device could not do it.
    #[error(
        "{stage} failed on the device: {reason}; if its memory is full, tiles need less (--cleaner-tiled, \
        --vae-encoder-tiled, --vae-decoder-tiled, --cldm-tiled), and so does --precision f16"
    )]
    Device {
        /// Where.
        stage: Stage,
        /// What the device says.
        reason: String,
    },
    /// Whoever watches the progress asked to stop.
    #[error("stopped")]
    Stopped,
}

impl Error {
    /// [`Error::Device`] with the line that says what happened of a text that also says where in the program.
    pub(crate) fn device(stage: Stage, text: &str) -> Self {
        let lines = || text.lines().map(str::trim).filter(|line| !line.is_empty());
        let heads = ["An ", "A launch error", "Several failures", "The bytes were never written"];
        let says = |line: &&str| !line.ends_with(':') && !heads.iter().any(|head| line.starts_with(head));
        // One failure has others behind it; that the memory is full is the first of all.
        let is_full = |line: &&str| line.starts_with("out of ");
        let reason = lines().find(is_full).or_else(|| lines().find(says));
        Self::Device {
            stage,
            reason: reason.or_else(|| lines().next()).unwrap_or("it does not say why").into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_quoted_without_where_it_was() {
        let text =
            "An error happened during execution\nCaused by:\n  out of memory: 3 GiB\n   at memory.rs:3";
        let said = Error::device(Stage::Stage1, text).to_string();
        assert!(said.starts_with("stage 1 failed on the device: out of memory: 3 GiB; if"), "{said}");
        let several = "Several failures at once\nCaused by:\n  The bytes were never written (failure #3)\n  at x\n\
            Caused by:\n  An IO error happened\nCaused by:\n  out of memory: 3 GiB\nout of memory: 1 GiB";
        let said = Error::device(Stage::Sample, several).to_string();
        assert!(said.starts_with("sample failed on the device: out of memory: 3 GiB; if"), "{said}");
        assert!(
            Error::device(Stage::Decode, "lost").to_string().contains("decode failed on the device: lost;")
        );
    }
}
