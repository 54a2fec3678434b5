//! Where weight files lie on this machine.

use super::{Network, PullError, WeightFile};
use crate::diffusers;
use diffbir_nn::checkpoint::Checkpoint;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{self, Read};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

/// A folder of weight files, and the places of other programs that are looked into as well.
#[derive(Clone, Debug)]
pub struct Store {
    folder: PathBuf,
    hub: Option<PathBuf>,
}

impl Store {
    /// The folder that `DIFFBIR_MODELS` names, else `diffbir/models` in the user's cache; nothing where
    /// there is neither.
    pub fn of_user() -> Option<Self> {
        let folder = match std::env::var_os("DIFFBIR_MODELS") {
            Some(folder) if !folder.is_empty() => PathBuf::from(folder),
            _ => dirs::cache_dir()?.join("diffbir").join("models"),
        };
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let hub = variable("HF_HUB_CACHE")
            .or_else(|| Some(variable("HF_HOME")?.join("hub")))
            .or_else(|| Some(dirs::home_dir()?.join(".cache").join("huggingface").join("hub")));
        Some(Self { folder, hub })
    }

    /// This folder and no other place.
    pub fn at(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), hub: None }
    }

    /// This folder, and a Hugging Face hub's cache.
    pub fn with_hub(self, hub: impl Into<PathBuf>) -> Self {
        Self { hub: Some(hub.into()), ..self }
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where the file is or would be kept.
    pub fn place(&self, file: &WeightFile) -> PathBuf {
        self.folder.join(file.name)
    }

    /// Copies a file that somebody has into the folder; returns its place.
    ///
    /// # Errors
    /// When its hash is known to be another one, when none is known and it holds no weights, or when it cannot be read
    /// or written.
    pub fn import(&self, file: &WeightFile, from: &Path) -> Result<PathBuf, PullError> {
        let fail = |path: &Path| {
            let file = path.to_path_buf();
            move |reason| PullError::Write { file, reason }
        };
        let found = sha256_of(from, &mut |_| ControlFlow::Continue(()))
            .map_err(|reason| PullError::Read { file: from.to_path_buf(), reason })?;
        if let Some(expected) = file.sha256.filter(|expected| *expected != found) {
            let url = from.display().to_string();
            return Err(PullError::Hash { url, expected: expected.into(), found });
        }
        if file.sha256.is_none()
            && let Err(error) = Checkpoint::open(from)
        {
            return Err(PullError::NotWeights { reason: error.to_string() });
        }
        std::fs::create_dir_all(&self.folder).map_err(fail(&self.folder))?;
        let place = self.place(file);
        let partial = self.folder.join(format!("{}.import.partial", file.name));
        let copied = std::fs::copy(from, &partial).and_then(|_| std::fs::rename(&partial, &place));
        if let Err(error) = copied {
            let _ = std::fs::remove_file(&partial);
            return Err(fail(&place)(error));
        }
        Ok(place)
    }

    /// Where the file lies, if it is here: in the folder, or in the hub's cache, where it is left. For Stable
    /// Diffusion this may be a folder in the layout of the diffusers library.
    pub fn find(&self, file: &WeightFile) -> Option<PathBuf> {
        let own = self.place(file);
        if own.is_file() {
            return Some(own);
        }
        let file_is_base = file.network == Network::Base;
        let hub = self.hub.as_ref()?;
        file.addresses.iter().find_map(|address| {
            let (owner, rest) = address.url.strip_prefix("https://huggingface.co/")?.split_once('/')?;
            let (repository, path) = rest.split_once("/resolve/main/")?;
            let whole = |snapshot: PathBuf| {
                let file = snapshot.join(path);
                if file.is_file() {
                    return Some(file);
                }
                // Stable Diffusion is often there in the layout of the diffusers library.
                (file_is_base && diffusers::files(&snapshot).is_some()).then_some(snapshot)
            };
            let snapshots = hub.join(format!("models--{owner}--{repository}")).join("snapshots");
            let mut revisions: Vec<PathBuf> =
                std::fs::read_dir(snapshots).ok()?.filter_map(|entry| Some(entry.ok()?.path())).collect();
            revisions.sort();
            revisions.into_iter().find_map(whole)
        })
    }
}

/// SHA-256 of a file, in hexadecimal. `watch` is told the bytes read so far and may stop it, which is an
/// error of the kind `Interrupted`.
pub fn sha256_of(path: &Path, watch: &mut dyn FnMut(u64) -> ControlFlow<()>) -> io::Result<String> {
    sha256_from(File::open(path)?, watch)
}

/// SHA-256 of the built-in model's file.
pub fn sha256_of_nano() -> String {
    sha256_from(diffbir_nano::NANO, &mut |_| ControlFlow::Continue(())).expect("memory can be read")
}

fn sha256_from(mut file: impl Read, watch: &mut dyn FnMut(u64) -> ControlFlow<()>) -> io::Result<String> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    let mut done = 0;
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            return Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect());
        }
        hash.update(&buffer[..count]);
        done += count as u64;
        if watch(done).is_break() {
            return Err(io::ErrorKind::Interrupted.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_found_in_the_folder_and_in_the_hub() {
        let folder = tempfile::TempDir::new().unwrap();
        let hub = folder.path().join("hub");
        let store = Store::at(folder.path().join("models")).with_hub(&hub);
        let file = super::super::file("DiffBIR_v2.1.pt").unwrap();
        assert_eq!(store.find(file), None);
        let snapshot = hub.join("models--lxq007--DiffBIR-v2/snapshots/abc");
        std::fs::create_dir_all(&snapshot).unwrap();
        std::fs::write(snapshot.join("DiffBIR_v2.1.pt"), b"x").unwrap();
        assert_eq!(store.find(file), Some(snapshot.join("DiffBIR_v2.1.pt")));
        std::fs::create_dir_all(store.folder()).unwrap();
        std::fs::write(store.place(file), b"y").unwrap();
        assert_eq!(store.find(file), Some(store.place(file)));
    }

    #[test]
    fn the_hash_is_the_known_one() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("abc");
        std::fs::write(&path, b"abc").unwrap();
        let known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256_of(&path, &mut |_| ControlFlow::Continue(())).unwrap(), known);
    }
}
