//! Hashes of weight files, computed once: those of gigabytes take seconds.

use super::Store;
use diffbir_imaging::write_atomic;
use diffbir_nn::checkpoint::WatchRead;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Where a store keeps the hashes that it knows.
const NAME: &str = "hashes.json";

/// A hash, and what the file was like when it was computed.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
struct Known {
    bytes: u64,
    modified: SystemTime,
    sha256: String,
}

impl Store {
    /// SHA-256 of a file, in hexadecimal: as it was computed before, unless size or time of change are others since.
    ///
    /// # Errors
    /// When the file cannot be read, or of the kind `Interrupted` when `watch` stops it.
    pub fn hash_of(&self, path: &Path, watch: &mut WatchRead) -> io::Result<String> {
        let real = path.canonicalize()?;
        let found = real.metadata()?;
        match self.hashes().remove(&real) {
            Some(known) if known.bytes == found.len() && Some(known.modified) == found.modified().ok() => {
                Ok(known.sha256)
            }
            _ => self.hash_anew(path, watch),
        }
    }

    /// [`Store::hash_of`] without trust in what was computed before.
    pub fn hash_anew(&self, path: &Path, watch: &mut WatchRead) -> io::Result<String> {
        let sha256 = sha256_of(path, watch)?;
        self.remember(path, &sha256);
        Ok(sha256)
    }

    /// Keeps a hash. Where the folder cannot be written it is computed again the next time.
    pub(super) fn remember(&self, path: &Path, sha256: &str) {
        let known = || -> io::Result<(PathBuf, Known)> {
            let found = path.metadata()?;
            let (bytes, modified, sha256) = (found.len(), found.modified()?, sha256.into());
            Ok((path.canonicalize()?, Known { bytes, modified, sha256 }))
        };
        let Ok((path, known)) = known() else { return };
        let mut hashes = self.hashes();
        hashes.retain(|path, _| path.exists());
        hashes.insert(path, known);
        if self.folder().is_dir()
            && let Ok(text) = serde_json::to_vec_pretty(&hashes)
        {
            let _ = write_atomic(&self.folder().join(NAME), &text);
        }
    }

    fn hashes(&self) -> BTreeMap<PathBuf, Known> {
        let text = std::fs::read(self.folder().join(NAME)).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }
}

/// SHA-256 of a file, in hexadecimal.
///
/// # Errors
/// When the file cannot be read, or of the kind `Interrupted` when `watch` stops it.
pub fn sha256_of(path: &Path, watch: &mut WatchRead) -> io::Result<String> {
    sha256_from(File::open(path)?, watch)
}

/// SHA-256 of the built-in model's file.
pub fn sha256_of_nano() -> String {
    sha256_from(diffbir_nano::NANO, &mut |_| ControlFlow::Continue(())).expect("memory can be read")
}

fn sha256_from(mut file: impl Read, watch: &mut WatchRead) -> io::Result<String> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    let mut done = 0;
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            return Ok(hexadecimal(hash));
        }
        hash.update(&buffer[..count]);
        done += count as u64;
        if watch(done).is_break() {
            return Err(io::ErrorKind::Interrupted.into());
        }
    }
}

pub(super) fn hexadecimal(hash: Sha256) -> String {
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OF_ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn a_hash_is_computed_once_for_each_state_of_a_file() {
        let folder = tempfile::TempDir::new().unwrap();
        let store = Store::at(folder.path());
        let path = folder.path().join("abc");
        let mut reads = 0;
        let mut hash = |anew: bool| {
            let mut watch = |_: u64| {
                reads += 1;
                ControlFlow::Continue(())
            };
            let hash =
                if anew { store.hash_anew(&path, &mut watch) } else { store.hash_of(&path, &mut watch) };
            (hash.unwrap(), reads)
        };
        std::fs::write(&path, b"abc").unwrap();
        assert_eq!(hash(false), (OF_ABC.into(), 1));
        assert_eq!(hash(false), (OF_ABC.into(), 1));
        assert_eq!(hash(true), (OF_ABC.into(), 2));
        std::fs::write(&path, b"abcd").unwrap();
        let (other, reads) = hash(false);
        assert!(other != OF_ABC && reads == 3);
        // What is known of files that are gone is forgotten, and what cannot be read is no hindrance.
        std::fs::write(folder.path().join(NAME), b"{").unwrap();
        assert_eq!(hash(false), (other, 4));
    }

    #[test]
    fn a_hash_can_be_stopped() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("abc");
        std::fs::write(&path, b"abc").unwrap();
        let error = Store::at(folder.path()).hash_of(&path, &mut |_| ControlFlow::Break(())).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::Interrupted);
        assert!(!folder.path().join(NAME).exists());
    }
}
