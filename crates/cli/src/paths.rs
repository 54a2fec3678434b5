//! What is at a path, and when two paths are one place.

use anyhow::{Context, Result, bail};
use std::io::ErrorKind;
use std::path::{Component, Path, PathBuf};

/// What can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A folder.
    Folder,
}

/// What is at `path`, links followed, or why nothing can be read there. A pipe or a device might never end.
pub fn kind(path: &Path) -> Result<Kind> {
    let shown = path.display();
    match path.metadata() {
        Ok(found) if found.is_file() => Ok(Kind::File),
        Ok(found) if found.is_dir() => Ok(Kind::Folder),
        Ok(_) => bail!("{shown}: is a pipe or a device, not a file"),
        Err(error) if error.kind() == ErrorKind::NotFound && path.is_symlink() => {
            bail!("{shown}: is a link to nothing")
        }
        Err(error) if error.kind() == ErrorKind::NotFound => bail!("{shown}: no such file or folder"),
        Err(error) => Err(error).with_context(|| format!("{shown}: cannot be read")),
    }
}

/// The absolute path without links and `..` that `path` means. Where nothing exists yet, `..` takes back
/// the name before it, so that a folder which is made later does not change what is meant.
pub fn place(path: &Path) -> PathBuf {
    if let Ok(real) = path.canonicalize() {
        return real;
    }
    let mut parts = path.components();
    match parts.next_back() {
        Some(Component::Normal(name)) => place(parts.as_path()).join(name),
        Some(Component::ParentDir) => {
            let mut up = place(parts.as_path());
            up.pop();
            up
        }
        Some(Component::CurDir) => place(parts.as_path()),
        Some(Component::RootDir | Component::Prefix(_)) => path.to_path_buf(),
        None => std::env::current_dir().unwrap_or_default(),
    }
}

/// The folder of a file's path; `.` for a bare name.
pub fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
