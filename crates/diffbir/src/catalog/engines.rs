//! Networks that restore by themselves, without a stage 2: Real-ESRGAN (arXiv 2107.10833), and GFPGAN for faces
//! (arXiv 2101.04061).

use super::files::{hub, hub_mirror, untried};
use super::{Address, Network, WeightFile};

/// Files that restore without a stage 2.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Engine {
    /// By which people ask for it.
    pub name: &'static str,
    /// In words.
    pub about: &'static str,
    /// What it is made of.
    pub file: &'static WeightFile,
    /// The same network trained to take less noise away, for what lies between.
    pub less_denoising: Option<&'static WeightFile>,
    /// Whether it restores aligned faces and nothing else.
    pub faces: bool,
}

impl Engine {
    /// All of its files.
    pub fn files(&self) -> Vec<&'static WeightFile> {
        [self.file].into_iter().chain(self.less_denoising).collect()
    }
}

/// Every one that we know of.
pub static ENGINES: [Engine; 8] = [
    Engine {
        name: "realesrgan-x4plus",
        about: "Real-ESRGAN for photographs",
        file: &X4PLUS,
        less_denoising: None,
        faces: false,
    },
    Engine {
        name: "realesrnet-x4plus",
        about: "the same before adversarial training: softer, nothing invented",
        file: &NET_X4PLUS,
        less_denoising: None,
        faces: false,
    },
    Engine {
        name: "realesrgan-x2plus",
        about: "Real-ESRGAN for photographs, twice the size",
        file: &X2PLUS,
        less_denoising: None,
        faces: false,
    },
    Engine {
        name: "realesrgan-x4plus-anime",
        about: "Real-ESRGAN for drawings",
        file: &X4PLUS_ANIME,
        less_denoising: None,
        faces: false,
    },
    Engine {
        name: "realesr-general-x4v3",
        about: "Real-ESRGAN, small and quick; how much noise it takes away can be chosen",
        file: &GENERAL,
        less_denoising: Some(&GENERAL_WDN),
        faces: false,
    },
    Engine {
        name: "realesr-animevideov3",
        about: "Real-ESRGAN for drawn films, small and quick",
        file: &ANIMEVIDEO,
        less_denoising: None,
        faces: false,
    },
    Engine {
        name: "gfpgan-v1.3",
        about: "GFPGAN for aligned faces: more natural than v1.4, less sharp",
        file: &GFPGAN_V13,
        less_denoising: None,
        faces: true,
    },
    Engine {
        name: "gfpgan-v1.4",
        about: "GFPGAN for aligned faces: a little more detail, nearer to who it is",
        file: &GFPGAN_V14,
        less_denoising: None,
        faces: true,
    },
];

/// The one of this name.
pub fn engine(name: &str) -> Option<&'static Engine> {
    ENGINES.iter().find(|engine| engine.name == name)
}

const BSD: &str = "BSD-3-Clause (Xintao Wang)";

/// A file of a release on GitHub, and its copies.
macro_rules! release {
    ($version:literal, $file:literal) => {
        &[
            untried(concat!(
                "https://github.com/xinntao/Real-ESRGAN/releases/download/",
                $version,
                "/",
                $file
            )),
            hub!("leonelhs/realesrgan", $file),
            hub_mirror!("leonelhs/realesrgan", $file),
        ] as &[Address]
    };
}

pub(super) static X4PLUS: WeightFile = WeightFile {
    name: "RealESRGAN_x4plus.pth",
    holds: "Real-ESRGAN x4plus (RRDBNet)",
    network: Network::Stage1,
    about: "67 MB",
    sha256: Some("4fa0d38905f75ac06eb49a7951b426670021be3018265fd191d2125df9d682f1"),
    licence: BSD,
    addresses: release!("v0.1.0", "RealESRGAN_x4plus.pth"),
};

pub(super) static NET_X4PLUS: WeightFile = WeightFile {
    name: "RealESRNet_x4plus.pth",
    holds: "Real-ESRNet x4plus (RRDBNet)",
    network: Network::Stage1,
    about: "67 MB",
    sha256: Some("a820b9bde89a874d7599d545567308ce6c128fc8754a53208eda016d40aa81df"),
    licence: BSD,
    addresses: release!("v0.1.1", "RealESRNet_x4plus.pth"),
};

pub(super) static X2PLUS: WeightFile = WeightFile {
    name: "RealESRGAN_x2plus.pth",
    holds: "Real-ESRGAN x2plus (RRDBNet)",
    network: Network::Stage1,
    about: "67 MB",
    sha256: Some("49fafd45f8fd7aa8d31ab2a22d14d91b536c34494a5cfe31eb5d89c2fa266abb"),
    licence: BSD,
    addresses: release!("v0.2.1", "RealESRGAN_x2plus.pth"),
};

pub(super) static X4PLUS_ANIME: WeightFile = WeightFile {
    name: "RealESRGAN_x4plus_anime_6B.pth",
    holds: "Real-ESRGAN for drawings (RRDBNet of six blocks)",
    network: Network::Stage1,
    about: "18 MB",
    sha256: Some("f872d837d3c90ed2e05227bed711af5671a6fd1c9f7d7e91c911a61f155e99da"),
    licence: BSD,
    addresses: release!("v0.2.2.4", "RealESRGAN_x4plus_anime_6B.pth"),
};

pub(super) static GENERAL: WeightFile = WeightFile {
    name: "realesr-general-x4v3.pth",
    holds: "Real-ESRGAN general-x4v3 (SRVGGNetCompact)",
    network: Network::Stage1,
    about: "4.9 MB",
    sha256: Some("8dc7edb9ac80ccdc30c3a5dca6616509367f05fbc184ad95b731f05bece96292"),
    licence: BSD,
    addresses: release!("v0.2.5.0", "realesr-general-x4v3.pth"),
};

pub(super) static GENERAL_WDN: WeightFile = WeightFile {
    name: "realesr-general-wdn-x4v3.pth",
    holds: "the same, which takes less noise away",
    network: Network::Stage1,
    about: "4.9 MB",
    sha256: Some("1641f8c4464b9f097c9fdda5589273713f67cf59f3d909e0bd688f0cee269dca"),
    licence: BSD,
    addresses: release!("v0.2.5.0", "realesr-general-wdn-x4v3.pth"),
};

pub(super) static ANIMEVIDEO: WeightFile = WeightFile {
    name: "realesr-animevideov3.pth",
    holds: "Real-ESRGAN for drawn films (SRVGGNetCompact)",
    network: Network::Stage1,
    about: "2.5 MB",
    sha256: Some("b8a8376811077954d82ca3fcf476f1ac3da3e8a68a4f4d71363008000a18b75d"),
    licence: BSD,
    addresses: release!("v0.2.5.0", "realesr-animevideov3.pth"),
};

/// What GFPGAN's LICENSE says.
const TENCENT: &str = "Apache-2.0 (Tencent); its LICENSE names parts under other terms: StyleGAN2 (NVIDIA, research and \
    evaluation only) and DFDNet (CC BY-NC-SA 4.0): check whether your use is allowed";

/// A file of GFPGAN at its authors' and in a collection.
macro_rules! gfpgan {
    ($($version:literal)+, $file:literal) => {
        &[
            $(untried(concat!("https://github.com/TencentARC/GFPGAN/releases/download/", $version, "/", $file)),)+
            untried(concat!(
                "https://huggingface.co/datasets/Gourieff/ReActor/resolve/main/models/facerestore_models/",
                $file
            )),
            untried(concat!(
                "https://hf-mirror.com/datasets/Gourieff/ReActor/resolve/main/models/facerestore_models/",
                $file
            )),
        ] as &[Address]
    };
}

pub(super) static GFPGAN_V13: WeightFile = WeightFile {
    name: "GFPGANv1.3.pth",
    holds: "GFPGAN v1.3, which restores aligned faces",
    network: Network::Stage1,
    about: "349 MB",
    sha256: Some("c953a88f2727c85c3d9ae72e2bd4846bbaf59fe6972ad94130e23e7017524a70"),
    licence: TENCENT,
    addresses: gfpgan!("v1.3.0", "GFPGANv1.3.pth"),
};

pub(super) static GFPGAN_V14: WeightFile = WeightFile {
    name: "GFPGANv1.4.pth",
    holds: "GFPGAN v1.4, which restores aligned faces",
    network: Network::Stage1,
    about: "349 MB",
    sha256: Some("e2cd4703ab14f4d01fd1383a8a8b266f9a5833dacee8e6a79d3bf21a1b6be5ad"),
    licence: TENCENT,
    addresses: gfpgan!("v1.3.0" "v1.3.4", "GFPGANv1.4.pth"),
};
