//! What is told while a person or a program waits: a bar on a terminal, plain lines into a pipe, events
//! for programs.

use crate::talk::{data, say};
use diffbir::{Progress, Stage};
use indicatif::{HumanDuration, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use serde::{Serialize, Serializer};
use std::io::IsTerminal;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How it is told.
pub enum Reporter {
    /// On a terminal.
    Bar(ProgressBar, Arc<Mutex<Shown>>),
    /// Into a pipe.
    Lines(Option<Running>),
    /// For programs: the last step told of, and why the last event that nobody got was not written.
    Json(Option<Progress>, Option<std::io::Error>),
}

/// What stands beside the bar. It changes as a whole, so that no stage shows the numbers of another.
#[derive(Default)]
pub struct Shown {
    picture: String,
    progress: Option<Progress>,
}

/// The stage that is going on.
pub struct Running {
    stage: Stage,
    since: Instant,
    /// When it was last told of.
    told: Instant,
    /// The first count above 0, and when: the first part of a stage may hold work for all.
    first: Option<(usize, Instant)>,
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
    Progress {
        #[serde(serialize_with = "lossy")]
        input: &'a Path,
        stage: String,
        done: usize,
        total: usize,
    },
    /// Faces were found in a picture, so many of which are restored by themselves.
    Faces {
        #[serde(serialize_with = "lossy")]
        input: &'a Path,
        found: usize,
        restored: usize,
    },
    /// A face of a picture begins.
    Face {
        #[serde(serialize_with = "lossy")]
        input: &'a Path,
        face: usize,
        faces: usize,
    },
    /// A result was written.
    Done {
        #[serde(serialize_with = "lossy")]
        input: &'a Path,
        #[serde(serialize_with = "lossy")]
        output: &'a Path,
        seed: u64,
        width: usize,
        height: usize,
        seconds: f64,
    },
    /// Of so many parts of the result that is next some are further from the input than stage 1 is; `kept` if stage 1 took
    /// their place.
    Harm {
        #[serde(serialize_with = "lossy")]
        input: &'a Path,
        parts: usize,
        harmed: usize,
        kept: bool,
    },
    /// What is made of all results of a picture was written: a contact sheet, or, with the mean deviation of samples
    /// (L-STD), a map of it.
    Together {
        #[serde(serialize_with = "lossy")]
        input: &'a Path,
        #[serde(serialize_with = "lossy")]
        output: &'a Path,
        #[serde(skip_serializing_if = "Option::is_none")]
        stability: Option<f64>,
    },
    /// A picture could not be restored.
    Error {
        #[serde(serialize_with = "lossy")]
        input: &'a Path,
        message: &'a str,
    },
    /// Something that a person should know.
    Note { message: &'a str },
    /// The run is over, or was stopped from outside. Where no picture was found no model was opened.
    End { model: Option<&'a str>, restored: usize, skipped: usize, failed: usize, stopped: bool },
}

/// A path as JSON can hold it.
fn lossy<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&path.display())
}

impl Reporter {
    /// As the surroundings ask for.
    pub fn new(json: bool) -> Self {
        if json {
            return Self::Json(None, None);
        }
        if !std::io::stderr().is_terminal() {
            return Self::Lines(None);
        }
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        let shown = Arc::new(Mutex::new(Shown::default()));
        let beside = |write: fn(&Shown, &mut dyn std::fmt::Write) -> std::fmt::Result| {
            let shown = shown.clone();
            move |_: &ProgressState, line: &mut dyn std::fmt::Write| {
                let _ = write(&shown.lock().unwrap_or_else(PoisonError::into_inner), line);
            }
        };
        let picture = beside(|shown, line| line.write_str(&shown.picture));
        let stage = beside(|shown, line| {
            let stage = shown.progress.map(|progress| progress.stage.to_string());
            write!(line, "{:<8}", stage.unwrap_or_default())
        });
        let count = beside(|shown, line| match shown.progress {
            Some(Progress { done, total, .. }) => write!(line, "{done}/{total}"),
            None => Ok(()),
        });
        let style = "{picture} {stage} {bar:24} {count} {elapsed} {left}";
        // Before the first step of a stage nobody knows how long it takes.
        let left = |state: &ProgressState, line: &mut dyn std::fmt::Write| {
            if state.pos() > 0 && Some(state.pos()) < state.len() {
                let _ = write!(line, "ETA {}", HumanDuration(state.eta()));
            }
        };
        let style = ProgressStyle::with_template(style).expect("a valid template");
        let style = style.with_key("picture", picture).with_key("stage", stage);
        bar.set_style(style.with_key("count", count).with_key("left", left));
        Self::Bar(bar, shown)
    }

    /// A picture begins.
    pub fn picture(&mut self, number: usize, total: usize, name: &str) {
        match self {
            Self::Bar(bar, shown) => {
                let picture = format!("[{number}/{total}] {name}");
                *shown.lock().unwrap_or_else(PoisonError::into_inner) = Shown { picture, progress: None };
                bar.reset();
                bar.enable_steady_tick(Duration::from_millis(250));
            }
            Self::Lines(stage) => {
                *stage = None;
                say(format_args!("[{number}/{total}] {name}"));
            }
            Self::Json(last, _) => *last = None,
        }
    }

    /// A step of a picture.
    pub fn step(&mut self, input: &Path, progress: Progress) {
        match self {
            Self::Bar(bar, shown) => {
                if progress.done == 0 {
                    bar.reset_eta();
                }
                shown.lock().unwrap_or_else(PoisonError::into_inner).progress = Some(progress);
                bar.update(|state| {
                    state.set_len(progress.total as u64);
                    state.set_pos(progress.done as u64);
                });
            }
            Self::Lines(running) => {
                let Progress { stage, done, total } = progress;
                let now = Instant::now();
                let new = || Running { stage, since: now, told: now, first: None };
                if running.as_ref().is_none_or(|running| running.stage != stage) {
                    *running = Some(new());
                }
                let running = running.get_or_insert_with(new);
                if done == total && total > 0 {
                    say(format_args!("  {stage}: {:.1} s", (now - running.since).as_secs_f64()));
                    *running = new();
                } else if done > 0 {
                    let (first, then) = *running.first.get_or_insert((done, now));
                    if done > first && now - running.told >= TELL_EVERY {
                        let left = (now - then).mul_f64((total - done) as f64 / (done - first) as f64);
                        say(format_args!("  {stage}: {done}/{total}, ETA {}", HumanDuration(left)));
                        running.told = now;
                    }
                }
            }
            Self::Json(last, lost) => {
                if *last == Some(progress) {
                    return;
                }
                *last = Some(progress);
                let Progress { stage, done, total } = progress;
                emit(&Event::Progress { input, stage: stage.to_string(), done, total }, lost);
            }
        }
    }

    /// An event, told in words to people.
    pub fn event(&mut self, event: &Event) {
        if let Self::Json(_, lost) = self {
            return emit(event, lost);
        }
        match event {
            Event::Start { pictures, model, device } => {
                self.say(&format!("{pictures} picture{} with {model} on {device}", plural(*pictures)));
            }
            Event::Done { output, width, height, seconds, .. } => {
                self.say(&format!("  {} ({width} x {height}) in {seconds:.1} s", output.display()));
            }
            Event::Harm { harmed: 0, .. } => {}
            Event::Harm { parts, harmed, kept, .. } => {
                let kept = if *kept { "stage 1 is kept there" } else { "--safe keeps stage 1 there" };
                self.say(&format!(
                    "  {harmed} of {parts} parts are further from the input than stage 1 is: {kept}"
                ));
            }
            Event::Together { output, stability: None, .. } => self.say(&format!("  {}", output.display())),
            Event::Together { output, stability: Some(mean), .. } => self.say(&format!(
                "  {}: samples differ by {:.2} of 255 levels on average (L-STD {mean:.4})",
                output.display(),
                mean * 255.0
            )),
            Event::Faces { found: 0, .. } => self.say("  no face found: all is restored as background"),
            Event::Faces { found, restored, .. } => {
                let left = found - restored;
                let left = if left > 0 { format!(", {left} left to the background") } else { String::new() };
                self.say(&format!("  {found} face{} found{left}", plural(*found)));
            }
            Event::Face { face, faces, .. } => self.say(&format!("  face {face} of {faces}")),
            Event::Error { message, .. } => self.say(&format!("error: {message}")),
            Event::End { model, restored, skipped, failed, .. } => {
                self.finish();
                self.say(&summary(*restored, *model, *skipped, *failed));
                if *model == Some("nano") && *restored > 0 {
                    self.say(
                        "the official models are far larger: `diffbir models pull v2.1` gets the newest",
                    );
                }
            }
            Event::Note { message } => self.say(message),
            Event::Progress { .. } => {}
        }
    }

    /// A line for a person, above the bar if there is one.
    pub fn say(&mut self, text: &str) {
        match self {
            Self::Bar(bar, _) => bar.suspend(|| say(text)),
            Self::Lines(_) => say(text),
            Self::Json(..) => self.event(&Event::Note { message: text.trim_start() }),
        }
    }

    /// Why events did not reach stdout, if they did not.
    pub fn lost(self) -> std::io::Result<()> {
        match self {
            Self::Json(_, Some(error)) => Err(error),
            _ => Ok(()),
        }
    }

    fn finish(&self) {
        if let Self::Bar(bar, _) = self {
            bar.finish_and_clear();
        }
    }
}

/// A bar that counts pictures, on a terminal and where there are several.
pub fn counter(total: usize) -> ProgressBar {
    if total < 2 || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::with_draw_target(Some(total as u64), ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template("{bar:24} {pos}/{len} {elapsed} ETA {eta}");
    bar.set_style(style.expect("a valid template"));
    bar
}

/// How a run ended, in a line.
pub fn summary(written: usize, model: Option<&str>, skipped: usize, failed: usize) -> String {
    let by = model.map_or(String::new(), |model| format!(" by {model}"));
    let skipped = if skipped > 0 { format!(", {skipped} left as they were") } else { String::new() };
    let failed = if failed > 0 { format!(", {failed} failed") } else { String::new() };
    format!("{written} result{} written{by}{skipped}{failed}", plural(written))
}

/// The ending of a word for so many.
pub fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}

/// A reader that went away is no reason to stop restoring; it is told at the end.
fn emit(event: &Event, lost: &mut Option<std::io::Error>) {
    let line = serde_json::to_string(event).map(|event| event + "\n").map_err(Into::into);
    if let Err(error) = line.and_then(|line| data(line.as_bytes())) {
        *lost = Some(error);
    }
}

/// How many of something are done, and when the rest will be: a bar on a terminal, now and then a line into a pipe.
pub struct Counter {
    bar: Option<ProgressBar>,
    what: &'static str,
    done: usize,
    total: usize,
    since: Instant,
    told: Instant,
}

impl Counter {
    /// `what` is done to each of `total`.
    pub fn new(what: &'static str, total: usize) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(Some(total as u64), ProgressDrawTarget::stderr());
            let style =
                ProgressStyle::with_template("{prefix} {bar:24} {pos}/{len} {elapsed} ETA {eta} {wide_msg}");
            bar.set_style(style.expect("a valid template"));
            bar.set_prefix(what);
            bar.enable_steady_tick(Duration::from_millis(250));
            bar
        });
        Self { bar, what, done: 0, total, since: Instant::now(), told: Instant::now() }
    }

    /// What is being done now.
    pub fn at(&mut self, now: &str) {
        match &self.bar {
            Some(bar) => bar.set_message(now.to_string()),
            None => self.tell(now),
        }
    }

    /// So many more are done.
    pub fn add(&mut self, count: usize) {
        self.done += count;
        match &self.bar {
            Some(bar) => bar.inc(count as u64),
            None => self.tell(""),
        }
    }

    /// How many are done.
    pub fn done(&self) -> usize {
        self.done
    }

    fn tell(&mut self, now: &str) {
        if self.told.elapsed() < TELL_EVERY {
            return;
        }
        self.told = Instant::now();
        let Self { what, done, total, .. } = *self;
        let left = (done > 0).then(|| self.since.elapsed().mul_f64((total - done) as f64 / done as f64));
        let left = left.map_or(String::new(), |left| format!(", ETA {}", HumanDuration(left)));
        let now = if now.is_empty() { String::new() } else { format!(": {now}") };
        say(format_args!("  {what} {done}/{total}{left}{now}"));
    }

    /// A line for a person, above the bar if there is one.
    pub fn say(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| say(text)),
            None => say(text),
        }
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
