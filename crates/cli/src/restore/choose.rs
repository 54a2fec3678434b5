//! Which model restores.

use super::sweep;
use crate::args::{Precision, Reference, Restore, Task, Version};
use crate::{doubts, trained};
use anyhow::{Context, Result, bail};
use diffbir::catalog::{self, Engine, SETS, Set, Store, WeightFile};
use diffbir::config::SamplingDefaults;
use diffbir::model::{Loading, Parts, Stages};
use diffbir::yaml;
use diffbir::{Model, ModelConfig};
use diffbir_nn::Device;
use diffbir_nn::checkpoint::Checkpoint;
use std::path::{Path, PathBuf};

/// A chosen model.
pub struct Chosen {
    pub model: Model,
    /// The official set that it is, if it is one.
    pub set: Option<&'static Set>,
    /// What speaks against its files being those that its authors published.
    pub doubts: Vec<String>,
}

/// Where official files are looked for.
fn store() -> Result<Store> {
    Store::of_user()
        .context("there is no cache folder for this user: set DIFFBIR_MODELS to a folder for weights")
}

/// The model that the flags name, or the best that is present.
pub fn choose(arguments: &Restore, task: catalog::Task, device: &Device) -> Result<Chosen> {
    chosen_in(arguments, task, loading(arguments, device))
}

/// The same with its weights at rest, until [`Model::hold`] says what becomes of them.
pub fn at_rest(arguments: &Restore, task: catalog::Task, device: &Device) -> Result<Chosen> {
    chosen_in(arguments, task, Loading { apart: true, ..loading(arguments, device) })
}

fn chosen_in(arguments: &Restore, task: catalog::Task, loading: Loading) -> Result<Chosen> {
    check_denoise(arguments)?;
    let mut chosen = chosen(arguments, task, loading)?;
    if let Some(name) = &arguments.stage1 {
        let Weights { file, shown, doubts } = weights("--stage1", name, arguments.denoise)?;
        chosen.model = chosen.model.behind(file, &shown, loading).context("--stage1")?;
        if chosen.model.config.stage1.side_px().is_some() {
            bail!("--stage1 {name}: restores aligned faces by itself: it goes with --model or --face-engine");
        }
        chosen.doubts.extend(doubts);
    }
    Ok(chosen)
}

/// Refuses to take a share of the noise away where no network named can.
fn check_denoise(arguments: &Restore) -> Result<()> {
    let Restore { model, stage1, faces, .. } = arguments;
    let beside = [stage1, &faces.face_engine, &faces.background_engine].map(Option::as_deref);
    let mut named = beside.into_iter().flatten().chain([model.as_str()]);
    let can = |name| catalog::engine(name).is_some_and(|engine| engine.less_denoising.is_some());
    if arguments.denoise.is_none() || named.any(can) {
        return Ok(());
    }
    bail!(
        "--denoise: no network that is named has more than one strength: it goes with --model realesr-general-x4v3, \
         or with this engine, by its name, as --stage1, --background-engine or --face-engine"
    )
}

/// Weights that a flag names.
struct Weights {
    file: Checkpoint,
    /// What they are in errors.
    shown: String,
    /// What speaks against their files.
    doubts: Vec<String>,
}

/// Those of an engine, or in a file. An engine that can takes this share of the noise away: its two states of training are
/// mixed, as Real-ESRGAN does (arXiv 1811.10515).
fn weights(flag: &str, name: &str, denoise: Option<f64>) -> Result<Weights> {
    let (path, doubt) = match catalog::engine(name) {
        Some(engine) => file_of(engine, engine.file)?,
        None if Path::new(name).is_file() => (name.into(), doubts::of_file(Path::new(name))?),
        None => bail!("{flag} {name}: is neither an engine (see `diffbir models list`) nor a file"),
    };
    let (mut file, mut doubts) = (Checkpoint::open(&path)?, Vec::from_iter(doubt));
    let mixed = catalog::engine(name).and_then(|engine| Some((engine, engine.less_denoising?)));
    // All of it is the engine as it is, without the other file.
    if let (Some((engine, other)), Some(share)) = (mixed, denoise.filter(|&share| share < 1.0)) {
        let (other, doubt) = file_of(engine, other)?;
        file = file.mixed(&Checkpoint::open(&other)?, share as f32)?;
        doubts.extend(doubt);
    }
    Ok(Weights { file, shown: path.display().to_string(), doubts })
}

/// The engine that `flag` names, which works beside a model, and what speaks against its files.
pub fn engine(
    (flag, name): (&str, &str),
    denoise: Option<f64>,
    loading: Loading,
) -> Result<(Model, Vec<String>)> {
    let Weights { file, shown, doubts } = weights(flag, name, denoise)?;
    let loading = Loading { stages: Stages::First, ..loading };
    let model = Model::of(&file, &shown, loading).context(flag.to_string())?;
    if model.config.stage2.is_some() {
        bail!("{flag} {name}: has a stage 2, so it is no engine: it goes with --model");
    }
    Ok((model, doubts))
}

fn chosen(arguments: &Restore, task: catalog::Task, loading: Loading) -> Result<Chosen> {
    if let Some(set) = named_version(arguments)? {
        return official(set, task, loading);
    }
    if let Some(ckpt) = &arguments.reference.ckpt {
        return from_files(ckpt, &arguments.reference, loading);
    }
    match catalog::engine(&arguments.model) {
        Some(engine) => of_engine(engine, arguments.denoise, loading),
        None => named("--model", &arguments.model, task, loading),
    }
}

/// A file of an engine, and what speaks against it.
fn file_of(engine: &Engine, file: &'static WeightFile) -> Result<(PathBuf, Option<String>)> {
    let path = store()?.find(file).with_context(|| {
        format!("{0}: {1} is not here: `diffbir models pull {0}` gets it", engine.name, file.name)
    })?;
    let doubt = doubts::of_file(&path)?;
    Ok((path, doubt))
}

/// An engine that restores by itself.
fn of_engine(engine: &Engine, denoise: Option<f64>, loading: Loading) -> Result<Chosen> {
    let Weights { file, shown, doubts } = weights("--model", engine.name, denoise)?;
    let mut model = Model::of(&file, &shown, loading)?;
    model.config.name = engine.name.into();
    Ok(Chosen { model, set: None, doubts })
}

/// How networks are loaded.
pub fn loading<'a>(arguments: &Restore, device: &'a Device) -> Loading<'a> {
    Loading {
        device,
        precision: precision(arguments.precision, device),
        stages: stages(arguments),
        apart: false,
    }
}

fn official(set: &'static Set, task: catalog::Task, loading: Loading) -> Result<Chosen> {
    let store = store()?;
    let model = Model::official(set, task, &store, loading)?;
    Ok(Chosen { model, set: Some(set), doubts: doubts::of_set(set, task, loading.stages, &store)? })
}

/// The model of this name or file, which `flag` gave.
pub fn named(flag: &str, name: &str, task: catalog::Task, loading: Loading) -> Result<Chosen> {
    let own = |model: Model| Ok(Chosen { model, set: None, doubts: Vec::new() });
    let official = |set| official(set, task, loading);
    if let Some(set) = catalog::set(name) {
        return official(set);
    }
    if let Some(engine) = catalog::engine(name) {
        return of_engine(engine, None, loading);
    }
    match name {
        "nano" => own(Model::nano(loading)?),
        "auto" => match best(task, loading.stages) {
            Some(set) => official(set),
            None => own(Model::nano(loading)?),
        },
        run if trained::is_run(Path::new(run)) => {
            let (config, parts) = trained::model(Path::new(run))?;
            own(Model::assemble(config, parts, loading)?)
        }
        file if Path::new(file).is_file() => {
            let file = Path::new(file);
            let model = Model::open(file, loading)?;
            Ok(Chosen { model, set: None, doubts: doubts::of_file(file)?.into_iter().collect() })
        }
        folder if Path::new(folder).is_dir() => bail!(
            "{flag} {folder}: is no folder of a training run: it has no config.toml, which `diffbir train` writes"
        ),
        name => match store().ok().and_then(|store| crate::own::find(&store, name)) {
            Some(file) => own(Model::open(&file, loading)?),
            None => bail!(
                "{flag} {name}: is neither auto, nano, v1, v2, v2.1 nor another model of `diffbir models list` nor a \
                file nor the folder of a training run"
            ),
        },
    }
}

/// The file of an engine or of a model of one's own, and otherwise the path that a name is.
pub fn file_named(name: &str) -> PathBuf {
    let found = store().ok().and_then(|store| match catalog::engine(name) {
        Some(engine) => store.find(engine.file),
        None => crate::own::find(&store, name).filter(|_| !Path::new(name).exists()),
    });
    found.unwrap_or_else(|| name.into())
}

/// The best official model that is present, if there is one.
pub fn best(task: catalog::Task, stages: Stages) -> Option<&'static Set> {
    // No cache folder is no reason not to restore with what is built in.
    let store = Store::of_user()?;
    SETS.iter().find(|set| set.is_here(&store, task, stages))
}

/// The set that `--version` means, where the command line is the reference's.
fn named_version(arguments: &Restore) -> Result<Option<&'static Set>> {
    let reference = &arguments.reference;
    // The parser asks for nothing that conflicts with what is given, so this cannot be left to it.
    if reference.version.is_some() && reference.input.is_none() {
        bail!("--version: goes with --input, as in the reference; otherwise it is --model");
    }
    let asked = reference.version.is_some() || arguments.model == "auto";
    if reference.input.is_none() || reference.config.is_some() || !asked {
        return Ok(None);
    }
    let name = match reference.version.unwrap_or(Version::V21) {
        Version::V1 => "v1",
        Version::V2 => "v2",
        Version::V21 => "v2.1",
        Version::Custom if reference.train_cfg.is_none() => {
            bail!("--version custom: needs --train-cfg and --ckpt")
        }
        Version::Custom => return Ok(None),
    };
    if reference.ckpt.is_some() {
        bail!("--ckpt: the files of {name} are those of the catalog; one of your own needs --version custom");
    }
    Ok(catalog::set(name))
}

/// A model of files that are named one by one, `--ckpt` among them.
fn from_files(ckpt: &Path, reference: &Reference, loading: Loading) -> Result<Chosen> {
    let of_files = |config: ModelConfig, parts: Parts, files: &[&Path]| {
        let model = Model::assemble(config, parts, loading)?;
        let doubts: Result<Vec<_>> = files.iter().map(|file| doubts::of_file(file)).collect();
        Ok(Chosen { model, set: None, doubts: doubts?.into_iter().flatten().collect() })
    };
    let described = |path: &Path| {
        std::fs::read_to_string(path).with_context(|| format!("{}: cannot be read", path.display()))
    };
    if let Some(path) = &reference.config {
        let config = yaml::v1_model(&described(path)?, habits_of("v1"));
        let config = config.map_err(|reason| anyhow::anyhow!("{}: {reason}", path.display()))?;
        let (mut parts, mut files) = (Parts::of_full(ckpt)?, vec![ckpt]);
        if let Some(swinir) = &reference.swinir_ckpt {
            parts.stage1 = Checkpoint::open(swinir)?;
            files.push(swinir);
        }
        return of_files(config, parts, &files);
    }
    let Some(path) = &reference.train_cfg else {
        bail!(
            "--ckpt: a full checkpoint of v1 needs --config with its YAML, a control branch of your own \
             --version custom with --train-cfg"
        );
    };
    let training = yaml::training(&described(path)?, habits_of("v2.1"));
    let training = training.map_err(|reason| anyhow::anyhow!("{}: {reason}", path.display()))?;
    // As in the reference, paths are those from the folder that the program runs in.
    let parts = Parts::of_files(&training.stage1, ckpt, &training.base)?;
    of_files(training.config, parts, &[&training.stage1, ckpt, &training.base])
}

/// How the authors of a set sample.
fn habits_of(name: &str) -> SamplingDefaults {
    catalog::set(name).map(Set::sampling).unwrap_or_default()
}

/// What of a model is needed.
pub fn stages(arguments: &Restore) -> Stages {
    if arguments.stage1_only || sweep::draws_nothing(arguments) { Stages::First } else { Stages::All }
}

/// The precision that was asked for, or the best one on the device.
pub fn precision(asked: Option<Precision>, device: &Device) -> diffbir_nn::Precision {
    asked.map_or_else(|| diffbir_nn::Precision::best_on(device), Precision::of_weights)
}

/// The task for the library, and flags of the reference whose features are not built.
pub fn task(arguments: &Restore) -> Result<catalog::Task> {
    let reference = &arguments.reference;
    let not_built = [
        (
            reference.captioner != crate::args::Captioner::None,
            "--captioner: only `none` is built: describe the picture by --prompt",
        ),
        (reference.llava_bit.is_some(), "--llava-bit: the captioner llava is not built: leave it out"),
    ];
    if let Some((_, message)) = not_built.into_iter().find(|(asked, _)| *asked) {
        bail!("{message}");
    }
    Ok(match arguments.task {
        // Faces come by themselves.
        Task::Sr | Task::FaceBackground => catalog::Task::Sr,
        Task::Denoise => catalog::Task::Denoise,
        Task::Face => catalog::Task::Face,
    })
}
