//! Counts for Prometheus.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};

/// What has happened since the server began.
#[derive(Default)]
pub struct Metrics {
    /// Jobs that were accepted.
    pub accepted: Counter,
    /// Requests for jobs that were refused, whyever.
    pub refused: Counter,
    /// Jobs that ended with results.
    pub done: Counter,
    /// Jobs that ended without.
    pub failed: Counter,
    /// Jobs that were removed before their end.
    pub cancelled: Counter,
    /// Requests of any kind.
    pub requests: Counter,
    /// Milliseconds that jobs took.
    pub busy_ms: Counter,
}

/// A number that grows.
#[derive(Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// One more.
    pub fn count(&self) {
        self.add(1);
    }

    /// So many more.
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Metrics {
    /// As Prometheus reads them, with what there is now.
    pub fn text(&self, queued: usize, running: usize, kept: usize, kept_bytes: u64) -> String {
        let mut text = String::new();
        let mut family = |name: &str, kind: &str, help: &str, rows: &[(&str, f64)]| {
            let _ = writeln!(text, "# HELP diffbir_{name} {help}\n# TYPE diffbir_{name} {kind}");
            for (labels, value) in rows {
                let _ = writeln!(text, "diffbir_{name}{labels} {value}");
            }
        };
        let count = |counter: &Counter| counter.get() as f64;
        family("http_requests_total", "counter", "Requests of any kind.", &[("", count(&self.requests))]);
        let ends = [
            ("{end=\"done\"}", count(&self.done)),
            ("{end=\"failed\"}", count(&self.failed)),
            ("{end=\"cancelled\"}", count(&self.cancelled)),
        ];
        family("jobs_accepted_total", "counter", "Jobs that were accepted.", &[("", count(&self.accepted))]);
        family(
            "jobs_refused_total",
            "counter",
            "Requests for jobs that were refused.",
            &[("", count(&self.refused))],
        );
        family("jobs_ended_total", "counter", "Jobs that ended, by how.", &ends);
        family("job_seconds_total", "counter", "Time that jobs took.", &[("", count(&self.busy_ms) / 1e3)]);
        family("jobs_queued", "gauge", "Jobs that wait.", &[("", queued as f64)]);
        family("jobs_running", "gauge", "Jobs that are being restored.", &[("", running as f64)]);
        family("jobs_kept", "gauge", "Jobs that are kept, waiting ones included.", &[("", kept as f64)]);
        family("kept_bytes", "gauge", "Bytes of the files of jobs.", &[("", kept_bytes as f64)]);
        text
    }
}
