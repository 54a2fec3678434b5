//! Jobs on the disk: a folder each, which holds all that belongs to it, so that a job and its files cannot part.
//!
//! `job.json` is replaced as a whole and is the last thing to come and the first to go: a folder without it is none.

use crate::record::Record;
use diffbir_imaging::{remove_orphans, remove_partials, write_atomic};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

const RECORD: &str = "job.json";
const INPUT: &str = "input";
const MASK: &str = "mask";

/// A file of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of {
    /// The picture as it came.
    Input,
    /// The mask of its regions as it came.
    Mask,
    /// The picture for browsers, where they cannot show that.
    Before,
    /// What stage 1 made, or that for browsers.
    Stage1 {
        /// Whether for browsers.
        view: bool,
    },
    /// A result, or that for browsers.
    Result {
        /// Which one.
        sample: usize,
        /// Whether for browsers.
        view: bool,
    },
    /// How much the results differ.
    Stability,
}

/// The folder of jobs, which one server has at a time.
pub struct Store {
    folder: PathBuf,
    _lock: File,
}

impl Store {
    /// Takes the folder.
    ///
    /// # Errors
    /// Where it cannot be written or another server has it.
    pub fn open(folder: &Path) -> io::Result<Self> {
        let jobs = folder.join("jobs");
        create_private(&jobs)?;
        let lock = File::create(folder.join("lock"))?;
        if lock.try_lock().is_err() {
            return Err(io::Error::other("another server uses it"));
        }
        // The lock is ours: uploads of a server that was killed a moment ago, too, are nobody's.
        remove_partials(folder);
        Ok(Self { folder: folder.to_path_buf(), _lock: lock })
    }

    /// Where uploads go until they are whole.
    pub fn uploads(&self) -> PathBuf {
        self.folder.join("upload")
    }

    /// The folder of a job.
    fn job(&self, id: &str) -> PathBuf {
        self.folder.join("jobs").join(id)
    }

    /// A file of a job.
    pub fn file(&self, record: &Record, of: Of) -> PathBuf {
        let own = |view: bool| if view { "view.png" } else { &record.extension };
        let name = match of {
            Of::Input => INPUT.into(),
            Of::Mask => MASK.into(),
            Of::Before => "before.png".into(),
            Of::Stability => "stability.png".into(),
            Of::Stage1 { view } => format!("stage1.{}", own(view)),
            Of::Result { sample, view } => format!("result-{sample}.{}", own(view)),
        };
        self.job(&record.id).join(name)
    }

    /// Keeps a new job; `place` brings what was sent to where it belongs.
    pub fn add(
        &self,
        record: &Record,
        place: impl FnOnce(&dyn Fn(Of) -> PathBuf) -> io::Result<()>,
    ) -> io::Result<()> {
        std::fs::create_dir(self.job(&record.id))?;
        let kept = place(&|of| self.file(record, of)).and_then(|()| self.keep(record));
        if kept.is_err() {
            self.remove(&record.id);
        }
        kept
    }

    /// Writes a job anew.
    pub fn keep(&self, record: &Record) -> io::Result<()> {
        let text = serde_json::to_vec_pretty(record)?;
        write_atomic(&self.job(&record.id).join(RECORD), &text).map_err(io::Error::other)
    }

    /// Forgets a job: should the server die within, it does not come back.
    pub fn forget(&self, id: &str) {
        let _ = std::fs::remove_file(self.job(id).join(RECORD));
    }

    /// Removes a job with its files.
    pub fn remove(&self, id: &str) {
        self.forget(id);
        if let Err(error) = std::fs::remove_dir_all(self.job(id))
            && error.kind() != io::ErrorKind::NotFound
        {
            crate::log(format_args!("{}: cannot be removed: {error}", self.job(id).display()));
        }
    }

    /// All jobs, oldest first. What is none, or cannot be read as one, is removed.
    pub fn load(&self) -> io::Result<Vec<Record>> {
        let mut records = Vec::new();
        for entry in std::fs::read_dir(self.folder.join("jobs"))? {
            let (path, name) = {
                let entry = entry?;
                (entry.path(), entry.file_name().to_string_lossy().into_owned())
            };
            remove_orphans(&path);
            let text = std::fs::read(path.join(RECORD)).unwrap_or_default();
            match serde_json::from_slice::<Record>(&text) {
                Ok(record) if record.id == name => records.push(record),
                _ => {
                    crate::log(format_args!("{}: is no whole job: removed", path.display()));
                    let _ = std::fs::remove_dir_all(path);
                }
            }
        }
        records.sort_by(|a, b| a.created.total_cmp(&b.created));
        Ok(records)
    }
}

/// Pictures are nobody else's business.
fn create_private(folder: &Path) -> io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

/// A name that cannot be guessed.
pub fn new_id() -> io::Result<String> {
    let mut bytes = [0u8; 16];
    getrandom::fill(&mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_without_its_record_is_no_job_and_no_two_servers_share() {
        let folder = tempfile::TempDir::new().unwrap();
        let store = Store::open(folder.path()).unwrap();
        assert!(Store::open(folder.path()).is_err());
        let half = folder.path().join("jobs").join(new_id().unwrap());
        std::fs::create_dir(&half).unwrap();
        std::fs::write(half.join(INPUT), b"x").unwrap();
        assert!(store.load().unwrap().is_empty());
        assert!(!half.exists());
    }
}
