//! Flags of restoration guidance.

use super::not_negative;
use clap::{Args, ValueEnum};

/// Restoration guidance pulls each step of the sampler `spaced` towards the picture of stage 1.
#[derive(Args)]
#[command(next_help_heading = "Restoration guidance")]
pub struct Guidance {
    /// Pull each step towards the picture of stage 1; goes with `--sampler spaced`.
    #[arg(long)]
    pub guidance: bool,

    /// What is to become small: the mean square of the difference, or the same with less weight on edges
    /// [default: w_mse].
    #[arg(long, alias = "g_loss", value_enum)]
    pub g_loss: Option<GuidanceLoss>,

    /// How hard to pull, such as .5; the larger, the closer to stage 1, until it goes too far [default: 0].
    #[arg(long, alias = "g_scale", value_parser = not_negative, allow_negative_numbers = true)]
    pub g_scale: Option<f64>,

    /// Pull at timesteps below this, counted from 1 to 1000 [default: 1001].
    #[arg(long, alias = "g_start", allow_negative_numbers = true)]
    pub g_start: Option<i32>,

    /// Pull at timesteps above this [default: -1].
    #[arg(long, alias = "g_stop", allow_negative_numbers = true)]
    pub g_stop: Option<i32>,

    /// Where the difference is taken; between pictures is slower, as the way goes back through the decoder, and
    /// needs gigabytes more with official models [default: rgb with w_mse, latent with mse].
    #[arg(long, alias = "g_space", value_enum)]
    pub g_space: Option<GuidanceSpace>,

    /// Pulls a step [default: 1].
    #[arg(long, alias = "g_repeat", value_parser = clap::value_parser!(u8).range(1..=100))]
    pub g_repeat: Option<u8>,
}

/// What restoration guidance makes small.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum GuidanceLoss {
    /// The mean square of the difference.
    Mse,
    /// The same, with less weight on edges.
    #[value(name = "w_mse", alias = "w-mse")]
    WMse,
}

/// Where restoration guidance measures.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum GuidanceSpace {
    /// Between latents.
    Latent,
    /// Between pictures.
    Rgb,
}
