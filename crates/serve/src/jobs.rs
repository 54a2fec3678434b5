//! Jobs: the queue, and who may take what from it.

use crate::engine::Plan;
use crate::events::Event;
use crate::job::Job;
use crate::metrics::Metrics;
use crate::problem::Problem;
use crate::record::{Record, State, now};
use crate::settings::Limits;
use crate::store::{Of, Store, new_id};
use std::collections::{HashMap, VecDeque};
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// A job that was begun so often without an end takes the server down with it.
const MOST_ATTEMPTS: u32 = 2;

/// All jobs of a server.
pub struct Jobs {
    all: Mutex<All>,
    /// Told when there is something to take, or the server ends.
    more: Condvar,
    /// Their files.
    pub store: Store,
    /// What is taken at most.
    pub limits: Limits,
    /// What has happened.
    pub metrics: Metrics,
    /// Whether the server ends: nothing new is begun.
    pub closing: watch::Sender<bool>,
    /// Whether the running jobs are to stop as well, to be gone on with another time.
    pub leaving: Arc<AtomicBool>,
}

#[derive(Default)]
struct All {
    jobs: HashMap<String, Arc<Job>>,
    queue: VecDeque<Arc<Job>>,
    running: usize,
    /// Jobs by the keys of their clients; nothing while one is being uploaded.
    keys: HashMap<String, Option<Arc<Job>>>,
}

/// What is known of a job before there is one.
pub struct New {
    /// What is to be done.
    pub plan: Plan,
    /// What the picture is called.
    pub name: String,
    /// What the mask of its regions is called, if there is one.
    pub mask: Option<String>,
    /// Size of the picture.
    pub size: (u32, u32),
    /// Bytes of both.
    pub bytes: u64,
    /// The client's key against doing the same twice, and the digest of what is asked with it.
    pub key: Option<(String, String)>,
}

/// How a job ended.
pub enum End {
    /// With results.
    Done,
    /// Without.
    Failed(Problem),
    /// Somebody stopped it, or the server ends.
    Stopped,
}

/// What the server does at this moment.
pub struct Now {
    /// Jobs that wait.
    pub queued: usize,
    /// Jobs that are being restored.
    pub running: usize,
    /// All jobs.
    pub kept: usize,
    /// Bytes of their files.
    pub bytes: u64,
}

impl Jobs {
    /// The jobs that the store holds; those that had no end wait again.
    pub fn open(store: Store, limits: Limits) -> io::Result<Self> {
        let mut all = All::default();
        for mut record in store.load()? {
            let waits = !record.state.is_end();
            if waits && record.attempts >= MOST_ATTEMPTS {
                let detail =
                    "the server died while it restored this picture, more than once: try a smaller one";
                record.error = Some(Problem::refused(detail));
                (record.state, record.ended) = (State::Failed, Some(now()));
                store.keep(&record)?;
            } else if waits {
                record.state = State::Queued;
            }
            let (state, key) = (record.state, record.key.clone());
            let life = record.attempts + u32::from(state.is_end());
            let job = Job::new(record, life);
            if let Some((key, _)) = key {
                all.keys.insert(key, Some(job.clone()));
            }
            if state.is_end() {
                job.tell_end();
            } else {
                all.queue.push_back(job.clone());
            }
            all.jobs.insert(job.id.clone(), job);
        }
        let jobs = Self {
            all: Mutex::new(all),
            more: Condvar::new(),
            store,
            limits,
            metrics: Metrics::default(),
            closing: watch::Sender::new(false),
            leaving: Arc::default(),
        };
        jobs.lock().tell_positions();
        jobs.sweep();
        Ok(jobs)
    }

    fn lock(&self) -> MutexGuard<'_, All> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The job of this name.
    pub fn get(&self, id: &str) -> Result<Arc<Job>, Problem> {
        self.lock().jobs.get(id).cloned().ok_or_else(|| Problem::missing("such restoration"))
    }

    /// All jobs, newest first.
    pub fn list(&self) -> Vec<Arc<Job>> {
        let mut jobs: Vec<_> =
            self.lock().jobs.values().map(|job| (job.record().created, job.clone())).collect();
        jobs.sort_by(|a, b| b.0.total_cmp(&a.0));
        jobs.into_iter().map(|(_, job)| job).collect()
    }

    /// Jobs before this one, the running ones included; nothing if it does not wait.
    pub fn position(&self, id: &str) -> Option<usize> {
        let all = self.lock();
        Some(all.queue.iter().position(|job| job.id == id)? + all.running)
    }

    /// Refuses where the queue is full or the server ends.
    pub fn check_room(&self) -> Result<(), Problem> {
        if *self.closing.borrow() {
            return Err(Problem { status: 503, ..Problem::busy("the server is about to end", 30) });
        }
        let waiting = self.lock().queue.len();
        if waiting < self.limits.queue {
            return Ok(());
        }
        Err(Problem::busy(format!("{waiting} jobs wait already: try again later"), 10))
    }

    /// Reserves a client's key for what is being uploaded with it, or gives the job that it stands for.
    pub fn reserve<'a>(&'a self, key: &str) -> Result<Reserved<'a>, Problem> {
        match self.lock().keys.entry(key.to_string()) {
            std::collections::hash_map::Entry::Occupied(entry) => match entry.get() {
                Some(job) => Ok(Reserved::Known(job.clone())),
                None => Err(Problem {
                    status: 409,
                    title: "Conflict".into(),
                    ..Problem::busy("a request with this Idempotency-Key is still being taken", 1)
                }),
            },
            std::collections::hash_map::Entry::Vacant(entry) => {
                entry.insert(None);
                Ok(Reserved::New(Reservation { jobs: self, key: key.to_string() }))
            }
        }
    }

    /// Accepts a job; `place` brings what was sent to where it belongs. When this returns, it survives the server's death.
    pub fn add(
        &self,
        New { plan, name, mask, size, bytes, key }: New,
        place: impl FnOnce(&dyn Fn(Of) -> PathBuf) -> io::Result<()>,
    ) -> Result<Arc<Job>, Problem> {
        self.check_room()?;
        let record = Record {
            id: new_id().map_err(Problem::internal)?,
            name,
            mask,
            options: plan.options,
            command: plan.command,
            extension: plan.extension.into(),
            size,
            samples: plan.results,
            pixels: plan.pixels,
            state: State::Queued,
            attempts: 0,
            created: now(),
            started: None,
            ended: None,
            key: key.clone(),
            notes: Vec::new(),
            results: Vec::new(),
            stage1: false,
            stability: None,
            error: None,
            bytes,
        };
        self.store.add(&record, place).map_err(Problem::internal)?;
        let job = Job::new(record, 0);
        let mut all = self.lock();
        // Others may have come while this one was written.
        if all.queue.len() >= self.limits.queue {
            drop(all);
            self.store.remove(&job.id);
            return Err(Problem::busy("the queue is full: try again later", 10));
        }
        all.jobs.insert(job.id.clone(), job.clone());
        all.queue.push_back(job.clone());
        if let Some((key, _)) = key {
            all.keys.insert(key, Some(job.clone()));
        }
        job.log.tell(Event::Queued { position: all.queue.len() - 1 + all.running });
        drop(all);
        self.metrics.accepted.count();
        self.more.notify_one();
        Ok(job)
    }

    /// The next job for a device, once there is one; nothing when the server ends.
    pub fn take(&self) -> Option<Arc<Job>> {
        let mut all = self.lock();
        loop {
            if *self.closing.borrow() {
                return None;
            }
            if let Some(job) = all.queue.pop_front() {
                all.running += 1;
                all.tell_positions();
                drop(all);
                let mut record = job.record();
                (record.state, record.started) = (State::Running, Some(now()));
                record.attempts += 1;
                (record.results, record.stage1, record.stability, record.notes) = Default::default();
                drop(record);
                self.keep(&job);
                return Some(job);
            }
            all = self.more.wait(all).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Writes a job's record anew, unless the job was removed. A disk that is full is no reason to stop.
    fn keep(&self, job: &Job) {
        // A copy, so that nobody who only wants to read waits for the disk.
        let record = job.record().clone();
        self.keep_as(job, &record);
    }

    /// Writes what a job's record is about to be.
    fn keep_as(&self, job: &Job, record: &Record) {
        if job.cancelled.load(Ordering::SeqCst) {
            return;
        }
        if let Err(error) = self.store.keep(record) {
            crate::log(format_args!("a job cannot be written: {error}"));
        }
    }

    /// A job that was taken has ended.
    pub fn end(&self, job: &Arc<Job>, end: End) {
        let mut record = job.record().clone();
        self.metrics.busy_ms.add(((now() - record.started.unwrap_or_else(now)) * 1e3) as u64);
        match end {
            End::Done => record.state = State::Done,
            End::Failed(error) => (record.state, record.error) = (State::Failed, Some(error)),
            // It is gone on with when the server is there again; that it ended is no fault of the job.
            End::Stopped => {
                (record.state, record.attempts) = (State::Queued, record.attempts.saturating_sub(1))
            }
        }
        if record.state.is_end() {
            record.ended = Some(now());
        }
        let state = record.state;
        // What somebody is told outlives a server that is killed the moment after.
        self.keep_as(job, &record);
        *job.record() = record;
        let mut all = self.lock();
        all.running -= 1;
        all.tell_positions();
        // Whoever removes it later sees that it has ended.
        let removed = job.cancelled.load(Ordering::SeqCst);
        drop(all);
        if removed {
            self.store.remove(&job.id);
        } else if state.is_end() {
            match state {
                State::Done => self.metrics.done.count(),
                _ => self.metrics.failed.count(),
            }
            job.tell_end();
            self.sweep();
        }
    }

    /// Removes a job. One that is being restored stops soon and frees its files then.
    pub fn remove(&self, id: &str) -> Result<(), Problem> {
        let mut all = self.lock();
        let job = all.jobs.remove(id).ok_or_else(|| Problem::missing("such restoration"))?;
        all.forget(&job);
        let waited = all.queue.iter().position(|other| other.id == id).map(|index| all.queue.remove(index));
        all.tell_positions();
        // Set while the queue is held: whoever takes jobs sees it, or does not see the job.
        job.cancelled.store(true, Ordering::SeqCst);
        drop(all);
        let runs = waited.is_none() && !job.record().state.is_end();
        if !job.record().state.is_end() {
            self.metrics.cancelled.count();
        }
        job.log.end(Event::Error { error: Problem::cancelled() });
        if runs {
            self.store.forget(id)
        } else {
            self.store.remove(id)
        }
        Ok(())
    }

    /// Removes what ended longest ago, until the rest is within the limits.
    fn sweep(&self) {
        let mut all = self.lock();
        let ended = |job: &&Arc<Job>| job.record().state.is_end();
        let mut old: Vec<_> = all.jobs.values().filter(ended).cloned().collect();
        old.sort_by(|a, b| a.record().ended.unwrap_or(0.0).total_cmp(&b.record().ended.unwrap_or(0.0)));
        let mut bytes: u64 = old.iter().map(|job| job.record().bytes).sum();
        let mut count = old.len();
        let mut swept = Vec::new();
        for job in old {
            // The newest stays, however large it is: somebody is about to ask for it.
            if count <= 1 || count <= self.limits.kept_jobs && bytes <= self.limits.kept_bytes {
                break;
            }
            (count, bytes) = (count - 1, bytes - job.record().bytes);
            all.jobs.remove(&job.id);
            all.forget(&job);
            swept.push(job);
        }
        drop(all);
        swept.iter().for_each(|job| self.store.remove(&job.id));
    }

    /// What goes on.
    pub fn now(&self) -> Now {
        let all = self.lock();
        let bytes = all.jobs.values().map(|job| job.record().bytes).sum();
        Now { queued: all.queue.len(), running: all.running, kept: all.jobs.len(), bytes }
    }

    /// Begins nothing new.
    pub fn close(&self) {
        // Held, so that nobody looks and then sleeps in between.
        let _all = self.lock();
        self.closing.send_replace(true);
        self.more.notify_all();
    }
}

impl All {
    /// Frees a job's key.
    fn forget(&mut self, job: &Arc<Job>) {
        if let Some((key, _)) = &job.record().key {
            self.keys.remove(key);
        }
    }

    fn tell_positions(&self) {
        for (index, job) in self.queue.iter().enumerate() {
            job.log.tell(Event::Queued { position: index + self.running });
        }
    }
}

/// What a client's key stands for.
pub enum Reserved<'a> {
    /// A job that is there.
    Known(Arc<Job>),
    /// Nothing yet.
    New(#[expect(dead_code, reason = "is held, not read")] Reservation<'a>),
}

/// A key that is taken until its job is there, or the request has failed.
pub struct Reservation<'a> {
    jobs: &'a Jobs,
    key: String,
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        let mut all = self.jobs.lock();
        if matches!(all.keys.get(&self.key), Some(None)) {
            all.keys.remove(&self.key);
        }
    }
}
