//! Batches, made by threads a few steps ahead of the trainer.

use super::Pictures;
use super::error::DataError;
use super::example::{Example, ExampleConfig, Id};
use crate::degrade::generator;
use crate::degrade::pool::Pool;
use crate::run::Report;
use rayon::prelude::*;
use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How batches are loaded.
#[derive(Clone, Debug, PartialEq)]
pub struct LoadConfig {
    /// From which all that is drawn follows.
    pub seed: u64,
    /// Examples a batch.
    pub batch: usize,
    /// Threads; without a number one for each core. It changes the speed and nothing else.
    pub workers: Option<usize>,
}

/// How many batches are made ahead; more where they are small, so that no thread stands still.
const AHEAD: usize = 2;

/// The batches of a run, in the order of its steps.
pub struct Batches {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    pool: Option<Pool<Arc<Example>>>,
    step: u64,
    waited: Duration,
}

/// What workers and receiver share.
struct Shared {
    pictures: Pictures,
    config: ExampleConfig,
    load: LoadConfig,
    queue: Mutex<Queue>,
    /// A worker has put something into the queue.
    made: Condvar,
    /// The receiver has taken something out.
    taken: Condvar,
}

struct Queue {
    /// The next example that nobody makes yet, over all steps.
    next: u64,
    /// Below which examples may be made.
    end: u64,
    made: HashMap<Id, Result<Example, DataError>>,
    stop: bool,
    /// A worker has panicked.
    broken: bool,
}

impl Pictures {
    /// The batches from step `first` on, counted from 0: a run that is resumed after some steps gives their number,
    /// and gets what it would have got without the stop. With a pool, the pairs that it held by then are made anew
    /// first.
    ///
    /// # Panics
    /// When a batch is of no examples.
    pub fn batches(
        &self,
        config: &ExampleConfig,
        load: &LoadConfig,
        first: u64,
    ) -> Result<Batches, DataError> {
        let batch = load.batch;
        assert!(batch > 0, "a batch has at least one example");
        self.fill(batch)?;
        let pool = match config.pool {
            0 => None,
            pool => Some(self.pool_at(config, load, first, pool)?),
        };
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        let workers = load.workers.unwrap_or_else(cores).max(1);
        let start = first * batch as u64;
        let queue = Queue {
            next: start,
            end: start + AHEAD as u64 * batch.max(workers) as u64,
            made: HashMap::new(),
            stop: false,
            broken: false,
        };
        let shared = Arc::new(Shared {
            pictures: self.clone(),
            config: config.clone(),
            load: load.clone(),
            queue: Mutex::new(queue),
            made: Condvar::new(),
            taken: Condvar::new(),
        });
        let workers = (0..workers)
            .map(|_| {
                let shared = shared.clone();
                std::thread::spawn(move || shared.work())
            })
            .collect();
        Ok(Batches { shared, workers, pool, step: first, waited: Duration::ZERO })
    }

    /// The pool as it is before step `first`: which pairs it holds follows from the permutations of all steps
    /// before, which are gone through with the pairs' numbers.
    fn pool_at(
        &self,
        config: &ExampleConfig,
        load: &LoadConfig,
        first: u64,
        pool: usize,
    ) -> Result<Pool<Arc<Example>>, DataError> {
        let batch = load.batch;
        let mut ids = Pool::new(pool, batch).ok_or(DataError::Pool { pool, batch })?;
        for step in 0..first {
            let examples = (0..batch).map(|place| Id { step, place }).collect();
            ids.exchange(examples, &mut permutation(load.seed, step));
        }
        let mut held = Vec::new();
        let ids = ids.try_map(|id| {
            held.push(id);
            Ok::<_, DataError>(())
        })?;
        let made: Vec<_> = held.par_iter().map(|&id| self.example(config, load.seed, batch, id)).collect();
        let mut made = made.into_iter();
        ids.try_map(|()| made.next().expect("one for each").map(Arc::new))
    }
}

fn permutation(seed: u64, step: u64) -> rand_chacha::ChaCha8Rng {
    generator(seed, &format!("pool/{step}"))
}

impl Batches {
    /// The next batch. It tells of pictures that were left out; an error ends the run.
    pub fn next(&mut self, report: &mut dyn FnMut(Report)) -> Result<Vec<Example>, DataError> {
        let since = Instant::now();
        let batch = self.shared.load.batch;
        let ids = (0..batch).map(|place| Id { step: self.step, place });
        let mut queue = self.shared.queue();
        while !ids.clone().all(|id| queue.made.contains_key(&id)) {
            assert!(!queue.broken, "a thread that makes examples has panicked");
            queue = self.shared.made.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        let examples: Vec<_> = ids.filter_map(|id| queue.made.remove(&id)).collect();
        queue.end += batch as u64;
        drop(queue);
        self.shared.taken.notify_all();
        self.waited += since.elapsed();
        self.shared.pictures.tell(report);
        let examples = examples.into_iter().collect::<Result<Vec<_>, _>>()?;
        let mut random = permutation(self.shared.load.seed, self.step);
        self.step += 1;
        Ok(match &mut self.pool {
            None => examples,
            Some(pool) => {
                let mixed = pool.exchange(examples.into_iter().map(Arc::new).collect(), &mut random);
                mixed.into_iter().map(Arc::unwrap_or_clone).collect()
            }
        })
    }

    /// The step that the next batch is for.
    pub fn step(&self) -> u64 {
        self.step
    }

    /// How long [`Batches::next`] has waited for examples in all.
    pub fn waited(&self) -> Duration {
        self.waited
    }
}

impl Drop for Batches {
    fn drop(&mut self) {
        self.shared.queue().stop = true;
        self.shared.taken.notify_all();
        for worker in self.workers.drain(..) {
            // One that panicked has said so.
            let _ = worker.join();
        }
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes one example after the other, as long as the receiver lives.
    fn work(&self) {
        let _alarm = Alarm(self);
        let LoadConfig { seed, batch, .. } = self.load;
        loop {
            let mut queue = self.queue();
            while queue.next >= queue.end && !queue.stop {
                queue = self.taken.wait(queue).unwrap_or_else(PoisonError::into_inner);
            }
            if queue.stop {
                return;
            }
            let number = queue.next;
            queue.next += 1;
            drop(queue);
            let id = Id { step: number / batch as u64, place: (number % batch as u64) as usize };
            let example = self.pictures.example(&self.config, seed, batch, id);
            self.queue().made.insert(id, example);
            self.made.notify_one();
        }
    }
}

/// Wakes the receiver when a worker panics: it would wait for ever.
struct Alarm<'a>(&'a Shared);

impl Drop for Alarm<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.queue().broken = true;
            self.0.made.notify_one();
        }
    }
}
