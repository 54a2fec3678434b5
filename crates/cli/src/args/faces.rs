//! Flags of `--task face-background`.

use super::not_negative;
use clap::{Args, ValueEnum};
use std::path::PathBuf;

#[derive(Args)]
#[command(next_help_heading = "Faces in photographs: --task face-background")]
pub struct Faces {
    /// Which faces are restored by themselves [default: all].
    #[arg(long, value_enum)]
    pub faces: Option<Which>,

    /// Leave faces whose box is narrower or lower than this, in pixels of the photograph, as the background's
    /// restoration makes them [default: 16].
    #[arg(long, value_name = "PX", value_parser = not_negative, allow_negative_numbers = true)]
    pub min_face_px: Option<f64>,

    /// What finds faces: a file of RetinaFace, or YuNet as ONNX [default: the best that is here, see `diffbir models`].
    #[arg(long, value_name = "FILE")]
    pub face_detector: Option<PathBuf>,

    /// Write faces as they were cut and as they were restored, and the background without them.
    #[arg(long, value_name = "DIR")]
    pub save_faces: Option<PathBuf>,
}

impl Faces {
    /// The first of these flags that was given.
    pub fn given(&self) -> Option<&'static str> {
        [
            ("--faces", self.faces.is_some()),
            ("--min-face-px", self.min_face_px.is_some()),
            ("--face-detector", self.face_detector.is_some()),
            ("--save-faces", self.save_faces.is_some()),
        ]
        .into_iter()
        .find_map(|(flag, given)| given.then_some(flag))
    }
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Which {
    /// All that are found.
    All,
    /// The one nearest to the middle.
    #[value(alias = "centre")]
    Center,
    /// The largest.
    Largest,
}
