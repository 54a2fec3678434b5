//! `--save-intermediates`: what comes about on the way, as safetensors.

use crate::args::Existing;
use crate::outputs::{self, Job};
use crate::paths::{folder_of, place};
use anyhow::{Context, Result, bail};
use diffbir::restore::Value;
use diffbir_diffusion::Latent;
use diffbir_imaging::Raster;
use safetensors::tensor::{Dtype, TensorView};
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

/// Values of one picture, in the order in which they came. Pictures are `[1, height, width, 3]` in 0..1, latents
/// `[batch, channels, height, width]`.
#[derive(Default)]
pub struct Intermediates(Vec<(String, Vec<usize>, Vec<u8>)>);

impl Intermediates {
    /// Keeps a value; `results` is the number of results that were done before the batch that it belongs to.
    pub fn take(&mut self, value: Value, results: usize) {
        match value {
            Value::Stage1(picture) => self.picture("stage1".into(), picture),
            Value::Condition(latent) => self.latent("condition".into(), latent),
            Value::Step { done, x, estimate } => {
                self.latent(format!("{results}.step.{done:04}.x"), x);
                self.latent(format!("{results}.step.{done:04}.estimate"), estimate);
            }
            Value::Sampled(latent) => {
                let result = self.count(".latent");
                self.latent(format!("{result}.latent"), latent);
            }
            Value::Decoded(picture) => {
                let result = self.count(".decoded");
                self.picture(format!("{result}.decoded"), picture);
            }
        }
    }

    fn count(&self, ending: &str) -> usize {
        self.0.iter().filter(|(name, ..)| name.ends_with(ending)).count()
    }

    fn picture(&mut self, name: String, picture: &Raster) {
        self.keep(name, vec![1, picture.height_px, picture.width_px, picture.channels], &picture.data);
    }

    fn latent(&mut self, name: String, latent: &Latent) {
        self.keep(name, vec![latent.batch, latent.channels, latent.height, latent.width], &latent.data);
    }

    fn keep(&mut self, name: String, shape: Vec<usize>, values: &[f32]) {
        self.0.push((name, shape, values.iter().flat_map(|value| value.to_le_bytes()).collect()));
    }

    /// Writes the file of a picture.
    pub fn write(&self, folder: &Path, job: &Job) -> Result<PathBuf> {
        let path = path(folder, job);
        let views = self.0.iter().map(|(name, shape, bytes)| {
            let view = TensorView::new(Dtype::F32, shape.clone(), bytes).expect("bytes of this shape");
            (name.as_str(), view)
        });
        let bytes = safetensors::serialize(views, None).expect("names are distinct");
        outputs::write(&path, &bytes)?;
        Ok(path)
    }
}

/// `DIR/{folder below the searched one}/{stem of the first result}.safetensors`.
fn path(folder: &Path, job: &Job) -> PathBuf {
    let mut name = job.files().next().and_then(Path::file_stem).unwrap_or_default().to_os_string();
    name.push(".safetensors");
    folder.join(&job.below).join(name)
}

/// Refuses, before any work, jobs whose files would be one, would lie over results or over what is `kept`, or cannot
/// be written; removes what a run that was killed left.
pub fn plan<'a>(
    folder: &Path,
    jobs: &'a [Job],
    kept: impl Iterator<Item = &'a Path>,
    existing: Existing,
) -> Result<()> {
    let kept: HashSet<PathBuf> = kept.chain(jobs.iter().flat_map(Job::files)).map(place).collect();
    // Values of an earlier run are not those of this one: skipping is for results.
    let existing = match existing {
        Existing::Overwrite => existing,
        Existing::Skip | Existing::Error => Existing::Error,
    };
    let mut taken = HashMap::new();
    let mut folders = HashSet::new();
    let mut paths = Vec::new();
    for job in jobs {
        let path = path(folder, job);
        let own = place(&path);
        if own.ancestors().any(|place| kept.contains(place)) {
            bail!(
                "--save-intermediates: {} would lie over an input, the model or a result: choose another folder",
                path.display()
            );
        }
        if let Some(other) = taken.insert(own, &job.input) {
            bail!(
                "--save-intermediates: {} and {} would both become {}: give them different names",
                other.display(),
                job.input.display(),
                path.display()
            );
        }
        outputs::stays(&path, existing).context("--save-intermediates")?;
        if folders.insert(folder_of(&path).to_path_buf()) {
            outputs::ensure_writable(folder_of(&path)).context("--save-intermediates")?;
        }
        paths.push(path);
    }
    let mut results = jobs.iter().flat_map(Job::files).map(place);
    if let Some(result) = results.find(|result| result.ancestors().any(|above| taken.contains_key(above))) {
        bail!(
            "--save-intermediates: {} would lie below a file of this folder: choose another folder",
            result.display()
        );
    }
    outputs::tidy(paths.iter().map(PathBuf::as_path));
    Ok(())
}
