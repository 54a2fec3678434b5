//! Training pictures: held in memory, cropped and degraded on the fly by threads that run ahead of the
//! training steps. What a step sees follows from the seed and the step alone.

use crate::degrade;
use crate::degrade::simple::{Degradation, Ranges};
use crate::run::Report;
use diffbir_imaging::Raster;
use rand::Rng;
use rayon::prelude::*;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};

/// What can be wrong with a folder of training pictures.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// The folder cannot be read.
    #[error("{}: cannot be read", folder.display())]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// Why.
        source: std::io::Error,
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
        /// The folders.
        folders: Vec<PathBuf>,
        /// The side that is wanted.
        least_px: usize,
    },
}

fn listed(folders: &[PathBuf]) -> String {
    folders.iter().map(|folder| folder.display().to_string()).collect::<Vec<_>>().join(", ")
}

/// A picture in memory: 8 bits a value to hold many.
struct Stored {
    width_px: usize,
    height_px: usize,
    rgb: Vec<u8>,
}

/// Pictures to train on.
#[derive(Clone)]
pub struct Pictures(Arc<Vec<Stored>>);

/// One training example: both RGB, values about 0..1.
pub struct Example {
    /// The true crop.
    pub truth: Raster,
    /// What is left of it.
    pub degraded: Raster,
}

/// How examples are made.
#[derive(Clone)]
pub struct ExampleConfig {
    /// Side of the true crop, pixels.
    pub crop_px: usize,
    /// From which the degradation is drawn.
    pub ranges: Ranges,
}

impl Pictures {
    /// Reads all pictures in these folders that are at least `crop_px` a side; the others are reported as
    /// left out.
    pub fn open(
        folders: &[PathBuf],
        crop_px: usize,
        report: &mut dyn FnMut(Report),
    ) -> Result<Self, DataError> {
        let read: Vec<Result<Stored, String>> = pictures_in_all(folders)?
            .par_iter()
            .map(|file| {
                let raster = decode(file, crop_px)?;
                Ok(Stored {
                    width_px: raster.width_px,
                    height_px: raster.height_px,
                    rgb: raster.to_u8_rounding(),
                })
            })
            .collect();
        let mut stored = Vec::new();
        for one in read {
            match one {
                Ok(one) => stored.push(one),
                Err(why) => report(Report::LeftOut { why }),
            }
        }
        if stored.is_empty() {
            return Err(DataError::Empty { folders: folders.to_vec(), least_px: crop_px });
        }
        Ok(Self(Arc::new(stored)))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none; never true for an opened set.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Example `index` of `step`.
    fn example(&self, config: &ExampleConfig, seed: u64, step: u64, index: usize) -> Example {
        let mut random = degrade::generator(seed, &format!("{step}/{index}"));
        let picture = &self.0[random.random_range(0..self.0.len())];
        let crop = config.crop_px;
        let left = random.random_range(0..=picture.width_px - crop);
        let top = random.random_range(0..=picture.height_px - crop);
        let (mirrored, turned) = (random.random::<bool>(), random.random::<bool>());
        let mut data = Vec::with_capacity(crop * crop * 3);
        for y in 0..crop {
            for x in 0..crop {
                let (x, y) = if turned { (y, x) } else { (x, y) };
                let x = if mirrored { crop - 1 - x } else { x };
                let at = ((top + y) * picture.width_px + left + x) * 3;
                data.extend(picture.rgb[at..at + 3].iter().map(|&value| f32::from(value) / 255.0));
            }
        }
        let truth = Raster { width_px: crop, height_px: crop, channels: 3, data };
        let degradation = Degradation::draw(&config.ranges, &mut random);
        let degraded = degradation.apply(&truth).expect("a crop is no picture too large for JPEG");
        Example { truth, degraded }
    }

    /// Batches for the steps from `first` on, made by a thread a few steps ahead of the reader. It ends
    /// when the receiver is dropped.
    pub fn batches(
        &self,
        config: ExampleConfig,
        seed: u64,
        batch: usize,
        first: u64,
    ) -> Receiver<Vec<Example>> {
        let (sender, receiver) = sync_channel(4);
        let pictures = self.clone();
        std::thread::spawn(move || {
            for step in first.. {
                let examples = (0..batch).map(|index| pictures.example(&config, seed, step, index)).collect();
                if sender.send(examples).is_err() {
                    return;
                }
            }
        });
        receiver
    }
}

/// A picture of at least `least_px` a side, or why it cannot be trained on, with its name.
pub(crate) fn decode(file: &Path, least_px: usize) -> Result<Raster, String> {
    let raster = diffbir_imaging::decode(file).map_err(|error| error.to_string())?.to_raster();
    large_enough(file, raster.width_px, raster.height_px, least_px)?;
    Ok(raster)
}

/// Fails, with the picture's name, where a side is below `least_px`.
pub(crate) fn large_enough(
    file: &Path,
    width_px: usize,
    height_px: usize,
    least_px: usize,
) -> Result<(), String> {
    if width_px.min(height_px) >= least_px {
        return Ok(());
    }
    let shown = file.display();
    Err(format!("{shown}: has {width_px} x {height_px} pixels, but {least_px} x {least_px} are needed"))
}

/// The pictures of several folders.
pub fn pictures_in_all(folders: &[PathBuf]) -> Result<Vec<PathBuf>, DataError> {
    let files: Result<Vec<_>, DataError> = folders.iter().map(|folder| pictures_in(folder)).collect();
    Ok(files?.concat())
}

/// Names of pictures; those of the second row cannot be read, and whoever trains hears why.
const EXTENSIONS: [&str; 13] = [
    "png", "jpg", "jpeg", "jpe", "jfif", "webp", "tif", "tiff", "bmp", //
    "heic", "heif", "avif", "jxl",
];

/// The pictures directly in a folder, by name: the order of a folder's entries differs between machines.
pub fn pictures_in(folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    let fail = |source| DataError::Folder { folder: folder.to_path_buf(), source };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(fail)? {
        files.push(entry.map_err(fail)?.path());
    }
    files.retain(|file| {
        let extension = file.extension().and_then(|e| e.to_str()).unwrap_or_default().to_lowercase();
        EXTENSIONS.contains(&extension.as_str())
    });
    files.sort();
    Ok(files)
}
