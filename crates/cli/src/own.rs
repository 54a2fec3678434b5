//! Models of one's own that have a name: packed files in the folder of weights.

use anyhow::{Context, Result, bail, ensure};
use diffbir::ModelConfig;
use diffbir::catalog::{self, Store};
use diffbir::config::CONFIG_KEY;
use diffbir_imaging::write_atomic_with;
use diffbir_nn::WeightError;
use diffbir_nn::checkpoint::Checkpoint;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

fn folder(store: &Store) -> PathBuf {
    store.folder().join("own")
}

fn place(store: &Store, name: &str) -> PathBuf {
    folder(store).join(format!("{name}.safetensors"))
}

/// The file of the model of this name.
pub fn find(store: &Store, name: &str) -> Option<PathBuf> {
    Some(place(store, name)).filter(|file| is_name(name) && file.is_file())
}

/// All names, sorted.
pub fn names(store: &Store) -> Vec<String> {
    let entries = fs::read_dir(folder(store)).into_iter().flatten().flatten();
    let stem = |entry: fs::DirEntry| Some(entry.path().file_stem()?.to_str()?.to_string());
    let mut names: Vec<String> =
        entries.filter_map(stem).filter(|name| find(store, name).is_some()).collect();
    names.sort();
    names
}

/// Whether this is a file that `models pack` wrote.
///
/// # Errors
/// Where it is no whole file of weights.
pub fn is_model(file: &Path) -> Result<bool, WeightError> {
    Ok(Checkpoint::open(file)?.metadata.contains_key(CONFIG_KEY))
}

/// Copies a packed model to where `--model` finds it by `name`, its own if none is given; its place.
pub fn import(store: &Store, file: &Path, name: Option<&str>) -> Result<PathBuf> {
    let config = ModelConfig::of(&Checkpoint::open(file)?, &file.display().to_string())?;
    let name = name.unwrap_or(&config.name);
    let is_taken = ["auto", "nano"].contains(&name)
        || catalog::set(name).is_some()
        || catalog::engine(name).is_some()
        || catalog::file_or_copy(name).is_some();
    ensure!(!is_taken, "{}: {name} is another model's name: give one by --name", file.display());
    ensure!(
        is_name(name),
        "{}: a model cannot be called {name:?}: give letters, digits, `.`, `-` and `_` by --name",
        file.display()
    );
    let place = place(store, name);
    if place.exists() {
        bail!("{}: exists already: give another name by --name, or remove it first", place.display());
    }
    let mut source = File::open(file).with_context(|| format!("{}: cannot be read", file.display()))?;
    let folder = folder(store);
    fs::create_dir_all(&folder).with_context(|| format!("{}: cannot be written", folder.display()))?;
    write_atomic_with(&place, |out| io::copy(&mut source, out).map(|_| ()))?;
    Ok(place)
}

/// A name that is one file's in any folder.
fn is_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || ['.', '-', '_'].contains(&c);
    !name.is_empty() && !name.starts_with('.') && name.chars().all(plain)
}
