//! Files that metrics need, which are no part of any model.

use super::files::untried;
use super::{Network, Store, WeightFile};
use std::path::PathBuf;

/// Files that a metric needs together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Metric {
    /// By which people ask for it.
    pub name: &'static str,
    /// In words.
    pub about: &'static str,
    /// All of them.
    pub files: &'static [&'static WeightFile],
}

impl Metric {
    /// Where its files lie, if all are here.
    pub fn find(&self, store: &Store) -> Option<Vec<PathBuf>> {
        self.files.iter().map(|file| store.find(file)).collect()
    }
}

/// The metric of this name.
pub fn metric(name: &str) -> Option<&'static Metric> {
    METRICS.iter().find(|metric| metric.name == name)
}

/// The metrics that need files.
pub static METRICS: [Metric; 3] = [
    Metric { name: "lpips", about: "LPIPS with AlexNet", files: &[&ALEXNET, &LPIPS_ALEX] },
    Metric { name: "lpips-vgg", about: "LPIPS with VGG-16", files: &[&VGG16, &LPIPS_VGG] },
    Metric { name: "niqe", about: "NIQE", files: &[&NIQE] },
];

const TORCHVISION: &str =
    "BSD-3-Clause (torchvision); trained on ImageNet, whose pictures have terms of their own";
const LPIPS: &str = "BSD-2-Clause (Richard Zhang and others)";

pub(super) static ALEXNET: WeightFile = WeightFile {
    name: "alexnet-owt-7be5be79.pth",
    holds: "AlexNet, for LPIPS",
    network: Network::Metric,
    about: "233 MB",
    sha256: Some("7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02"),
    licence: TORCHVISION,
    addresses: &[untried("https://download.pytorch.org/models/alexnet-owt-7be5be79.pth")],
};

pub(super) static VGG16: WeightFile = WeightFile {
    name: "vgg16-397923af.pth",
    holds: "VGG-16, for LPIPS",
    network: Network::Metric,
    about: "528 MB",
    sha256: Some("397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0"),
    licence: TORCHVISION,
    addresses: &[untried("https://download.pytorch.org/models/vgg16-397923af.pth")],
};

/// Called `alex.pth` by its authors.
pub(super) static LPIPS_ALEX: WeightFile = WeightFile {
    name: "lpips-v0.1-alex.pth",
    holds: "LPIPS 0.1's weights of AlexNet's channels",
    network: Network::Metric,
    about: "6 kB",
    sha256: Some("df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0"),
    licence: LPIPS,
    addresses: &[
        untried(
            "https://raw.githubusercontent.com/richzhang/PerceptualSimilarity/master/lpips/weights/v0.1/alex.pth",
        ),
        untried(
            "https://cdn.jsdelivr.net/gh/richzhang/PerceptualSimilarity@master/lpips/weights/v0.1/alex.pth",
        ),
    ],
};

/// Called `vgg.pth` by its authors.
pub(super) static LPIPS_VGG: WeightFile = WeightFile {
    name: "lpips-v0.1-vgg.pth",
    holds: "LPIPS 0.1's weights of VGG-16's channels",
    network: Network::Metric,
    about: "7 kB",
    sha256: Some("a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868"),
    licence: LPIPS,
    addresses: &[
        untried(
            "https://raw.githubusercontent.com/richzhang/PerceptualSimilarity/master/lpips/weights/v0.1/vgg.pth",
        ),
        untried(
            "https://cdn.jsdelivr.net/gh/richzhang/PerceptualSimilarity@master/lpips/weights/v0.1/vgg.pth",
        ),
    ],
};

pub(super) static NIQE: WeightFile = WeightFile {
    name: "niqe_pris_params.npz",
    holds: "NIQE's statistics of good photographs",
    network: Network::Metric,
    about: "12 kB",
    sha256: Some("2a7c182a68c9e7f1b2e2e5ec723279d6f65d912b6fcaf37eb2bf03d7367c4296"),
    licence: "Apache-2.0 (BasicSR); the numbers are those of NIQE's authors",
    addresses: &[
        untried(
            "https://raw.githubusercontent.com/XPixelGroup/BasicSR/master/basicsr/metrics/niqe_pris_params.npz",
        ),
        untried(
            "https://cdn.jsdelivr.net/gh/XPixelGroup/BasicSR@master/basicsr/metrics/niqe_pris_params.npz",
        ),
    ],
};
