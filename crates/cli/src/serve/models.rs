//! The models of the catalog, for a server.

use diffbir::catalog::{self, Download, SETS, Set, Store, Task};
use diffbir::config::SamplingDefaults;
use diffbir::model::Stages;
use diffbir::{ModelConfig, NANO};
use diffbir_nn::checkpoint::Checkpoint;
use diffbir_serve::engine::{Model, ModelFile, Options, Pull};
use diffbir_serve::problem::Problem;
use serde_json::{Value, json};
use std::ops::ControlFlow;
use std::sync::LazyLock;

/// The name and the catalog's word of each task.
const TASKS: [(&str, Task); 3] = [("sr", Task::Sr), ("denoise", Task::Denoise), ("face", Task::Face)];

/// How the built-in model samples.
static NANO_SAMPLING: LazyLock<SamplingDefaults> = LazyLock::new(|| {
    let config =
        Checkpoint::from_static(NANO, "the built-in model").and_then(|file| ModelConfig::of(&file, "nano"));
    config.ok().and_then(|config| config.stage2).map(|stage2| stage2.sampling).unwrap_or_default()
});

/// All models, the built-in one first.
pub fn list() -> Vec<Model> {
    let nano = Model {
        id: "nano".into(),
        about: "built in: small and fast; its detail is painterly".into(),
        present: true,
        tasks: vec!["sr".into()],
        prompts: false,
        defaults: defaults(&NANO_SAMPLING),
        files: Vec::new(),
    };
    let store = Store::of_user();
    std::iter::once(nano).chain(SETS.iter().map(|set| official(set, store.as_ref()))).collect()
}

fn official(set: &Set, store: Option<&Store>) -> Model {
    let is_here = |file| store.is_some_and(|store| store.find(file).is_some());
    let files = set.files().into_iter().map(|file| ModelFile {
        name: file.name.into(),
        size: file.about.into(),
        licence: file.licence.into(),
        present: is_here(file),
    });
    Model {
        id: set.name.into(),
        about: set.about.into(),
        present: store.is_some_and(|store| set.is_here(store, Task::Sr, Stages::All)),
        tasks: TASKS.map(|(name, _)| name.into()).into(),
        prompts: true,
        defaults: defaults(&set.sampling()),
        files: files.collect(),
    }
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

/// Refuses a model whose files are not here.
pub fn check_present(set: &Set, task: Task, stages: Stages) -> Result<(), Problem> {
    if Store::of_user().is_some_and(|store| set.is_here(&store, task, stages)) {
        return Ok(());
    }
    let name = set.name;
    Err(Problem::refused(format!(
        "model: the files of {name} are not here: POST /v1/models/{name}/pull gets them"
    )))
}

/// Downloads what of a model is not here.
pub fn pull(model: &str, watch: &mut dyn FnMut(Pull) -> ControlFlow<()>) -> Result<(), Problem> {
    let set = catalog::set(model).ok_or_else(|| Problem::missing("such model"))?;
    let store =
        Store::of_user().ok_or_else(|| Problem::internal("there is no cache folder: set DIFFBIR_MODELS"))?;
    for file in set.files() {
        if store.find(file).is_some() {
            continue;
        }
        let event =
            |checking, done, total, note| Pull { file: file.name.into(), checking, done, total, note };
        let pulled = catalog::pull(&store, file, &mut |download| {
            watch(match download {
                Download::Asking(address) => event(false, 0, None, Some(format!("from {}", address.url))),
                Download::Failed(_, error) => event(false, 0, None, Some(error.to_string())),
                Download::Bytes(done, total) => event(false, done, total, None),
                Download::Checking(done, total) => event(true, done, total, None),
            })
        });
        pulled.map_err(|error| Problem::refused(error.to_string()))?;
    }
    Ok(())
}
