//! The official weight files: what they are, where they lie, under which licence; and the sets of them that
//! a model is made of (reference 3.7, 6).
//!
//! Addresses stand here as the authors and mirrors give them. None has been tried by us, which
//! [`Address::tried`] says to whoever asks.

mod download;
mod engines;
mod faces;
mod files;
mod hashes;
mod metrics;
mod store;

use crate::model::Stages;
use crate::official;
use diffbir_diffusion::{Sampler, edm};
use diffbir_nn::WeightError;
use std::path::Path;

pub use crate::official::{fault, fault_of_diffusers, is_beside_networks};
pub use download::{Download, PullError, pull, pull_within};
pub use engines::{ENGINES, Engine, engine};
pub use faces::{DETECTORS, FACES, PARSER};
pub use files::FILES;
use files::*;
pub use hashes::{sha256_of, sha256_of_nano};
pub use metrics::{METRICS, Metric, metric};
use store::SAFETENSORS;
pub use store::{Store, Verdict};

/// A file of weights as its authors publish it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WeightFile {
    /// Its name, by which it is kept.
    pub name: &'static str,
    /// What it holds, in words.
    pub holds: &'static str,
    /// Which networks those are.
    pub network: Network,
    /// Its size in words, for a person who is about to download it.
    pub about: &'static str,
    /// SHA-256 in hexadecimal if it is known.
    pub sha256: Option<&'static str>,
    /// Under which licence it may be used.
    pub licence: &'static str,
    /// Where it can be had, best first.
    pub addresses: &'static [Address],
}

impl WeightFile {
    /// Whether the same tensors as safetensors stand in for it, under its name but for the ending.
    pub(crate) fn has_copies(&self) -> bool {
        self.network != Network::Metric
    }

    /// The hash of what lies at `path`, if it is known: not that of the same tensors in another format.
    pub fn hash_at(&self, path: &Path) -> Option<&'static str> {
        self.sha256.filter(|_| path.file_name().is_some_and(|name| name == self.name))
    }
}

/// What networks a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// A stage 1.
    SwinIr,
    /// A stage 1.
    Rrdb,
    /// A stage 1.
    ScuNet,
    /// The control branch.
    Control,
    /// Stable Diffusion: UNet, autoencoder, text encoder.
    Base,
    /// All of a model of v1.
    Full,
    /// What a metric needs.
    Metric,
    /// What finds faces.
    Detector,
    /// What tells the parts of a face apart.
    Parser,
    /// A stage 1 that is known by its tensors.
    Stage1,
}

/// Where a file can be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// The whole address.
    pub url: &'static str,
    /// Whether a download from it has been seen to work.
    pub tried: bool,
}

/// What is to be done with a picture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Task {
    /// To enlarge and clean it.
    #[default]
    Sr,
    /// To restore one aligned face that fills it.
    Face,
    /// To take noise away.
    Denoise,
}

/// Files that make a whole model together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Set {
    /// By which people ask for it.
    pub name: &'static str,
    /// In words.
    pub about: &'static str,
    /// Stage 1 of super-resolution, of faces, of denoising.
    pub stage1: [&'static WeightFile; 3],
    /// The control branch of super-resolution and denoising, and of faces.
    pub control: [&'static WeightFile; 2],
    /// Stable Diffusion: UNet, autoencoder, text encoder.
    pub base: &'static WeightFile,
    /// Whether it was trained to predict v under a schedule without signal at its end (zero SNR), instead of
    /// eps under the plain one.
    pub zero_snr: bool,
    /// How its authors sample.
    pub habits: Habits,
}

/// How the authors of a model sample (reference 3.5, and the commands in their documentation).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Habits {
    /// The sampler.
    pub sampler: Sampler,
    /// Its steps.
    pub steps: usize,
    /// Scale of guidance.
    pub cfg_scale: f64,
    /// What the picture is to be.
    pub prompt: &'static str,
    /// What it is not to be.
    pub negative_prompt: &'static str,
}

impl Set {
    /// The files that a task needs: stage 1, control branch, Stable Diffusion.
    pub fn files_of(&self, task: Task) -> [&'static WeightFile; 3] {
        let (stage1, control) = match task {
            Task::Sr => (0, 0),
            Task::Face => (1, 1),
            Task::Denoise => (2, 0),
        };
        [self.stage1[stage1], self.control[control], self.base]
    }

    /// The files that these stages of a task need.
    pub fn files_for(&self, task: Task, stages: Stages) -> Vec<&'static WeightFile> {
        let [stage1, control, base] = self.files_of(task);
        match stages {
            Stages::All => vec![stage1, control, base],
            Stages::First => vec![stage1],
        }
    }

    /// All its files, each once.
    pub fn files(&self) -> Vec<&'static WeightFile> {
        let mut files: Vec<&'static WeightFile> = Vec::new();
        for file in self.stage1.into_iter().chain(self.control).chain([self.base]) {
            if !files.contains(&file) {
                files.push(file);
            }
        }
        files
    }
}

/// The file of this name.
pub fn file(name: &str) -> Option<&'static WeightFile> {
    FILES.iter().copied().find(|file| file.name == name)
}

/// The file of this name, or with these tensors in a safetensors file of this name.
pub fn file_or_copy(name: &str) -> Option<&'static WeightFile> {
    let is_copy = |file: &WeightFile| {
        file.has_copies() && Path::new(file.name).with_extension(SAFETENSORS) == Path::new(name)
    };
    file(name).or_else(|| FILES.iter().copied().find(|file| is_copy(file)))
}

/// Tensors of a file at `path` that lie in none of the places of its networks: they are left out.
///
/// # Errors
/// When it cannot be read.
pub fn strangers(file: &WeightFile, path: &Path) -> Result<Vec<String>, WeightError> {
    official::strangers(file.network, path)
}

/// What the stage 1 of a file at `path` lacks that its network computes for itself.
///
/// # Errors
/// When it cannot be read.
pub fn lacking(file: &WeightFile, path: &Path) -> Result<Vec<String>, WeightError> {
    official::lacking(file.network, path)
}

/// The set of this name.
pub fn set(name: &str) -> Option<&'static Set> {
    SETS.iter().find(|set| set.name == name)
}

/// The prompts of v2.1's command line; they are data, and part of its results.
pub const PROMPT_V21: &str = "Cinematic, High Contrast, highly detailed, taken using a Canon EOS R camera, \
    hyper detailed photo - realistic maximum detail, 32k, Color Grading, ultra HD, extreme meticulous \
    detailing, skin pore detailing, hyper sharpness, perfect without deformations.";
/// See [`PROMPT_V21`].
pub const NEGATIVE_V21: &str = "painting, oil painting, illustration, drawing, art, sketch, oil painting, \
    cartoon, CG Style, 3D render, unreal engine, blurring, dirty, messy, worst quality, low quality, frames, \
    watermark, signature, jpeg artifacts, deformed, lowres, over-smooth.";
const NEGATIVE_V2: &str = "low quality, blurry, low-resolution, noisy, unsharp, weird textures";
const NEGATIVE_V1: &str = "longbody, lowres, bad anatomy, bad hands, missing fingers, extra digit, fewer \
    digits, cropped, worst quality, low quality";

/// The official models, newest first.
pub static SETS: [Set; 3] = [
    Set {
        name: "v2.1",
        about: "DiffBIR v2.1: SwinIR, zero-SNR v-prediction, prompts",
        stage1: [&SWINIR_REALESRGAN, &SWINIR_FACE, &SWINIR_REALESRGAN],
        control: [&CONTROL_V21, &CONTROL_V21],
        base: &SD21_ZSNR,
        zero_snr: true,
        habits: Habits {
            sampler: Sampler::Edm(edm::Solver::Dpmpp3mSde),
            steps: 10,
            cfg_scale: 6.0,
            prompt: PROMPT_V21,
            negative_prompt: NEGATIVE_V21,
        },
    },
    Set {
        name: "v2",
        about: "DiffBIR v2: BSRNet, SCUNet or SwinIR by task",
        stage1: [&BSRNET, &SWINIR_FACE, &SCUNET],
        control: [&CONTROL_V2, &CONTROL_V2],
        base: &SD21,
        zero_snr: false,
        habits: Habits {
            sampler: Sampler::Spaced,
            steps: 50,
            cfg_scale: 4.0,
            prompt: "",
            negative_prompt: NEGATIVE_V2,
        },
    },
    Set {
        name: "v1",
        about: "DiffBIR v1, the model of the article",
        stage1: [&SWINIR_GENERAL, &SWINIR_FACE, &SWINIR_GENERAL],
        control: [&CONTROL_V1, &CONTROL_V1_FACE],
        base: &SD21,
        zero_snr: false,
        habits: Habits {
            sampler: Sampler::Spaced,
            steps: 50,
            cfg_scale: 1.0,
            prompt: "",
            negative_prompt: NEGATIVE_V1,
        },
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_is_whole() {
        for file in FILES {
            assert!(!file.addresses.is_empty() && !file.licence.is_empty(), "{}", file.name);
            assert!(file.addresses.iter().all(|address| address.url.starts_with("https://")));
            assert!(
                file.sha256.is_none_or(|sha| sha.len() == 64 && sha.bytes().all(|b| b.is_ascii_hexdigit()))
            );
            assert_eq!(super::file(file.name), Some(file));
        }
        for set in &SETS {
            assert!(set.files().iter().all(|file| FILES.contains(file)), "{}", set.name);
        }
        for metric in METRICS {
            assert!(metric.files.iter().all(|file| FILES.contains(file)), "{}", metric.name);
        }
        for engine in &ENGINES {
            assert!(engine.files().iter().all(|file| FILES.contains(file)), "{}", engine.name);
        }
        assert!(DETECTORS.iter().chain([&PARSER]).all(|file| FILES.contains(file) && FACES.contains(file)));
        assert_eq!(set("v2.1").unwrap().files().len(), 4);
        assert_eq!(set("v1").unwrap().files().len(), 5);
    }
}
