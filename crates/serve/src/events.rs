//! What is told while something goes on: kept until its end, for those who come late or come back.

use crate::engine::Pull;
use crate::problem::Problem;
use axum::response::sse;
use futures_util::stream::{self, Stream};
use serde::Serialize;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;
use utoipa::ToSchema;

/// Something that is told.
pub trait Told: Clone + Serialize + Send + 'static {
    /// The event's name.
    fn name(&self) -> &'static str;
    /// Whether it makes an earlier one worthless, as a later step does.
    fn replaces(&self, earlier: &Self) -> bool;
}

/// On the way of a job.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[serde(untagged)]
pub enum Event {
    /// It waits behind so many others.
    Queued {
        /// Jobs before it, the running one included.
        position: usize,
    },
    /// A stage begins: `load`, `stage 1`, `encode`, `sample`, `decode`.
    Stage {
        /// Which one.
        stage: String,
    },
    /// A stage goes on.
    Step {
        /// Which stage.
        stage: String,
        /// Steps or tiles done.
        done: usize,
        /// Of how many.
        total: usize,
        /// Seconds until the end of the stage.
        eta_s: Option<f64>,
    },
    /// There is a new preview.
    Preview {
        /// After how many steps of the sampler, over all results; 0 for stage 1.
        preview: usize,
        /// Where it is.
        href: String,
    },
    /// Something that a person should know.
    Note {
        /// In words.
        note: String,
    },
    /// It is over and its results can be had.
    Done {
        /// Where the job can be read.
        href: String,
    },
    /// It is over without result.
    Error {
        /// Why.
        error: Problem,
    },
}

impl Told for Event {
    fn name(&self) -> &'static str {
        match self {
            Self::Queued { .. } => "queued",
            Self::Stage { .. } => "stage",
            Self::Step { .. } => "step",
            Self::Preview { .. } => "preview",
            Self::Note { .. } => "note",
            Self::Done { .. } => "done",
            Self::Error { .. } => "error",
        }
    }

    fn replaces(&self, earlier: &Self) -> bool {
        match (self, earlier) {
            (Self::Step { stage, .. }, Self::Step { stage: before, .. }) => stage == before,
            (Self::Queued { .. }, Self::Queued { .. }) => true,
            (Self::Preview { .. }, Self::Preview { .. }) => true,
            _ => false,
        }
    }
}

/// On the way of a download.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[serde(untagged)]
pub enum PullEvent {
    /// How far it is.
    Progress(Pull),
    /// All files are here.
    Done {
        /// The model.
        model: String,
    },
    /// It failed.
    Error {
        /// Why.
        error: Problem,
    },
}

impl Told for PullEvent {
    fn name(&self) -> &'static str {
        match self {
            Self::Progress(Pull { note: Some(_), .. }) => "note",
            Self::Progress(_) => "progress",
            Self::Done { .. } => "done",
            Self::Error { .. } => "error",
        }
    }

    fn replaces(&self, earlier: &Self) -> bool {
        self.name() == "progress" && earlier.name() == "progress"
    }
}

/// Events in their order, each with a number, without those that later ones made worthless: its length does not grow
/// with the steps.
pub struct Log<E> {
    told: Mutex<Entries<E>>,
    /// The number of the last event.
    newest: watch::Sender<u64>,
}

struct Entries<E> {
    events: VecDeque<(u64, E)>,
    next: u64,
    ended: bool,
}

impl<E: Told> Log<E> {
    /// A log whose numbers begin behind those of `earlier` lives of the same thing.
    pub fn new(earlier: u32) -> Self {
        let next = (u64::from(earlier) << 20) + 1;
        let told = Mutex::new(Entries { events: VecDeque::new(), next, ended: false });
        Self { told, newest: watch::Sender::new(next - 1) }
    }

    fn lock(&self) -> MutexGuard<'_, Entries<E>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells; what comes after the end is dropped.
    pub fn tell(&self, event: E) {
        self.push(event, false);
    }

    /// Tells the last event.
    pub fn end(&self, event: E) {
        self.push(event, true);
    }

    fn push(&self, event: E, last: bool) {
        let mut log = self.lock();
        if log.ended {
            return;
        }
        let number = log.next;
        log.next += 1;
        log.events.retain(|(_, earlier)| !event.replaces(earlier));
        log.events.push_back((number, event));
        log.ended = last;
        drop(log);
        self.newest.send_replace(number);
    }

    /// Whether the last event was told.
    pub fn ended(&self) -> bool {
        self.lock().ended
    }

    /// Waits for the last event.
    pub async fn wait(&self) {
        let mut newest = self.newest.subscribe();
        while !self.ended() && newest.changed().await.is_ok() {}
    }

    fn after(&self, number: u64) -> (Vec<(u64, E)>, bool) {
        let log = self.lock();
        (log.events.iter().filter(|(own, _)| *own > number).cloned().collect(), log.ended)
    }
}

/// The events after number `last`, and those to come, until the end of the log or of the server.
pub fn stream<E: Told>(
    log: Arc<Log<E>>,
    last: u64,
    closing: watch::Receiver<bool>,
) -> impl Stream<Item = Result<sse::Event, Infallible>> {
    let newest = log.newest.subscribe();
    let start = (log, newest, closing, last, VecDeque::<(u64, E)>::new());
    stream::unfold(start, |(log, mut newest, mut closing, mut last, mut waiting)| async move {
        loop {
            if let Some((number, event)) = waiting.pop_front() {
                last = number;
                let data = serde_json::to_string(&event).unwrap_or_default();
                let event = sse::Event::default().id(number.to_string()).event(event.name()).data(data);
                return Some((Ok(event), (log, newest, closing, last, waiting)));
            }
            newest.mark_unchanged();
            let (events, ended) = log.after(last);
            waiting = events.into();
            if waiting.is_empty() {
                if ended || *closing.borrow() {
                    return None;
                }
                tokio::select! {
                    changed = newest.changed() => changed.ok()?,
                    changed = closing.changed() => changed.ok()?,
                }
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(done: usize) -> Event {
        Event::Step { stage: "sample".into(), done, total: 9, eta_s: None }
    }

    #[test]
    fn late_comers_get_the_last_step_only_and_every_number_once() {
        let log = Log::new(2);
        log.tell(Event::Queued { position: 1 });
        log.tell(step(1));
        log.tell(step(2));
        log.end(Event::Done { href: "x".into() });
        log.tell(step(3));
        let (events, ended) = log.after(0);
        let first = (2 << 20) + 1;
        assert!(ended);
        assert_eq!(events.iter().map(|(number, _)| number - first).collect::<Vec<_>>(), [0, 2, 3]);
        assert_eq!(events[1].1, step(2));
        assert_eq!(log.after(first + 2).0.len(), 1, "who comes back gets what is new");
    }
}
