//! `diffbir eval`.

mod contest;
mod drawn;
mod ledger;
mod measured;
mod meter;
mod metric;
mod pairs;
mod sheet;
mod table;

use crate::args::{Eval, TableFormat};
use crate::outputs::{self, Target, ensure_writable};
use crate::paths::place;
use crate::progress::Counter;
use crate::stop::{STOPPED, on_ctrl_c};
use crate::talk::{self, say};
use anyhow::{Result, bail};
use contest::Contest;
use diffbir::{Error, Progress};
use diffbir_metrics::{Features, Picture, frechet_distance};
use drawn::Drawn;
use ledger::Ledger;
use measured::{Measured, Subject, measure};
use meter::Meter;
use pairs::{Files, Folder, TRUTH, together};
use rayon::prelude::*;
use serde_json::{Map, Value, json};
use sheet::SHEETS;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::UNIX_EPOCH;
use table::Table;

/// Pictures that are measured at once: more would only take memory.
const AT_ONCE: usize = 4;

pub fn run(arguments: &Eval) -> Result<ExitCode> {
    if let [a, b] = &arguments.fid[..] {
        let distance = frechet_distance(&Features::open(a)?, &Features::open(b)?)?;
        return Ok(talk::ended(talk::data(format!("{distance:.6}\n").as_bytes())));
    }
    let output = arguments.output.as_deref().map(output_folder).transpose()?;
    // Sheets of an earlier run are no pictures to be measured.
    let sheets = output.as_ref().filter(|output| Drawn::is_in(output)).map(|output| output.join(SHEETS));
    let folders = Folder::search_all("--restored", &arguments.restored, sheets.as_deref())?;
    let truth = arguments.truth.as_ref();
    let truth_folder = truth.map(|truth| Folder::search("--truth", TRUTH.into(), truth, sheets.as_deref()));
    let truth_folder = truth_folder.transpose()?;
    if let Some(truth) = truth
        && arguments.restored.iter().any(|restored| place(restored) == place(truth))
    {
        bail!("--restored and --truth are the same folder, {}", truth.display());
    }
    let meter = Meter::open(arguments)?;
    let contest = arguments.degrade.as_ref().map(|preset| Contest::open(arguments, preset)).transpose()?;
    let methods: Vec<String> = match &contest {
        Some(contest) => contest.methods(),
        None => folders.iter().map(|folder| folder.name.clone()).collect(),
    };
    let settings = settings(arguments, &meter, contest.as_ref(), &methods);
    let run = Run {
        methods,
        contest,
        with_truth: truth.is_some(),
        draws: arguments.sheets && output.is_some(),
        undrawn: Cell::new(false),
        stop: on_ctrl_c("stopping after what is going on; press Ctrl-C again to leave at once", None)?,
        meter,
    };
    let mut ledger = Ledger::open(output.as_deref(), &settings, arguments.restart)?;
    // After the ledger, which keeps other runs out of the folder.
    let mut drawn = output.as_deref().map(Drawn::open).transpose()?;
    let files = together(truth_folder.as_ref(), &folders);
    let Some(pictures) = run.measure(&files, &mut ledger, drawn.as_mut())? else {
        return Ok(ExitCode::from(STOPPED));
    };
    let problems = folders.into_iter().chain(truth_folder).flat_map(|folder| folder.problems).collect();
    let table = Table { metrics: run.meter.metrics(), methods: run.methods, pictures, problems };
    let code = finish(arguments, output.as_deref(), &table, &settings)?;
    Ok(if run.undrawn.get() { ExitCode::FAILURE } else { code })
}

/// The tables in the output's folder.
const TABLES: [&str; 3] = ["table.md", "table.csv", "table.json"];

/// What is the same for all pictures.
struct Run {
    methods: Vec<String>,
    contest: Option<Contest>,
    with_truth: bool,
    /// Whether contact sheets are drawn.
    draws: bool,
    /// Whether one of them could not be.
    undrawn: Cell<bool>,
    stop: Arc<AtomicBool>,
    meter: Meter,
}

/// A picture that is still to be measured.
struct Task<'a> {
    index: usize,
    key: &'a Path,
    name: String,
    stamp: String,
    files: &'a Files,
}

impl Run {
    /// Measures what the ledger does not know; nothing if it was stopped.
    fn measure(
        &self,
        pictures: &BTreeMap<PathBuf, Files>,
        ledger: &mut Ledger,
        mut drawn: Option<&mut Drawn>,
    ) -> Result<Option<Vec<Measured>>> {
        let mut found: Vec<Option<Measured>> = Vec::new();
        let mut tasks = Vec::new();
        for (index, (key, files)) in pictures.iter().enumerate() {
            let (name, stamp) = (key.display().to_string(), stamp(files));
            // Nothing may be missing beside the numbers.
            let sheet_is_there = !self.draws || drawn.as_ref().is_none_or(|drawn| drawn.is_there(key));
            let known = ledger.take(&name, &stamp).filter(|_| sheet_is_there);
            if known.is_none() {
                tasks.push(Task { index, key, name, stamp, files });
            }
            found.push(known);
        }
        let known = found.len() - tasks.len();
        if known > 0 {
            say(format_args!("{known} of {} pictures were measured before", found.len()));
        }
        if let Some(drawn) = &mut drawn {
            drawn.tidy(pictures.keys().map(PathBuf::as_path), tasks.iter().map(|task| task.key))?;
        }
        let mut counter = Counter::new("measured", tasks.len());
        // Models use all threads for one picture, and so do metrics but for a little.
        let at_once = if self.contest.is_some() { 1 } else { AT_ONCE };
        for batch in tasks.chunks(at_once) {
            let Some(subjects) = self.subjects(batch, &mut counter) else {
                counter.finish();
                let done = known + counter.done();
                let after = if ledger.is_kept() { "; the same command goes on from there" } else { "" };
                say(format_args!("stopped: {done} of {} pictures are measured{after}", found.len()));
                return Ok(None);
            };
            for ((task, subject), measured) in
                batch.iter().zip(&subjects).zip(measure(&self.meter, &subjects))
            {
                for failure in measured.failures() {
                    counter.say(&format!("error: {failure}"));
                }
                if let Some(drawn) = drawn.as_mut().filter(|_| self.draws)
                    && let Some(sheet) = sheet::sheet(subject, &measured)
                    && let Err(error) = drawn.draw(task.key, &sheet)
                {
                    self.undrawn.set(true);
                    counter.say(&format!("error: no contact sheet: {error:#}"));
                }
                ledger.add(&measured)?;
                found[task.index] = Some(measured);
            }
            counter.add(batch.len());
        }
        counter.finish();
        Ok(Some(found.into_iter().flatten().collect()))
    }

    /// Reads pictures, or makes them; nothing if it was stopped.
    fn subjects(&self, batch: &[Task], counter: &mut Counter) -> Option<Vec<Subject>> {
        if self.stop.load(Ordering::SeqCst) {
            return None;
        }
        let Some(contest) = &self.contest else {
            // Models, which are none here, do not go to other threads.
            let (methods, with_truth) = (&self.methods, self.with_truth);
            return Some(batch.par_iter().map(|task| read(task, methods, with_truth)).collect());
        };
        let mut subjects = Vec::new();
        for Task { name, stamp, files, .. } in batch {
            let mut watch = |progress: Progress| {
                let Progress { stage, done, total } = progress;
                counter.at(&format!("{name}: {stage} {done}/{total}"));
                if self.stop.load(Ordering::SeqCst) {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            };
            let truth = files.truth.as_ref().expect("nothing else was searched");
            match contest.subject(name, stamp, truth, &mut watch) {
                Ok(subject) => subjects.push(subject),
                Err(Error::Stopped) => return None,
                Err(error) => unreachable!("{error} is told with the picture"),
            }
        }
        Some(subjects)
    }
}

/// Reads the files of a picture.
fn read(task: &Task, methods: &[String], with_truth: bool) -> Subject {
    let read = |path: &Option<PathBuf>, of: &str| match path {
        Some(path) => Picture::open(path).map_err(|error| error.to_string()),
        None => Err(format!("there is no picture of this name in {of}")),
    };
    let versions = methods.iter().zip(&task.files.versions);
    Subject {
        name: task.name.clone(),
        stamp: task.stamp.clone(),
        truth: with_truth.then(|| read(&task.files.truth, "the folder of --truth")),
        input: None,
        versions: versions.map(|(method, path)| (method.clone(), read(path, method))).collect(),
    }
}

/// The output's folder, in which files can be made.
fn output_folder(output: &Path) -> Result<PathBuf> {
    let Target::Folder(folder) = Target::folder(output) else { unreachable!("it is a folder") };
    ensure_writable(&folder)?;
    ensure_writable(&folder.join(SHEETS))?;
    outputs::tidy([folder.join(SHEETS).as_path(), folder.join(SHEETS).join(SHEETS).as_path()].into_iter());
    Ok(folder)
}

/// What changes results.
fn settings(
    arguments: &Eval,
    meter: &Meter,
    contest: Option<&Contest>,
    methods: &[String],
) -> Map<String, Value> {
    let shown = |path: &PathBuf| Value::from(place(path).display().to_string());
    let mut settings = Map::new();
    settings.insert("program".into(), env!("CARGO_PKG_VERSION").into());
    if !arguments.restored.is_empty() {
        settings.insert("restored".into(), arguments.restored.iter().map(shown).collect());
    }
    settings.extend(arguments.truth.iter().map(|truth| ("truth".into(), shown(truth))));
    settings.extend(contest.iter().flat_map(|contest| contest.settings.clone()));
    // What rows are called may follow from the folder that the command runs in.
    settings.insert("rows".into(), json!(methods));
    settings.insert("border".into(), arguments.border.into());
    settings.insert("weights".into(), json!(meter.weights));
    settings
}

/// Sizes and times of the files of a picture.
fn stamp(files: &Files) -> String {
    let of = |path: &Option<PathBuf>| path.as_ref().map_or("-".into(), |path| stamp_of(path));
    [&files.truth].into_iter().chain(&files.versions).map(of).collect::<Vec<String>>().join(" ")
}

/// Name, from which degradations follow, size and time of a file.
fn stamp_of(path: &Path) -> String {
    let Ok(found) = path.metadata() else { return "-".into() };
    let time = found.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    format!("{name} {}@{}", found.len(), time.unwrap_or_default().as_nanos())
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
        for (name, text) in TABLES.iter().zip([&markdown, &csv, &json]) {
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
