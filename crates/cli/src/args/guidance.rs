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

    /// What is to become small: the mean square of the difference, or the same with less weight on edges.
    #[arg(long, alias = "g_loss", value_enum, default_value_t = GuidanceLoss::WMse, requires = "guidance")]
    pub g_loss: GuidanceLoss,

    /// How hard to pull, such as .5; the larger, the closer to stage 1.
    #[arg(long, alias = "g_scale", default_value_t = 0.0, value_parser = not_negative, allow_negative_numbers = true, requires = "guidance")]
    pub g_scale: f64,

    /// Pull at timesteps below this, 1 to 1001.
    #[arg(
        long,
        alias = "g_start",
        default_value_t = 1001,
        allow_negative_numbers = true,
        requires = "guidance"
    )]
    pub g_start: i32,

    /// Pull at timesteps above this.
    #[arg(long, alias = "g_stop", default_value_t = -1, allow_negative_numbers = true, requires = "guidance")]
    pub g_stop: i32,

    /// Where the difference is taken; between pictures is slower, as the way goes back through the decoder, and
    /// needs gigabytes more with official models [default: rgb with w_mse, latent with mse].
    #[arg(long, alias = "g_space", value_enum, requires = "guidance")]
    pub g_space: Option<GuidanceSpace>,

    /// Pulls a step.
    #[arg(long, alias = "g_repeat", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=100), requires = "guidance")]
    pub g_repeat: u8,
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
