//! What is kept of a job.

use crate::engine::{Made, Options};
use crate::problem::Problem;
use serde::{Deserialize, Serialize};
use std::time::{SystemTime, UNIX_EPOCH};
use utoipa::ToSchema;

/// Where a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It waits.
    Queued,
    /// It is being restored.
    Running,
    /// Its results are there.
    Done,
    /// There is no result.
    Failed,
}

impl State {
    /// Whether nothing comes any more.
    pub fn is_end(self) -> bool {
        matches!(self, Self::Done | Self::Failed)
    }
}

/// A job, as it lies on the disk.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    /// Hard to guess.
    pub id: String,
    /// What the picture is called, without a folder.
    pub name: String,
    /// What the mask of its regions is called, if one came with it.
    #[serde(default)]
    pub mask: Option<String>,
    /// What was asked for.
    pub options: Options,
    /// The same as a command line, without the picture.
    pub command: Vec<String>,
    /// Ending of the results' names.
    pub extension: String,
    /// Size of the picture.
    pub size: (u32, u32),
    /// How many results were asked for, and the pixels of one.
    pub samples: usize,
    /// See `samples`.
    pub pixels: u64,
    /// Where it is.
    pub state: State,
    /// How often it was begun.
    pub attempts: u32,
    /// When it was accepted, began and ended, seconds since 1970.
    pub created: f64,
    /// See `created`.
    pub started: Option<f64>,
    /// See `created`.
    pub ended: Option<f64>,
    /// The client's key against doing the same twice, and the digest of what was asked with it.
    pub key: Option<(String, String)>,
    /// What a person should know.
    pub notes: Vec<String>,
    /// The results so far.
    pub results: Vec<Made>,
    /// Whether stage 1 is there.
    pub stage1: bool,
    /// How much the results differ, where there is a map of it.
    #[serde(default)]
    pub stability: Option<f64>,
    /// Why there is no result.
    pub error: Option<Problem>,
    /// Bytes of all files.
    pub bytes: u64,
}

/// Seconds since 1970.
pub fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// What browsers and people call a picture's type, by the ending of its name.
pub fn media_type(extension: &str) -> &'static str {
    match extension {
        "png" => "image/png",
        "jpg" => "image/jpeg",
        "webp" => "image/webp",
        "tiff" => "image/tiff",
        "bmp" => "image/bmp",
        "jxl" => "image/jxl",
        "heic" => "image/heic",
        _ => "application/octet-stream",
    }
}
