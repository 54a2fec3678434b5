//! Flags of `--task face-background`.

use super::{not_negative, share};
use clap::{Args, ValueEnum};
use std::path::PathBuf;

#[derive(Args)]
#[command(next_help_heading = "Faces in photographs: --task face-background")]
pub struct Faces {
    /// Which faces are restored by themselves [default: all].
    #[arg(long, value_enum)]
    pub faces: Option<Which>,

    /// Leave faces whose box is narrower or lower than this, in pixels of the photograph, as the background's
    /// restoration makes them [default: 16, or 0 where that would break them].
    #[arg(long, value_name = "PX", value_parser = not_negative, allow_negative_numbers = true)]
    pub min_face_px: Option<f64>,

    /// What finds faces: a file of RetinaFace, or YuNet as ONNX [default: the best that is here, see `diffbir models`].
    #[arg(long, value_name = "FILE")]
    pub face_detector: Option<PathBuf>,

    /// What restores faces in place of the model: gfpgan-v1.4 or another engine (see `diffbir models list`), or a file of
    /// one.
    #[arg(long, value_name = "NAME")]
    pub face_engine: Option<String>,

    /// How much of a face is --face-engine's, the rest being the model's own; 0..1 [default: 1].
    #[arg(long, value_name = "SHARE", value_parser = share, allow_negative_numbers = true, requires = "face_engine")]
    pub face_blend: Option<f64>,

    /// What restores the background in place of the model: an engine such as realesrgan-x2plus, or a file of one. The
    /// reference's RealESRGAN is the engine that enlarges as --upscale does, its DiffBIR the model.
    #[arg(long, value_name = "NAME", aliases = ["bg_upsampler", "bg-upsampler"])]
    pub background_engine: Option<String>,

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
            ("--face-engine", self.face_engine.is_some()),
            ("--face-blend", self.face_blend.is_some()),
            ("--background-engine", self.background_engine.is_some()),
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
