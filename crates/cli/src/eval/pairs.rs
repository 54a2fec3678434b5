//! Which files are versions of one picture.

use super::ledger;
use super::sheet::SHEETS;
use crate::inputs::in_folder;
use crate::paths::{Kind, kind, place};
use crate::talk::say;
use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;
use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

/// A folder of pictures, and as what it was named.
pub struct Folder {
    /// The name of a method, or `truth`.
    pub name: String,
    /// Pictures: place and name with and without the ending, and the file.
    files: Vec<(PathBuf, PathBuf, PathBuf)>,
    /// What of it cannot be measured, which was told.
    pub problems: Vec<Problem>,
}

/// A file or folder that was found and is no picture that can be measured.
#[derive(Debug, PartialEq, Serialize)]
pub struct Problem {
    /// The name of the folder that was searched, as of [`Folder`].
    pub folder: String,
    /// Its place in there.
    pub file: String,
    /// What is wrong.
    pub reason: String,
}

/// The files of one picture: the truth's, and one of each other folder.
#[derive(Debug, PartialEq)]
pub struct Files {
    pub truth: Option<PathBuf>,
    pub versions: Vec<Option<PathBuf>>,
}

impl Folder {
    /// Finds the pictures of a folder; `flag` named it, and what lies in `except` does not count.
    pub fn search(flag: &str, name: String, folder: &Path, except: Option<&Path>) -> Result<Self> {
        let shown = folder.display();
        if kind(folder).context(flag.to_string())? != Kind::Folder {
            bail!("{flag} {shown}: is a file: give the folder that it lies in");
        }
        let mut found = in_folder(folder, except);
        let before = found.inputs.len();
        found.inputs.retain(|input| !is_in_sheets(folder, &input.below));
        let sheets = before - found.inputs.len();
        if sheets > 0 {
            say(format_args!("{shown}: {sheets} contact sheets of an evaluation are left out"));
        }
        if found.inputs.is_empty() {
            let reason = found.problems.first().map(|problem| problem.message.clone());
            bail!("{flag}: {}", reason.unwrap_or_else(|| format!("{shown}: holds no pictures")));
        }
        for problem in &found.problems {
            say(format_args!("error: {}", problem.message));
        }
        if !found.not_read.is_empty() {
            say(format_args!(
                "{shown}: {} left out in formats that are not read, such as HEIC and RAW",
                found.not_read.len()
            ));
        }
        for link in &found.linked {
            say(format_args!("error: {}: is a link to a folder, which is not followed", link.display()));
        }
        let problem = |path: &Path, message: String| Problem {
            folder: name.clone(),
            file: path.strip_prefix(folder).unwrap_or(path).display().to_string(),
            reason: message.trim_start_matches(&format!("{}: ", path.display())).into(),
        };
        let not_read = |path: &PathBuf| problem(path, "is in a format that is not read".into());
        let problems = found.problems.iter().map(|told| problem(&told.path, told.message.clone()));
        let linked = |path: &PathBuf| problem(path, "is a link to a folder, which is not followed".into());
        let problems = problems.chain(found.not_read.iter().map(not_read));
        let problems = problems.chain(found.linked.iter().map(linked)).collect();
        let files = found.inputs.into_iter().map(|input| {
            let own = input.below.join(input.path.file_name().unwrap_or_default());
            (own.clone(), own.with_extension(""), input.path)
        });
        Ok(Self { name, files: files.collect(), problems })
    }

    /// Those of several folders, each called by its last name, or as it was given where two have the same.
    pub fn search_all(flag: &str, folders: &[PathBuf], except: Option<&Path>) -> Result<Vec<Self>> {
        let mut places = HashSet::new();
        for folder in folders {
            ensure!(places.insert(place(folder)), "{flag} {}: is named twice", folder.display());
        }
        let last = |folder: &PathBuf| {
            place(folder).file_name().map_or_else(|| "/".into(), |name| name.to_string_lossy().into_owned())
        };
        let names: Vec<String> = folders.iter().map(last).collect();
        // What a table calls its rows of spreads and the truth is no folder of results.
        let mut taken = HashSet::from([G_STD, TRUTH].map(String::from));
        let mut search = |(folder, name): (&PathBuf, &String)| {
            let alone = names.iter().filter(|other| *other == name).count() == 1;
            let given = folder.display().to_string();
            let whole =
                std::path::absolute(folder).map_or(given.clone(), |whole| whole.display().to_string());
            let numbered = (2..).map(|number| format!("{given} ({number})"));
            let candidates = alone.then(|| name.clone()).into_iter().chain([given.clone(), whole]);
            let free =
                candidates.chain(numbered).find(|name| !taken.contains(name)).expect("numbers do not end");
            taken.insert(free.clone());
            Self::search(flag, free, folder, except)
        };
        folders.iter().zip(&names).map(&mut search).collect()
    }
}

/// What the truth is called.
pub const TRUTH: &str = "truth";
/// What the rows are called that tell how much repeated samples vary.
pub const G_STD: &str = "G-STD";

/// Whether the folder `below` a searched one is where an evaluation keeps its sheets.
fn is_in_sheets(searched: &Path, below: &Path) -> bool {
    below.ancestors().any(|folder| {
        let place = searched.join(folder);
        folder.ends_with(SHEETS) && place.with_file_name(ledger::NAME).is_file()
    })
}

/// What belongs together: files of the same place and name without the ending, or, where a folder has several
/// of these, with it.
pub fn together(truth: Option<&Folder>, folders: &[Folder]) -> BTreeMap<PathBuf, Files> {
    let mut several = HashSet::new();
    for folder in folders.iter().chain(truth) {
        let mut seen = HashSet::new();
        several.extend(folder.files.iter().map(|(_, stem, _)| stem).filter(|stem| !seen.insert(*stem)));
    }
    // Nor may the name without its ending (`a.png` of `a.png.webp`) be another picture's with it.
    loop {
        let all = || folders.iter().chain(truth).flat_map(|folder| &folder.files);
        let whole: HashSet<&PathBuf> =
            all().filter(|(_, stem, _)| several.contains(stem)).map(|(own, ..)| own).collect();
        let before = several.len();
        several.extend(all().map(|(_, stem, _)| stem).filter(|stem| whole.contains(stem)));
        if several.len() == before {
            break;
        }
    }
    let mut pictures: BTreeMap<PathBuf, Files> = BTreeMap::new();
    let all = truth.map(|folder| (None, folder)).into_iter();
    for (index, folder) in all.chain(folders.iter().enumerate().map(|(index, folder)| (Some(index), folder)))
    {
        for (own, stem, path) in &folder.files {
            let key = if several.contains(stem) { own } else { stem };
            let new = || Files { truth: None, versions: vec![None; folders.len()] };
            let files = pictures.entry(key.clone()).or_insert_with(new);
            match index {
                None => files.truth = Some(path.clone()),
                Some(index) => files.versions[index] = Some(path.clone()),
            }
        }
    }
    pictures
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(names: &[&str]) -> Folder {
        let file = |name: &&str| (name.into(), PathBuf::from(name).with_extension(""), PathBuf::from(name));
        Folder { name: "x".into(), files: names.iter().map(file).collect(), problems: Vec::new() }
    }

    fn keys(truth: &[&str], restored: &[&str]) -> Vec<(String, bool, bool)> {
        let found = together(Some(&folder(truth)), &[folder(restored)]);
        let entry = |(key, files): (PathBuf, Files)| {
            (key.display().to_string(), files.truth.is_some(), files.versions[0].is_some())
        };
        found.into_iter().map(entry).collect()
    }

    #[test]
    fn files_go_together_by_place_and_name() {
        let found = keys(&["a.png", "in/a.png", "b.png"], &["a.jpg", "in/a.webp", "c.png"]);
        let known = [("a", true, true), ("b", true, false), ("c", false, true), ("in/a", true, true)];
        assert_eq!(found, known.map(|(name, truth, restored)| (name.to_string(), truth, restored)));
    }

    #[test]
    fn equal_names_go_by_their_endings() {
        let found = keys(&["a.png", "a.jpg"], &["a.png", "b.c.png"]);
        let known = [("a.jpg", true, false), ("a.png", true, true), ("b.c", false, true)];
        assert_eq!(found, known.map(|(name, truth, restored)| (name.to_string(), truth, restored)));
        let found = keys(&["a.png", "a.jpg"], &["a.jpg", "a.png.webp", "a.png.webp.tiff"]);
        let known = [
            ("a.jpg", true, true),
            ("a.png", true, false),
            ("a.png.webp", false, true),
            ("a.png.webp.tiff", false, true),
        ];
        assert_eq!(found, known.map(|(name, truth, restored)| (name.to_string(), truth, restored)));
    }

    #[test]
    fn folders_are_never_called_alike() {
        let place = tempfile::TempDir::new().unwrap();
        let names = ["a/x", "b/x", "y", "a/G-STD", "a/truth"].map(|name| {
            let folder = place.path().join(name);
            std::fs::create_dir_all(&folder).unwrap();
            // A picture, as far as its first bytes say.
            std::fs::write(folder.join("a.png"), b"\x89PNG\r\n\x1a\n").unwrap();
            folder
        });
        let found = Folder::search_all("--restored", &names, None).unwrap();
        let called: Vec<&str> = found.iter().map(|folder| folder.name.as_str()).collect();
        let whole = names.each_ref().map(|folder| folder.to_str().unwrap());
        assert_eq!(called, [whole[0], whole[1], "y", whole[3], whole[4]]);
    }
}
