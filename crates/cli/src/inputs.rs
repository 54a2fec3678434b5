//! Which pictures are meant.

use crate::outputs::{NOT_WRITTEN, SUFFIX, Target};
use crate::paths::{Kind, folder_of, kind, place};
use anyhow::{Context, Result, bail, ensure};
use diffbir_imaging::EXTENSIONS;
use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// By which a picture's format is known.
const START_BYTES: u64 = 32;

/// A picture to be read.
#[derive(Clone, Debug, PartialEq)]
pub struct Input {
    /// Its file.
    pub path: PathBuf,
    /// The folder below the searched one in which it was found.
    pub below: PathBuf,
    /// The place that was searched; nothing for a file that was named itself.
    root: Option<PathBuf>,
}

/// Something that was meant and is no picture, and why.
pub struct Problem {
    /// As it was named or found.
    pub path: PathBuf,
    /// For the person, with the path.
    pub message: String,
}

/// What arguments mean.
#[derive(Default)]
pub struct Found {
    /// Pictures, each once.
    pub inputs: Vec<Input>,
    /// What the rest goes on without.
    pub problems: Vec<Problem>,
    /// How many files were left out because they are results of an earlier run.
    pub results: usize,
    /// Files of a searched folder that have the name of a picture that cannot be read.
    pub not_read: Vec<PathBuf>,
    /// Links to folders that a search into folders did not follow.
    pub linked: Vec<PathBuf>,
}

/// The pictures that arguments mean: files, folders (with those inside if `recursive`) and patterns.
/// Results of an earlier run that a search comes upon are not meant.
pub fn find(arguments: &[PathBuf], recursive: bool, target: &Target) -> Found {
    let mut found = Found::default();
    for argument in arguments {
        if let Some(pattern) = argument.to_str().filter(|text| is_pattern(text) && !exists(argument)) {
            found.matches(pattern, recursive);
        } else {
            found.take(argument, Path::new(""), None, recursive);
        }
    }
    // A picture that is meant twice is restored once.
    let mut seen = HashSet::new();
    found.inputs.retain(|input| seen.insert(place(&input.path)));
    let sources: HashSet<(PathBuf, Vec<u8>)> =
        found.inputs.iter().map(|input| named(&input.path, stem(&input.path))).collect();
    let before = found.inputs.len();
    found.inputs.retain(|input| !input.is_result(target, &sources));
    found.results = before - found.inputs.len();
    found
}

/// All pictures of a folder and the folders inside it, but for those in the folder `except`.
pub fn in_folder(folder: &Path, except: Option<&Path>) -> Found {
    let mut found = Found::default();
    found.take(folder, Path::new(""), None, true);
    if let Some(except) = except.map(place) {
        found.inputs.retain(|input| !place(folder_of(&input.path)).starts_with(&except));
    }
    found
}

impl Found {
    fn problem(&mut self, path: &Path, error: &anyhow::Error) {
        self.problems.push(Problem { path: path.to_path_buf(), message: format!("{error:#}") });
    }

    /// A file or folder; `root` is where it was searched for and `below` its folder there.
    fn take(&mut self, path: &Path, below: &Path, root: Option<&Path>, recursive: bool) {
        let taken = kind(path).and_then(|kind| match kind {
            Kind::File => {
                let root = root.map(Path::to_path_buf);
                self.inputs.push(Input { path: path.to_path_buf(), below: below.to_path_buf(), root });
                Ok(())
            }
            Kind::Folder => {
                let before = self.inputs.len() + self.problems.len();
                let own = place(path);
                self.search(path, below, root.unwrap_or(&own), recursive)?;
                ensure!(
                    self.inputs.len() + self.problems.len() > before,
                    "{}: holds no pictures{}",
                    path.display(),
                    if recursive { "" } else { "; use --recursive to look into its folders" }
                );
                Ok(())
            }
        });
        if let Err(error) = taken {
            self.problem(path, &error);
        }
    }

    fn search(&mut self, folder: &Path, below: &Path, root: &Path, recursive: bool) -> Result<()> {
        let fail = || format!("{}: cannot be read", folder.display());
        let mut entries = std::fs::read_dir(folder)
            .and_then(|entries| entries.collect::<Result<Vec<_>, _>>())
            .with_context(fail)?;
        entries.sort_by_key(std::fs::DirEntry::file_name);
        for entry in entries {
            let path = entry.path();
            if path.is_dir() {
                // A link to a folder may lead round in a circle.
                if recursive && path.is_symlink() {
                    self.linked.push(path);
                } else if recursive {
                    let searched = self.search(&path, &below.join(entry.file_name()), root, recursive);
                    if let Err(error) = searched {
                        self.problem(&path, &error);
                    }
                }
                continue;
            }
            let extension = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
            // A file that is named itself is taken whatever its name.
            if EXTENSIONS.contains(&extension.as_str())
                || extension.is_empty() && path.is_file() && is_picture(&path)
            {
                self.take(&path, below, Some(root), recursive);
            } else if NOT_WRITTEN.contains(&extension.as_str()) {
                self.not_read.push(path);
            }
        }
        Ok(())
    }

    /// What a pattern matches, as if each were named, below the part of it that is fixed.
    fn matches(&mut self, pattern: &str, recursive: bool) {
        let fixed: PathBuf = Path::new(pattern)
            .components()
            .take_while(|part| !is_pattern(&part.as_os_str().to_string_lossy()))
            .collect();
        let root = place(&fixed);
        let matched = glob::glob(pattern)
            .with_context(|| format!("{pattern}: is not a pattern"))
            .map(Iterator::collect::<Vec<_>>)
            .and_then(|paths| if paths.is_empty() { bail!("{pattern}: matches no file") } else { Ok(paths) });
        match matched {
            Err(error) => self.problem(Path::new(pattern), &error),
            Ok(paths) => {
                for path in paths {
                    match path {
                        Ok(path) => {
                            let folder = match path.is_dir() {
                                true => place(&path),
                                false => place(folder_of(&path)),
                            };
                            let below = folder.strip_prefix(&root).unwrap_or(Path::new("")).to_path_buf();
                            self.take(&path, &below, Some(&root), recursive);
                        }
                        Err(error) => {
                            let path = error.path().to_path_buf();
                            let shown = path.display().to_string();
                            let error = anyhow::Error::new(std::io::Error::from(error));
                            self.problem(&path, &error.context(format!("{shown}: cannot be read")));
                        }
                    }
                }
            }
        }
    }
}

impl Input {
    /// Whether an earlier run made it: a search found it in the folder of results inside the searched one,
    /// or beside its source under a result's name.
    fn is_result(&self, target: &Target, sources: &HashSet<(PathBuf, Vec<u8>)>) -> bool {
        let Some(root) = &self.root else { return false };
        match target {
            Target::Folder(output) => {
                let output = place(output);
                !root.starts_with(&output) && place(folder_of(&self.path)).starts_with(&output)
            }
            Target::Beside => source_stem(stem(&self.path))
                .is_some_and(|source| sources.contains(&named(&self.path, source))),
            Target::File(..) => false,
        }
    }
}

/// Whether a file begins as a picture that can be read does. One that cannot be read may be, and is to be told of.
fn is_picture(path: &Path) -> bool {
    let mut start = Vec::new();
    let read = File::open(path).and_then(|file| file.take(START_BYTES).read_to_end(&mut start));
    read.is_err() || diffbir_imaging::extension_of(&start).is_some()
}

fn stem(path: &Path) -> &[u8] {
    path.file_stem().map(OsStr::as_encoded_bytes).unwrap_or_default()
}

/// A name in the folder of `path`.
fn named(path: &Path, stem: &[u8]) -> (PathBuf, Vec<u8>) {
    (place(folder_of(path)), stem.to_vec())
}

/// From which name a result has its own: `a` for `a_restored` and `a_restored_3`.
fn source_stem(stem: &[u8]) -> Option<&[u8]> {
    let digits = stem.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    let unnumbered = stem[..stem.len() - digits].strip_suffix(b"_").filter(|_| digits > 0);
    unnumbered.unwrap_or(stem).strip_suffix(SUFFIX.as_bytes())
}

fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?', '['])
}

fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}
