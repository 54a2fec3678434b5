//! The columns of the tables.

/// A number of a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Metric {
    Psnr,
    PsnrY,
    Ssim,
    SsimY,
    MsSsimY,
    Lpips,
    LpipsVgg,
    Niqe,
    Colour,
}

impl Metric {
    /// In the order of columns.
    pub const ALL: [Self; 9] = [
        Self::Psnr,
        Self::PsnrY,
        Self::Ssim,
        Self::SsimY,
        Self::MsSsimY,
        Self::Lpips,
        Self::LpipsVgg,
        Self::Niqe,
        Self::Colour,
    ];

    /// For programs.
    pub fn key(self) -> &'static str {
        match self {
            Self::Psnr => "psnr",
            Self::PsnrY => "psnr_y",
            Self::Ssim => "ssim",
            Self::SsimY => "ssim_y",
            Self::MsSsimY => "ms_ssim_y",
            Self::Lpips => "lpips",
            Self::LpipsVgg => "lpips_vgg",
            Self::Niqe => "niqe",
            Self::Colour => "colour",
        }
    }

    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Psnr => "PSNR",
            Self::PsnrY => "PSNR-Y",
            Self::Ssim => "SSIM",
            Self::SsimY => "SSIM-Y",
            Self::MsSsimY => "MS-SSIM-Y",
            Self::Lpips => "LPIPS",
            Self::LpipsVgg => "LPIPS-VGG",
            Self::Niqe => "NIQE",
            Self::Colour => "colour",
        }
    }

    /// Digits behind the point that say something.
    pub fn decimals(self) -> usize {
        match self {
            Self::Psnr | Self::PsnrY | Self::Colour => 2,
            Self::Niqe => 3,
            Self::Ssim | Self::SsimY | Self::MsSsimY | Self::Lpips | Self::LpipsVgg => 4,
        }
    }

    /// Which way is better, as an arrow.
    pub fn better(self) -> char {
        match self {
            Self::Psnr | Self::PsnrY | Self::Ssim | Self::SsimY | Self::MsSsimY => '↑',
            Self::Lpips | Self::LpipsVgg | Self::Niqe | Self::Colour => '↓',
        }
    }

    /// Whether it compares with the truth.
    pub fn needs_truth(self) -> bool {
        self != Self::Niqe
    }
}
