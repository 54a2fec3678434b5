//! What can end a training run, said for the person.

use crate::config::ConfigError;
use crate::data::DataError;
use diffbir_imaging::EncodeError;
use diffbir_metrics::MetricError;
use diffbir_nn::WeightError;
use std::path::PathBuf;

/// What can end a training run early.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The pictures.
    #[error(transparent)]
    Data(#[from] DataError),
    /// Weights to start or resume from.
    #[error(transparent)]
    Weights(#[from] WeightError),
    /// A metric's weights or pictures.
    #[error(transparent)]
    Metric(#[from] MetricError),
    /// A file cannot be written.
    #[error("{}: cannot be written", file.display())]
    Write {
        /// The file.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file cannot be written either.
    #[error(transparent)]
    Disk(#[from] EncodeError),
    /// A file or folder cannot be read.
    #[error("{}: cannot be read", file.display())]
    Read {
        /// Which.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The folder has weights, but no checkpoint.
    #[error(
        "{}: is there already, but no checkpoint to go on from: choose another folder, or move it away and start \
        from it with run.init",
        file.display()
    )]
    Occupied {
        /// The weights.
        file: PathBuf,
    },
    /// Another run works in the folder.
    #[error("{}: another run is at work there", folder.display())]
    Busy {
        /// The folder.
        folder: PathBuf,
    },
    /// The loss or the gradients are no longer numbers.
    #[error(
        "the {what} became {value} at step {step}, on the batch in {}: resume from the last checkpoint with a \
        lower optimizer.rate",
        batch.display()
    )]
    Diverged {
        /// Loss or gradient.
        what: &'static str,
        /// When.
        step: u64,
        /// NaN or infinity.
        value: f64,
        /// What the step was on.
        batch: PathBuf,
    },
}
