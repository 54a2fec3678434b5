//! Flags of `diffbir train`.

use super::{cfg_scale, seed};
use clap::{Args, Subcommand, ValueEnum};
use std::path::PathBuf;

#[derive(Args)]
pub struct Train {
    #[command(subcommand)]
    pub part: TrainPart,
}

#[derive(Subcommand)]
pub enum TrainPart {
    /// The degradation remover.
    Stage1 {
        /// Which network.
        #[arg(long, value_enum, default_value_t = Stage1Network::Srvgg)]
        network: Stage1Network,
        #[command(flatten)]
        run: TrainRun,
    },
    /// The unconditional latent diffusion model under stage 2.
    Prior {
        /// Folder with the autoencoder's `taef2_encoder` and `taef2_decoder` checkpoints.
        #[arg(long)]
        autoencoder: PathBuf,
        /// Folder for latents, which are made once.
        #[arg(long)]
        latents: PathBuf,
        #[command(flatten)]
        run: TrainRun,
    },
    /// The control branch on a trained prior.
    Control {
        /// Folder with the autoencoder's `taef2_encoder` and `taef2_decoder` checkpoints.
        #[arg(long)]
        autoencoder: PathBuf,
        /// Folder for latents, which are made once.
        #[arg(long)]
        latents: PathBuf,
        /// The trained stage 1 whose pictures are the condition.
        #[arg(long)]
        stage1: PathBuf,
        /// The trained prior.
        #[arg(long)]
        unet: PathBuf,
        /// A trained branch: go on with it and let the UNet learn too, for a small model whose frozen
        /// prior is what limits it. Writes one file with both.
        #[arg(long, value_name = "BRANCH")]
        together_with: Option<PathBuf>,
        /// Degradations of each picture.
        #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=100))]
        draws: u16,
        #[command(flatten)]
        run: TrainRun,
    },
    /// Put trained parts together into one model file.
    Pack {
        /// The trained stage 1.
        #[arg(long)]
        stage1: PathBuf,
        /// Which network it is.
        #[arg(long, value_enum, default_value_t = Stage1Network::Srvgg)]
        network: Stage1Network,
        /// Folder with the autoencoder's checkpoints; without it the model has no stage 2.
        #[arg(long, requires = "stage2")]
        autoencoder: Option<PathBuf>,
        /// Trained UNet and control branch: one file with both, or one of each.
        #[arg(long, num_args = 1..=2, value_names = ["UNET", "BRANCH"], requires = "autoencoder")]
        stage2: Vec<PathBuf>,
        /// The fidelity that suits the model: where, between noise (0) and the stage-1 picture (1), sampling starts.
        #[arg(long, default_value_t = 0.0, value_parser = super::fidelity, requires = "autoencoder", allow_negative_numbers = true)]
        fidelity: f64,
        /// The guidance scale that suits the model.
        #[arg(long, default_value_t = 1.0, value_parser = cfg_scale, requires = "autoencoder", allow_negative_numbers = true)]
        cfg_scale: f64,
        /// Scale of the sampler's noise that suits the model.
        #[arg(long, default_value_t = 1.0, value_parser = super::not_negative, requires = "autoencoder", allow_negative_numbers = true)]
        s_noise: f64,
        /// The model's name.
        #[arg(long, default_value = "custom")]
        name: String,
        /// A line on origin and licence of the weights; may be given several times.
        #[arg(long)]
        origin: Vec<String>,
        /// The model file.
        #[arg(short, long)]
        output: PathBuf,
    },
}

#[derive(Args)]
pub struct TrainRun {
    /// Folders of training pictures.
    #[arg(long, required = true, num_args = 1..)]
    pub data: Vec<PathBuf>,
    /// Folders of pictures that are only measured on.
    #[arg(long, num_args = 1..)]
    pub validation: Vec<PathBuf>,
    /// Folder for checkpoints; a run goes on from those that it finds.
    #[arg(short, long)]
    pub output: PathBuf,
    /// Steps of the whole run.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub steps: u64,
    /// Examples a step.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub batch: u16,
    /// Highest learning rate.
    #[arg(long, default_value_t = 2e-4, value_parser = super::positive, allow_negative_numbers = true)]
    pub rate: f64,
    /// Number from which examples and first weights follow.
    #[arg(long, default_value_t = 1, value_parser = seed, allow_negative_numbers = true)]
    pub seed: u64,
    /// Steps between checkpoints.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u64).range(1..))]
    pub checkpoint_every: u64,
    /// Weights to start from.
    #[arg(long)]
    pub init: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Stage1Network {
    /// SRVGGNetCompact, 1.2 M parameters, works at the small size.
    Srvgg,
    /// A small SwinIR of 2.2 M parameters.
    Swinir,
}
