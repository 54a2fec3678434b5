//! Training pictures: found in folders, lists and shards, decoded when they are wanted and kept in memory as far
//! as there is room, cropped and degraded by threads that run ahead of the training steps. What a step sees
//! follows from the seed and the step alone.
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use diffbir_train::data::{Crop, ExampleConfig, LoadConfig, OpenConfig, Pictures};
//! use diffbir_train::degrade::preset;
//! let mut report = |report| println!("{report:?}");
//! let paths = ["photos".into(), "shard-{000..009}.tar".into()];
//! let pictures = Pictures::open(&paths, &OpenConfig::new(Crop::Random, 512), &mut report)?;
//! let examples = ExampleConfig { by_batch: true, pool: 256, ..ExampleConfig::new(preset("realesrgan")) };
//! let steps_behind = 0;
//! let load = LoadConfig { seed: 231, batch: 16, workers: None };
//! let mut batches = pictures.batches(&examples, &load, steps_behind)?;
//! let batch = batches.next(&mut report)?; // 16 examples: truth, degraded, caption
//! println!("{} pictures, {:?} waited", batch.len(), batches.waited());
//! # Ok(())
//! # }
//! ```

mod crop;
mod error;
mod example;
mod inventory;
mod loader;
mod order;
mod shard;
mod sources;
mod table;

pub use crop::{Augment, Crop};
pub use error::DataError;
pub use example::{Example, ExampleConfig};
pub use inventory::Inventory;
pub use loader::{Batches, LoadConfig};
pub use sources::{Columns, pictures_in};

use crate::run::Report;
use crop::Stored;
use diffbir_imaging::Raster;
use rayon::prelude::*;
use sources::{Captions, Entry};
use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What is read of sources.
#[derive(Clone, Debug, PartialEq)]
pub struct OpenConfig {
    /// How a square is taken of a picture.
    pub crop: Crop,
    /// Its side, pixels.
    pub size_px: usize,
    /// Names of columns and fields.
    pub columns: Columns,
    /// Decoded pictures are kept until they take this many bytes. It changes the speed and nothing else.
    pub memory_bytes: u64,
}

impl OpenConfig {
    /// Squares of `size_px`; up to 4 GiB of decoded pictures are kept.
    pub fn new(crop: Crop, size_px: usize) -> Self {
        Self { crop, size_px, columns: Columns::default(), memory_bytes: 4 << 30 }
    }
}

/// Pictures to train on.
#[derive(Clone)]
pub struct Pictures(Arc<Set>);

struct Set {
    paths: Vec<PathBuf>,
    entries: Vec<Entry>,
    config: OpenConfig,
    state: Mutex<State>,
}

/// What is known of pictures by now.
#[derive(Default)]
struct State {
    kept: HashMap<usize, Arc<Stored>>,
    kept_bytes: u64,
    /// Those that cannot be used.
    refused: HashSet<usize>,
    /// Why, as long as nobody was told.
    left_out: Vec<String>,
}

/// A set is decoded when it is opened if its files are smaller than what may be kept by this factor, about the most
/// by which JPEG makes photographs smaller.
const PACKED: u64 = 10;

impl Pictures {
    /// Finds pictures. Each path may be
    ///
    /// - a folder: all pictures in it and its sub-folders, in the order of their paths; `a.txt` is the caption of
    ///   `a.jpg`;
    /// - a text (`.txt`): one path a line, relative to the list's folder, then, if wanted, a tab and a caption;
    /// - JSON Lines (`.jsonl`) or a table in Parquet (`.parquet`): an object or row for each picture, with [`Columns`]
    ///   for the path and captions;
    /// - a WebDataset shard (`.tar`), with captions in `.txt` or `.json`;
    /// - one picture;
    /// - a pattern for any of these: `*`, `?`, `[ab]`, `{a,b}`, `{000..009}`.
    ///
    /// A set that is small for `memory_bytes` is decoded at once; of a larger one only names and places are kept.
    pub fn open(
        paths: &[PathBuf],
        config: &OpenConfig,
        report: &mut dyn FnMut(Report),
    ) -> Result<Self, DataError> {
        let (entries, left_out) = sources::entries(paths, &config.columns)?;
        left_out.into_iter().for_each(|why| report(Report::LeftOut { why }));
        if entries.is_empty() {
            return Err(DataError::Empty { folders: paths.to_vec(), least_px: config.size_px });
        }
        let config = config.clone();
        let pictures =
            Self(Arc::new(Set { paths: paths.to_vec(), entries, config, state: Mutex::default() }));
        let is_small = pictures.packed_bytes().saturating_mul(PACKED) <= pictures.0.config.memory_bytes;
        // So that all that is wrong with a small set is known before the first step.
        let none = is_small
            && (0..pictures.len()).into_par_iter().filter(|&index| pictures.usable(index).is_some()).count()
                == 0;
        pictures.tell(report);
        if none { Err(pictures.nothing()) } else { Ok(pictures) }
    }

    fn packed_bytes(&self) -> u64 {
        self.0.entries.iter().map(|entry| entry.file_bytes).sum()
    }

    /// How many there are, those that will turn out to be unreadable included.
    pub fn len(&self) -> usize {
        self.0.entries.len()
    }

    /// Whether there are none; never true for an opened set.
    pub fn is_empty(&self) -> bool {
        self.0.entries.is_empty()
    }

    /// By what a run notices that its pictures are no longer those that it began with.
    pub fn inventory(&self) -> Inventory {
        Inventory::of(self.0.entries.iter().map(|entry| (entry.picture.name(), entry.file_bytes)))
    }

    /// The name of a picture: its path, or that of its shard and its name in there.
    pub fn name(&self, index: usize) -> String {
        self.0.entries[index].picture.name()
    }

    /// A picture, RGB, or why it cannot be used, with its name. For [`Crop::Center`] and [`Crop::Random`] large ones are
    /// halved already.
    pub fn picture(&self, index: usize) -> Result<Raster, String> {
        self.stored(index).map(|stored| Raster::from_u8(stored.width_px, stored.height_px, 3, &stored.rgb))
    }

    /// The usual caption of a picture and its long one, each in the other's place where that is missing, or why they
    /// cannot be read, with the file's name.
    pub fn captions(&self, index: usize) -> Result<Option<[String; 2]>, String> {
        let Captions { short, long } = self.0.entries[index].captions(&self.0.config.columns)?;
        let both = short.clone().or(long.clone()).zip(long.or(short));
        Ok(both.map(|(short, long)| [short.into(), long.into()]))
    }

    /// An error where there are fewer than a batch has examples.
    pub(crate) fn fill(&self, batch: usize) -> Result<(), DataError> {
        let pictures = self.len();
        if pictures < batch { Err(DataError::FewerThanBatch { pictures, batch }) } else { Ok(()) }
    }

    fn stored(&self, index: usize) -> Result<Arc<Stored>, String> {
        if let Some(kept) = self.state().kept.get(&index) {
            return Ok(kept.clone());
        }
        let place = &self.0.entries[index].picture;
        let name = place.name();
        let bytes = place.read().map_err(|error| format!("{name}: cannot be read: {error}"))?;
        let photo = diffbir_imaging::decode_bytes(&bytes, &name).map_err(|error| error.to_string())?;
        let raster = photo.to_raster();
        let OpenConfig { crop, size_px, memory_bytes, .. } = self.0.config;
        if let Some(why) = crop.refuses(raster.size(), size_px) {
            return Err(format!("{name}: {why}"));
        }
        let (width_px, height_px) = raster.size();
        let stored = Stored { width_px, height_px, rgb: raster.to_u8_rounding() };
        let stored = Arc::new(crop.prepare(stored, size_px));
        let bytes = stored.rgb.len() as u64;
        let mut state = self.state();
        if state.kept_bytes + bytes <= memory_bytes && !state.kept.contains_key(&index) {
            state.kept_bytes += bytes;
            state.kept.insert(index, stored.clone());
        }
        Ok(stored)
    }

    /// A picture with its captions; nothing, and a reason for whoever asks for it, where it cannot be used.
    fn usable(&self, index: usize) -> Option<(Arc<Stored>, Captions)> {
        if self.state().refused.contains(&index) {
            return None;
        }
        let captions = || self.0.entries[index].captions(&self.0.config.columns);
        let both = self.stored(index).and_then(|stored| Ok((stored, captions()?)));
        both.map_err(|why| {
            let mut state = self.state();
            if state.refused.insert(index) {
                state.left_out.push(why);
            }
        })
        .ok()
    }

    /// Why there is nothing to train on, where no picture can be used.
    pub(crate) fn nothing(&self) -> DataError {
        DataError::Empty { folders: self.0.paths.clone(), least_px: self.0.config.size_px }
    }

    /// Tells what was left out since the last time, in an order that does not depend on threads.
    fn tell(&self, report: &mut dyn FnMut(Report)) {
        let mut left_out = std::mem::take(&mut self.state().left_out);
        left_out.sort();
        left_out.into_iter().for_each(|why| report(Report::LeftOut { why }));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing is done under the lock that could leave it half done.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
