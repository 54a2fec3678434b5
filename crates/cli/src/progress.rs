//! What is told while a person or a program waits: a bar on a terminal, plain lines into a pipe, events
//! for programs.

use diffbir::{Progress, Stage};
use indicatif::{HumanDuration, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use serde::Serialize;
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::time::{Duration, Instant};

/// How it is told.
pub enum Reporter {
    /// On a terminal.
    Bar(ProgressBar),
    /// Into a pipe.
    Lines(Option<Running>),
    /// For programs.
    Json(Option<Progress>),
}

/// The stage that is going on.
pub struct Running {
    stage: Stage,
    since: Instant,
    /// When it was last told of.
    told: Instant,
}

/// Into a pipe a stage that takes long is told of this often.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// An event, one JSON object a line.
#[derive(Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event<'a> {
    /// The run begins.
    Start { pictures: usize, model: &'a str, device: &'a str },
    /// A stage of a picture goes on.
    Progress { input: &'a Path, stage: String, done: usize, total: usize },
    /// A result was written.
    Done { input: &'a Path, output: &'a Path, seed: u64, width: usize, height: usize, seconds: f64 },
    /// A picture could not be restored.
    Error { input: &'a Path, message: &'a str },
    /// The run is over.
    End { model: &'a str, restored: usize, skipped: usize, failed: usize },
}

impl Reporter {
    /// As the surroundings ask for.
    pub fn new(json: bool) -> Self {
        if json {
            return Self::Json(None);
        }
        if !std::io::stderr().is_terminal() {
            return Self::Lines(None);
        }
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        let style = "{prefix} {msg:<8} {bar:24} {pos}/{len} {elapsed} {left}";
        // Before the first step of a stage nobody knows how long it takes.
        let left = |state: &ProgressState, line: &mut dyn std::fmt::Write| {
            if state.pos() > 0 && Some(state.pos()) < state.len() {
                let _ = write!(line, "ETA {}", HumanDuration(state.eta()));
            }
        };
        let style = ProgressStyle::with_template(style).expect("a valid template").with_key("left", left);
        bar.set_style(style);
        Self::Bar(bar)
    }

    /// A picture begins.
    pub fn picture(&mut self, number: usize, total: usize, name: &str) {
        match self {
            Self::Bar(bar) => {
                bar.reset();
                bar.set_prefix(format!("[{number}/{total}] {name}"));
                bar.enable_steady_tick(Duration::from_millis(250));
            }
            Self::Lines(stage) => {
                *stage = None;
                eprintln!("[{number}/{total}] {name}");
            }
            Self::Json(last) => *last = None,
        }
    }

    /// A step of a picture.
    pub fn step(&mut self, input: &Path, progress: Progress) {
        match self {
            Self::Bar(bar) => {
                if progress.done == 0 {
                    bar.reset_eta();
                }
                bar.set_message(progress.stage.to_string());
                bar.set_length(progress.total as u64);
                bar.set_position(progress.done as u64);
            }
            Self::Lines(running) => {
                let Progress { stage, done, total } = progress;
                let now = Instant::now();
                let new = || Running { stage, since: now, told: now };
                if running.as_ref().is_none_or(|running| running.stage != stage) {
                    *running = Some(new());
                }
                let running = running.get_or_insert_with(new);
                let elapsed = now - running.since;
                if done == total && total > 0 {
                    eprintln!("  {stage}: {:.1} s", elapsed.as_secs_f64());
                    *running = new();
                } else if done > 0 && now - running.told >= TELL_EVERY {
                    let left = elapsed.mul_f64((total - done) as f64 / done as f64);
                    eprintln!("  {stage}: {done}/{total}, ETA {}", HumanDuration(left));
                    running.told = now;
                }
            }
            Self::Json(last) => {
                if *last == Some(progress) {
                    return;
                }
                *last = Some(progress);
                let Progress { stage, done, total } = progress;
                emit(&Event::Progress { input, stage: stage.to_string(), done, total });
            }
        }
    }

    /// An event, told in words to people.
    pub fn event(&mut self, event: &Event) {
        if let Self::Json(_) = self {
            return emit(event);
        }
        match event {
            Event::Start { pictures, model, device } => {
                self.say(&format!("{pictures} picture{} with {model} on {device}", plural(*pictures)));
            }
            Event::Done { output, width, height, seconds, .. } => {
                self.say(&format!("  {} ({width} x {height}) in {seconds:.1} s", output.display()));
            }
            Event::Error { message, .. } => self.say(&format!("error: {message}")),
            Event::End { model, restored, skipped, failed } => {
                self.finish();
                let skipped =
                    if *skipped > 0 { format!(", {skipped} left as they were") } else { String::new() };
                let failed = if *failed > 0 { format!(", {failed} failed") } else { String::new() };
                self.say(&format!(
                    "{restored} result{} written by {model}{skipped}{failed}",
                    plural(*restored)
                ));
            }
            Event::Progress { .. } => {}
        }
    }

    /// A line for a person, above the bar if there is one.
    pub fn say(&self, text: &str) {
        match self {
            Self::Bar(bar) => bar.suspend(|| eprintln!("{text}")),
            Self::Lines(_) | Self::Json(_) => eprintln!("{text}"),
        }
    }

    fn finish(&self) {
        if let Self::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}

fn emit(event: &Event) {
    let mut out = std::io::stdout().lock();
    // A reader that went away is no reason to stop restoring.
    let _ = serde_json::to_writer(&mut out, event).map(|()| writeln!(out));
}
