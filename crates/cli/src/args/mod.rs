//! All flags, each explained in one sentence.

mod eval;
mod faces;
mod guidance;
mod limit;
mod reference;
mod restore;
mod serve;
mod train;

pub use eval::{Eval, TableFormat};
pub use faces::{Faces, Which};
pub use guidance::{Guidance, GuidanceLoss, GuidanceSpace};
pub use limit::Limit;
pub use reference::{Captioner, Reference, Version};
pub use restore::{ColourFix, KeepSize, OF_STAGE2, Precision, Restore, SeedMode, Task, VaeTiling};
pub use serve::Serve;
pub use train::{Latents, Train, TrainPart, TrainRun};

use clap::builder::PossibleValuesParser;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use diffbir::device::DeviceChoice;
use diffbir_train::degrade::PRESETS;
use std::ffi::OsString;
use std::path::PathBuf;

const EXIT_CODES: &str = "\
Exit code: 0 if all went well, 1 if pictures, downloads or training failed, 2 if what is asked cannot be done as it \
is asked, 130 if Ctrl-C ended it.";

/// Restore photographs that are small, blurred, noisy or old.
#[derive(Parser)]
#[command(name = "diffbir", version, propagate_version = true, arg_required_else_help = true)]
#[command(after_help = EXIT_CODES)]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Command,
}

impl Arguments {
    /// The command line; one that is wrong ends the program with its reason.
    pub fn read() -> Self {
        Self::of(std::env::args_os()).unwrap_or_else(|error| error.exit())
    }

    /// A command line, the program's name included.
    pub fn of(words: impl IntoIterator<Item = impl Into<OsString> + Clone>) -> Result<Self, clap::Error> {
        let matches = Self::command().try_get_matches_from(words)?;
        let mut arguments = Self::from_arg_matches(&matches)?;
        if let (Command::Restore(restore) | Command::Plan(restore), Some((_, matches))) =
            (&mut arguments.command, matches.subcommand())
        {
            restore.note_of_stage2(matches);
        }
        Ok(arguments)
    }

    /// A command line of `restore` or `plan`, the program's name included; what is wrong with it in one line.
    pub fn of_restore(
        words: impl IntoIterator<Item = impl Into<OsString> + Clone>,
    ) -> Result<Box<Restore>, String> {
        match Self::of(words) {
            Ok(Self { command: Command::Restore(arguments) | Command::Plan(arguments) }) => Ok(arguments),
            Ok(_) => Err("is a command line of another command than restore and plan".into()),
            Err(error) => {
                let text = error.render().to_string();
                let reason: Vec<&str> =
                    text.lines().take_while(|line| !line.is_empty()).map(str::trim).collect();
                Err(reason.join(" ").trim_start_matches("error: ").into())
            }
        }
    }
}

#[derive(Subcommand)]
pub enum Command {
    /// Restore pictures.
    Restore(Box<Restore>),
    /// Tell what restoring pictures would take of memory, and in which way it would be done: all flags are those of restore, a
    /// size such as 4000x3000 stands for a picture.
    Plan(Box<Restore>),
    /// Show a page and an HTTP API that restore pictures: docs/serve.md.
    Serve(Serve),
    /// Make small, blurred, noisy, compressed pictures of good ones.
    Degrade(Degrade),
    /// Train the networks on your own pictures.
    Train(Box<Train>),
    /// Measure how fast this machine restores.
    Bench(Bench),
    /// Measure how good pictures are: restored ones, or what models make of degraded ones.
    Eval(Box<Eval>),
    /// Say what picture and model files are.
    Info {
        /// Files to describe, folders of training runs or of the diffusers library, or `nano` for the built-in model.
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
/// cache are used where they lie. Where DIFFBIR_MIRROR names an address, downloads come from there and from nowhere else:
/// below it files lie under their names.
#[derive(Subcommand)]
pub enum ModelsCommand {
    /// Say which models and files there are, and which are here.
    List {
        /// For programs: of each file its licence, its hash, its addresses and where it lies.
        #[arg(long)]
        json: bool,
    },
    /// Download the files of a model, or single files; goes on where it stopped.
    Pull {
        /// v1, v2, v2.1, engines such as realesrgan-x4plus, faces, for metrics lpips, lpips-vgg, niqe, or names of files.
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
    /// Copy files that you have into the folder of weights, checking their hashes. A model that `pack` made is then found by its name.
    Import {
        /// The files.
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// The file's name in the catalog, if it is called otherwise; of a packed model another name for it.
        #[arg(long)]
        name: Option<String>,
    },
    /// Put what a training run made, and all that it was trained with, into one model file, its weights rounded to f16: half as
    /// large, and what it restores differs by a few levels from what the run itself does.
    Pack(Pack),
}

#[derive(Args)]
pub struct Pack {
    /// The folder of a run of `train stage1` or `train stage2`.
    pub run: PathBuf,
    /// Where, between noise (0) and the stage-1 picture (1), the model's sampling starts best [default: as the model it began
    /// with].
    #[arg(long, value_parser = fidelity, allow_negative_numbers = true)]
    pub fidelity: Option<f64>,
    /// The guidance scale that suits the model [default: as the model it began with].
    #[arg(long, value_parser = cfg_scale, allow_negative_numbers = true)]
    pub cfg_scale: Option<f64>,
    /// Scale of the sampler's noise that suits the model [default: as the model it began with].
    #[arg(long, value_parser = not_negative, allow_negative_numbers = true)]
    pub s_noise: Option<f64>,
    /// The model's name [default: the folder's].
    #[arg(long)]
    pub name: Option<String>,
    /// A line on origin and licence of the weights; may be given several times [default: the files].
    #[arg(long)]
    pub origin: Vec<String>,
    /// The model file.
    #[arg(short, long)]
    pub output: PathBuf,
}

#[derive(Args)]
pub struct Degrade {
    /// Pictures, folders or patterns.
    #[arg(required_unless_present = "print_preset", value_name = "INPUT")]
    pub inputs: Vec<PathBuf>,

    /// Look into the folders inside folders too, and keep them in the output.
    #[arg(short, long)]
    pub recursive: bool,

    /// The folder for the degraded pictures; what was drawn for NAME.png is in NAME.json beside it.
    #[arg(short, long, value_name = "DIR", required_unless_present = "print_preset")]
    pub output: Option<PathBuf>,

    /// What to do where a degraded picture's file exists.
    #[arg(long, value_enum, default_value_t = Existing::Error)]
    pub existing: Existing,

    /// How they are treated: mild, medium, heavy, codeformer, codeformer-face, realesrgan, article, a recipe in
    /// a TOML file, or the JSON file beside a degraded picture, to treat others in the same way.
    #[arg(long, value_name = "NAME|FILE", default_value = "medium")]
    pub preset: String,

    /// Number from which, with the file's name, each degradation follows [default: 1].
    #[arg(long, value_parser = seed, allow_negative_numbers = true)]
    pub seed: Option<u64>,

    /// By how much pictures are reduced, instead of what the preset says: for mild, medium and heavy the result
    /// is smaller by it, others come back to the first size.
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=16))]
    pub factor: Option<u8>,

    /// Print a preset as TOML, to be changed and given to --preset.
    #[arg(long, value_name = "NAME", exclusive = true, value_parser = presets())]
    pub print_preset: Option<String>,
}

fn presets() -> PossibleValuesParser {
    PossibleValuesParser::new(PRESETS.iter().map(|(name, _)| name))
}

#[derive(Args)]
pub struct Bench {
    /// As for `restore`.
    #[arg(long, default_value = "auto")]
    pub model: String,

    /// Side of the result in pixels; what is restored is a quarter of it.
    #[arg(long, value_name = "PX", default_value_t = 512, value_parser = clap::value_parser!(u32).range(64..=4096))]
    pub size: u32,

    /// Steps of the sampler for the whole way [default: what suits the model].
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub steps: Option<u16>,

    /// How often; the middle of all is told. One run more comes first and does not count.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub runs: u16,

    /// As for `restore`.
    #[arg(long, default_value = "auto")]
    pub device: DeviceChoice,

    /// As for `restore`.
    #[arg(long, value_enum)]
    pub precision: Option<Precision>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Existing {
    /// Leave it and go on: a folder goes on where it stopped.
    Skip,
    /// Replace it.
    Overwrite,
    /// Stop before any work.
    Error,
}

/// The most guidance that is taken: the reference's page goes up to 20.
const MAX_CFG_SCALE: f64 = 100.0;

fn positive(text: &str) -> Result<f64, String> {
    let value = number(text)?;
    if value > 0.0 { Ok(value) } else { Err("it must be larger than 0".into()) }
}

fn not_negative(text: &str) -> Result<f64, String> {
    let value = number(text)?;
    if value >= 0.0 { Ok(value) } else { Err("it must not be negative".into()) }
}

fn fidelity(text: &str) -> Result<f64, String> {
    let value = not_negative(text)?;
    if value < 1.0 {
        Ok(value)
    } else {
        Err("it must be below 1; for 1 there is --stage1-only of restore".into())
    }
}

fn share(text: &str) -> Result<f64, String> {
    let value = not_negative(text)?;
    if value <= 1.0 { Ok(value) } else { Err("it must be from 0 to 1".into()) }
}

fn cfg_scale(text: &str) -> Result<f64, String> {
    let value = number(text)?;
    let in_range = (0.0..=MAX_CFG_SCALE).contains(&value);
    if in_range {
        Ok(value)
    } else {
        Err(format!("it must be from 0 to {MAX_CFG_SCALE}; most models want 1 to 10"))
    }
}

fn number(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|value: &f64| value.is_finite()).ok_or_else(|| "it must be a number".into())
}

fn seed(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| match text {
        "-1" => {
            "it must not be negative: no seed is drawn at random as -1 does on the reference's pages".into()
        }
        _ => format!("it must be a whole number from 0 to {}", u64::MAX),
    })
}
