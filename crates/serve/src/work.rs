//! The thread of a device: one job after another.

use crate::engine::{Encoded, Engine, Failure, Follow, Made, Sent};
use crate::events::Event;
use crate::job::Job;
use crate::jobs::{End, Jobs};
use crate::problem::Problem;
use crate::store::Of;
use axum::http::StatusCode;
use diffbir_imaging::write_atomic;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

/// Steps are told of this often at most.
const TELL_EVERY: Duration = Duration::from_millis(100);

/// Restores until the server ends.
pub fn work(jobs: &Jobs, engine: &dyn Engine, device: usize) {
    let mut restorer = None;
    while let Some(job) = jobs.take() {
        let record = job.record().clone();
        let (file, mask_file) = (jobs.store.file(&record, Of::Input), jobs.store.file(&record, Of::Mask));
        let picture = Sent { file: &file, name: &record.name };
        let mask = record.mask.as_deref().map(|name| Sent { file: &mask_file, name });
        let mut following = Following::new(jobs, &job);
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            let restorer = restorer.get_or_insert_with(|| engine.restorer(device));
            restorer.restore(&record.options, picture, mask, &mut following)
        }));
        let too_long = following.since.elapsed() > jobs.limits.job;
        let end = match outcome {
            Ok(Ok(())) => End::Done,
            Ok(Err(Failure::Stopped)) if too_long => End::Failed(Problem::new(
                StatusCode::SERVICE_UNAVAILABLE,
                format!("it took longer than the {} s that a job may take here", jobs.limits.job.as_secs()),
            )),
            Ok(Err(Failure::Stopped)) => End::Stopped,
            Ok(Err(Failure::Told(problem))) => End::Failed(problem),
            Ok(Err(Failure::Internal(reason))) => End::Failed(Problem::internal(reason)),
            Err(_) => {
                // What panicked may be in any state.
                restorer = None;
                End::Failed(Problem::internal(format_args!("the engine panicked on job {}", job.id)))
            }
        };
        jobs.end(&job, end);
    }
}

/// Tells the world of one restoration, and keeps its files.
struct Following<'a> {
    jobs: &'a Jobs,
    job: &'a Arc<Job>,
    since: Instant,
    stage: Option<Stage>,
}

/// The stage that goes on.
struct Stage {
    name: String,
    told: Instant,
    /// The first count above 0, and when: the first part of a stage may hold work for all.
    first: Option<(usize, Instant)>,
}

impl<'a> Following<'a> {
    fn new(jobs: &'a Jobs, job: &'a Arc<Job>) -> Self {
        Self { jobs, job, since: Instant::now(), stage: None }
    }

    fn write(&self, of: Of, bytes: &[u8]) -> Result<(), Failure> {
        let file = self.jobs.store.file(&self.job.record(), of);
        write_atomic(&file, bytes).map_err(|error| Failure::Internal(error.to_string()))?;
        self.job.record().bytes += bytes.len() as u64;
        Ok(())
    }

    fn picture(&self, picture: &Encoded, of: impl Fn(bool) -> Of) -> Result<(), Failure> {
        self.write(of(false), &picture.bytes)?;
        picture.view.as_ref().map_or(Ok(()), |view| self.write(of(true), view))
    }
}

impl Follow for Following<'_> {
    fn progress(&mut self, stage: &str, done: usize, total: usize) -> ControlFlow<()> {
        let now = Instant::now();
        if self.stage.as_ref().is_none_or(|running| running.name != stage) {
            self.stage = Some(Stage { name: stage.into(), told: now, first: None });
            self.job.log.tell(Event::Stage { stage: stage.into() });
        }
        if let Some(running) = &mut self.stage {
            let due = now - running.told >= TELL_EVERY || done == total;
            let first = (done > 0).then(|| *running.first.get_or_insert((done, now)));
            if total > 0 && (due || done == 0) {
                let eta_s = first.filter(|(first, _)| done > *first).map(|(first, then)| {
                    (now - then).as_secs_f64() * (total - done) as f64 / (done - first) as f64
                });
                running.told = now;
                self.job.log.tell(Event::Step { stage: stage.into(), done, total, eta_s });
            }
        }
        if self.stopped()() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn stopped(&self) -> Box<dyn Fn() -> bool + Send + Sync> {
        let (job, leaving) = (self.job.clone(), self.jobs.leaving.clone());
        let (since, limit) = (self.since, self.jobs.limits.job);
        Box::new(move || {
            job.cancelled.load(Ordering::SeqCst) || leaving.load(Ordering::SeqCst) || since.elapsed() > limit
        })
    }

    fn note(&mut self, text: &str) {
        self.job.record().notes.push(text.into());
        self.job.log.tell(Event::Note { note: text.into() });
    }

    fn preview(&mut self, step: usize, jpeg: Vec<u8>) {
        *self.job.preview.lock().unwrap_or_else(PoisonError::into_inner) = Some(jpeg.into());
        let href = self.job.href(&format!("/preview?step={step}"));
        self.job.log.tell(Event::Preview { preview: step, href });
    }

    fn before(&mut self, png: &[u8]) -> Result<(), Failure> {
        self.write(Of::Before, png)
    }

    fn stage1(&mut self, picture: &Encoded) -> Result<(), Failure> {
        self.picture(picture, |view| Of::Stage1 { view })?;
        self.job.record().stage1 = true;
        Ok(())
    }

    fn result(&mut self, picture: &Encoded, made: Made) -> Result<(), Failure> {
        let sample = self.job.record().results.len();
        self.picture(picture, |view| Of::Result { sample, view })?;
        self.job.record().results.push(made);
        Ok(())
    }

    fn stability(&mut self, map: &[u8], mean: f64) -> Result<(), Failure> {
        self.write(Of::Stability, map)?;
        self.job.record().stability = Some(mean);
        Ok(())
    }
}
