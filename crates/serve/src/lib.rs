//! The page and the HTTP API: pictures come in, wait, are restored one after another, and can be had.
//!
//! Nothing here knows networks: an [`Engine`] restores. The threads that answer requests never compute; each device
//! has one thread that does.

pub mod engine;
mod events;
mod guard;
mod http;
mod job;
mod jobs;
mod metrics;
pub mod problem;
mod record;
mod routes;
pub mod settings;
mod store;
mod upload;
mod work;

pub use engine::Engine;
pub use settings::{Limits, Settings};

use jobs::Jobs;
use routes::pulls::Pulls;
use std::fmt::Display;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use store::Store;
use tokio::sync::{Semaphore, oneshot};

/// Threads that answer requests.
const THREADS: usize = 2;

/// Threads that wait for the disk.
const DISK_THREADS: usize = 8;

/// What requests are answered from.
pub(crate) struct App {
    jobs: Arc<Jobs>,
    engine: Arc<dyn Engine>,
    settings: Settings,
    pulls: Pulls,
    /// Uploads that go on.
    uploads: Semaphore,
    /// Pictures that are held in memory as JSON.
    json_slots: Semaphore,
    /// Files whose headers are looked at.
    looks: Semaphore,
}

/// A line for the owner of the server.
pub(crate) fn log(text: impl Display) {
    use std::io::Write;
    let _ = writeln!(io::stderr(), "{text}");
}

/// Tells a server to end.
pub struct End(Option<oneshot::Sender<()>>);

/// What a server hears that from.
pub struct Ended(oneshot::Receiver<()>);

/// The two ends of a signal.
pub fn end_signal() -> (End, Ended) {
    let (end, ended) = oneshot::channel();
    (End(Some(end)), Ended(ended))
}

impl End {
    /// Tells it.
    pub fn signal(&mut self) {
        if let Some(end) = self.0.take() {
            let _ = end.send(());
        }
    }
}

/// A server that has its port and its jobs.
pub struct Server {
    app: Arc<App>,
    listener: TcpListener,
}

impl Server {
    /// Takes the port and the folder of jobs.
    ///
    /// # Errors
    /// Where one of them cannot be had.
    pub fn open(settings: Settings, engine: Arc<dyn Engine>) -> io::Result<Self> {
        let named =
            |what: String| move |error: io::Error| io::Error::new(error.kind(), format!("{what}: {error}"));
        let address = settings.listen;
        let listener =
            TcpListener::bind(address).map_err(named(format!("{address}: cannot be listened on")))?;
        listener.set_nonblocking(true)?;
        let store = Store::open(&settings.data).map_err(named(settings.data.display().to_string()))?;
        let jobs = Jobs::open(store, settings.limits).map_err(named(settings.data.display().to_string()))?;
        let app = App {
            jobs: Arc::new(jobs),
            engine,
            pulls: Pulls::default(),
            uploads: Semaphore::new(settings.limits.uploads),
            json_slots: Semaphore::new(4),
            looks: Semaphore::new(2),
            settings,
        };
        Ok(Self { app: Arc::new(app), listener })
    }

    /// Where it listens.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Answers until it is told to end; then the running jobs end, or stop and wait for the next start.
    pub fn run(self, ended: Ended) -> io::Result<()> {
        let Self { app, listener } = self;
        let workers: Vec<_> = (0..app.engine.devices())
            .map(|device| {
                let (jobs, engine) = (app.jobs.clone(), app.engine.clone());
                std::thread::Builder::new()
                    .name(format!("restore-{device}"))
                    .spawn(move || work::work(&jobs, &*engine, device))
            })
            .collect::<io::Result<_>>()?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(THREADS)
            .max_blocking_threads(DISK_THREADS)
            .thread_name("answer")
            .enable_all()
            .build()?;
        let jobs = app.jobs.clone();
        let pulls = app.clone();
        let grace = app.settings.grace;
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            let router = routes::router(app.clone());
            tokio::select! {
                () = http::accept(listener, router, app.jobs.limits) => {}
                _ = ended.0 => {}
            }
            Ok::<_, io::Error>(())
        })?;
        jobs.close();
        pulls.pulls.stop();
        // Answers that are on their way may still be read.
        let until = Instant::now() + grace;
        while workers.iter().any(|worker| !worker.is_finished()) {
            if Instant::now() >= until {
                jobs.leaving.store(true, Ordering::SeqCst);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        runtime.shutdown_timeout(Duration::from_millis(500));
        Ok(())
    }
}
