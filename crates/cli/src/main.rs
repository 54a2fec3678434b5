//! `diffbir`: restores photographs. stdout carries data, stderr talk.

mod args;
mod degrade;
mod info;
mod inputs;
mod progress;
mod restore;
mod train;

use args::{Arguments, Command};
use clap::{CommandFactory, Parser};
use std::process::ExitCode;

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Restore(arguments) => restore::run(&arguments),
        Command::Degrade(arguments) => degrade::run(&arguments),
        Command::Train(arguments) => train::run(arguments).map(|()| ExitCode::SUCCESS),
        Command::Info { files } => info::run(&files),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Arguments::command(), "diffbir", &mut std::io::stdout());
            Ok(ExitCode::SUCCESS)
        }
        Command::Man => clap_mangen::Man::new(Arguments::command())
            .render(&mut std::io::stdout())
            .map(|()| ExitCode::SUCCESS)
            .map_err(Into::into),
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::from(2)
    })
}
