//! All flags, each explained in one sentence.

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use diffbir::device::DeviceChoice;
use diffbir_diffusion::{Sampler, StartPoint};
use diffbir_imaging::Format;
use std::path::PathBuf;

/// Restore photographs that are small, blurred, noisy or old.
#[derive(Parser)]
#[command(name = "diffbir", version, propagate_version = true, arg_required_else_help = true)]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub enum Command {
    /// Restore pictures.
    Restore(Box<Restore>),
    /// Make small, blurred, noisy, compressed pictures of good ones.
    Degrade(Degrade),
    /// Train the networks on your own pictures.
    Train(Train),
    /// Say what picture and model files are.
    Info {
        /// Files to describe, or `nano` for the built-in model.
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// The official weight files: which there are, which are here, and how to get them.
    Models {
        #[command(subcommand)]
        command: ModelsCommand,
    },
    /// Print a script that completes commands in a shell.
    Completions {
        /// For which shell.
        shell: Shell,
    },
    /// Print the manual page of diffbir or of one of its commands.
    Man {
        /// Such as `restore` or `train stage1`.
        command: Vec<String>,
    },
}

/// Weights lie in the folder that DIFFBIR_MODELS names, else in the user's cache; files in the Hugging Face
/// cache are used where they lie.
#[derive(Subcommand)]
pub enum ModelsCommand {
    /// Say which models and files there are, and which are here.
    List,
    /// Download the files of a model, or single files; goes on where it stopped.
    Pull {
        /// v1, v2, v2.1, or names of files.
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
    },
    /// Check files that are here against their known hashes.
    Verify {
        /// v1, v2, v2.1, or names of files [default: all].
        #[arg(value_name = "NAME")]
        names: Vec<String>,
    },
    /// Print the folder of weights, or where the files of a model lie.
    Path {
        /// v1, v2, v2.1, or the name of a file.
        name: Option<String>,
    },
    /// Copy files that you have into the folder of weights, checking their hashes.
    Import {
        /// The files.
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// The file's name in the catalog, if it is called otherwise.
        #[arg(long)]
        name: Option<String>,
    },
}

#[derive(Args)]
pub struct Restore {
    /// Pictures, folders or patterns such as `old/*.jpg`.
    #[arg(required = true, value_name = "INPUT")]
    pub inputs: Vec<PathBuf>,

    /// A folder for the results, or the result's file for one input; beside each input if left out.
    #[arg(short, long, value_name = "PATH")]
    pub output: Option<PathBuf>,

    /// Look into the folders inside folders too, and keep them in the output.
    #[arg(short, long)]
    pub recursive: bool,

    /// The format of results [default: png, or what the output's name says].
    #[arg(long, value_name = "FORMAT", value_parser = format)]
    pub format: Option<Format>,

    /// Quality of JPEG, 95 if not given, and of WebP, which is lossless without it; 1 to 100.
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=100))]
    pub quality: Option<u8>,

    /// What to do where a result's file exists.
    #[arg(long, value_enum, default_value_t = Existing::Error)]
    pub existing: Existing,

    /// What is to be done: enlarge and clean, only call it denoising, or an aligned face.
    #[arg(long, value_enum, default_value_t = Task::Sr)]
    pub task: Task,

    /// `auto` for the best model that is present, `nano` for the built-in one, or a model file.
    #[arg(long, default_value = "auto")]
    pub model: String,

    /// Size of the output over that of the input; lowered, and said so, above 24 megapixels.
    #[arg(long, default_value_t = 4.0, value_parser = positive)]
    pub upscale: f64,

    /// Steps of the sampler: more are slower and finer.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub steps: u16,

    /// How stage 2 gets from noise to a picture: spaced, ddim, dpm++_m2 or one of eleven edm_* (a wrong name
    /// lists them).
    #[arg(long, default_value_t = Sampler::DEFAULT)]
    pub sampler: Sampler,

    #[command(flatten)]
    pub parameters: SamplerParameters,

    /// From what the sampler starts: `noise`, or `cond` for the stage-1 latent under nearly all noise, which
    /// differs only in models without zero terminal SNR.
    #[arg(long, alias = "start_point_type", default_value_t = StartPoint::Noise)]
    pub start_point_type: StartPoint,

    /// How far to go from the unguided guess: from the negative prompt's, or, in a model without text, from
    /// that of a picture never seen. 1 is no guidance [default: what suits the model].
    #[arg(long, alias = "cfg_scale", value_parser = not_negative)]
    pub cfg_scale: Option<f64>,

    /// Let guidance rise along the steps, from none to --cfg-scale and 1 more.
    #[arg(long, alias = "rescale_cfg")]
    pub rescale_cfg: bool,

    /// What the picture shows; needs a model with text.
    #[arg(long)]
    pub prompt: Option<String>,

    /// What the result should not be; needs a model with text.
    #[arg(long)]
    pub negative_prompt: Option<String>,

    /// How strongly the stage-1 picture steers stage 2: 1 as trained, 0 not at all.
    #[arg(long, default_value_t = 1.0, value_parser = not_negative)]
    pub strength: f64,

    /// Timestep (0 to 199) of noise laid on the stage-1 latent: more frees stage 2 to invent.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..200))]
    pub noise_aug: u16,

    /// Number from which all noise follows, anew for each picture.
    #[arg(long, default_value_t = 231)]
    pub seed: u64,

    /// Results a picture, from seed, seed + 1 and so on.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub samples: u16,

    /// Where the networks run: auto, cpu, vulkan[:N] or metal[:N].
    #[arg(long, default_value = "auto")]
    pub device: DeviceChoice,

    /// Numbers that the weights are held in: 16 bits halve their memory; what is computed stays in f32.
    #[arg(long, value_enum, default_value_t = Precision::F32)]
    pub precision: Precision,

    /// Stop after stage 1: clean and faithful, without new detail; excludes what only stage 2 heeds.
    #[arg(long, conflicts_with = "no_stage1")]
    #[arg(conflicts_with_all = ["steps", "sampler", "cfg_scale", "prompt", "negative_prompt", "strength"])]
    #[arg(conflicts_with_all = ["SamplerParameters", "start_point_type", "rescale_cfg"])]
    #[arg(conflicts_with_all = ["noise_aug", "seed", "samples", "color_fix"])]
    pub stage1_only: bool,

    /// Skip stage 1: for pictures that are clean already.
    #[arg(long)]
    pub no_stage1: bool,

    /// How the colours of stage 1 are brought back into the result.
    #[arg(long, value_enum, default_value_t = ColourFix::Wavelet)]
    pub color_fix: ColourFix,

    /// Print events as JSON, one a line, on stdout.
    #[arg(long)]
    pub json: bool,
}

/// What only some samplers heed; a sampler that does not refuses it.
#[derive(Args)]
pub struct SamplerParameters {
    /// Noise that is added back before steps, in all [edm_euler, edm_heun, edm_dpm_2; default: 0].
    #[arg(long, alias = "s_churn", value_parser = not_negative)]
    pub s_churn: Option<f64>,

    /// Smallest sigma at which --s-churn acts [default: 0].
    #[arg(long, alias = "s_tmin", value_parser = not_negative)]
    pub s_tmin: Option<f64>,

    /// Largest sigma at which --s-churn acts [default: 300].
    #[arg(long, alias = "s_tmax", value_parser = not_negative)]
    pub s_tmax: Option<f64>,

    /// Scale of the noise that a sampler adds on its way [default: what suits the model].
    #[arg(long, alias = "s_noise", value_parser = not_negative)]
    pub s_noise: Option<f64>,

    /// Share of noise in the ancestral and SDE samplers: 0 for none [default: 1].
    #[arg(long, value_parser = not_negative)]
    pub eta: Option<f64>,

    /// Order of edm_lms, 1 to 8 [default: 1].
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=8))]
    pub order: Option<u8>,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum Existing {
    /// Leave it and go on: a folder goes on where it stopped.
    Skip,
    /// Replace it.
    Overwrite,
    /// Stop before any work.
    Error,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Task {
    /// Super-resolution of any picture.
    Sr,
    /// Removal of noise; the same networks as sr.
    Denoise,
    /// One aligned face that fills the picture.
    Face,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Precision {
    /// 32-bit floats.
    F32,
    /// 16-bit floats with the range of 32.
    Bf16,
    /// 16-bit floats.
    F16,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum ColourFix {
    /// The low frequencies.
    Wavelet,
    /// Mean and deviation of each channel.
    Adain,
    /// Not at all.
    None,
}

#[derive(Args)]
pub struct Degrade {
    /// Pictures, folders or patterns.
    #[arg(required = true, value_name = "INPUT")]
    pub inputs: Vec<PathBuf>,

    /// The folder for the degraded pictures.
    #[arg(short, long, value_name = "DIR")]
    pub output: PathBuf,

    /// How badly they are treated.
    #[arg(long, value_enum, default_value_t = Preset::Medium)]
    pub preset: Preset,

    /// Number from which, with the file's name, each degradation follows.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum Preset {
    /// A good small picture from the web.
    Mild,
    /// A small picture that has been around.
    Medium,
    /// A picture that was treated badly twice.
    Heavy,
}

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
        #[arg(long, default_value_t = 2)]
        draws: usize,
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
        /// The guidance scale that suits the model.
        #[arg(long, default_value_t = 1.0)]
        cfg_scale: f64,
        /// Scale of the sampler's noise that suits the model.
        #[arg(long, default_value_t = 1.0)]
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
    #[arg(long)]
    pub steps: u64,
    /// Examples a step.
    #[arg(long, default_value_t = 4)]
    pub batch: usize,
    /// Highest learning rate.
    #[arg(long, default_value_t = 2e-4)]
    pub rate: f64,
    /// Number from which examples and first weights follow.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Steps between checkpoints.
    #[arg(long, default_value_t = 500)]
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

fn format(text: &str) -> Result<Format, String> {
    Format::from_extension(text).ok_or_else(|| "there are png, jpeg, webp and tiff".into())
}

fn positive(text: &str) -> Result<f64, String> {
    let value = number(text)?;
    if value > 0.0 { Ok(value) } else { Err("it must be larger than 0".into()) }
}

fn not_negative(text: &str) -> Result<f64, String> {
    let value = number(text)?;
    if value >= 0.0 { Ok(value) } else { Err("it must not be negative".into()) }
}

fn number(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|value: &f64| value.is_finite()).ok_or_else(|| "it must be a number".into())
}
