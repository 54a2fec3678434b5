//! Ctrl-C.

use crate::talk;
use anyhow::{Context, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Exit code of a run that was stopped by Ctrl-C, as shells count it.
pub const STOPPED: u8 = 130;

/// A flag that Ctrl-C sets, saying `what` is done about it. The second time it ends the program, as it does by
/// itself after `patience`.
pub fn on_ctrl_c(what: &'static str, patience: Option<Duration>) -> Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let flag = stop.clone();
    ctrlc::set_handler(move || {
        let leave = || std::process::exit(i32::from(STOPPED));
        if flag.swap(true, Ordering::SeqCst) {
            leave();
        }
        talk::say(what);
        if let Some(patience) = patience {
            std::thread::sleep(patience);
            leave();
        }
    })
    .context("Ctrl-C cannot be listened for")?;
    Ok(stop)
}

/// Calls `end` when Ctrl-C or a signal asks the program to end; the second time ends it at once.
pub fn on_end(mut end: impl FnMut() + Send + 'static) -> Result<()> {
    let mut asked = false;
    ctrlc::set_handler(move || {
        if std::mem::replace(&mut asked, true) {
            std::process::exit(i32::from(STOPPED));
        }
        end();
    })
    .context("Ctrl-C cannot be listened for")
}
