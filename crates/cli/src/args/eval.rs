//! Flags of `diffbir eval`.

use super::seed;
use clap::{Args, ValueEnum};
use diffbir::device::DeviceChoice;
use std::path::PathBuf;

#[derive(Args)]
pub struct Eval {
    /// Folders of pictures to measure, those in folders inside included; several are repeated samples of the
    /// same pictures, whose spread is told too.
    #[arg(long, value_name = "DIR", num_args = 1.., required_unless_present_any = ["degrade", "fid"])]
    pub restored: Vec<PathBuf>,

    /// The folder of the true pictures, of the same places and names but for the ending; without it only what
    /// needs no truth is measured.
    #[arg(long, value_name = "DIR")]
    pub truth: Option<PathBuf>,

    /// Degrade the true pictures so, restore them, and compare the models with bicubic and Lanczos: a preset of
    /// `degrade` or a recipe in a TOML file.
    #[arg(long, value_name = "NAME|FILE", requires = "truth", conflicts_with = "restored")]
    pub degrade: Option<String>,

    /// Models to compare, as `--model` of `restore` names them.
    #[arg(
        long,
        value_name = "MODEL",
        value_delimiter = ',',
        requires = "degrade",
        conflicts_with = "restored",
        default_value = "nano"
    )]
    pub models: Vec<String>,

    /// By how much pictures are reduced, instead of what the preset says; they are enlarged by as much as they
    /// came out smaller.
    #[arg(long, requires = "degrade", conflicts_with = "restored", value_parser = clap::value_parser!(u8).range(1..=16))]
    pub upscale: Option<u8>,

    /// Number from which degradations, with the picture's name, and the noise of stage 2 follow.
    #[arg(long, requires = "degrade", conflicts_with = "restored", default_value_t = 1, value_parser = seed, allow_negative_numbers = true)]
    pub seed: u64,

    /// Steps of the samplers [default: what suits each model].
    #[arg(long, requires = "degrade", conflicts_with = "restored", value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub steps: Option<u16>,

    /// Where the networks of models run, as for `restore` but in f32 everywhere; metrics are taken on the processor.
    #[arg(long, requires = "degrade", conflicts_with = "restored", default_value = "auto")]
    pub device: DeviceChoice,

    /// Pixels that are cut off at each side before anything is measured.
    #[arg(long, value_name = "PX", default_value_t = 0)]
    pub border: u16,

    /// LPIPS with AlexNet: one file with all its weights, or the two that its authors publish [default: those
    /// of `diffbir models`, if they are here].
    #[arg(long, value_name = "FILE", num_args = 1..=2, requires = "truth")]
    pub lpips: Vec<PathBuf>,

    /// LPIPS with VGG-16: the same.
    #[arg(long, value_name = "FILE", num_args = 1..=2, requires = "truth")]
    pub lpips_vgg: Vec<PathBuf>,

    /// NIQE's parameters, `niqe_pris_params.npz` [default: those of `diffbir models`, if they are here].
    #[arg(long, value_name = "FILE")]
    pub niqe: Option<PathBuf>,

    /// Print FID's Fréchet distance of two files of features, which a network of yours has made of two sets.
    #[arg(long, value_name = "FILE", num_args = 2, exclusive = true)]
    pub fid: Vec<PathBuf>,

    /// A folder for table.md, table.csv and table.json; a run that was stopped goes on from what lies there.
    #[arg(short, long, value_name = "DIR")]
    pub output: Option<PathBuf>,

    /// Measure anew what was measured into the output's folder before.
    #[arg(long, requires = "output")]
    pub restart: bool,

    /// Write a contact sheet of each picture into the output's folder `sheets`.
    #[arg(long, requires = "output")]
    pub sheets: bool,

    /// What is printed on stdout.
    #[arg(long, value_enum, default_value_t = TableFormat::Markdown)]
    pub table: TableFormat,
}

/// How a table is written.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TableFormat {
    /// For people, and for where they write.
    #[value(alias = "md")]
    Markdown,
    /// Comma-separated values, a line for each picture and mean.
    Csv,
    /// Everything.
    Json,
}
