//! Which pictures are meant, and where each result goes.

use crate::args::Existing;
use anyhow::{Context, Result, bail, ensure};
use diffbir_imaging::Format;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// Names that a folder is searched for. A file that is named itself is taken whatever its name.
const EXTENSIONS: [&str; 8] = ["png", "jpg", "jpeg", "jpe", "webp", "tif", "tiff", "bmp"];

/// A picture to be read.
#[derive(Clone, Debug, PartialEq)]
pub struct Input {
    /// Its file.
    pub path: PathBuf,
    /// The folder below the named one in which it was found.
    below: PathBuf,
}

/// The pictures that arguments mean: files, folders (with those inside if `recursive`) and patterns.
pub fn expand(arguments: &[PathBuf], recursive: bool) -> Result<Vec<Input>> {
    let mut inputs = Vec::new();
    for argument in arguments {
        if argument.is_dir() {
            let before = inputs.len();
            search(argument, Path::new(""), recursive, &mut inputs)?;
            ensure!(
                inputs.len() > before,
                "{}: holds no pictures{}",
                argument.display(),
                if recursive { "" } else { "; use --recursive to look into its folders" }
            );
        } else if argument.exists() {
            inputs.push(Input { path: argument.clone(), below: PathBuf::new() });
        } else {
            let pattern = argument.to_string_lossy();
            let is_pattern = pattern.contains(['*', '?', '[']);
            ensure!(is_pattern, "{}: no such file or folder", argument.display());
            let matches = glob::glob(&pattern).with_context(|| format!("{pattern}: is not a pattern"))?;
            let before = inputs.len();
            for path in matches {
                let path = path?;
                if path.is_file() {
                    inputs.push(Input { path, below: PathBuf::new() });
                }
            }
            ensure!(inputs.len() > before, "{pattern}: matches no file");
        }
    }
    // A picture that is meant twice is restored once.
    let mut seen = std::collections::HashSet::new();
    inputs.retain(|input| seen.insert(identity(&input.path)));
    Ok(inputs)
}

fn search(folder: &Path, below: &Path, recursive: bool, inputs: &mut Vec<Input>) -> Result<()> {
    let fail = || format!("{}: cannot be read", folder.display());
    let mut entries = std::fs::read_dir(folder)
        .and_then(|entries| entries.collect::<Result<Vec<_>, _>>())
        .with_context(fail)?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        if path.is_dir() {
            // A link to a folder may lead round in a circle.
            if recursive && !entry.file_type().with_context(fail)?.is_symlink() {
                search(&path, &below.join(entry.file_name()), recursive, inputs)?;
            }
            continue;
        }
        let extension = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
        if EXTENSIONS.contains(&extension.as_str()) {
            inputs.push(Input { path, below: below.to_path_buf() });
        }
    }
    Ok(())
}

/// A picture to be made.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    /// From this file.
    pub input: PathBuf,
    /// The results' files with the number of the sample.
    pub outputs: Vec<(PathBuf, u64)>,
}

/// Plans all outputs before any work; returns the jobs and how many results were left as they are.
pub fn plan(
    inputs: &[Input],
    output: Option<&Path>,
    format: Format,
    samples: u64,
    existing: Existing,
) -> Result<(Vec<Job>, usize)> {
    let as_file = output.is_some_and(is_file_name);
    if as_file && inputs.len() > 1 {
        bail!(
            "{}: is a file's name, but there are {} inputs: give a folder",
            output.unwrap_or(Path::new("")).display(),
            inputs.len()
        );
    }
    let sources: HashMap<PathBuf, &Path> =
        inputs.iter().map(|input| (identity(&input.path), input.path.as_path())).collect();
    let mut taken: HashMap<PathBuf, &Path> = HashMap::new();
    let mut jobs = Vec::new();
    let mut skipped = 0;
    for input in inputs {
        let stem = input.path.file_stem().unwrap_or_default().to_string_lossy();
        let mut outputs = Vec::new();
        for sample in 0..samples {
            let number = if samples > 1 { format!("_{sample}") } else { String::new() };
            let name = |suffix: &str| format!("{stem}{suffix}{number}.{}", format.extension());
            let path = match output {
                Some(file) if as_file && samples == 1 => file.to_path_buf(),
                Some(file) if as_file => {
                    let stem = file.file_stem().unwrap_or_default().to_string_lossy();
                    let extension = file.extension().unwrap_or_default().to_string_lossy();
                    file.with_file_name(format!("{stem}{number}.{extension}"))
                }
                Some(folder) => folder.join(&input.below).join(name("")),
                None => input.path.with_file_name(name("_restored")),
            };
            let own = identity(&path);
            if sources.contains_key(&own) {
                bail!("{}: the result would lie over an input: choose another output", path.display());
            }
            if let Some(other) = taken.insert(own, &input.path) {
                bail!(
                    "{} and {} would both become {}: give them different names or folders",
                    other.display(),
                    input.path.display(),
                    path.display()
                );
            }
            if path.exists() {
                match existing {
                    Existing::Skip => {
                        skipped += 1;
                        continue;
                    }
                    Existing::Overwrite => {}
                    Existing::Error => bail!(
                        "{}: exists already: choose --existing skip or --existing overwrite",
                        path.display()
                    ),
                }
            }
            outputs.push((path, sample));
        }
        if !outputs.is_empty() {
            jobs.push(Job { input: input.path.clone(), outputs });
        }
    }
    Ok((jobs, skipped))
}

/// Whether an output means a file: it has the name of a picture and is no folder.
pub fn is_file_name(output: &Path) -> bool {
    let extension = output.extension().unwrap_or_default().to_string_lossy();
    !output.is_dir() && Format::from_extension(&extension).is_some()
}

/// A path by which two names of one place are equal, whether or not there is a file.
fn identity(path: &Path) -> PathBuf {
    if let Ok(path) = path.canonicalize() {
        return path;
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    folder.canonicalize().unwrap_or_else(|_| folder.to_path_buf()).join(path.file_name().unwrap_or_default())
}
