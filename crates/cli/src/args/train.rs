//! Flags of `diffbir train`.

use super::seed;
use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand};
use diffbir::device::DeviceChoice;
use diffbir_models::kl::KlConfig;
use diffbir_models::stage1::Stage1Config;
use diffbir_train::config::Sizes;
use std::path::PathBuf;

#[derive(Args)]
pub struct Train {
    #[command(subcommand)]
    pub part: TrainPart,
}

/// What a run is told lies in a TOML file; `--emit-config` prints all of its fields with their values. A flag says the
/// same as a field and wins over the file.
#[derive(Subcommand)]
pub enum TrainPart {
    /// The degradation remover.
    Stage1 {
        /// Which network (network.base) [default: srvgg].
        #[arg(long, value_parser = stage1_networks())]
        network: Option<String>,
        #[command(flatten)]
        run: TrainRun,
    },
    /// An autoencoder: AutoencoderKL at an eighth or a quarter of the size.
    Autoencoder {
        /// Which network (network.base) [default: kl-f8].
        #[arg(long, value_parser = PossibleValuesParser::new(<KlConfig as Sizes>::BASES))]
        network: Option<String>,
        #[command(flatten)]
        run: TrainRun,
    },
    /// The latent diffusion model under stage 2.
    Prior {
        #[command(flatten)]
        latents: Latents,
        #[command(flatten)]
        run: TrainRun,
    },
    /// The control branch on a trained prior.
    #[command(alias = "control")]
    Stage2 {
        #[command(flatten)]
        latents: Latents,
        /// The trained stage 1 whose pictures are the condition: a file, the folder of a run, or `nano` (stage1.path).
        #[arg(long, value_name = "FILE")]
        stage1: Option<PathBuf>,
        /// The trained prior, a whole Stable Diffusion, or `nano` (control.unet).
        #[arg(long, value_name = "FILE")]
        unet: Option<PathBuf>,
        /// A trained branch (control.together_with): go on with it and let the UNet learn too, for a small model whose
        /// frozen prior is what limits it. Writes one file with both.
        #[arg(long, value_name = "BRANCH")]
        together_with: Option<PathBuf>,
        /// Degradations of each picture whose latents are kept (control.draws) [default: 2].
        #[arg(long, value_parser = clap::value_parser!(u16).range(1..=100))]
        draws: Option<u16>,
        #[command(flatten)]
        run: TrainRun,
    },
    /// Write trained weights as a .pt file, which PyTorch and the reference read.
    Export {
        /// Weights, or a checkpoint of a run.
        #[arg(value_name = "FILE")]
        weights: PathBuf,
        /// The .pt file.
        #[arg(short, long)]
        output: PathBuf,
    },
    /// Write a full checkpoint of v1, from which its own program trains stage 2.
    Full {
        /// Stable Diffusion 2.1, its original file or its folder in the layout of the diffusers library.
        #[arg(long, value_name = "PATH")]
        stable_diffusion: PathBuf,
        /// The trained SwinIR.
        #[arg(long, value_name = "FILE")]
        stage1: PathBuf,
        /// The trained control branch; without it, one as it is before training.
        #[arg(long, value_name = "FILE")]
        control: Option<PathBuf>,
        /// The .ckpt file.
        #[arg(short, long)]
        output: PathBuf,
    },
}

#[derive(Args)]
pub struct Latents {
    /// Folder with the autoencoder's `taef2_encoder` and `taef2_decoder` checkpoints, the file of another one, or `nano`
    /// (autoencoder.path).
    #[arg(long, value_name = "PATH")]
    pub autoencoder: Option<PathBuf>,
    /// Folder for latents, which are made once; without one they are made anew in each step (data.latents).
    #[arg(long, value_name = "DIR")]
    pub latents: Option<PathBuf>,
}

#[derive(Args)]
pub struct TrainRun {
    /// A TOML file with what differs from the defaults.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Any field, such as `optimizer.clip_norm=1`; may be given several times.
    #[arg(long, value_name = "SECTION.FIELD=VALUE", value_parser = diffbir_train::config::assignment)]
    pub set: Vec<toml::Table>,
    /// Print the whole configuration and do nothing else.
    #[arg(long)]
    pub emit_config: bool,
    /// Training pictures: folders, lists, tables, shards (data.folders).
    #[arg(long, num_args = 1..)]
    pub data: Vec<PathBuf>,
    /// Pictures that are only measured on, likewise (validation.folders).
    #[arg(long, num_args = 1..)]
    pub validation: Vec<PathBuf>,
    /// Folder of the run (run.output), which goes on from the last checkpoint that it finds there.
    #[arg(short, long)]
    pub output: Option<PathBuf>,
    /// Steps of the whole run (run.steps) [default: 5000].
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub steps: Option<u64>,
    /// Examples a step (run.batch) [default: 4].
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub batch: Option<u16>,
    /// Highest learning rate (optimizer.rate) [default: 2e-4; autoencoder: 4.5e-6].
    #[arg(long, value_parser = super::positive, allow_negative_numbers = true)]
    pub rate: Option<f64>,
    /// Number from which examples and first weights follow (run.seed) [default: 1].
    #[arg(long, value_parser = seed, allow_negative_numbers = true)]
    pub seed: Option<u64>,
    /// Steps between checkpoints, each with a validation (run.checkpoint_every) [default: 500].
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub checkpoint_every: Option<u64>,
    /// Weights to start from: a file, the folder of a run, or `nano` for the built-in model (run.init).
    #[arg(long)]
    pub init: Option<PathBuf>,
    /// Where it is computed, as for `restore`. On a CPU the same configuration gives the same weights bit for bit.
    #[arg(long, default_value = "auto")]
    pub device: DeviceChoice,
}

fn stage1_networks() -> PossibleValuesParser {
    PossibleValuesParser::new(<Stage1Config as Sizes>::BASES)
}
