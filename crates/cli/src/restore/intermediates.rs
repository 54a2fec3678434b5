//! `--save-intermediates`: what comes about on the way, as safetensors.

use anyhow::{Context, Result};
use diffbir::restore::Value;
use diffbir_diffusion::Latent;
use diffbir_imaging::{Raster, write_atomic};
use safetensors::tensor::{Dtype, TensorView};
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

    /// Writes `DIR/{stem of the result}.safetensors`.
    pub fn write(&self, folder: &Path, result: &Path) -> Result<PathBuf> {
        let mut name = result.file_stem().unwrap_or_default().to_os_string();
        name.push(".safetensors");
        let path = folder.join(name);
        let views = self.0.iter().map(|(name, shape, bytes)| {
            let view = TensorView::new(Dtype::F32, shape.clone(), bytes).expect("bytes of this shape");
            (name.as_str(), view)
        });
        let bytes = safetensors::serialize(views, None).expect("names are distinct");
        std::fs::create_dir_all(folder)
            .with_context(|| format!("{}: the folder cannot be made", folder.display()))?;
        write_atomic(&path, &bytes)?;
        Ok(path)
    }
}
