//! Models against each other, and against plain enlarging, on pictures that are degraded first.

use super::measured::Subject;
use crate::args::Eval;
use crate::doubts::hash_of;
use crate::recipe;
use crate::restore::choose::{self, Chosen};
use crate::talk::say;
use crate::trained::{is_run, others};
use anyhow::{Context, Result, ensure};
use diffbir::catalog::{SETS, Store, Task, sha256_of_nano};
use diffbir::device::Opened;
use diffbir::model::{Loading, Stages};
use diffbir::restore::Watch;
use diffbir::{Error, Model, Options};
use diffbir_diffusion::noise::{Source, TorchNoise};
use diffbir_imaging::resize::{self, Filter};
use diffbir_imaging::{Depth, Format, Photo, Raster, Samples, decode, decode_bytes, encode_rgb};
use diffbir_metrics::Picture;
use diffbir_train::degrade::{Recipe, generator, presets};
use serde_json::{Map, Value, json};
use std::collections::HashSet;
use std::path::Path;

/// Plain enlarging.
const PLAIN: [(&str, Filter); 2] = [("bicubic", Filter::Bicubic), ("lanczos", Filter::Lanczos)];

/// Whether a method is one of [`PLAIN`].
pub fn is_plain(method: &str) -> bool {
    PLAIN.iter().any(|(name, _)| *name == method)
}

/// Who takes part, and in what.
pub struct Contest {
    recipe: Recipe,
    seed: u64,
    /// By how much degraded pictures are smaller.
    factor: usize,
    entrants: Vec<Entrant>,
    /// What changes results beside the settings of every evaluation.
    pub settings: Map<String, Value>,
}

struct Entrant {
    name: String,
    model: Model,
    options: Options,
}

impl Contest {
    /// Opens the models.
    pub fn open(arguments: &Eval, preset: &str) -> Result<Self> {
        let Opened { device, name: device_name, instead } = arguments.device.open()?;
        instead.iter().for_each(|why| say(format_args!("--device: {why}")));
        let flag = if arguments.upscale.is_some() { "--upscale" } else { "--degrade" };
        let recipe = recipe::open(preset, arguments.upscale).context(flag)?;
        let factor = match &recipe {
            Recipe::Simple(ranges) => ranges.factor,
            // Their pictures come back to the first size.
            Recipe::Chain(_) => 1,
        };
        let mut names = Vec::new();
        let mut entrants = Vec::new();
        let mut files = Vec::new();
        for name in &arguments.models {
            let chosen = choose::named("--models", name, Task::Sr, Loading::on(&device))?;
            chosen.doubts.iter().for_each(say);
            let contents = hashes_of_model(name, &chosen)?;
            // Whatever lies in the folder under such a name, these mean what is built in or official.
            let is_path = chosen.set.is_none() && !["nano", "auto"].contains(&name.as_str());
            let model = chosen.model;
            let name = if name == "auto" { model.config.name.clone() } else { name.clone() };
            ensure!(names.iter().all(|(other, _)| *other != name), "--models {name}: is named twice");
            let mut options = Options { upscale: factor as f64, ..Options::of(&model) };
            options.steps = arguments.steps.map_or(options.steps, usize::from);
            model.check(&options)?;
            files.push(json!([name, contents]));
            entrants.push(Entrant { name: String::new(), model, options });
            names.push((name, is_path));
        }
        for (entrant, name) in entrants.iter_mut().zip(told_apart(&names)) {
            entrant.name = name;
        }
        let is_preset = presets::text(preset).is_some();
        let settings = json!({
            "degrade": [preset, if is_preset { Vec::new() } else { hashes_of(Path::new(preset))? }],
            "models": files,
            "upscale": arguments.upscale,
            "seed": arguments.seed,
            "steps": arguments.steps,
            "device": device_name,
        });
        let settings = settings.as_object().cloned().unwrap_or_default();
        Ok(Self { recipe, seed: arguments.seed, factor, entrants, settings })
    }

    /// In the order of the tables.
    pub fn methods(&self) -> Vec<String> {
        let plain = PLAIN.iter().map(|(name, _)| name.to_string());
        plain.chain(self.entrants.iter().flat_map(Entrant::methods)).collect()
    }

    /// Degrades a picture and restores it by all methods. The only error is that whoever watches stopped it.
    pub fn subject(
        &self,
        name: &str,
        stamp: &str,
        file: &Path,
        watch: &mut dyn Watch,
    ) -> Result<Subject, Error> {
        let mut subject = Subject {
            name: name.into(),
            stamp: stamp.into(),
            truth: None,
            input: None,
            versions: Vec::new(),
        };
        let (truth, small) = match self.degraded(file) {
            Ok(pair) => pair,
            Err(error) => {
                let failed = |method| (method, Err(format!("{error:#}")));
                subject.versions = self.methods().into_iter().map(failed).collect();
                return Ok(subject);
            }
        };
        let input = Picture::from(&small.to_raster());
        for (method, filter) in PLAIN {
            let (from, to) = ((input.width_px, input.height_px), (truth.width_px, truth.height_px));
            let rgb = resize::pil(&input.rgb, from, 3, to, filter);
            subject.versions.push((method.into(), Ok(Picture { rgb, ..truth })));
        }
        for entrant in &self.entrants {
            match entrant.restore(&small, self.seed, watch) {
                Ok(pictures) => subject.versions.extend(entrant.methods().zip(pictures.into_iter().map(Ok))),
                Err(Error::Stopped) => return Err(Error::Stopped),
                Err(error) => {
                    subject.versions.extend(entrant.methods().map(|method| (method, Err(error.to_string()))));
                }
            }
        }
        subject.truth = Some(Ok(truth));
        subject.input = Some(input);
        Ok(subject)
    }

    /// The picture, cut at the right and bottom to what its reduced copy stands for, and that copy.
    fn degraded(&self, file: &Path) -> Result<(Picture, Photo)> {
        let shown = file.display();
        let whole = decode(file)?.to_raster();
        let factor = self.factor;
        let (width, height) = (whole.width_px / factor * factor, whole.height_px / factor * factor);
        ensure!(width.min(height) > 0, "{shown}: is too small to be reduced by {factor}");
        let truth = whole.crop(0, 0, width, height);
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let drawn = self.recipe.draw(&mut generator(self.seed, &name));
        let small = drawn.apply(&truth).with_context(|| shown.to_string())?;
        ensure!(
            (small.width_px * factor, small.height_px * factor) == (width, height),
            "{shown}: has {} x {} pixels when it is degraded, from which no whole number leads back",
            small.width_px,
            small.height_px
        );
        Ok((Picture::from(&truth), as_photo(&small)?))
    }
}

/// How names of files of weights end.
const ENDINGS: [&str; 5] = ["safetensors", "pth", "pt", "ckpt", "bin"];

/// The rows of a model of this name.
fn rows_of(name: &str) -> [String; 2] {
    [name.to_string(), format!("{name} stage 1")]
}

/// Names for tables of models, each with whether it is a path; their rows coincide neither with each other's nor with plain enlarging: of a path its end, as long
/// as that is nobody else's, else the path as it was given, else the whole path.
fn told_apart(names: &[(String, bool)]) -> Vec<String> {
    let mut taken: HashSet<String> = PLAIN.iter().map(|(name, _)| name.to_string()).collect();
    let mut shown = vec![String::new(); names.len()];
    // What is no path has no other name.
    let (own, paths): (Vec<usize>, Vec<usize>) = (0..names.len()).partition(|&index| !names[index].1);
    let reserved = || ["nano", "auto"].into_iter().chain(SETS.iter().map(|set| set.name)).flat_map(rows_of);
    for (place, index) in own.iter().chain(&paths).copied().enumerate() {
        if place == own.len() {
            taken.extend(reserved());
        }
        let (name, is_path) = &names[index];
        let path = Path::new(name);
        let has_ending = path.extension().is_some_and(|ending| ENDINGS.iter().any(|known| ending == *known));
        let end = if has_ending { path.file_stem() } else { path.file_name() };
        let end = end.filter(|_| *is_path).map(|end| end.to_string_lossy().into_owned());
        let whole = std::path::absolute(path).ok().map(|whole| whole.display().to_string());
        let candidates = end.into_iter().chain([name.clone()]).chain(whole);
        let free = |candidate: &String| rows_of(candidate).iter().all(|row| !taken.contains(row));
        let numbered = (2..).map(|number| format!("{name} ({number})"));
        let found = candidates.chain(numbered).find(free).expect("numbers do not end");
        taken.extend(rows_of(&found));
        shown[index] = found;
    }
    shown
}

/// SHA-256 of all files of a model; the built-in one is one.
fn hashes_of_model(name: &str, chosen: &Chosen) -> Result<Vec<String>> {
    match (chosen.set, name) {
        (Some(set), _) => {
            let store = Store::of_user().context("official files lie in no folder")?;
            let files = set.files_for(Task::Sr, Stages::All).into_iter().filter_map(|file| store.find(file));
            let hashes: Result<Vec<_>> = files.map(|file| hashes_of(&file)).collect();
            Ok(hashes?.concat())
        }
        (None, "nano" | "auto") => Ok(vec![sha256_of_nano()]),
        (None, run) if is_run(Path::new(run)) => {
            // The rest of a run is its past.
            let entries = std::fs::read_dir(run).with_context(|| format!("{run}: cannot be read"))?;
            let files = entries.flatten().map(|entry| entry.path()).filter(|path| path.is_file());
            let mut files: Vec<_> = files.collect();
            files.sort();
            files.extend(others(Path::new(run))?);
            let hashes: Result<Vec<_>> = files.iter().map(|file| hashes_of(file)).collect();
            Ok(hashes?.concat())
        }
        (None, name) => hashes_of(&choose::file_named(name)),
    }
}

/// That of a file, or those of all files of a folder, as the diffusers library keeps models.
fn hashes_of(path: &Path) -> Result<Vec<String>> {
    let fail = || format!("{}: cannot be read", path.display());
    if path.is_dir() {
        let entries = std::fs::read_dir(path).and_then(|entries| entries.collect::<Result<Vec<_>, _>>());
        let mut entries = entries.with_context(fail)?;
        entries.sort_by_key(std::fs::DirEntry::path);
        let hashes: Result<Vec<_>> = entries.iter().map(|entry| hashes_of(&entry.path())).collect();
        return Ok(hashes?.concat());
    }
    Ok(vec![hash_of(path)?])
}

impl Entrant {
    fn methods(&self) -> impl Iterator<Item = String> {
        let both = self.model.has_stage2().then(|| self.name.clone());
        [format!("{} stage 1", self.name)].into_iter().chain(both)
    }

    /// What stage 1 makes of a picture, and, if there is a stage 2, both.
    fn restore(&self, photo: &Photo, seed: u64, watch: &mut dyn Watch) -> Result<Vec<Picture>, Error> {
        let prepared = self.model.prepare(photo, &self.options, true, watch)?;
        let mut results = vec![prepared.clean()];
        if self.model.has_stage2() {
            let mut noise = TorchNoise::new(Source::TorchCpu, seed);
            results.extend(self.model.detail(&prepared, 1, &self.options, &mut noise, watch)?);
        }
        let depth = self.model.config.geometry.depth();
        Ok(results.iter().map(|result| as_written(result, photo, depth)).collect())
    }
}

/// As if it came from a file.
fn as_photo(small: &Raster) -> Result<Photo> {
    let bytes = encode_rgb(small.size(), small.to_u8_rounding(), Format::Png, None)?;
    Ok(decode_bytes(&bytes, "the degraded picture")?)
}

/// A result as `restore` would write it.
fn as_written(result: &Raster, photo: &Photo, depth: Depth) -> Picture {
    let (width_px, height_px) = (result.width_px, result.height_px);
    let rgb = match photo.to_own_colours(result, depth) {
        Samples::U8(grey) if photo.channels == 1 => grey.iter().flat_map(|value| [*value; 3]).collect(),
        Samples::U8(rgb) => rgb,
        Samples::U16(_) => unreachable!("8 bits were asked for"),
    };
    Picture { width_px, height_px, rgb }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_models_never_coincide() {
        let folder = tempfile::TempDir::new().unwrap();
        let file = |name: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, b"").unwrap();
            path.display().to_string()
        };
        let run = folder.path().join("r.1");
        std::fs::create_dir(&run).unwrap();
        let [bicubic, nano, own, same] =
            ["bicubic.safetensors", "nano.safetensors", "own.safetensors", "own.pth"].map(file);
        let (x, x_stage_1, run) = (file("x"), file("x stage 1"), run.display().to_string());
        let names = [&bicubic, &nano, &own, &same, &x, &x_stage_1, &run].map(String::clone);
        let own = ["nano", "v2.1"].map(|name| (name.to_string(), false));
        let names = [&names.map(|path| (path, true))[..], &own].concat();
        let expected = [&bicubic, &nano, "own", &same, "x", &x_stage_1, "r.1", "nano", "v2.1"];
        assert_eq!(told_apart(&names), expected);
        let rows: HashSet<String> = told_apart(&names).iter().flat_map(|name| rows_of(name)).collect();
        assert_eq!(rows.len(), 2 * names.len());
    }

    #[test]
    fn what_is_called_like_plain_enlarging_gets_its_whole_path() {
        let shown = told_apart(&["src", "src/../src", "bicubic"].map(|path| (path.into(), true)));
        assert_eq!((shown[0].as_str(), shown[1].as_str()), ("src", "src/../src"));
        assert!(shown[2].ends_with("/bicubic"), "{shown:?}");
        // Nor is a file; and what is no ending stays.
        let shown = told_apart(&["./v2.1", "a/v2.safetensors", "./b.1"].map(|path| (path.into(), true)));
        assert_eq!(shown, ["./v2.1", "a/v2.safetensors", "b.1"]);
        // A folder that is called like a model is not that model.
        let shown =
            told_apart(&["old/src".into(), "src".into()].map(|path: String| (path.clone(), path != "src")));
        assert_eq!(shown, ["old/src", "src"]);
    }
}
