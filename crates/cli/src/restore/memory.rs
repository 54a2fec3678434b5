//! How much memory each stage took at most.

use diffbir::Stage;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How often the program's memory is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Looks at the program's memory until it is dropped.
pub struct Memory {
    seen: Arc<Mutex<Seen>>,
    /// Its end tells the watching thread to stop.
    _end: Sender<()>,
}

#[derive(Default)]
struct Seen {
    /// The stage that is going on; before the first, models are loaded and pictures read.
    stage: Option<Stage>,
    /// The most of each stage, in the order in which they came.
    most: Vec<(Option<Stage>, u64)>,
}

impl Seen {
    fn look(&mut self) {
        let Some(stats) = memory_stats::memory_stats() else { return };
        let bytes = stats.physical_mem as u64;
        match self.most.iter_mut().find(|(stage, _)| *stage == self.stage) {
            Some((_, most)) => *most = bytes.max(*most),
            None => self.most.push((self.stage, bytes)),
        }
    }
}

impl Memory {
    /// Begins to look, and has freed memory given back, so that what is seen is what is held: how a plan is checked.
    pub fn watch_stages() -> Self {
        give_back_at_once();
        Self::watch()
    }

    /// Begins to look; the program runs as it would without.
    pub fn watch() -> Self {
        let (end, ended) = mpsc::channel::<()>();
        let seen: Arc<Mutex<Seen>> = Arc::default();
        let own = seen.clone();
        std::thread::spawn(move || {
            while ended.recv_timeout(LOOK_EVERY) == Err(RecvTimeoutError::Timeout) {
                own.lock().unwrap_or_else(PoisonError::into_inner).look();
            }
        });
        Self { seen, _end: end }
    }

    /// A stage begins or goes on; none where models are loaded or pictures read.
    pub fn stage(&self, stage: Option<Stage>) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.stage != stage {
            seen.look();
            seen.stage = stage;
            give_back();
        }
        seen.look();
    }

    /// The most of a stage, bytes, if there was one.
    pub fn most_of(&self, stage: Option<Stage>) -> Option<u64> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.most.iter().find(|(own, _)| *own == stage).map(|(_, bytes)| *bytes)
    }

    /// The most of all stages, bytes.
    pub fn most(&self) -> u64 {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.most.iter().map(|(_, bytes)| *bytes).max().unwrap_or(0)
    }
}

/// Pieces of this size and more are the system's again as soon as they are free.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const LARGE_BYTES: i32 = 1 << 20;

/// How many of them there may be; Linux grants no more.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const MOST_LARGE: i32 = 1 << 16;

/// From here on no large piece is cut out of a heap, where what is free between others is of use only to pieces that are not
/// larger: a stage that goes through many sizes held a third more than it had asked for. It costs a seventh to a third of
/// the time, since the system clears what it gives.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[allow(unsafe_code, reason = "calls the C library")]
fn give_back_at_once() {
    // SAFETY: sets numbers of the allocator, which locks what it shares.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE_BYTES);
        libc::mallopt(libc::M_MMAP_MAX, MOST_LARGE);
    }
}

/// Other allocators are left as they are.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn give_back_at_once() {}

/// Gives what the stage before held and freed back to the system, so that the next is not counted with it; what a stage
/// needs again is asked for again.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[allow(unsafe_code, reason = "calls the C library")]
fn give_back() {
    // SAFETY: the allocator gives back what nobody holds.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Other allocators are left as they are.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn give_back() {}
