//! `diffbir eval`.

mod ledger;
mod measured;
mod meter;
mod metric;
mod pairs;
mod table;

use crate::args::{Eval, TableFormat};
use crate::outputs::{self, Target, ensure_writable};
use crate::paths::place;
use crate::progress::Counter;
use crate::stop::{STOPPED, on_ctrl_c};
use crate::talk::{self, say};
use anyhow::{Result, bail};
use diffbir_metrics::Picture;
use ledger::Ledger;
use measured::{Measured, Subject, measure};
use meter::Meter;
use pairs::{Files, Folder, together};
use rayon::prelude::*;
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::UNIX_EPOCH;
use table::Table;

/// The folder of contact sheets in the output's folder.
const SHEETS: &str = "sheets";

pub fn run(arguments: &Eval) -> Result<ExitCode> {
    let output = arguments.output.as_deref().map(output_folder).transpose()?;
    let sheets = output.as_ref().map(|output| output.join(SHEETS));
    let folders = Folder::search_all("--restored", &arguments.restored, sheets.as_deref())?;
    let truth = arguments.truth.as_ref();
    let truth_folder = truth.map(|truth| Folder::search("--truth", "truth".into(), truth, sheets.as_deref()));
    let truth_folder = truth_folder.transpose()?;
    if let Some(truth) = truth
        && arguments.restored.iter().any(|restored| place(restored) == place(truth))
    {
        bail!("--restored and --truth are the same folder, {}", truth.display());
    }
    let meter = Meter::open(arguments)?;
    let pictures = together(truth_folder.as_ref(), &folders);
    let settings = settings(arguments, &meter);
    let mut ledger = Ledger::open(output.as_deref(), &settings, arguments.restart)?;
    let stop = on_ctrl_c("stopping after these pictures; press Ctrl-C again to leave at once")?;
    let methods: Vec<String> = folders.iter().map(|folder| folder.name.clone()).collect();

    let mut found: Vec<Option<Measured>> = Vec::new();
    let mut left = Vec::new();
    for (name, files) in &pictures {
        let (name, stamp) = (name.display().to_string(), stamp(files));
        let known = ledger.take(&name, &stamp);
        if known.is_none() {
            left.push((found.len(), name, stamp, files));
        }
        found.push(known);
    }
    let known = found.len() - left.len();
    if known > 0 {
        say(format_args!("{known} of {} pictures were measured before", found.len()));
    }
    let mut counter = Counter::new("measured", left.len());
    for batch in left.chunks(rayon::current_num_threads()) {
        if stop.load(Ordering::SeqCst) {
            counter.finish();
            say(format_args!("stopped: {} of {} pictures are measured", known + counter.done(), found.len()));
            return Ok(ExitCode::from(STOPPED));
        }
        let with_truth = truth.is_some();
        let subjects: Vec<Subject> = batch
            .par_iter()
            .map(|(_, name, stamp, files)| open(name, stamp, files, &methods, with_truth))
            .collect();
        for ((index, ..), measured) in batch.iter().zip(measure(&meter, &subjects)) {
            for row in measured.rows.iter().filter(|row| row.failed.is_some()) {
                counter.say(&format!("error: {}: {}", measured.picture, row.note()));
            }
            ledger.add(&measured)?;
            found[*index] = Some(measured);
        }
        counter.add(batch.len());
    }
    counter.finish();
    let pictures = found.into_iter().flatten().collect();
    finish(arguments, output.as_deref(), &Table { metrics: meter.metrics(), methods, pictures }, &settings)
}

/// The output's folder, in which files can be made.
fn output_folder(output: &Path) -> Result<PathBuf> {
    let Target::Folder(folder) = Target::folder(output) else { unreachable!("it is a folder") };
    ensure_writable(&folder)?;
    outputs::tidy([folder.join("x").as_path()].into_iter());
    Ok(folder)
}

/// What changes results.
fn settings(arguments: &Eval, meter: &Meter) -> Map<String, Value> {
    let restored: Vec<String> =
        arguments.restored.iter().map(|path| place(path).display().to_string()).collect();
    let settings = json!({
        "program": env!("CARGO_PKG_VERSION"),
        "restored": restored,
        "truth": arguments.truth.as_ref().map(|path| place(path).display().to_string()),
        "border": arguments.border,
        "weights": meter.weights,
    });
    match settings {
        Value::Object(settings) => settings,
        _ => unreachable!("it is an object"),
    }
}

/// Sizes and times of files.
fn stamp(files: &Files) -> String {
    let of = |path: &Option<PathBuf>| {
        let Some(found) = path.as_ref().and_then(|path| path.metadata().ok()) else { return "-".into() };
        let time = found.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        format!("{}@{}", found.len(), time.unwrap_or_default().as_nanos())
    };
    [&files.truth].into_iter().chain(&files.versions).map(of).collect::<Vec<String>>().join(" ")
}

fn open(name: &str, stamp: &str, files: &Files, methods: &[String], with_truth: bool) -> Subject {
    let read = |path: &Option<PathBuf>, of: &str| match path {
        Some(path) => Picture::open(path).map_err(|error| error.to_string()),
        None => Err(format!("there is no picture of this name in {of}")),
    };
    let versions = methods.iter().zip(&files.versions);
    Subject {
        name: name.into(),
        stamp: stamp.into(),
        truth: with_truth.then(|| read(&files.truth, "the folder of --truth")),
        versions: versions.map(|(method, path)| (method.clone(), read(path, method))).collect(),
    }
}

/// Prints and writes the tables.
fn finish(
    arguments: &Eval,
    output: Option<&Path>,
    table: &Table,
    settings: &Map<String, Value>,
) -> Result<ExitCode> {
    let (markdown, csv) = (table.markdown(), table.csv()?);
    let json = serde_json::to_string_pretty(&table.json(settings))? + "\n";
    if let Some(folder) = output {
        for (name, text) in [("table.md", &markdown), ("table.csv", &csv), ("table.json", &json)] {
            outputs::write(&folder.join(name), text.as_bytes())?;
        }
    }
    let printed = talk::data(match arguments.table {
        TableFormat::Markdown => markdown.as_bytes(),
        TableFormat::Csv => csv.as_bytes(),
        TableFormat::Json => json.as_bytes(),
    });
    let (measured, failed) = table.count();
    let failures = if failed > 0 { format!(", {failed} failed") } else { String::new() };
    say(format_args!("{measured} measured{failures}"));
    let told = talk::ended(printed);
    Ok(if failed > 0 { ExitCode::FAILURE } else { told })
}
