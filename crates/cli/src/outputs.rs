//! Where each result goes, settled and checked before any work.

use crate::args::Existing;
use crate::inputs::{Found, Input};
use crate::paths::{folder_of, place};
use anyhow::{Context, Result, bail, ensure};
use diffbir_imaging::{Format, remove_orphans, write_atomic};
use std::collections::{HashMap, HashSet};
use std::error::Error;
use std::ffi::OsStr;
use std::fmt::{Display, Formatter};
use std::io::ErrorKind;
use std::path::{Component, Path, PathBuf, is_separator};

/// Behind the name of a result that lies beside its source.
pub const SUFFIX: &str = "_restored";

/// Endings of pictures that are not written, some of them read: a folder is hardly meant by them.
pub const NOT_WRITTEN: [&str; 28] = [
    "bmp", "gif", "jpe", "jfif", "avif", "heic", "heif", "jxl", "jp2", "tga", "ppm", "pgm", "pbm", "pnm",
    "ico", "hdr", "exr", "psd", "dng", "cr2", "cr3", "nef", "arw", "orf", "pef", "raf", "rw2", "svg",
];

/// The longest name of a file or folder on most disks.
const MAX_NAME_BYTES: usize = 255;

/// Where results go.
#[derive(Clone, Debug, PartialEq)]
pub enum Target {
    /// Beside their sources.
    Beside,
    /// Into a folder.
    Folder(PathBuf),
    /// Into a file, in the format of its name.
    File(PathBuf, Format),
}

/// A picture to be made.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    /// From this file.
    pub input: PathBuf,
    /// The folder below the searched one in which it was found.
    pub below: PathBuf,
    /// The results' files.
    pub outputs: Vec<(PathBuf, Variant)>,
    /// What is written of all results together, in the order asked for; nothing where it is there and stays.
    pub together: Vec<Option<PathBuf>>,
}

/// Which of several results of a picture one is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Variant {
    /// Behind the stem of its name.
    pub suffix: String,
    /// The number of its sample.
    pub sample: u64,
    /// The number of its settings.
    pub setting: usize,
}

impl Job {
    /// The results' files.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.outputs.iter().map(|(path, _)| path.as_path())
    }
}

/// A folder into which nothing can be written: no fault of the command line.
#[derive(Debug)]
pub struct Unwritable {
    folder: PathBuf,
    reason: ErrorKind,
}

impl Display for Unwritable {
    fn fmt(&self, f: &mut Formatter) -> std::fmt::Result {
        write!(f, "{}: no result can be written into it: {}", self.folder.display(), self.reason)
    }
}

impl Error for Unwritable {}

impl Target {
    /// What `--output` means: a file if it has the name of a picture and is no folder.
    pub fn new(output: Option<&Path>) -> Result<Self> {
        let Some(output) = output else { return Ok(Self::Beside) };
        let path = upwards_resolved(output);
        let last = output.as_os_str().as_encoded_bytes().last();
        if last.is_some_and(|&byte| is_separator(char::from(byte))) || path.is_dir() {
            return Ok(Self::Folder(path));
        }
        let extension = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
        if let Some(format) = Format::from_extension(&extension) {
            return Ok(Self::File(path, format));
        }
        ensure!(
            !NOT_WRITTEN.contains(&extension.as_str()),
            "{}: {extension} is not written: there are png, jpeg, webp and tiff; a folder of this name ends in /",
            output.display()
        );
        Ok(Self::Folder(path))
    }

    /// A folder, whatever its name looks like.
    pub fn folder(output: &Path) -> Self {
        Self::Folder(upwards_resolved(output))
    }

    /// The file of a result, `variant` being behind the stem of its name.
    fn path(&self, input: &Input, format: Format, variant: &str) -> PathBuf {
        let name = |stem: Option<&OsStr>, suffix: &str, extension: &OsStr| {
            let mut name = stem.unwrap_or_default().to_os_string();
            name.push(suffix);
            name.push(variant);
            name.push(".");
            name.push(extension);
            name
        };
        let (source, extension) = (&input.path, OsStr::new(format.extension()));
        match self {
            Self::Beside => source.with_file_name(name(source.file_stem(), SUFFIX, extension)),
            Self::Folder(folder) => folder.join(&input.below).join(name(source.file_stem(), "", extension)),
            Self::File(file, _) => {
                file.with_file_name(name(file.file_stem(), "", file.extension().unwrap_or(extension)))
            }
        }
    }
}

/// The path with its `..` followed, so that a folder that is still to be made cannot lead astray.
fn upwards_resolved(path: &Path) -> PathBuf {
    let goes_up = path.components().any(|part| part == Component::ParentDir);
    if goes_up { place(path) } else { path.to_path_buf() }
}

/// Plans all outputs before any work: of each input the results of these variants, and PNG files of all of them `together`,
/// called so behind the stem; returns the jobs and how many results were left as they are.
///
/// Fails where a result would lie over an input, another result or what must stay, or cannot be written.
pub fn plan(
    found: &Found,
    target: &Target,
    format: Format,
    (variants, together): (&[Variant], &[String]),
    existing: Existing,
) -> Result<(Vec<Job>, usize)> {
    if let Target::File(file, _) = target {
        let count = found.inputs.len() + found.problems.len();
        ensure!(
            count <= 1,
            "{}: is a file's name, but there are {count} inputs: give a folder",
            file.display()
        );
    }
    let sources: HashSet<PathBuf> = found.inputs.iter().map(|input| place(&input.path)).collect();
    let mut taken: HashMap<PathBuf, &Path> = HashMap::new();
    let mut folders = HashSet::new();
    let mut jobs = Vec::new();
    let mut skipped = 0;
    for input in &found.inputs {
        let mut claim = |path: &Path| -> Result<bool> {
            let own = place(path);
            if sources.contains(&own) {
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
            if stays(path, existing)? {
                return Ok(false);
            }
            if folders.insert(folder_of(path).to_path_buf()) {
                ensure_writable(folder_of(path))?;
            }
            Ok(true)
        };
        let mut outputs = Vec::new();
        for variant in variants {
            let path = target.path(input, format, &variant.suffix);
            match claim(&path)? {
                true => outputs.push((path, variant.clone())),
                false => skipped += 1,
            }
        }
        let together: Result<Vec<Option<PathBuf>>> = together
            .iter()
            .map(|name| {
                let path = target.path(input, format, name).with_extension(Format::Png.extension());
                Ok(claim(&path)?.then_some(path))
            })
            .collect();
        let together = together?;
        if !outputs.is_empty() {
            jobs.push(Job { input: input.path.clone(), below: input.below.clone(), outputs, together });
        }
    }
    for (own, input) in &taken {
        if let Some(other) = own.ancestors().skip(1).find_map(|folder| taken.get(folder)) {
            bail!(
                "{}: the folder of its result would be the result of {}: give them different names or folders",
                input.display(),
                other.display()
            );
        }
    }
    Ok((jobs, skipped))
}

/// Whether a result is there and is left as it is.
pub fn stays(path: &Path, existing: Existing) -> Result<bool> {
    let shown = path.display();
    if let Some(name) = path.components().map(Component::as_os_str).find(|name| name.len() > MAX_NAME_BYTES) {
        bail!("{shown}: a name of {} bytes is longer than {MAX_NAME_BYTES}, what disks take", name.len());
    }
    match path.symlink_metadata() {
        Ok(_) => {}
        // What is a file instead of a folder on the way is found with the folder.
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(false);
        }
        Err(error) => return Err(error).with_context(|| format!("{shown}: cannot be written")),
    }
    ensure!(!path.is_dir(), "{shown}: is a folder, so the result cannot be written");
    ensure!(path.is_file() || path.is_symlink(), "{shown}: is a pipe or a device and is not replaced");
    match existing {
        Existing::Overwrite => Ok(false),
        Existing::Skip if path.is_file() => Ok(true),
        Existing::Skip => {
            bail!("{shown}: is a link to nothing: remove it or choose --existing overwrite")
        }
        Existing::Error => {
            bail!("{shown}: exists already: choose --existing skip or --existing overwrite")
        }
    }
}

/// Whether files can be made in a folder, which may have to be made itself.
pub fn ensure_writable(folder: &Path) -> Result<()> {
    let there = folder.ancestors().find(|folder| folder.symlink_metadata().is_ok());
    let there = there.unwrap_or(Path::new("."));
    ensure!(there.is_dir(), "{}: is no folder, so no result can be written into it", there.display());
    tempfile::tempfile_in(there)
        .map_err(|error| Unwritable { folder: there.to_path_buf(), reason: error.kind() })?;
    Ok(())
}

/// Whether a file can be made that is not there yet.
pub fn ensure_new(file: &Path) -> Result<()> {
    let there = file.symlink_metadata().is_ok();
    ensure!(!there, "{}: exists already: remove it or choose another name", file.display());
    ensure_writable(folder_of(file))
}

/// Removes what runs that were killed left in the folders of these files.
pub fn tidy<'a>(files: impl Iterator<Item = &'a Path>) {
    files.map(folder_of).collect::<HashSet<_>>().into_iter().for_each(remove_orphans);
}

/// Removes a file that is out of date, if it is there.
pub fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("{}: is out of date and cannot be removed", path.display()))
        }
        _ => Ok(()),
    }
}

/// Writes a file, and its folder where there is none yet.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let folder = folder_of(path);
    std::fs::create_dir_all(folder)
        .with_context(|| format!("{}: the folder cannot be made", folder.display()))?;
    Ok(write_atomic(path, bytes)?)
}
