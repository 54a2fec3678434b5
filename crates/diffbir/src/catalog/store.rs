//! Where weight files lie on this machine.

use super::hashes::hexadecimal;
use super::{Network, PullError, WeightFile};
use crate::{diffusers, official};
use diffbir_imaging::{Partial, remove_orphans};
use diffbir_nn::WeightError;
use diffbir_nn::checkpoint::{WatchRead, check_sums};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{self, Read, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

/// How names of files end that hold tensors and no program.
pub(super) const SAFETENSORS: &str = "safetensors";

/// What [`Store::verify`] finds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Its hash is the published one.
    Right,
    /// It is another file, and how that shows.
    Wrong(String),
    /// Names and shapes of its tensors are right, and no hash is published.
    Unpublished,
}

/// A folder of weight files, and the places of other programs that are looked into as well.
#[derive(Clone, Debug)]
pub struct Store {
    folder: PathBuf,
    hub: Option<PathBuf>,
    mirror: Option<String>,
}

impl Store {
    /// The folder that `DIFFBIR_MODELS` names, else `diffbir/models` in the user's cache; nothing where
    /// there is neither. Downloads come from the addresses of the catalog, or, where `DIFFBIR_MIRROR` names one, from a
    /// mirror.
    pub fn of_user() -> Option<Self> {
        let folder = match std::env::var_os("DIFFBIR_MODELS") {
            Some(folder) if !folder.is_empty() => PathBuf::from(folder),
            _ => dirs::cache_dir()?.join("diffbir").join("models"),
        };
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        // In the order in which the hub's own library looks.
        let hub = variable("HF_HUB_CACHE")
            .or_else(|| variable("HUGGINGFACE_HUB_CACHE"))
            .or_else(|| Some(variable("HF_HOME")?.join("hub")))
            .or_else(|| Some(variable("XDG_CACHE_HOME")?.join("huggingface").join("hub")))
            .or_else(|| Some(dirs::home_dir()?.join(".cache").join("huggingface").join("hub")));
        let mirror = std::env::var("DIFFBIR_MIRROR").ok().filter(|address| !address.is_empty());
        Some(Self { folder, hub, mirror })
    }

    /// This folder and no other place.
    pub fn at(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), hub: None, mirror: None }
    }

    /// This folder, and a Hugging Face hub's cache.
    pub fn with_hub(self, hub: impl Into<PathBuf>) -> Self {
        Self { hub: Some(hub.into()), ..self }
    }

    /// Downloads come from this address, below which files lie under their names, and from no other.
    pub fn with_mirror(self, address: impl Into<String>) -> Self {
        Self { mirror: Some(address.into()), ..self }
    }

    /// Where the file can be had, best first, and whether a download from there has been seen to work.
    pub(super) fn sources(&self, file: &WeightFile) -> Vec<(String, bool)> {
        match &self.mirror {
            Some(mirror) => vec![(format!("{}/{}", mirror.trim_end_matches('/'), file.name), true)],
            None => file.addresses.iter().map(|address| (address.url.into(), address.tried)).collect(),
        }
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where the file is or would be kept.
    pub fn place(&self, file: &WeightFile) -> PathBuf {
        self.folder.join(file.name)
    }

    /// Copies a file that somebody has into the folder; returns its place. It may be the published file or the same
    /// tensors as safetensors. `watch` is told the bytes read or copied so far and may stop it.
    ///
    /// # Errors
    /// When its hash is known to be another one, when none is known and it does not look right, or when it cannot be
    /// read or written. Then the folder is as it was.
    pub fn import(
        &self,
        file: &WeightFile,
        from: &Path,
        watch: &mut WatchRead,
    ) -> Result<PathBuf, PullError> {
        let own = self.place(file);
        let place = match from.extension() {
            Some(extension) if extension == SAFETENSORS && file.has_copies() => {
                own.with_extension(SAFETENSORS)
            }
            _ => own,
        };
        let published = file.hash_at(&place);
        if published.is_none() && looks_right(file, from, watch)?.is_break() {
            return Err(PullError::Stopped);
        }
        let read = |reason| PullError::Read { file: from.to_path_buf(), reason };
        let write = |reason| PullError::Write { file: place.clone(), reason };
        let mut source = File::open(from).map_err(read)?;
        std::fs::create_dir_all(&self.folder).map_err(write)?;
        remove_orphans(&self.folder);
        let mut copy = Partial::of(&place).map_err(write)?;
        let (mut hash, mut buffer, mut done) = (Sha256::new(), vec![0; 1 << 20], 0);
        loop {
            let count = source.read(&mut buffer).map_err(read)?;
            if count == 0 {
                break;
            }
            hash.update(&buffer[..count]);
            copy.write_all(&buffer[..count]).map_err(write)?;
            done += count as u64;
            if watch(done).is_break() {
                return Err(PullError::Stopped);
            }
        }
        let found = hexadecimal(hash);
        if let Some(expected) = published.filter(|expected| *expected != found) {
            let url = from.display().to_string();
            return Err(PullError::Hash { url, expected: expected.into(), found });
        }
        copy.keep(&place).map_err(write)?;
        self.remember(&place, &found);
        Ok(place)
    }

    /// Looks at a file that lies at `path`: its hash is computed, or, where none is published, names, shapes and the
    /// sums of its format are compared.
    ///
    /// # Errors
    /// When it cannot be read, or of the kind `Interrupted` when `watch` stops it.
    pub fn verify(&self, file: &WeightFile, path: &Path, watch: &mut WatchRead) -> io::Result<Verdict> {
        if file.hash_at(path).is_none() {
            return match looks_right(file, path, watch) {
                Ok(ControlFlow::Continue(())) => Ok(Verdict::Unpublished),
                Ok(ControlFlow::Break(())) => Err(io::ErrorKind::Interrupted.into()),
                Err(error) => Ok(Verdict::Wrong(error.to_string())),
            };
        }
        self.compared(file, path, |path| self.hash_anew(path, watch))
    }

    /// [`Store::verify`] by the hash that was computed before, if the file has not changed since; a folder is taken at
    /// its word.
    pub fn known(&self, file: &WeightFile, path: &Path) -> io::Result<Verdict> {
        if path.is_dir() {
            return Ok(Verdict::Unpublished);
        }
        self.compared(file, path, |path| self.hash_of(path, &mut |_| ControlFlow::Continue(())))
    }

    fn compared(
        &self,
        file: &WeightFile,
        path: &Path,
        hash: impl FnOnce(&Path) -> io::Result<String>,
    ) -> io::Result<Verdict> {
        let Some(published) = file.hash_at(path) else {
            return Ok(match official::expect(file.network, path) {
                Ok(()) => Verdict::Unpublished,
                Err(error) => Verdict::Wrong(error.to_string()),
            });
        };
        let found = hash(path)?;
        Ok(match found == published {
            true => Verdict::Right,
            false => Verdict::Wrong(format!("it has SHA-256 {found}, not {published}")),
        })
    }

    /// Where the file lies, if it is here: in the folder, or in the hub's cache, where it is left, as it is published
    /// or as safetensors under the same name. For Stable Diffusion this may also be a folder in the layout of the
    /// diffusers library.
    pub fn find(&self, file: &WeightFile) -> Option<PathBuf> {
        let own = self.place(file);
        // The same tensors in the other format, as copies of Stable Diffusion often have them.
        let either = |path: PathBuf| {
            let copy = file.has_copies().then(|| path.with_extension(SAFETENSORS));
            [path].into_iter().chain(copy).find(|path| path.is_file())
        };
        if let Some(own) = either(own) {
            return Some(own);
        }
        let file_is_base = file.network == Network::Base;
        let hub = self.hub.as_ref()?;
        file.addresses.iter().find_map(|address| {
            let (owner, rest) = address.url.strip_prefix("https://huggingface.co/")?.split_once('/')?;
            let (repository, path) = rest.split_once("/resolve/main/")?;
            let whole = |snapshot: PathBuf| {
                if let Some(file) = either(snapshot.join(path)) {
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

/// An error if a file, whose hash is not published, is not what it should be as far as one can tell: by names and shapes
/// of its tensors and by the sums of its format. `Break` when `watch` stops it.
pub(super) fn looks_right(
    file: &WeightFile,
    path: &Path,
    watch: &mut WatchRead,
) -> Result<ControlFlow<()>, WeightError> {
    official::expect(file.network, path)?;
    check_sums(path, watch)
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
        let other_format = store.folder().join("DiffBIR_v2.1.safetensors");
        std::fs::write(&other_format, b"z").unwrap();
        assert_eq!(store.find(file), Some(other_format.clone()));
        assert_eq!(file.hash_at(&other_format), None);
        std::fs::write(store.place(file), b"y").unwrap();
        assert_eq!(store.find(file), Some(store.place(file)));
        assert_eq!(file.hash_at(&store.place(file)), file.sha256);
    }
}
