//! A `diffbir serve` of its own.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// A server that is killed when it is dropped.
pub struct Server {
    child: Child,
    pub address: SocketAddr,
}

impl Server {
    /// Without models, and without a way to get them.
    pub fn on(data: &Path) -> Self {
        Self::with(data, Path::new("no/models/here"), "http://127.0.0.1:9")
    }

    /// With this folder of models, whose files come from a mirror.
    pub fn with(data: &Path, models: &Path, mirror: &str) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_diffbir"))
            .args(["serve", "--port", "0", "--device", "cpu", "--data"])
            .arg(data)
            .env("DIFFBIR_MODELS", models)
            .env("DIFFBIR_MIRROR", mirror)
            .env("HF_HUB_CACHE", "no/hub/here")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut lines = lines.map_while(Result::ok);
        let address = lines.find_map(|line| line.split('/').nth(2).and_then(|address| address.parse().ok()));
        // What it says later is read, so that it never waits for a reader.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, address: address.expect("it says where it listens") }
    }
}

#[cfg(target_os = "linux")]
impl Server {
    /// Bytes that it holds in memory.
    pub fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
