//! What the catalog has, for a server.

use crate::args::{self, Restore};
use crate::models::files_of;
use crate::restore::choose;
use diffbir::catalog::{
    self, DETECTORS, Download, ENGINES, Engine, FACES, PullError, SETS, Set, Store, Task, WeightFile,
};
use diffbir::config::SamplingDefaults;
use diffbir::model::Stages;
use diffbir::{ModelConfig, NANO};
use diffbir_nn::checkpoint::Checkpoint;
use diffbir_serve::engine::{Model, ModelFile, Options, Pull, Purpose};
use diffbir_serve::problem::Problem;
use serde_json::{Value, json};
use std::ops::ControlFlow;
use std::sync::LazyLock;

/// By which the files are asked for that faces in photographs need.
const OF_FACES: &str = "faces";

/// How the built-in model samples.
static NANO_SAMPLING: LazyLock<SamplingDefaults> = LazyLock::new(|| {
    let config =
        Checkpoint::from_static(NANO, "the built-in model").and_then(|file| ModelConfig::of(&file, "nano"));
    config.ok().and_then(|config| config.stage2).map(|stage2| stage2.sampling).unwrap_or_default()
});

/// What there is, the built-in model first.
pub fn list() -> Vec<Model> {
    let photographs = ["sr", "face-background"].map(String::from).to_vec();
    let nano = Model {
        id: "nano".into(),
        purpose: Purpose::Model,
        about: "built in: small and fast; its detail is painterly".into(),
        present: true,
        tasks: photographs.clone(),
        ready: photographs,
        prompts: false,
        defaults: defaults(&NANO_SAMPLING),
        files: Vec::new(),
    };
    let store = Store::of_user();
    let sets = SETS.iter().map(|set| official(set, store.as_ref()));
    let engines = ENGINES.iter().map(|engine| alone(engine, store.as_ref()));
    std::iter::once(nano).chain(sets).chain(engines).chain([finding_faces(store.as_ref())]).collect()
}

fn official(set: &Set, store: Option<&Store>) -> Model {
    let tasks =
        [("sr", Task::Sr), ("denoise", Task::Denoise), ("face", Task::Face), ("face-background", Task::Sr)];
    let is_ready = |task| store.is_some_and(|store| set.is_here(store, task, Stages::All));
    Model {
        id: set.name.into(),
        purpose: Purpose::Model,
        about: set.about.into(),
        present: is_ready(Task::Sr),
        tasks: tasks.map(|(name, _)| name.into()).into(),
        ready: tasks.into_iter().filter(|(_, task)| is_ready(*task)).map(|(name, _)| name.into()).collect(),
        prompts: true,
        defaults: defaults(&set.sampling()),
        files: files(&set.files(), store),
    }
}

/// What restores without a stage 2.
fn alone(engine: &Engine, store: Option<&Store>) -> Model {
    let tasks = if engine.faces { vec!["face"] } else { vec!["sr", "face-background"] };
    let about = (Purpose::Engine, engine.about);
    without_settings(engine.name, about, tasks, is_here(engine.file, store), files(&engine.files(), store))
}

/// What `face-background` needs besides a model: one of the files that find faces is enough.
fn finding_faces(store: Option<&Store>) -> Model {
    let present = DETECTORS.iter().any(|file| is_here(file, store));
    let about = "finds faces in photographs and tells them from what is around them";
    without_settings(
        OF_FACES,
        (Purpose::Faces, about),
        vec!["face-background"],
        present,
        files(&FACES, store),
    )
}

fn without_settings(
    id: &str,
    (purpose, about): (Purpose, &str),
    tasks: Vec<&str>,
    present: bool,
    files: Vec<ModelFile>,
) -> Model {
    let tasks: Vec<String> = tasks.into_iter().map(String::from).collect();
    Model {
        id: id.into(),
        purpose,
        about: about.into(),
        present,
        ready: if present { tasks.clone() } else { Vec::new() },
        tasks,
        prompts: false,
        defaults: Options::new(),
        files,
    }
}

fn is_here(file: &WeightFile, store: Option<&Store>) -> bool {
    store.is_some_and(|store| store.find(file).is_some())
}

fn files(files: &[&'static WeightFile], store: Option<&Store>) -> Vec<ModelFile> {
    let told = |file: &&'static WeightFile| ModelFile {
        name: file.name.into(),
        size: file.about.into(),
        licence: file.licence.into(),
        present: is_here(file, store),
    };
    files.iter().map(told).collect()
}

fn defaults(sampling: &SamplingDefaults) -> Options {
    let value = json!({
        "sampler": sampling.sampler.name(),
        "steps": sampling.steps,
        "fidelity": sampling.fidelity,
        "cfg_scale": sampling.cfg_scale,
        "s_noise": sampling.s_noise,
        "prompt": sampling.prompt,
        "negative_prompt": sampling.negative_prompt,
    });
    match value {
        Value::Object(options) => options,
        _ => Options::new(),
    }
}

/// Refuses what needs files that are not here, and says how they are got.
pub fn check_present(arguments: &Restore, task: Task) -> Result<(), Problem> {
    let store = Store::of_user();
    let missing = |option: &str, name: &str| {
        let detail =
            format!("{option}: the files of {name} are not here: POST /v1/models/{name}/pull gets them");
        Err(Problem::refused(detail))
    };
    let set_is_here =
        |set: &Set| store.as_ref().is_some_and(|store| set.is_here(store, task, choose::stages(arguments)));
    if let Some(set) = catalog::set(&arguments.model).filter(|set| !set_is_here(set)) {
        return missing("model", set.name);
    }
    let faces = &arguments.faces;
    for (option, name) in [
        ("model", Some(&arguments.model)),
        ("stage1", arguments.stage1.as_ref()),
        ("face_engine", faces.face_engine.as_ref()),
        ("background_engine", faces.background_engine.as_ref()),
    ] {
        let Some(engine) = name.and_then(|name| catalog::engine(name)) else { continue };
        let needed = if arguments.denoise.is_some() { engine.files() } else { vec![engine.file] };
        if !needed.iter().all(|file| is_here(file, store.as_ref())) {
            return missing(option, engine.name);
        }
    }
    if arguments.task == args::Task::FaceBackground && !finding_faces(store.as_ref()).present {
        return missing("task", OF_FACES);
    }
    Ok(())
}

/// Downloads what of a model is not here; one file that cannot be had keeps the others from nothing.
pub fn pull(model: &str, watch: &mut dyn FnMut(Pull) -> ControlFlow<()>) -> Result<(), Problem> {
    let files = files_of(model).map_err(|_| Problem::missing("such model"))?;
    let store =
        Store::of_user().ok_or_else(|| Problem::internal("there is no cache folder: set DIFFBIR_MODELS"))?;
    let mut failed = None;
    for file in files {
        if store.find(file).is_some() {
            continue;
        }
        let event =
            |checking, done, total, note| Pull { file: file.name.into(), checking, done, total, note };
        let pulled = catalog::pull(&store, file, &mut |download| {
            watch(match download {
                Download::Asking(url, _) => event(false, 0, None, Some(format!("from {url}"))),
                Download::Failed(_, error) => event(false, 0, None, Some(without_places(&error, &store))),
                Download::Bytes(done, total) => event(false, done, total, None),
                Download::Checking(done, total) => event(true, done, total, None),
            })
        });
        match pulled {
            Ok(_) => {}
            Err(error @ (PullError::Stopped | PullError::Write { .. })) => {
                return Err(told(file, &store, error));
            }
            Err(error) => failed = failed.or(Some(told(file, &store, error))),
        }
    }
    failed.map_or(Ok(()), Err)
}

/// What is said of files, these by their names alone.
pub(super) fn without_places(text: &dyn std::fmt::Display, store: &Store) -> String {
    text.to_string().replace(&format!("{}/", store.folder().display()), "")
}

/// Why a file could not be had, without the server's places.
fn told(file: &WeightFile, store: &Store, error: PullError) -> Problem {
    let name = file.name;
    match error {
        PullError::Write { reason, .. } => Problem::no_room(format!("{name}: cannot be written ({reason})")),
        PullError::Busy(_) => Problem::busy(format!("{name}: another process downloads it"), 60),
        error => Problem::refused(without_places(&error, store)),
    }
}
