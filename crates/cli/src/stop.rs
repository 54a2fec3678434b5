//! Ctrl-C.

use crate::talk;
use anyhow::{Context, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Exit code of a run that was stopped by Ctrl-C, as shells count it.
pub const STOPPED: u8 = 130;

/// A flag that Ctrl-C sets, saying `what` is done about it; the second time it ends the program.
pub fn on_ctrl_c(what: &'static str) -> Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let flag = stop.clone();
    ctrlc::set_handler(move || {
        if flag.swap(true, Ordering::SeqCst) {
            std::process::exit(i32::from(STOPPED));
        }
        talk::say(what);
    })
    .context("Ctrl-C cannot be listened for")?;
    Ok(stop)
}
