//! Words on stderr and data on stdout, whose readers may go away.

use std::fmt::Display;
use std::io::{ErrorKind, Result, Write};
use std::process::ExitCode;

/// A line for a person. That nobody can hear it is no reason to stop.
pub fn say(text: impl Display) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Data, written out at once.
pub fn data(bytes: &[u8]) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(bytes)?;
    out.flush()
}

/// How a command ends whose data was written, or not: a reader that has read enough is no failure.
pub fn ended(written: Result<()>) -> ExitCode {
    match written {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            say(format_args!("error: stdout cannot be written: {error}"));
            ExitCode::FAILURE
        }
        _ => ExitCode::SUCCESS,
    }
}
