//! `diffbir`: restores photographs. stdout carries data, stderr talk.

mod args;
mod bench;
mod degrade;
mod doubts;
mod eval;
mod info;
mod inputs;
mod models;
mod outputs;
mod own;
mod pack;
mod paths;
mod progress;
mod recipe;
mod restore;
mod serve;
mod sheet;
mod stop;
mod talk;
mod train;
mod trained;

use anyhow::{Context, Result};
use args::{Arguments, Command};
use clap::CommandFactory;
use diffbir_imaging::EncodeError;
use diffbir_train::run::TrainError;
use std::process::ExitCode;

/// Exit code where what is asked for cannot be done as it is asked; where pictures failed it is 1.
const COMMAND_IS_WRONG: u8 = 2;

fn main() -> ExitCode {
    keep_freed_memory();
    let result = match Arguments::read().command {
        Command::Restore(arguments) => restore::run(&arguments),
        Command::Plan(arguments) => restore::plan::run(&arguments),
        Command::Serve(arguments) => serve::run(&arguments),
        Command::Degrade(arguments) => degrade::run(&arguments),
        Command::Bench(arguments) => bench::run(&arguments),
        Command::Eval(arguments) => eval::run(&arguments),
        Command::Train(arguments) => train::run(*arguments).map(|()| ExitCode::SUCCESS),
        Command::Info { files } => info::run(&files),
        Command::Models { command } => models::run(&command),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "diffbir", &mut script);
            Ok(talk::ended(talk::data(&script)))
        }
        Command::Man { command } => manual(&command),
    };
    result.unwrap_or_else(|error| {
        talk::say(format_args!("error: {error:#}"));
        if is_no_fault_of_the_command(&error) { ExitCode::FAILURE } else { ExitCode::from(COMMAND_IS_WRONG) }
    })
}

/// Whether the same command could go well another time.
fn is_no_fault_of_the_command(error: &anyhow::Error) -> bool {
    let training = error.downcast_ref::<TrainError>();
    error.is::<outputs::Unwritable>()
        || matches!(error.downcast_ref(), Some(EncodeError::Write { .. }))
        || matches!(
            training,
            Some(
                TrainError::Write { .. }
                    | TrainError::Disk(_)
                    | TrainError::Diverged { .. }
                    | TrainError::Busy { .. }
            )
        )
}

/// Tensors come and go by tens of megabytes. Given back to the system and asked for again, each page of them would be
/// cleared anew, which took a seventh of a run's time; the most that is held at once is the same.
/// All threads take from one heap, whichever of them a network runs on: each with its own would keep its own.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[allow(unsafe_code, reason = "calls the C library")]
fn keep_freed_memory() {
    // SAFETY: sets numbers of the allocator, before there are other threads.
    unsafe {
        libc::mallopt(libc::M_MMAP_MAX, 0);
        libc::mallopt(libc::M_TRIM_THRESHOLD, i32::MAX);
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// Other allocators are left as they are.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn keep_freed_memory() {}

/// Prints the page of a command, named by its words, or of the whole.
fn manual(words: &[String]) -> Result<ExitCode> {
    let mut command = Arguments::command().disable_help_subcommand(true);
    command.build();
    let mut command = &command;
    for word in words {
        command = command.find_subcommand(word).with_context(|| {
            format!("man {}: there is no such command; see diffbir --help", words.join(" "))
        })?;
    }
    let mut page = Vec::new();
    clap_mangen::Man::new(command.clone()).render(&mut page)?;
    Ok(talk::ended(talk::data(&page)))
}
