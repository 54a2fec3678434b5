//! One picture, from photograph to encoded results: what the command line and the server have in common.

use super::choose::Chosen;
use super::faces::{Faces, Restored};
use super::seeds::Seeds;
use super::settings;
use crate::args::Restore;
use crate::doubts;
use anyhow::{Result, bail};
use diffbir::catalog::Task;
use diffbir::geometry::MAX_OUTPUT_PIXELS;
use diffbir::harm::Harm;
use diffbir::restore::Watch;
use diffbir::{Error, Model, Options};
use diffbir_imaging::resize::{self, Filter};
use diffbir_imaging::{Depth, Encoded, Format, Photo, Raster, Samples};
use diffbir_nn::Device;
use diffbir_nn::stop;
use std::sync::Arc;
use std::time::Instant;

/// What is the same for all pictures of a run.
pub struct Restorer<'a> {
    /// The loaded model.
    pub model: &'a Model,
    /// How it restores.
    pub options: Options,
    /// In which format results are encoded.
    pub format: Format,
    arguments: &'a Restore,
    seeds: Seeds,
    /// What finds and restores faces, where that is asked for.
    faces: Option<Faces>,
}

/// What the faces of a picture became, and the backgrounds that they were laid into.
pub struct Found {
    /// The faces.
    pub restored: Restored,
    /// One for each sample.
    pub backgrounds: Vec<Raster>,
    /// How they are written.
    pub depth: Depth,
}

/// A result, encoded.
pub struct Finished<'a> {
    /// The picture itself.
    pub picture: &'a Raster,
    /// Its file.
    pub bytes: Vec<u8>,
    /// The seed that it was drawn from.
    pub seed: u64,
    /// How long it took.
    pub seconds: f64,
}

/// Whoever follows the restoration of a picture.
pub trait Follow: Watch {
    /// Says, after any layer of a network, whether nobody waits for the end any more.
    fn stopped(&self) -> Box<dyn Fn() -> bool + Send + Sync>;

    /// Told what a person should know.
    fn say(&mut self, text: &str);

    /// Told that stage 1 is done; `clean` gives what it made, `encoded` its file.
    fn stage1(&mut self, _clean: &dyn Fn() -> Raster, _encoded: &dyn Fn() -> Result<Vec<u8>>) -> Result<()> {
        Ok(())
    }

    /// Told how many faces were found and how many of them are to be restored.
    fn faces(&mut self, _found: usize, _restored: usize) {}

    /// Told that this face, counted from 1, is next.
    fn face(&mut self, _face: usize, _faces: usize) {}

    /// Told, before each result of stage 2, where it contradicts the photograph, and whether stage 1 was kept there.
    fn harm(&mut self, _harm: &Harm, _kept: bool) {}

    /// Handed the result of the sample of this number.
    fn result(&mut self, sample: u64, result: Finished) -> Result<()>;
}

impl<'a> Restorer<'a> {
    /// Settles how pictures are restored, or says why the model cannot honour what is asked.
    pub fn new(
        (arguments, regions): (&'a Restore, Option<Arc<Raster>>),
        (task, format): (Task, Format),
        chosen: &'a Chosen,
        device: &Device,
        say: &mut dyn FnMut(&str),
    ) -> Result<Self> {
        chosen.doubts.iter().for_each(|doubt| say(doubt));
        let model = &chosen.model;
        if let Some(lacking) = doubts::of_lacking(&model.lacking) {
            say(&format!("warning: stage 1 {lacking}"));
        }
        let options = settings::options((arguments, regions), model, task, say)?;
        let seeds = Seeds::new(arguments, chosen.set, task)?;
        let faces = Faces::new(arguments, chosen, (device, &options), say)?;
        Ok(Self { model, options, format, arguments, seeds, faces })
    }

    /// Restores a photograph once for each of `samples`. Whoever follows may stop it after a step, and after any
    /// layer of a network.
    pub fn restore(
        &mut self,
        photo: &Photo,
        samples: &[u64],
        follow: &mut dyn Follow,
    ) -> Result<Option<Found>> {
        let restored = stop::unless(follow.stopped(), || self.run(photo, samples, follow));
        restored.unwrap_or_else(|| Err(Error::Stopped.into()))
    }

    fn run(&mut self, photo: &Photo, samples: &[u64], follow: &mut dyn Follow) -> Result<Option<Found>> {
        let size = (photo.width_px, photo.height_px);
        if let Some(mask) = &self.options.regions {
            check_mask(mask.size(), size)?;
        }
        let lost = photo.metadata.lost_in(self.format);
        if !lost.is_empty() {
            follow.say(&format!("  {} cannot carry {}: left out", self.format.name(), lost.join(" and ")));
        }
        let (background, options) = match &self.faces {
            Some(faces) => faces.background((self.model, &self.options)),
            None => (self.model, self.options.clone()),
        };
        let (_, upscale) = background.config.geometry.output_size(size.0, size.1, self.options.upscale);
        if upscale < self.options.upscale {
            follow.say(&format!("  {}", lowered(self.options.upscale, upscale, size)));
        }
        let mut started = Instant::now();
        let (format, quality) = (self.format, self.arguments.quality);
        let depth = match photo.is_deep() && format.is_deep() {
            true => Depth::Sixteen,
            false => background.config.geometry.depth(),
        };
        let batches: Vec<&[u64]> = samples.chunks(usize::from(self.arguments.batch_size)).collect();
        self.seeds.picture();
        let by = (self.model, &self.options);
        let mut found = match &self.faces {
            Some(faces) => {
                let mut restored = faces.find(by, photo, follow)?;
                if !faces.are_one_batch(self.model) {
                    faces.restore(by, &mut restored, &batches, &mut self.seeds, follow)?;
                }
                Some(Found { restored, backgrounds: Vec::new(), depth })
            }
            None => None,
        };
        let stage2 = !self.arguments.stage1_only;
        let prepared = match &found {
            Some(found) => found.restored.scene.prepare(background, photo, &options, stage2, follow)?,
            None => background.prepare(photo, &options, stage2, follow)?,
        };
        let alpha = prepared.alpha.as_ref();
        let encode = |picture: &Raster| {
            let alpha = alpha.filter(|alpha| alpha.size() == picture.size());
            encode(picture, alpha, photo, (format, depth, quality))
        };
        follow.stage1(&|| prepared.clean(), &|| encode(&prepared.clean()))?;
        let mut done = 0;
        for batch in batches {
            if let (Some(faces), Some(found)) = (&self.faces, &mut found)
                && faces.are_one_batch(self.model)
            {
                for sample in batch.chunks(1) {
                    faces.restore(by, &mut found.restored, &[sample], &mut self.seeds, follow)?;
                }
            }
            let noise = self.seeds.batch(batch);
            let details = background.detail(&prepared, batch.len(), &options, noise, follow)?;
            let seconds_each = started.elapsed().as_secs_f64() / details.len() as f64;
            for (&sample, detail) in batch.iter().zip(details) {
                let pasting = Instant::now();
                let mut picture = match (&self.faces, &mut found) {
                    (Some(faces), Some(found)) => {
                        let pasted = faces.paste(&found.restored, &detail, done, follow)?;
                        found.backgrounds.push(detail);
                        pasted
                    }
                    _ => detail,
                };
                let seconds = seconds_each + pasting.elapsed().as_secs_f64();
                let count = found.as_ref().map_or(0, |found| found.restored.count());
                let faces_drawn =
                    count > 0 && self.faces.as_ref().is_some_and(|faces| faces.draw(self.model));
                if prepared.is_detailed() || faces_drawn {
                    self.judge(&mut picture, photo, prepared.clean(), follow);
                }
                let (bytes, seed) = (encode(&picture)?, self.seeds.of(sample));
                follow.result(sample, Finished { picture: &picture, bytes, seed, seconds })?;
                done += 1;
            }
            started = Instant::now();
        }
        Ok(found)
    }

    /// Tells where a result contradicts the photograph, and puts stage 1's picture there if that is asked for.
    fn judge(&self, result: &mut Raster, photo: &Photo, mut clean: Raster, follow: &mut dyn Follow) {
        // v1's program lays faces into a background that is not yet of its own size.
        if clean.size() != result.size() {
            clean = resize::float(&clean, result.width_px, result.height_px, Filter::Bicubic);
        }
        let harm = Harm::of(result, &clean, photo);
        let kept = self.arguments.safe && harm.harmed() > 0;
        if kept {
            *result = harm.undone(result, &clean);
        }
        follow.harm(&harm, kept);
    }
}

/// A result as a file, in the photograph's own colours.
pub(super) fn encode(
    picture: &Raster,
    alpha: Option<&Raster>,
    photo: &Photo,
    (format, depth, quality): (Format, Depth, Option<u8>),
) -> Result<Vec<u8>> {
    let samples = photo.to_own_colours(picture, depth);
    let alpha = alpha.map(|alpha| match depth {
        Depth::Sixteen => Samples::U16(alpha.to_u16_rounding()),
        Depth::Eight | Depth::EightCutOff => Samples::U8(alpha.to_u8_rounding()),
    });
    let encoded = Encoded {
        width_px: picture.width_px,
        height_px: picture.height_px,
        channels: photo.channels,
        samples: &samples,
        alpha: alpha.as_ref(),
        metadata: &photo.metadata,
    };
    Ok(encoded.to_bytes(format, quality)?)
}

/// Refuses a mask that is not of the shape of a picture of this size.
pub(super) fn check_mask(mask: (usize, usize), (width, height): (usize, usize)) -> Result<()> {
    if has_shape(mask, (width, height)) {
        return Ok(());
    }
    bail!("--mask: has another shape ({} x {}) than the picture ({width} x {height})", mask.0, mask.1)
}

/// Whether a picture has the shape of another, but for what rounding to whole pixels does.
fn has_shape(size: (usize, usize), of: (usize, usize)) -> bool {
    let [(width, height), (of_width, of_height)] = [size, of].map(|(x, y)| (x as f64, y as f64));
    let scale = width / of_width;
    (height - of_height * scale).abs() <= 1.0 + scale
}

/// Why a result is not enlarged as asked.
fn lowered(asked: f64, upscale: f64, (width, height): (usize, usize)) -> String {
    let limit = MAX_OUTPUT_PIXELS / 1_000_000;
    if upscale > 1.0 {
        return format!(
            "upscale lowered from {asked} to {upscale:.2}: the result would exceed {limit} megapixels"
        );
    }
    let own = (width * height) as f64 / 1e6;
    format!(
        "upscale lowered from {asked} to 1: the picture itself has {own:.1} megapixels, and none above {limit} is enlarged"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use diffbir::geometry::Geometry;

    #[test]
    fn a_lowered_upscale_is_explained() {
        let said =
            |size: (usize, usize)| lowered(4.0, Geometry::Free.output_size(size.0, size.1, 4.0).1, size);
        assert!(said((4000, 3000)).starts_with("upscale lowered from 4 to 1.41: the result would exceed"));
        assert!(said((6000, 4200)).contains("to 1: the picture itself has 25.2 megapixels"));
    }
}
