//! What can be wrong with training pictures, said for the person.

use crate::degrade::DegradeError;
use std::path::PathBuf;

/// Why there is nothing to train on.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// A folder, list or shard cannot be read.
    #[error("{}: cannot be read", folder.display())]
    Folder {
        /// Which.
        folder: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A pattern that no file fits.
    #[error("{}: fits no file", pattern.display())]
    Pattern {
        /// The pattern.
        pattern: PathBuf,
    },
    /// A file that is none of the sources.
    #[error(
        "{}: is no source of pictures: give a folder, a picture, a list (.txt, .jsonl, .parquet) or a shard (.tar)",
        file.display()
    )]
    Kind {
        /// The file.
        file: PathBuf,
    },
    /// A line of a list.
    #[error("{}, line {line}: {reason}", list.display())]
    Line {
        /// The list.
        list: PathBuf,
        /// From 1; of a table the row.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// A shard or table that is damaged.
    #[error("{}: is damaged or cut off ({reason}): get a whole copy of it", file.display())]
    Damaged {
        /// The shard or table.
        file: PathBuf,
        /// Where and how.
        reason: String,
    },
    /// A table that is written in a way that cannot be read here.
    #[error("{}: cannot be read here ({reason}): write it anew, compressed by zstd or not at all", file.display())]
    Unsupported {
        /// The table.
        file: PathBuf,
        /// What it is that cannot be read.
        reason: String,
    },
    /// A picture can no longer be read, but its latents were kept.
    #[error("{why}")]
    Changed {
        /// Its name and the reason.
        why: String,
    },
    /// No picture can be read and is large enough.
    #[error("{}: no picture of at least {least_px} x {least_px} pixels can be read", listed(folders))]
    Empty {
        /// Where they were looked for.
        folders: Vec<PathBuf>,
        /// The side that is wanted.
        least_px: usize,
    },
    /// There are fewer pictures than examples in a batch.
    #[error("there are {pictures} pictures for a batch of {batch}: add pictures or make the batch smaller")]
    FewerThanBatch {
        /// How many there are.
        pictures: usize,
        /// Examples in a batch.
        batch: usize,
    },
    /// The pool of pairs does not go with the batch.
    #[error("a pool of {pool} pairs is no multiple of a batch of {batch}")]
    Pool {
        /// Its size.
        pool: usize,
        /// Examples in a batch.
        batch: usize,
    },
    /// Crops too large for a recipe's codec.
    #[error("crops of {size_px} pixels: {source}")]
    Degrade {
        /// Their side.
        size_px: usize,
        /// Why.
        source: DegradeError,
    },
}

fn listed(folders: &[PathBuf]) -> String {
    folders.iter().map(|folder| folder.display().to_string()).collect::<Vec<_>>().join(", ")
}
