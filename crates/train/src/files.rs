//! Where trained networks are found: in a file of their own, in one of several networks, in the folder of a run, or in
//! the program.

use crate::config::BUILT_IN;
use crate::run::TrainError;
use diffbir_nn::WeightError;
use diffbir_nn::checkpoint::Checkpoint;
use std::fs::File;
use std::io::{self, Cursor, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// A network of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The degradation remover.
    Stage1,
    /// To latents and back.
    Autoencoder,
    /// The denoiser.
    Unet,
    /// The branch that steers it.
    Control,
    /// What prompts go through.
    Text,
}

impl Part {
    /// Where files of several networks keep it: Stable Diffusion's and v1's, models', checkpoints of runs.
    fn places(self) -> [&'static str; 3] {
        let (official, own) = match self {
            Self::Stage1 => ("preprocess_model", "stage1"),
            Self::Autoencoder => ("first_stage_model", "autoencoder"),
            Self::Unet => ("model.diffusion_model", "unet"),
            Self::Control => ("control_model", "control"),
            Self::Text => ("cond_stage_model", "text"),
        };
        [official, own, "network"]
    }

    /// The names of the weights for use that runs write of it.
    fn names(self) -> &'static [&'static str] {
        match self {
            Self::Stage1 => &["stage1"],
            Self::Autoencoder => &["autoencoder", "stage2"],
            Self::Unet => &["unet", "stage2"],
            Self::Control => &["control", "stage2"],
            Self::Text => &[],
        }
    }

    /// The file that a path means: of the folder of a run, that of its weights.
    pub fn file(self, path: &Path) -> PathBuf {
        self.names().iter().find_map(|name| weights_of_run(path, name)).unwrap_or_else(|| path.into())
    }

    /// All of the file in which it is found.
    pub fn whole(self, path: &Path) -> Result<Checkpoint, WeightError> {
        if is_built_in(path) {
            return Checkpoint::from_static(diffbir_nano::NANO, "the built-in model");
        }
        let file = self.file(path);
        if file.is_dir() {
            let names = self.names().iter().map(|name| format!("{name}.safetensors"));
            let reason = match names.collect::<Vec<_>>().join(" or ") {
                names if names.is_empty() => "is a folder: name a file".into(),
                names => {
                    format!("is a folder without {names}: name a file, or the folder of a run that wrote it")
                }
            };
            return Err(WeightError::File { file: path.display().to_string(), reason });
        }
        Checkpoint::open(&file)
    }

    /// Its tensors under their official names.
    pub fn open(self, path: &Path) -> Result<Checkpoint, WeightError> {
        let whole = self.whole(path)?;
        let part = self.places().into_iter().map(|place| whole.part(place));
        Ok(part.into_iter().find(|part| part.entries().next().is_some()).unwrap_or(whole))
    }
}

/// The file of the best weights of this name in the folder of a run, or of the newest.
pub fn weights_of_run(run: &Path, name: &str) -> Option<PathBuf> {
    [format!("{name}-best.safetensors"), format!("{name}.safetensors")]
        .map(|file| run.join(file))
        .into_iter()
        .find(|file| file.is_file())
}

fn is_built_in(path: &Path) -> bool {
    path == Path::new(BUILT_IN) && !path.exists()
}

/// The two files of TAEF2, as its author publishes it, in a folder.
pub(crate) fn taef2(folder: &Path) -> Result<Checkpoint, WeightError> {
    let mut both = Checkpoint::default();
    for half in ["encoder", "decoder"] {
        both.insert(half, Checkpoint::open(&taef2_half(folder, half)?)?);
    }
    Ok(both.named(&folder.display().to_string()))
}

fn taef2_half(folder: &Path, half: &str) -> Result<PathBuf, WeightError> {
    ["pth", "safetensors"]
        .map(|extension| folder.join(format!("taef2_{half}.{extension}")))
        .into_iter()
        .find(|file| file.exists())
        .ok_or_else(|| WeightError::File {
            file: folder.display().to_string(),
            reason: format!("holds no taef2_{half}.pth or .safetensors"),
        })
}

/// Tells the file of a network from others: its length, and what it begins and ends with.
pub(crate) fn mark(part: Part, path: &Path) -> Result<String, TrainError> {
    if is_built_in(path) {
        return Ok(mark_of(Cursor::new(diffbir_nano::NANO)).expect("memory can be read"));
    }
    let file = match part.file(path) {
        folder if part == Part::Autoencoder && folder.is_dir() => taef2_half(&folder, "encoder")?,
        file => file,
    };
    File::open(&file).and_then(mark_of).map_err(|source| TrainError::Read { file, source })
}

fn mark_of(mut file: impl Read + Seek) -> io::Result<String> {
    const END_BYTES: u64 = 1 << 20;
    let length = file.seek(SeekFrom::End(0))?;
    let mut ends = Vec::new();
    file.seek(SeekFrom::Start(0))?;
    file.by_ref().take(END_BYTES).read_to_end(&mut ends)?;
    file.seek(SeekFrom::Start(length.saturating_sub(END_BYTES)))?;
    file.read_to_end(&mut ends)?;
    let hash = ends
        .iter()
        .fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3));
    Ok(format!("{length}-{hash:016x}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::TensorData;

    fn one(name: &str) -> Checkpoint {
        Checkpoint::from_tensors([(name.to_string(), TensorData::new(vec![0f32], [1]))].into())
    }

    fn names(part: Part, path: &Path) -> Vec<String> {
        part.open(path).unwrap().entries().map(|(name, ..)| name.to_string()).collect()
    }

    #[test]
    fn networks_are_found_wherever_they_lie() {
        let folder = tempfile::TempDir::new().unwrap();
        let write = |name: &str, checkpoint: &Checkpoint| {
            let path = folder.path().join(name);
            std::fs::write(&path, checkpoint.to_safetensors(false).unwrap()).unwrap();
            path
        };
        let bare = write("unet.safetensors", &one("a"));
        assert_eq!(names(Part::Unet, &bare), ["a"]);
        let mut both = Checkpoint::default();
        both.insert("unet", one("b"));
        both.insert("control", one("c"));
        let both = write("both.safetensors", &both);
        assert_eq!(
            (names(Part::Unet, &both), names(Part::Control, &both)),
            (vec!["b".into()], vec!["c".into()])
        );
        let mut official = Checkpoint::default();
        official.insert("model.diffusion_model", one("d"));
        assert_eq!(names(Part::Unet, &write("sd.safetensors", &official)), ["d"]);
        // Of a run the best weights; they are told from others by where they lie.
        let before = mark(Part::Unet, folder.path()).unwrap();
        write("unet-best.safetensors", &one("best"));
        assert_eq!(names(Part::Unet, folder.path()), ["best"]);
        assert_ne!(mark(Part::Unet, folder.path()).unwrap(), before);
        // Of the program all, unless there is a file of this name.
        let built_in = Path::new(BUILT_IN);
        assert!(names(Part::Control, built_in).contains(&"zero_convs.0.0.weight".into()));
        assert!(mark(Part::Stage1, built_in).unwrap().contains('-'));
        let none = tempfile::TempDir::new().unwrap();
        let told = Part::Unet.open(none.path()).err().unwrap().to_string();
        assert!(told.contains("is a folder without unet.safetensors or stage2.safetensors"), "{told}");
        let missing = Part::Unet.open(&folder.path().join("none")).err().unwrap().to_string();
        assert!(missing.contains("none: cannot be read"), "{missing}");
    }
}
