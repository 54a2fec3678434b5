//! One job.

use crate::events::{Event, Log};
use crate::record::Record;
use axum::body::Bytes;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A job and what goes on with it.
pub struct Job {
    /// By which it is asked for.
    pub id: String,
    record: Mutex<Record>,
    /// What is told of it.
    pub log: Arc<Log<Event>>,
    /// Whether it is to stop.
    pub cancelled: AtomicBool,
    /// How the result looks so far, as JPEG.
    pub preview: Mutex<Option<Bytes>>,
}

impl Job {
    /// One that has lived so often.
    pub fn new(record: Record, life: u32) -> Arc<Self> {
        Arc::new(Self {
            id: record.id.clone(),
            log: Arc::new(Log::new(life)),
            record: Mutex::new(record),
            cancelled: AtomicBool::new(false),
            preview: Mutex::default(),
        })
    }

    /// What is kept of it.
    pub fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where a part of it is asked for.
    pub fn href(&self, part: &str) -> String {
        format!("/v1/restorations/{}{part}", self.id)
    }

    /// Tells how it has ended.
    pub fn tell_end(&self) {
        let error = self.record().error.clone();
        self.log.end(match error {
            Some(error) => Event::Error { error },
            None => Event::Done { href: self.href("") },
        });
    }
}
