//! What a training run is told, in TOML: a section each for the network, the data, the loss, the optimizer and so on.
//! A file gives what differs from the defaults, which stand in `sections.rs` and, for each trainer, `trainers.rs`; later layers win over earlier ones.

mod network;
mod sections;
mod trainers;

pub use network::{AutoencoderSizes, Network, Sizes};
pub use sections::*;
pub use trainers::*;

use diffbir_models::sizes::SizeError;
use diffbir_nn::Device;
use diffbir_nn::ops::multiplies_in;
use sections::want;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::path::Path;
use toml::{Table, Value};

/// What can be wrong with a configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{file}: cannot be read")]
    Read {
        /// Its name.
        file: String,
        /// Why.
        source: std::io::Error,
    },
    /// It is no TOML, or has a field that there is not.
    #[error("{place}: {reason}")]
    Wrong {
        /// A file, or the command line.
        place: String,
        /// What is wrong.
        reason: String,
    },
    /// A field has a value that cannot be.
    #[error("{field}: {reason}")]
    Field {
        /// Its name with that of its section.
        field: String,
        /// What is wrong.
        reason: String,
    },
    /// A run is to go on in another way than it began.
    #[error(
        "{field} is {now}, but the run in {folder} began with {then}: give it that value, or start another run \
        elsewhere with run.init"
    )]
    Differs {
        /// The field's name with that of its section.
        field: String,
        /// Its value at the start.
        then: String,
        /// Its value now.
        now: String,
        /// The run's folder.
        folder: String,
    },
}

impl From<SizeError> for ConfigError {
    fn from(SizeError { field, reason }: SizeError) -> Self {
        Self::Field { field, reason }
    }
}

/// The whole configuration of one trainer.
pub trait Config: Default + Serialize + DeserializeOwned {
    /// The trainer's name on the command line and in its files.
    const TRAINER: &'static str;

    /// Under which name, with `_step` and `_epoch`, TensorBoard shows the loss: the reference's.
    const LOSS_TAG: &'static str;

    /// What every run has.
    fn run(&self) -> &RunConfig;

    /// The optimizer and its schedule.
    fn optimizer(&self) -> (&OptimizerConfig, &ScheduleConfig);

    /// The first size of a network that cannot be.
    fn check_sizes(&self) -> Result<(), ConfigError>;

    /// The first field whose value cannot be.
    fn check(&self) -> Result<(), ConfigError>;

    /// [`Config::check`], and what cannot be on this device.
    fn check_on(&self, device: &Device) -> Result<(), ConfigError> {
        self.check()?;
        let can = multiplies_in(self.run().precision.products(), device);
        want(can, "run.precision", "only the CPU trains in bf16: use f32 on a graphics card")
    }

    /// As a table of tables.
    fn table(&self) -> Table {
        Table::try_from(self).expect("tables, numbers and texts")
    }

    /// TOML from which the same run follows.
    fn to_toml(&self) -> String {
        toml::to_string(self).expect("tables, numbers and texts")
    }
}

/// The defaults, and over them one layer after the other, unchecked; `place` names them in errors.
pub fn resolve<C: Config>(place: &str, layers: Vec<Table>) -> Result<C, ConfigError> {
    let mut whole = C::default().table();
    layers.into_iter().for_each(|layer| lay_over(&mut whole, layer));
    let wrong = |error: toml::de::Error| ConfigError::Wrong {
        place: place.into(),
        reason: error.to_string().trim_end().replace('\n', " "),
    };
    Value::Table(whole).try_into().map_err(wrong)
}

/// The layer that a file is.
pub fn read(file: &Path) -> Result<Table, ConfigError> {
    let place = || file.display().to_string();
    let text = std::fs::read_to_string(file).map_err(|source| ConfigError::Read { file: place(), source })?;
    text.parse().map_err(|error: toml::de::Error| {
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        let line = 1 + before.matches('\n').count();
        ConfigError::Wrong { place: place(), reason: format!("line {line}: {}", error.message()) }
    })
}

/// The layer of one field, named as `section.field`.
pub fn field(name: &str, value: impl Into<Value>) -> Table {
    let (parent, last) = name.rsplit_once('.').map_or((None, name), |(parent, last)| (Some(parent), last));
    let inner = Table::from_iter([(last.to_string(), value.into())]);
    parent.map_or(inner.clone(), |parent| field(parent, inner))
}

/// The layer of `section.field=value`; a value that is no TOML is a text.
pub fn assignment(text: &str) -> Result<Table, String> {
    let (name, value) = text.split_once('=').ok_or("it must be SECTION.FIELD=VALUE")?;
    let (name, value) = (name.trim(), value.trim());
    if name.is_empty() || name.split('.').any(str::is_empty) {
        return Err("it must be SECTION.FIELD=VALUE".into());
    }
    let parsed = format!("value = {value}").parse::<Table>().ok().and_then(|mut t| t.remove("value"));
    Ok(field(name, parsed.unwrap_or_else(|| value.into())))
}

/// A section that names another base than the one under it has nothing of that one.
fn lay_over(under: &mut Table, over: Table) {
    if over.contains_key(network::BASE) {
        under.clear();
    }
    for (key, value) in over {
        match (under.get_mut(&key), value) {
            (Some(Value::Table(under)), Value::Table(over)) => lay_over(under, over),
            (_, value) => _ = under.insert(key, value),
        }
    }
}

/// Fields that hold paths, one or several.
const PATHS: [&str; 12] = [
    "run.output",
    "run.init",
    "data.folders",
    "data.latents",
    "validation.folders",
    "validation.lpips_files",
    "loss.lpips_files",
    "autoencoder.path",
    "stage1.path",
    "control.unet",
    "control.together_with",
    "text.encoder",
];

/// In place of a network's path: what is built in.
pub const BUILT_IN: &str = "nano";

/// Fields that hold the name of a recipe or the path of its file.
const RECIPES: [&str; 2] = ["degradation.recipe", "control.recipe"];

/// A configuration that means the same wherever it is read: its paths are whole ones.
pub fn anchored(mut table: Table) -> Table {
    fn anchor(value: &mut Value) {
        match value {
            Value::Array(values) => values.iter_mut().for_each(anchor),
            Value::String(path) if path == BUILT_IN && !Path::new(path).exists() => {}
            Value::String(path) if !path.is_empty() => {
                // What is no Unicode stays as it was given.
                let whole =
                    std::path::absolute(&*path).ok().and_then(|whole| whole.to_str().map(String::from));
                *path = whole.unwrap_or_else(|| path.clone());
            }
            _ => {}
        }
    }
    let recipes = RECIPES.iter().filter(|name| {
        let (section, field) = name.split_once('.').expect("a section and a field");
        let recipe = table.get(section).and_then(|section| section.get(field)).and_then(Value::as_str);
        recipe.is_some_and(|recipe| !sections::is_named_recipe(recipe))
    });
    let names: Vec<&str> = PATHS.iter().chain(recipes).copied().collect();
    for name in names {
        let (section, field) = name.split_once('.').expect("a section and a field");
        table.get_mut(section).and_then(|section| section.get_mut(field)).into_iter().for_each(anchor);
    }
    table
}

/// What may be another at every start of a run; all else is what its weights came from.
const MAY_CHANGE: [&str; 8] = [
    "run.output",
    "run.steps",
    "run.log_every",
    "run.checkpoint_every",
    "run.keep",
    "run.init",
    "optimizer.rate",
    "validation.",
];

/// An error that names the first field that must stay as it was when the run in `folder` began, by this text. Fields that
/// came with later versions have the value of then: their default.
pub fn same_run<C: Config>(then: &str, now: &C, folder: &Path) -> Result<(), ConfigError> {
    let place = || folder.display().to_string();
    let wrong = |error: toml::de::Error| ConfigError::Wrong { place: place(), reason: error.to_string() };
    let then: C = resolve(&place(), vec![then.parse().map_err(wrong)?])?;
    let (then, now) = (flat("", &anchored(then.table())), flat("", &anchored(now.table())));
    let differs = |name: &&String| {
        let may_change = MAY_CHANGE.iter().any(|free| match free.strip_suffix('.') {
            Some(_) => name.starts_with(free),
            None => name == free,
        });
        !may_change && value(&then, name) != value(&now, name)
    };
    match then.keys().chain(now.keys()).find(differs) {
        None => Ok(()),
        Some(name) => Err(ConfigError::Differs {
            field: name.clone(),
            then: value(&then, name),
            now: value(&now, name),
            folder: folder.display().to_string(),
        }),
    }
}

fn value(table: &Table, name: &str) -> String {
    table.get(name).map_or("not given".into(), Value::to_string)
}

/// Fields by their full names.
fn flat(prefix: &str, table: &Table) -> Table {
    let mut fields = Table::new();
    for (key, value) in table {
        match value {
            Value::Table(inner) => fields.extend(flat(&format!("{prefix}{key}."), inner)),
            value => _ = fields.insert(format!("{prefix}{key}"), value.clone()),
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_becomes_a_whole_one() {
        let mut stage2 = Stage2Training::default();
        for path in [
            &mut stage2.control.unet,
            &mut stage2.autoencoder.path,
            &mut stage2.stage1.path,
            &mut stage2.data.latents,
            &mut stage2.run.output,
            stage2.run.init.insert("x".into()),
            stage2.control.together_with.insert("x".into()),
            stage2.text.encoder.insert("x".into()),
        ] {
            *path = "x/y".into();
        }
        for paths in [&mut stage2.data.folders, &mut stage2.validation.folders] {
            *paths = vec!["x/y".into(), "x/y".into()];
        }
        let mut stage1 = Stage1Training::default();
        stage1.degradation.recipe = "x/y".into();
        stage1.loss.lpips_files = vec!["x/y".into()];
        stage1.validation.lpips_files = vec!["x/y".into()];
        for (table, count) in [(stage2.table(), 12), (stage1.table(), 3)] {
            let whole = std::path::absolute("x/y").unwrap().display().to_string();
            let text = anchored(table).to_string();
            assert_eq!((text.matches(&whole).count(), text.matches("\"x/y\"").count()), (count, 0), "{text}");
            let again = anchored(text.parse().unwrap());
            assert_eq!(again.to_string(), text);
        }
        // Names of recipes and paths that are not given stay.
        let text = anchored(Stage2Training::default().table()).to_string();
        assert!(text.contains("recipe = \"training\"") && text.contains("unet = \"\""), "{text}");
        let built_in = anchored(field("control.unet", BUILT_IN));
        assert_eq!(built_in, field("control.unet", BUILT_IN));
    }
}
