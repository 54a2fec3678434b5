//! What the owner of a server settles.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// How a server runs.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where it listens; port 0 takes a free one.
    pub listen: SocketAddr,
    /// What requests have to show, if anything.
    pub token: Option<String>,
    /// Names by which it is reached, besides `localhost` and addresses in numbers.
    pub hosts: Vec<String>,
    /// The folder of jobs.
    pub data: PathBuf,
    /// How long the running job may go on when the server is told to end.
    pub grace: Duration,
    /// What it takes at most.
    pub limits: Limits,
}

/// What a server takes at most.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of an uploaded picture.
    pub upload_bytes: u64,
    /// Pixels of an uploaded picture.
    pub pixels: u64,
    /// Pixels of a result.
    pub output_pixels: u64,
    /// Results of one job.
    pub results: usize,
    /// Jobs that wait.
    pub queue: usize,
    /// Time of one job.
    pub job: Duration,
    /// Jobs that are kept after their end.
    pub kept_jobs: usize,
    /// Bytes that are kept of them.
    pub kept_bytes: u64,
    /// Connections at once.
    pub connections: usize,
    /// Uploads at once.
    pub uploads: usize,
    /// How long a request may bring no byte.
    pub silence: Duration,
    /// How long a client may take no byte of an answer that waits for it.
    pub untaken: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            upload_bytes: 64 << 20,
            pixels: 50_000_000,
            output_pixels: 24_000_000,
            results: 12,
            queue: 32,
            job: Duration::from_secs(3600),
            kept_jobs: 200,
            kept_bytes: 2 << 30,
            connections: 2048,
            uploads: 64,
            silence: Duration::from_secs(15),
            // A browser that holds a download back until somebody has chosen its place takes nothing meanwhile.
            untaken: Duration::from_secs(60),
        }
    }
}
