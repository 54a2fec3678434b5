//! Files onto the disk, never half of one at its place.

use crate::error::{EncodeError, nameless};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, SystemTime};
use tempfile::NamedTempFile;

const PREFIX: &str = ".diffbir-";
const SUFFIX: &str = ".partial";

/// A file younger than this may be one that its program has yet to lock.
const SURELY_LOCKED: Duration = Duration::from_secs(60);

/// Writes a file beside its place under a temporary name, then moves it there: whoever looks sees the old
/// file, or none, or the whole new one. What a program that was killed leaves of it,
/// [`remove_orphans`] takes away.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<(), EncodeError> {
    write_atomic_with(path, |file| file.write_all(bytes))
}

/// [`write_atomic`] of what `write` writes, for a file that is too large to be held in memory as well.
pub fn write_atomic_with(
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<(), EncodeError> {
    let fail = |error| EncodeError::Write { file: path.display().to_string(), source: nameless(error) };
    let mut file = Partial::of(path).map_err(fail)?;
    let mut buffered = io::BufWriter::new(&mut file);
    write(&mut buffered).and_then(|()| buffered.flush()).map_err(fail)?;
    drop(buffered);
    file.keep(path).map_err(fail)
}

/// A file on its way to its place, under a temporary name beside it; gone when it is dropped.
pub struct Partial(NamedTempFile);

impl Partial {
    /// An empty one for the place `path`.
    pub fn of(path: &Path) -> io::Result<Self> {
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        Ok(Self(partial_in(folder)?))
    }

    /// What was written so far.
    pub fn read(&self) -> io::Result<Vec<u8>> {
        std::fs::read(self.0.path())
    }

    /// Moves it to its place once the disk has all of it.
    pub fn keep(self, path: &Path) -> io::Result<()> {
        self.0.as_file().sync_all()?;
        self.0.persist(path).map_err(|error| error.error)?;
        Ok(())
    }
}

impl Write for Partial {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// A temporary file that is locked as long as it is open, so for no longer than its program lives.
fn partial_in(folder: &Path) -> io::Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(PREFIX).suffix(SUFFIX);
    // The usual rights, not the private ones of a temporary file.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let file = builder.tempfile_in(folder)?;
    // On a disk that knows no locks nothing can be locked by `remove_orphans` either.
    let _ = file.as_file().try_lock();
    Ok(file)
}

/// Removes what [`write_atomic`] left in a folder when its program was killed. Files of living programs
/// stay, as does whatever cannot be looked at.
pub fn remove_orphans(folder: &Path) {
    remove(folder, is_orphan);
}

/// As [`remove_orphans`], but those too that may be too young to be locked: where nobody else writes.
pub fn remove_partials(folder: &Path) {
    remove(folder, |file| file.try_lock().is_ok());
}

fn remove(folder: &Path, is_lost: impl Fn(&File) -> bool) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.as_encoded_bytes();
        let is_partial = name.starts_with(PREFIX.as_bytes()) && name.ends_with(SUFFIX.as_bytes());
        if is_partial && entry.file_type().is_ok_and(|kind| kind.is_file()) {
            let path = entry.path();
            let file = OpenOptions::new().read(true).write(true).open(&path);
            if file.is_ok_and(|file| is_lost(&file)) {
                let _ = std::fs::remove_file(&path);
            }
        }
    }
}

fn is_orphan(file: &File) -> bool {
    let written = file.metadata().and_then(|found| found.modified());
    let age = written.ok().and_then(|written| SystemTime::now().duration_since(written).ok());
    age.is_some_and(|age| age >= SURELY_LOCKED) && file.try_lock().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Makes a file look as if it had not been written to for two minutes.
    fn age(file: &File) {
        file.set_modified(SystemTime::now() - 2 * SURELY_LOCKED).unwrap();
    }

    #[test]
    fn only_what_no_living_program_writes_is_removed() {
        let folder = tempfile::TempDir::new().unwrap();
        let at = |name: &str| folder.path().join(name);
        let [orphan, others] = [".diffbir-orphan.partial", "mine.partial"].map(|name| {
            age(&File::create(at(name)).unwrap());
            at(name)
        });
        File::create(at(".diffbir-new.partial")).unwrap();
        let living = partial_in(folder.path()).unwrap();
        age(living.as_file());
        remove_orphans(folder.path());
        assert!(!orphan.exists());
        assert!(others.exists() && at(".diffbir-new.partial").exists());
        assert!(living.path().exists(), "it is locked");
        let (file, path) = living.keep().unwrap();
        drop(file);
        remove_orphans(folder.path());
        assert!(!path.exists(), "its program has let it go");
    }
}
