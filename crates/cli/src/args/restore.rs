//! Flags of `diffbir restore`.

use super::{Existing, Faces, Guidance, Limit, Reference, cfg_scale, not_negative, positive, seed, share};
use crate::restore::sweep::Sweep;
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, ValueEnum};
use diffbir::device::DeviceChoice;
use diffbir_diffusion::noise::Source;
use diffbir_diffusion::{Sampler, StartPoint};
use diffbir_imaging::Format;
use std::path::PathBuf;

#[derive(Args)]
#[command(disable_version_flag = true)]
pub struct Restore {
    /// Pictures, folders or patterns such as `old/*.jpg`.
    #[arg(required_unless_present = "input", value_name = "INPUT")]
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

    /// What to do where a result's file exists [default: error].
    #[arg(long, value_enum)]
    pub existing: Option<Existing>,

    /// What is to be done: enlarge and clean, take noise away, an aligned face that fills the picture, or a
    /// photograph with faces.
    #[arg(long, value_enum, default_value_t = Task::Sr)]
    pub task: Task,

    /// `auto` for the best model that is present, `nano` for the built-in one, v1, v2 or v2.1 for an official
    /// one, or an engine without stage 2 such as realesrgan-x4plus (see `diffbir models list`) or a model file.
    #[arg(long, alias = "engine", default_value = "auto")]
    pub model: String,

    /// Another stage 1 for the model: an engine, or a model file.
    #[arg(long, value_name = "NAME", conflicts_with = "no_stage1")]
    pub stage1: Option<String>,

    /// How much noise realesr-general-x4v3 takes away, 0..1, wherever it works; below 1 it needs its second
    /// file [default: 1].
    #[arg(long, value_name = "SHARE", value_parser = share, allow_negative_numbers = true)]
    pub denoise: Option<f64>,

    /// Size of the output over that of the input; lowered, and said so, above 24 megapixels.
    #[arg(long, aliases = ["sr_scale", "sr-scale"], default_value_t = 4.0, value_parser = positive, allow_negative_numbers = true)]
    pub upscale: f64,

    /// The shorter side in pixels that an official model works at, at least [default: 512].
    #[arg(long, alias = "image_size", value_name = "PX", value_parser = clap::value_parser!(u16).range(64..=2048))]
    pub image_size: Option<u16>,

    /// Whether the result of an official model comes back to the size of the original times --upscale.
    #[arg(long, alias = "keep_original_size", value_enum, default_value_t = KeepSize::Yes)]
    pub keep_original_size: KeepSize,

    /// Steps of the sampler from noise to picture: more are slower and finer; --fidelity spares its share of
    /// them [default: what suits the model, often 10].
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub steps: Option<u16>,

    /// How stage 2 gets from noise to a picture: spaced, ddim, dpm++_m2 or one of eleven edm_* (a wrong name
    /// lists them) [default: what suits the model, often edm_dpm++_3m_sde].
    #[arg(long)]
    pub sampler: Option<Sampler>,

    #[command(flatten)]
    pub parameters: SamplerParameters,

    /// From what the sampler starts: `noise`, or `cond` for the stage-1 latent under nearly all noise, which
    /// differs only in models without zero terminal SNR [default: noise].
    #[arg(long, alias = "start_point_type", conflicts_with = "fidelity")]
    pub start_point_type: Option<StartPoint>,

    /// Start from the low frequencies of stage 1 under nearly all noise, against grain in even backgrounds; for
    /// v1 and v2, where something of them is left.
    #[arg(long, alias = "better_start", conflicts_with_all = ["start_point_type", "fidelity"])]
    pub better_start: bool,

    /// How far to go from the unguided guess: from the negative prompt's, or, in a model without text, from
    /// that of a picture never seen; 0 to 100, 1 is no guidance [default: what suits the model].
    #[arg(long, alias = "cfg_scale", value_parser = cfg_scale, allow_negative_numbers = true)]
    pub cfg_scale: Option<f64>,

    /// Let guidance rise along the steps, from none to --cfg-scale and 1 more.
    #[arg(long, alias = "rescale_cfg")]
    pub rescale_cfg: bool,

    /// What the picture shows, for a model with text [default: the authors' words for quality].
    #[arg(long, aliases = ["pos_prompt", "pos-prompt"])]
    pub prompt: Option<String>,

    /// What the result should not be, for a model with text [default: the authors' words for flaws].
    #[arg(long, aliases = ["neg_prompt", "neg-prompt"])]
    pub negative_prompt: Option<String>,

    /// How near stage 2 stays to stage 1: 0 draws the picture from noise alone, with .3 the sampler starts where
    /// .7 of the noise's time is left, with .9 it hardly adds anything; 1 is stage 1 itself [default: what suits the
    /// model].
    #[arg(long, value_parser = share, allow_negative_numbers = true)]
    pub fidelity: Option<f64>,

    /// A picture that gives each region its own fidelity, for one input of the same shape: white stays as stage 1 made it,
    /// black is drawn freely, grey lies between as --fidelity has it.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["fidelity", "start_point_type", "better_start"])]
    pub mask: Option<PathBuf>,

    /// How strongly the stage-1 picture steers stage 2: 1 as trained, 0 not at all.
    #[arg(long, default_value_t = 1.0, value_parser = not_negative, allow_negative_numbers = true)]
    pub strength: f64,

    /// Timestep (0 to 999; the control branch of v2.1 was trained with up to 199) of noise laid on the stage-1 latent: more frees stage 2 to invent.
    #[arg(long, alias = "noise_aug", default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=999))]
    pub noise_aug: u16,

    /// Number from which all noise follows, anew for each picture.
    #[arg(long, default_value_t = 231, value_parser = seed, allow_negative_numbers = true)]
    pub seed: u64,

    /// What follows from the seed: each picture and sample its own, or one stream in the reference's order.
    #[arg(long, value_enum, default_value_t = SeedMode::Each)]
    pub seed_mode: SeedMode,

    /// Whose random numbers: `torch-cpu`, or `torch-cuda[:GPU]` for those of PyTorch on an NVIDIA card.
    #[arg(long, default_value_t = Source::TorchCpu)]
    pub noise: Source,

    /// Results a picture, from seed, seed + 1 and so on.
    #[arg(long, aliases = ["n_samples", "n-samples", "repeat_times", "repeat-times"], default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub samples: u16,

    /// Also write a contact sheet of each picture: input, stage 1, all results, and parts of them twice as large.
    #[arg(long)]
    pub sheet: bool,

    /// Restore each picture under several settings, such as `--sweep steps=10,20 cfg=1,4`, and write a contact sheet of
    /// them.
    #[arg(long, value_name = "NAME=VALUES", num_args = 1.., conflicts_with_all = ["save_intermediates", "save_faces", "stage1_only", "seed_mode"])]
    pub sweep: Vec<Sweep>,

    /// Write a map of how much the samples of a picture differ, and tell the mean (L-STD); white from 32 levels.
    #[arg(long)]
    pub stability: bool,

    /// Results of a picture that are computed at once: faster where there is memory.
    #[arg(long, alias = "batch_size", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub batch_size: u16,

    /// Where the networks run: auto, cpu, cuda[:N], vulkan[:N] or metal[:N]; `cuda` and the reference's `mps`
    /// mean the best of that kind, else the processor.
    #[arg(long, default_value = "auto")]
    pub device: DeviceChoice,

    /// Numbers that the weights are held in: 16 bits halve their memory. On a CPU bf16 are multiplied as such and
    /// added in f32, f16 are multiplied in f32 [default: bf16 on a CPU that is twice as fast at it, else f32].
    #[arg(long, value_enum)]
    pub precision: Option<Precision>,

    /// Stop after stage 1: clean and faithful, without new detail; excludes what only stage 2 heeds.
    #[arg(long, conflicts_with = "no_stage1", conflicts_with_all = OF_STAGE2)]
    pub stage1_only: bool,

    /// Skip stage 1: for pictures that are clean already.
    #[arg(long, aliases = ["disable_preprocess_model", "disable-preprocess-model"])]
    pub no_stage1: bool,

    /// Keep stage 1 in parts whose result, reduced to a quarter of the input's width, is further from it than stage 1 is.
    #[arg(long)]
    pub safe: bool,

    /// How the colours of stage 1 are brought back into the result.
    #[arg(long, aliases = ["color_fix_type", "color-fix-type"], value_enum, default_value_t = ColourFix::Wavelet)]
    pub color_fix: ColourFix,

    /// Write what comes about on the way as safetensors: stage 1, its latent, each step, the decoded picture.
    #[arg(long, value_name = "DIR")]
    pub save_intermediates: Option<PathBuf>,

    /// The memory that the program may take, such as 6GB, or `auto` for what is free: what does not fit is restored in smaller
    /// parts, or refused before anything is loaded; what each stage was to take and what it took is told: docs/memory.md.
    #[arg(long, value_name = "LIMIT")]
    pub memory: Option<Limit>,

    /// Print events as JSON, one a line, on stdout.
    #[arg(long)]
    pub json: bool,

    #[command(flatten)]
    pub tiles: Tiles,

    #[command(flatten)]
    pub guidance: Guidance,

    #[command(flatten)]
    pub faces: Faces,

    #[command(flatten)]
    pub reference: Reference,

    /// The first flag given that only stage 2 heeds, as it is written.
    #[arg(skip)]
    pub of_stage2: Option<String>,
}

/// What only stage 2 heeds.
pub const OF_STAGE2: [&str; 31] = [
    "steps",
    "sampler",
    "s_churn",
    "s_tmin",
    "s_tmax",
    "s_noise",
    "eta",
    "order",
    "start_point_type",
    "better_start",
    "fidelity",
    "mask",
    "safe",
    "cfg_scale",
    "rescale_cfg",
    "prompt",
    "negative_prompt",
    "strength",
    "noise_aug",
    "guidance",
    "seed",
    "seed_mode",
    "noise",
    "samples",
    "stability",
    "batch_size",
    "color_fix",
    "vae_encoder_tiled",
    "vae_decoder_tiled",
    "vae_tiling",
    "cldm_tiled",
];

/// What becomes of the size that the networks saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum KeepSize {
    /// The result is as large as --upscale says.
    Yes,
    /// It stays as large as --image-size made it for the networks, where that is larger.
    No,
}

impl Restore {
    /// Notes what was given for stage 2: a value alone does not say whether it was given.
    pub fn note_of_stage2(&mut self, matches: &ArgMatches) {
        let given = |id: &&str| matches.value_source(id) == Some(ValueSource::CommandLine);
        self.of_stage2 = OF_STAGE2.into_iter().find(given).map(|id| format!("--{}", id.replace('_', "-")));
    }
}

/// What only some samplers heed; a sampler that does not refuses it.
#[derive(Args)]
pub struct SamplerParameters {
    /// Noise that is added back before steps, in all [edm_euler, edm_heun, edm_dpm_2; default: 0].
    #[arg(long, alias = "s_churn", value_parser = not_negative, allow_negative_numbers = true)]
    pub s_churn: Option<f64>,

    /// Smallest sigma at which --s-churn acts [default: 0].
    #[arg(long, alias = "s_tmin", value_parser = not_negative, allow_negative_numbers = true)]
    pub s_tmin: Option<f64>,

    /// Largest sigma at which --s-churn acts [default: 300].
    #[arg(long, alias = "s_tmax", value_parser = not_negative, allow_negative_numbers = true)]
    pub s_tmax: Option<f64>,

    /// Scale of the noise that a sampler adds on its way [default: what suits the model].
    #[arg(long, alias = "s_noise", value_parser = not_negative, allow_negative_numbers = true)]
    pub s_noise: Option<f64>,

    /// Share of noise in the ancestral and SDE samplers: 0 for none [default: 1].
    #[arg(long, value_parser = not_negative, allow_negative_numbers = true)]
    pub eta: Option<f64>,

    /// Order of edm_lms, 1 to 8 [default: 1].
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=8))]
    pub order: Option<u8>,
}

/// In tiles everything needs less memory and takes longer. Without these flags, what is large is tiled.
#[derive(Args)]
#[command(next_help_heading = "Tiles")]
pub struct Tiles {
    /// Work in tiles in stage 1.
    #[arg(long, alias = "cleaner_tiled", conflicts_with = "no_stage1")]
    pub cleaner_tiled: bool,

    /// Side of a tile of stage 1 in pixels [default: 512].
    #[arg(long, alias = "cleaner_tile_size", value_name = "PX")]
    pub cleaner_tile_size: Option<usize>,

    /// Pixels from one tile of stage 1 to the next [default: 256].
    #[arg(long, alias = "cleaner_tile_stride", value_name = "PX")]
    pub cleaner_tile_stride: Option<usize>,

    /// Work in tiles when encoding.
    #[arg(long, alias = "vae_encoder_tiled")]
    pub vae_encoder_tiled: bool,

    /// Side of a tile of the encoder in pixels [default: 256].
    #[arg(long, alias = "vae_encoder_tile_size", value_name = "PX")]
    pub vae_encoder_tile_size: Option<usize>,

    /// Work in tiles when decoding.
    #[arg(long, alias = "vae_decoder_tiled")]
    pub vae_decoder_tiled: bool,

    /// Side of a tile of the decoder in pixels of the picture [default: 256].
    #[arg(long, alias = "vae_decoder_tile_size", value_name = "PX")]
    pub vae_decoder_tile_size: Option<usize>,

    /// How encoder and decoder join their tiles where they work in tiles; in a command line of the reference it is as there
    /// if not given [default: exact].
    #[arg(long, value_enum)]
    pub vae_tiling: Option<VaeTiling>,

    /// Work in tiles in each step of the sampler.
    #[arg(long, aliases = ["cldm_tiled", "tiled"])]
    pub cldm_tiled: bool,

    /// Side of a tile of the sampler in pixels of the picture [default: 512].
    #[arg(long, aliases = ["cldm_tile_size", "tile_size", "tile-size"], value_name = "PX")]
    pub cldm_tile_size: Option<usize>,

    /// Pixels from one tile of the sampler to the next [default: 256].
    #[arg(
        long,
        aliases = ["cldm_tile_stride", "tile_stride", "tile-stride"],
        value_name = "PX",
    )]
    pub cldm_tile_stride: Option<usize>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum VaeTiling {
    /// What the whole gives: in bands of rows, each with as many pixels as a tile or more.
    Exact,
    /// As the reference: attention ends with a tile, and the tiles' statistics are about those of the whole.
    Reference,
    /// As the reference's fast mode, which it never uses: statistics from a small copy of the picture, one tile in memory at a
    /// time.
    Fast,
    /// The same with its colour fix: behind the encoder's first halving the tiles' own statistics.
    FastColorFix,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SeedMode {
    /// Each picture starts from the seed, its samples from seed, seed + 1, ...: order, names and number of
    /// pictures change nothing.
    Each,
    /// The order of the reference's command line: one stream over all pictures, after the networks' first
    /// weights were drawn.
    ReferenceCli,
    /// The order of the reference's web page: each picture starts from the seed, its samples go on from there.
    ReferencePage,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Task {
    /// Super-resolution of any picture.
    Sr,
    /// Removal of noise.
    Denoise,
    /// One aligned face that fills the picture.
    Face,
    /// Faces anywhere in the picture, each by itself, and what is around them.
    #[value(aliases = ["unaligned_face", "face_background"])]
    FaceBackground,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Precision {
    /// 32-bit floats.
    #[value(alias = "fp32")]
    F32,
    /// 16-bit floats with the range of 32.
    Bf16,
    /// 16-bit floats.
    #[value(alias = "fp16")]
    F16,
}

impl Precision {
    /// For the library.
    pub fn of_weights(self) -> diffbir_nn::Precision {
        match self {
            Self::F32 => diffbir_nn::Precision::F32,
            Self::Bf16 => diffbir_nn::Precision::Bf16,
            Self::F16 => diffbir_nn::Precision::F16,
        }
    }
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

fn format(text: &str) -> Result<Format, String> {
    Format::from_extension(text).ok_or_else(|| "there are png, jpeg, webp and tiff".into())
}
