//! Flags in the spelling of the reference's `inference.py`, and of the article's demo.

use clap::{Args, ValueEnum};
use std::path::PathBuf;

/// A command line of the reference works as it is: `python inference.py` becomes `diffbir restore`, and
/// what it leaves out takes the reference's defaults (no captioner though).
#[derive(Args)]
#[command(next_help_heading = "As in the reference")]
pub struct Reference {
    /// A folder of pictures: with it, everything left out is as the reference has it: `--version v2.1
    /// --cfg-scale 6`, v2.1's prompts, no tiles, and results that exist are replaced.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["inputs", "recursive"], requires = "output")]
    pub input: Option<PathBuf>,

    /// Which model; goes with `--input`.
    #[arg(long, value_enum, conflicts_with = "model")]
    pub version: Option<Version>,

    /// The control branch of your own that `--version custom` uses, or a full checkpoint of v1.
    #[arg(long, value_name = "FILE", conflicts_with = "model")]
    pub ckpt: Option<PathBuf>,

    /// The training configuration of `--version custom`: it names the other files.
    #[arg(long, alias = "train_cfg", value_name = "YAML", requires = "ckpt", conflicts_with = "config")]
    pub train_cfg: Option<PathBuf>,

    /// The configuration of v1's full checkpoint, `configs/model/cldm.yaml`.
    #[arg(long, value_name = "YAML", requires = "ckpt", conflicts_with = "version")]
    pub config: Option<PathBuf>,

    /// Take stage 1 from `--swinir-ckpt` instead of the full checkpoint.
    #[arg(long, alias = "reload_swinir", requires = "config", requires = "swinir_ckpt")]
    pub reload_swinir: bool,

    /// The stage 1 that `--reload-swinir` takes.
    #[arg(long, alias = "swinir_ckpt", value_name = "FILE", requires = "reload_swinir")]
    pub swinir_ckpt: Option<PathBuf>,

    /// What describes pictures for the prompt; only `none` is built.
    #[arg(long, value_enum, default_value_t = Captioner::None)]
    pub captioner: Captioner,

    /// Bits of llava's weights; not built.
    #[arg(long, alias = "llava_bit", value_parser = ["16", "8", "4"], hide = true)]
    pub llava_bit: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Version {
    /// The model of the article.
    #[value(name = "v1")]
    V1,
    /// The model of April 2024.
    #[value(name = "v2")]
    V2,
    /// The newest official model.
    #[value(name = "v2.1")]
    V21,
    /// One of your own, from `--train-cfg` and `--ckpt`.
    #[value(name = "custom")]
    Custom,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Captioner {
    /// The prompt is as it was given.
    None,
    /// Not built.
    Llava,
    /// Not built.
    Ram,
}
