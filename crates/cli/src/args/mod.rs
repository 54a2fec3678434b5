//! All flags, each explained in one sentence.

mod reference;
mod restore;
mod train;

pub use reference::{Captioner, Reference, Version};
pub use restore::{ColourFix, Existing, Precision, Restore, SeedMode, Task, Tiles};
pub use train::{Stage1Network, Train, TrainPart, TrainRun};

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
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
pub struct Degrade {
    /// Pictures, folders or patterns.
    #[arg(required = true, value_name = "INPUT")]
    pub inputs: Vec<PathBuf>,

    /// Look into the folders inside folders too, and keep them in the output.
    #[arg(short, long)]
    pub recursive: bool,

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
