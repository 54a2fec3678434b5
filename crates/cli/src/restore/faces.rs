//! What `--task face-background` adds to the restoration of a picture: its faces.

use super::choose::{self, Chosen};
use super::picture::{Follow, Found, encode};
use super::seeds::Seeds;
use super::settings;
use crate::args::{Existing, Restore, Task, Which};
use crate::doubts;
use crate::outputs::{self, Job};
use crate::paths::place;
use anyhow::{Context, Result, bail};
use diffbir::catalog::{DETECTORS, PARSER, Store};
use diffbir::faces::{self, Detector, Finder, Manner, Parser, Rules, Scene};
use diffbir::geometry::Geometry;
use diffbir::restore::Watch;
use diffbir::{Model, Options, Progress};
use diffbir_imaging::resize::{self, Filter};
use diffbir_imaging::{Format, Photo, Raster};
use diffbir_nn::Device;
use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

/// Smaller faces are not better for being restored by themselves, where the same is done to the background.
const LEAST_PX: f64 = 16.0;

/// What is the same for the faces of all pictures of a run.
pub struct Faces {
    finder: Finder,
    /// What restores them, where it is not the model of the run.
    model: Option<Model>,
    /// Whether its stage 2 runs.
    stage2: bool,
    /// What restores them besides, and its share.
    engine: Option<(Model, f32)>,
    /// What restores the background, where it is not the model of the run.
    background: Option<Model>,
    rules: Rules,
}

/// Where faces are written.
pub struct Save {
    folder: PathBuf,
    existing: Existing,
    /// Whether names carry the number of the sample.
    manner: Manner,
    /// What nothing is written over.
    kept: HashSet<PathBuf>,
}

/// The restored faces of a picture.
pub struct Restored {
    pub scene: Scene,
    /// As they were cut.
    cut: Vec<Photo>,
    /// Of each face its samples.
    results: Vec<Vec<Raster>>,
}

/// Whether faces are looked for.
pub fn asked(arguments: &Restore) -> Result<bool> {
    let asked = arguments.task == Task::FaceBackground;
    match arguments.faces.given() {
        Some(flag) if !asked => bail!("{flag}: goes with --task face-background"),
        _ => Ok(asked),
    }
}

/// Whose way is followed: in command lines of the reference its own, those of v1 included.
fn manner(arguments: &Restore) -> Manner {
    if arguments.reference.input.is_some() { Manner::Reference } else { Manner::Own }
}

/// Where faces go: where `--save-faces` says, or, as in the reference, beside the results.
fn folder(arguments: &Restore) -> Option<&Path> {
    let beside = if settings::as_reference(arguments) { arguments.output.as_deref() } else { None };
    arguments.faces.save_faces.as_deref().or(beside)
}

/// Refuses, before any work, a folder into which faces cannot be written, and one where those of two pictures, or what must
/// stay, would have the same names; removes what a run that was killed left.
pub fn plan(arguments: &Restore, jobs: &[Job], format: Format, existing: Existing) -> Result<()> {
    let (true, Some(save)) = (asked(arguments)?, Save::new(arguments, jobs, existing)) else { return Ok(()) };
    outputs::ensure_writable(&save.folder).context("--save-faces")?;
    let mut taken: HashMap<PathBuf, &Path> = HashMap::new();
    let mut paths = Vec::new();
    for job in jobs {
        // The names of faces follow from those of backgrounds, and how many there are nobody knows yet.
        for (_, variant) in &job.outputs {
            let path = save.path(BACKGROUNDS, job, &format!("{}{}", stem(job), variant.suffix), format);
            save.stays(&path)?;
            if let Some(other) = taken.insert(place(&path), &job.input) {
                bail!(
                    "--save-faces: those of {} and {} would both become {}: give them different names",
                    other.display(),
                    job.input.display(),
                    path.display()
                );
            }
            paths.extend(KINDS.map(|kind| save.path(kind, job, "", format)));
        }
    }
    outputs::tidy(paths.iter().map(PathBuf::as_path));
    Ok(())
}

/// The folders of faces as they were cut and as they were restored, and of what they were laid into, within that of
/// `--save-faces`.
const KINDS: [&str; 3] = [CUT, RESTORED, BACKGROUNDS];
const CUT: &str = "cropped_faces";
const RESTORED: &str = "restored_faces";
const BACKGROUNDS: &str = "restored_backgrounds";

fn stem(job: &Job) -> String {
    job.input.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

impl Faces {
    /// Nothing where no faces are to be looked for.
    pub fn new(
        arguments: &Restore,
        chosen: &Chosen,
        (device, options): (&Device, &Options),
        say: &mut dyn FnMut(&str),
    ) -> Result<Option<Self>> {
        if !asked(arguments)? {
            return Ok(None);
        }
        if options.regions.is_some() {
            bail!("--mask: does not go with faces that are restored by themselves: use --task sr");
        }
        let store = Store::of_user();
        let flags = &arguments.faces;
        let found = || store.as_ref().and_then(|store| DETECTORS.iter().find_map(|file| store.find(file)));
        let Some(detector) = flags.face_detector.clone().or_else(found) else {
            bail!(
                "--task face-background: what finds faces is not here: `diffbir models pull faces` gets it, or name a \
                 file of RetinaFace or YuNet by --face-detector"
            );
        };
        let loading = choose::loading(arguments, device);
        let parser = store.as_ref().and_then(|store| store.find(PARSER));
        for file in [Some(&detector), parser.as_ref()].into_iter().flatten() {
            doubts::of_file(file)?.iter().for_each(|doubt| say(doubt));
        }
        let parser = parser.map(|file| Parser::open(&file, loading.precision, device)).transpose()?;
        let mut beside = |flag: &str, name: &str| -> Result<Model> {
            let (model, doubts) = choose::engine((flag, name), arguments.denoise, loading)?;
            doubts.iter().for_each(|doubt| say(doubt));
            model.check(options).with_context(|| format!("{flag} {name}"))?;
            Ok(model)
        };
        let engine = flags.face_engine.as_deref().map(|name| beside("--face-engine", name)).transpose()?;
        let engine = engine.map(|model| (model, flags.face_blend.unwrap_or(1.0) as f32));
        let background = background_of(flags.background_engine.as_deref(), options.upscale);
        let background = background.map(|name| beside("--background-engine", name)).transpose()?;
        if let Some(model) = background.as_ref().filter(|model| model.config.stage1.side_px().is_some()) {
            bail!(
                "--background-engine: {} restores aligned faces alone: it goes with --face-engine",
                model.config.name
            );
        }
        let model = match (chosen.set, &store) {
            // Nobody asks for its faces.
            _ if matches!(engine, Some((_, 1.0))) => None,
            (Some(set), Some(store)) => Some(chosen.model.official_faces(set, store, loading)?),
            _ => None,
        };
        let which = match flags.faces {
            None | Some(Which::All) => faces::Which::All,
            Some(Which::Center) => faces::Which::Centre,
            Some(Which::Largest) => faces::Which::Largest,
        };
        let manner = manner(arguments);
        // The built-in stage 2 breaks eyes: it is for those who ask for it.
        let breaks =
            chosen.model.config.name == "nano" && arguments.fidelity.is_none() && !arguments.no_stage1;
        let saved = breaks && !arguments.stage1_only && engine.is_none() && background.is_none();
        let least_px = if manner == Manner::Reference || saved { 0.0 } else { LEAST_PX };
        Ok(Some(Self {
            finder: Finder { detector: Detector::open(&detector, device)?, parser },
            model,
            stage2: !arguments.stage1_only && !breaks,
            engine,
            background,
            rules: Rules { which, least_px: flags.min_face_px.unwrap_or(least_px) as f32, manner },
        }))
    }

    /// What restores the background, and how, where `model` with `options` restores all else.
    pub fn background<'a>(&'a self, (model, options): (&'a Model, &Options)) -> (&'a Model, Options) {
        match &self.background {
            Some(engine) => (engine, Options { stage1: true, ..options.clone() }),
            // v1 lays faces into what its networks made, before that comes to its own size.
            None if self.rules.manner == Manner::Reference && model.config.geometry == Geometry::Article => {
                (model, Options { keep_size: false, ..options.clone() })
            }
            None => (model, options.clone()),
        }
    }

    /// Whether what restores faces, where `model` restores all else, draws what stage 1 does not show.
    pub fn draw(&self, model: &Model) -> bool {
        self.engine.as_ref().is_some_and(|(_, share)| *share > 0.0)
            || self.stage2 && self.model.as_ref().unwrap_or(model).has_stage2()
    }

    /// Whether the faces of a picture are one batch, whose noise is drawn at once, before each background: as v1 does.
    pub fn are_one_batch(&self, model: &Model) -> bool {
        self.rules.manner == Manner::Reference && model.config.geometry == Geometry::Article
    }

    /// Finds the faces of a photograph that `model` restores.
    pub fn find(
        &self,
        (model, options): (&Model, &Options),
        photo: &Photo,
        follow: &mut dyn Follow,
    ) -> Result<Restored, diffbir::Error> {
        let geometry = match self.rules.manner {
            Manner::Own => self.background((model, options)).0.config.geometry,
            Manner::Reference => model.config.geometry,
        };
        let scene = self.finder.look(photo, geometry, options.upscale, self.rules, &mut Quiet(follow))?;
        let count = scene.count();
        follow.faces(scene.found, count);
        Ok(Restored { scene, cut: Vec::with_capacity(count), results: vec![Vec::new(); count] })
    }

    /// Restores faces that were found, once more for each sample.
    pub fn restore(
        &self,
        (model, options): (&Model, &Options),
        Restored { scene, cut, results }: &mut Restored,
        batches: &[&[u64]],
        seeds: &mut Seeds,
        follow: &mut dyn Follow,
    ) -> Result<(), diffbir::Error> {
        let count = scene.count();
        let as_one = self.are_one_batch(model);
        let model = self.model.as_ref().unwrap_or(model);
        let share = self.engine.as_ref().map_or(0.0, |(_, share)| *share);
        for (index, result) in results.iter_mut().enumerate() {
            follow.face(index + 1, count);
            let mut seen = None;
            let mut samples = Vec::new();
            if share < 1.0 {
                let (photo, upscale) = scene.cut(index, &model.config);
                let options = Options { upscale, ..options.clone() };
                let prepared = model.prepare(&photo, &options, self.stage2, &mut Quiet(follow))?;
                for batch in batches {
                    let noise = match batch {
                        [sample] if as_one => seeds.of_batch(*sample, (index, count)),
                        batch => seeds.batch(batch),
                    };
                    samples.extend(model.detail(
                        &prepared,
                        batch.len(),
                        &options,
                        noise,
                        &mut Quiet(follow),
                    )?);
                }
                seen = Some(photo);
            }
            if let Some((engine, _)) = self.engine.as_ref().filter(|_| share > 0.0) {
                let (photo, upscale) = scene.cut(index, &engine.config);
                let options = Options { upscale, stage1: true, ..options.clone() };
                let face = engine.prepare(&photo, &options, false, &mut Quiet(follow))?.clean();
                if samples.is_empty() {
                    samples = vec![face; batches.iter().map(|batch| batch.len()).sum()];
                } else {
                    samples.iter_mut().for_each(|own| blend(own, &face, share));
                }
                seen = seen.or(Some(photo));
            }
            if cut.len() == index {
                cut.extend(seen);
            }
            result.extend(samples);
        }
        Ok(())
    }

    /// The background with the faces of a sample, the `index`th that was restored.
    pub fn paste(
        &self,
        faces: &Restored,
        background: &Raster,
        index: usize,
        follow: &mut dyn Follow,
    ) -> Result<Raster, diffbir::Error> {
        let of_sample: Vec<&Raster> = faces.results.iter().map(|samples| &samples[index]).collect();
        faces.scene.paste(background.clone(), &of_sample, self.finder.parser.as_ref(), &mut Quiet(follow))
    }
}

/// The engine that `--background-engine` names: by the reference's names, where they are given, that which enlarges as
/// asked, or none.
fn background_of(name: Option<&str>, upscale: f64) -> Option<&str> {
    match name? {
        "DiffBIR" => None,
        // As the reference has it: whole factors of four, else two.
        "RealESRGAN" if upscale as u32 == 4 => Some("realesrgan-x4plus"),
        "RealESRGAN" => Some("realesrgan-x2plus"),
        name => Some(name),
    }
}

/// Mixes into a face this share of another picture of it, brought to its size.
fn blend(face: &mut Raster, other: &Raster, share: f32) {
    let (width, height) = face.size();
    let resized = (other.size() != face.size()).then(|| resize::float(other, width, height, Filter::Bicubic));
    let other = resized.as_ref().unwrap_or(other);
    face.data.iter_mut().zip(&other.data).for_each(|(own, other)| *own += share * (other - *own));
}

/// Passes on how far a face is, and not what comes about on its way.
struct Quiet<'a>(&'a mut dyn Follow);

impl Watch for Quiet<'_> {
    fn progress(&mut self, progress: Progress) -> ControlFlow<()> {
        self.0.progress(progress)
    }
}

impl Save {
    /// Nothing where nobody wants them.
    pub fn new(arguments: &Restore, jobs: &[Job], existing: Existing) -> Option<Self> {
        folder(arguments).map(|folder| Self {
            folder: folder.to_path_buf(),
            existing,
            manner: manner(arguments),
            kept: jobs.iter().flat_map(|job| job.files().chain([job.input.as_path()])).map(place).collect(),
        })
    }

    /// The file of what is called so in the folder of its kind.
    fn path(&self, kind: &str, job: &Job, name: &str, format: Format) -> PathBuf {
        self.folder.join(kind).join(&job.below).join(format!("{name}.{}", format.extension()))
    }

    /// Whether a file is there and is left as it is; an error where it must not be written.
    fn stays(&self, path: &Path) -> Result<bool> {
        if self.kept.contains(&place(path)) {
            bail!("--save-faces: {} is an input or a result: choose another folder", path.display());
        }
        outputs::stays(path, self.existing).context("--save-faces")
    }

    /// Writes the faces of a picture and its backgrounds, one a sample.
    pub fn write(&self, job: &Job, found: &Found, format: Format) -> Result<()> {
        let Found { restored: faces, backgrounds, depth } = found;
        let numbers: Vec<&str> = job.outputs.iter().map(|(_, variant)| variant.suffix.as_str()).collect();
        let stem = stem(job);
        let put = |kind: &str, name: String, picture: &Raster| {
            let path = self.path(kind, job, &name, format);
            if self.stays(&path)? {
                return Ok(());
            }
            let bytes = encode(picture, None, &Photo::of_raster(picture), (format, *depth, None))?;
            outputs::write(&path, &bytes)
        };
        for (number, background) in numbers.iter().zip(backgrounds) {
            put(BACKGROUNDS, format!("{stem}{number}"), background)?;
        }
        for (index, (cut, samples)) in faces.cut.iter().zip(&faces.results).enumerate() {
            let name = format!("{stem}_face_{index}");
            // The reference names it after the last sample.
            let last = if self.manner == Manner::Reference { numbers.last() } else { None };
            let last = last.copied().unwrap_or_default();
            put(CUT, format!("{name}{last}"), &cut.to_raster())?;
            for (number, face) in numbers.iter().zip(samples) {
                put(RESTORED, format!("{name}{number}"), face)?;
            }
        }
        Ok(())
    }
}

impl Restored {
    /// How many faces were restored.
    pub fn count(&self) -> usize {
        self.results.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faces_are_blended_by_share_at_the_size_of_the_first() {
        let of = |side: usize, value: f32| {
            let data = vec![value; side * side * 3];
            Raster { width_px: side, height_px: side, channels: 3, data }
        };
        let mut face = of(6, 0.2);
        blend(&mut face, &of(4, 0.6), 0.25);
        assert!(face.size() == (6, 6) && face.data.iter().all(|value| (value - 0.3).abs() < 1e-6));
    }

    #[test]
    fn the_references_background_is_the_engine_that_enlarges_so() {
        assert_eq!(background_of(Some("RealESRGAN"), 4.5), Some("realesrgan-x4plus"));
        assert_eq!(background_of(Some("RealESRGAN"), 3.0), Some("realesrgan-x2plus"));
        assert_eq!(background_of(Some("DiffBIR"), 2.0), None);
        assert_eq!(background_of(Some("mine.pth"), 2.0), Some("mine.pth"));
    }
}
