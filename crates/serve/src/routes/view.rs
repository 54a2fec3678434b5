//! A job as it is shown.

use crate::engine::{Harm, Options};
use crate::job::Job;
use crate::jobs::Jobs;
use crate::problem::Problem;
use crate::record::State;
use serde::Serialize;
use utoipa::ToSchema;

/// A restoration.
#[derive(Serialize, ToSchema)]
pub struct Restoration {
    /// By which it is asked for.
    pub id: String,
    /// Where it is read.
    pub href: String,
    /// What happens to it, as server-sent events.
    pub events: String,
    /// What the picture is called.
    pub name: String,
    /// Where it is.
    pub state: State,
    /// Jobs before it, the running one included, while it waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub position: Option<usize>,
    /// What was asked for, with the seed that was drawn.
    #[schema(value_type = Object)]
    pub options: Options,
    /// The same for a shell.
    pub command: String,
    /// When it was accepted, began and ended, seconds since 1970.
    pub created: f64,
    /// See `created`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started: Option<f64>,
    /// See `created`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended: Option<f64>,
    /// What a person should know.
    pub notes: Vec<String>,
    /// The picture, as browsers can show it.
    pub before: String,
    /// Its width and height in pixels.
    pub size: (u32, u32),
    /// What stage 1 made of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stage1: Option<String>,
    /// What the mask of its regions is called, if one came with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mask: Option<String>,
    /// How much the results differ, if that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stability: Option<Stability>,
    /// The results.
    pub results: Vec<Result>,
    /// Why there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<Problem>,
}

/// A result.
#[derive(Serialize, ToSchema)]
#[schema(as = RestorationResult)]
pub struct Result {
    /// Where its file is; with `&view=true` as browsers can show it.
    pub href: String,
    /// The name for its file.
    pub file: String,
    /// The seed that it was drawn from.
    pub seed: u64,
    /// Pixels a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Bytes of its file.
    pub bytes: u64,
    /// Where it contradicts the photograph; none where stage 2 did nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub harm: Option<Harm>,
}

/// How much results differ.
#[derive(Serialize, ToSchema)]
pub struct Stability {
    /// Where the map is.
    pub href: String,
    /// The mean deviation of a value of 0..1 (L-STD).
    pub mean: f64,
}

impl Restoration {
    /// A job at this moment.
    pub fn of(job: &Job, jobs: &Jobs) -> Self {
        let position = jobs.position(&job.id);
        let record = job.record();
        let results = record.results.iter().enumerate().map(|(sample, made)| Result {
            href: job.href(&format!("/result?sample={sample}")),
            file: file_name(&record.name, sample, record.results.len(), &record.extension),
            seed: made.seed,
            width: made.width,
            height: made.height,
            bytes: made.bytes,
            harm: made.harm,
        });
        let stability = |mean| Stability { href: job.href("/stability"), mean };
        Self {
            id: job.id.clone(),
            href: job.href(""),
            events: job.href("/events"),
            name: record.name.clone(),
            state: record.state,
            position,
            options: record.options.clone(),
            command: command(&record.name, &record.command),
            created: record.created,
            started: record.started,
            ended: record.ended,
            notes: record.notes.clone(),
            before: job.href("/before"),
            size: record.size,
            stage1: record.stage1.then(|| job.href("/stage1")),
            mask: record.mask.clone(),
            stability: record.stability.map(stability),
            results: results.collect(),
            error: record.error.clone(),
        }
    }
}

/// The name that the command line would give to a result beside its source.
pub fn file_name(name: &str, sample: usize, samples: usize, extension: &str) -> String {
    let stem = stem(name);
    let sample = if samples > 1 { format!("_{sample}") } else { String::new() };
    format!("{stem}_restored{sample}.{extension}")
}

/// A name without its ending.
pub fn stem(name: &str) -> &str {
    name.rsplit_once('.').map_or(name, |(stem, _)| stem)
}

/// A line for a shell.
fn command(name: &str, arguments: &[String]) -> String {
    // What begins with a dash would be a flag.
    let name = if name.starts_with('-') { format!("./{name}") } else { name.into() };
    let words = ["diffbir", "restore", &name].into_iter().chain(arguments.iter().map(String::as_str));
    words.map(quoted).collect::<Vec<_>>().join(" ")
}

fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./=+:".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.into();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_survives_a_shell() {
        let line = command("it's $HOME.png", &["--prompt=a b".into(), "--steps=5".into()]);
        assert_eq!(line, "diffbir restore 'it'\\''s $HOME.png' '--prompt=a b' --steps=5");
        assert_eq!(command("--json", &[]), "diffbir restore ./--json");
    }

    #[test]
    fn results_are_called_as_on_the_command_line() {
        assert_eq!(file_name("a.b.jpg", 0, 1, "png"), "a.b_restored.png");
        assert_eq!(file_name("a", 2, 3, "tiff"), "a_restored_2.tiff");
    }
}
