//! A server whose engine does as it is told.
#![allow(dead_code, reason = "no test file needs all of it")]

pub mod client;

use axum::http::StatusCode;
use diffbir_imaging::{Format, encode_rgb};
use diffbir_serve::engine::{
    Controls, Encoded, Engine, Failure, Follow, Harm, Made, Model, ModelFile, Options, Plan, Pull, Purpose,
    Restorer, Sent,
};
use diffbir_serve::problem::Problem;
use diffbir_serve::{End, Limits, Server, Settings, end_signal};
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Gives the picture back after `ms` milliseconds, its mask where there is one, with `pad` bytes behind it; `fail` and
/// `panic` are other ends.
struct Mirror;

fn number(options: &Options, name: &str) -> u64 {
    let value = options.get(name).and_then(|value| value.as_str()?.parse().ok());
    value.unwrap_or(0)
}

impl Engine for Mirror {
    fn controls(&self) -> Controls {
        Controls { options: Vec::new(), presets: Vec::new() }
    }

    fn plan(
        &self,
        options: &Options,
        (width, height): (u32, u32),
        mask: Option<&str>,
    ) -> Result<Plan, Problem> {
        if options.contains_key("wrong") {
            return Err(Problem::refused("wrong: there is no such option"));
        }
        Ok(Plan {
            options: options.clone(),
            command: mask.map(|name| format!("--mask={name}")).into_iter().collect(),
            results: number(options, "samples").max(1) as usize,
            pixels: u64::from(width) * u64::from(height) * number(options, "factor").max(1),
            working_pixels: number(options, "working"),
            extension: "png",
        })
    }

    fn devices(&self) -> usize {
        1
    }

    fn restorer(&self, _device: usize) -> Box<dyn Restorer> {
        Box::new(Mirror)
    }

    fn models(&self) -> Vec<Model> {
        let file = ModelFile { name: "w".into(), size: "1 MB".into(), licence: "CC0".into(), present: false };
        let model = |id: &str, files| Model {
            id: id.into(),
            purpose: Purpose::Model,
            about: String::new(),
            present: false,
            tasks: Vec::new(),
            ready: Vec::new(),
            prompts: false,
            defaults: Options::new(),
            files,
        };
        vec![model("built-in", Vec::new()), model("large", vec![file.clone()]), model("slow", vec![file])]
    }

    fn pull(&self, model: &str, watch: &mut dyn FnMut(Pull) -> ControlFlow<()>) -> Result<(), Problem> {
        let steps = if model == "slow" { u64::MAX } else { 3 };
        for done in 0..steps {
            let told = Pull { file: "w".into(), checking: false, done, total: Some(3), note: None };
            if watch(told).is_break() {
                return Err(Problem::new(StatusCode::CONFLICT, "stopped"));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

impl Restorer for Mirror {
    fn restore(
        &mut self,
        options: &Options,
        picture: Sent,
        mask: Option<Sent>,
        follow: &mut dyn Follow,
    ) -> Result<(), Failure> {
        let since = Instant::now();
        let time = Duration::from_millis(number(options, "ms"));
        let steps = (time.as_millis() as usize / 30).max(10);
        for done in 0..=steps {
            if follow.progress("sample", done, steps).is_break() {
                return Err(Failure::Stopped);
            }
            follow.preview(done, vec![0xff, 0xd8, done as u8]);
            std::thread::sleep((time / steps as u32).min(time.saturating_sub(since.elapsed())));
        }
        if options.contains_key("panic") {
            panic!("as asked");
        }
        if options.contains_key("fail") {
            return Err(Failure::Internal("/secret/place: cannot be read".into()));
        }
        let read =
            |sent: Sent| std::fs::read(sent.file).map_err(|error| Failure::Internal(error.to_string()));
        let bytes = read(picture)?;
        follow.stage1(&Encoded { bytes: bytes.clone(), view: None })?;
        let mut bytes = mask.map_or(Ok(bytes), read)?;
        bytes.resize(bytes.len() + number(options, "pad") as usize, 0);
        for seed in 0..number(options, "samples").max(1) {
            let harm = options.contains_key("harm").then_some(Harm { parts: 6, harmed: 2, kept: false });
            let made = Made { seed, width: 4, height: 3, bytes: bytes.len() as u64, harm };
            follow.result(&Encoded { bytes: bytes.clone(), view: None }, made)?;
        }
        if options.contains_key("stability") {
            follow.stability(&picture_of(7), 0.25)?;
        }
        Ok(())
    }
}

/// A server that runs until it is dropped.
pub struct Running {
    pub address: SocketAddr,
    end: End,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    pub fn on(data: &Path, change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = Settings {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            token: None,
            hosts: Vec::new(),
            data: data.to_path_buf(),
            grace: Duration::ZERO,
            limits: Limits::default(),
        };
        change(&mut settings);
        let server = Server::open(settings, Arc::new(Mirror)).unwrap();
        let address = server.address().unwrap();
        let (end, ended) = end_signal();
        let thread = std::thread::spawn(move || server.run(ended).unwrap());
        Self { address, end, thread: Some(thread) }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end.signal();
        let ended = self.thread.take().expect("it runs").join();
        assert!(ended.is_ok() || std::thread::panicking(), "the server ends in peace");
    }
}

/// A server with limits of its own, and its folder.
pub fn server(change: impl FnOnce(&mut Settings)) -> (Running, TempDir) {
    let data = TempDir::new().unwrap();
    (Running::on(data.path(), change), data)
}

/// A small picture.
pub fn picture() -> Vec<u8> {
    picture_of(0)
}

/// Another one for each number.
pub fn picture_of(first: u8) -> Vec<u8> {
    encode_rgb((4, 3), (first..first + 36).collect(), Format::Png, None).unwrap()
}
