//! `diffbir models`: the official weight files on this machine.

use crate::args::ModelsCommand;
use crate::doubts;
use crate::own;
use crate::pack;
use crate::paths::{Kind, kind};
use crate::stop::{STOPPED, on_ctrl_c};
use crate::talk::{self, say};
use anyhow::{Context, Result, bail};
use diffbir::catalog::{
    self, Download, ENGINES, FACES, FILES, METRICS, PullError, SETS, Store, Verdict, WeightFile,
};
use indicatif::{HumanBytes, ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Into a pipe a download is told of this often.
const TELL_EVERY: Duration = Duration::from_secs(10);

pub fn run(command: &ModelsCommand) -> Result<ExitCode> {
    let store = || {
        Store::of_user()
            .context("there is no cache folder for this user: set DIFFBIR_MODELS to a folder for weights")
    };
    match command {
        ModelsCommand::List { json: false } => Ok(talk::ended(talk::data(list(&store()?).as_bytes()))),
        ModelsCommand::List { json: true } => {
            Ok(talk::ended(talk::data(format!("{:#}\n", described(&store()?)).as_bytes())))
        }
        ModelsCommand::Path { name: None } => {
            Ok(talk::ended(talk::data(format!("{}\n", store()?.folder().display()).as_bytes())))
        }
        ModelsCommand::Path { name: Some(name) } => {
            let (store, mut paths) = (store()?, String::new());
            if let Some(own) = own::find(&store, name) {
                return Ok(talk::ended(talk::data(format!("{}\n", own.display()).as_bytes())));
            }
            for file in files_of(name)? {
                let path = store.find(file).with_context(|| {
                    format!("{}: is not here: `diffbir models pull {}` gets it", file.name, file.name)
                })?;
                paths += &format!("{}\n", path.display());
            }
            Ok(talk::ended(talk::data(paths.as_bytes())))
        }
        ModelsCommand::Pull { names } => pull(&store()?, &all_files_of(names)?),
        ModelsCommand::Verify { names } if names.is_empty() => verify(&store()?, &FILES),
        ModelsCommand::Verify { names } => verify(&store()?, &all_files_of(names)?),
        ModelsCommand::Import { files, name } => import(&store()?, files, name.as_deref()),
        ModelsCommand::Pack(arguments) => pack::run(arguments).map(|()| ExitCode::SUCCESS),
    }
}

/// The files of a set, or the one of this name.
pub fn files_of(name: &str) -> Result<Vec<&'static WeightFile>> {
    if let Some(set) = catalog::set(name) {
        return Ok(set.files());
    }
    if let Some(metric) = catalog::metric(name) {
        return Ok(metric.files.to_vec());
    }
    if name == "faces" {
        return Ok(FACES.to_vec());
    }
    if let Some(engine) = catalog::engine(name) {
        return Ok(engine.files());
    }
    match catalog::file_or_copy(name) {
        Some(file) => Ok(vec![file]),
        None => {
            let sets: Vec<&str> = SETS.iter().map(|set| set.name).collect();
            bail!(
                "{name}: there is no such model or file: there are {}, faces, engines such as realesrgan-x4plus and files; \
                see models list",
                sets.join(", ")
            )
        }
    }
}

fn all_files_of(names: &[String]) -> Result<Vec<&'static WeightFile>> {
    let mut files: Vec<&'static WeightFile> = Vec::new();
    for name in names {
        for file in files_of(name)? {
            if !files.contains(&file) {
                files.push(file);
            }
        }
    }
    Ok(files)
}

fn list(store: &Store) -> String {
    let mut text = String::from("nano  built in\n");
    for name in own::names(store) {
        text += &format!("{name}  yours, here\n");
    }
    for set in &SETS {
        let files = set.files();
        let here = files.iter().filter(|file| store.find(file).is_some()).count();
        text += &format!("{}  {} of {} files here: {}\n", set.name, here, files.len(), set.about);
        for file in files {
            text += &line(store, file);
        }
    }
    for engine in &ENGINES {
        let files = engine.files();
        let here = files.iter().filter(|file| store.find(file).is_some()).count();
        text += &format!("{}  {here} of {} files here: {}\n", engine.name, files.len(), engine.about);
        files.iter().for_each(|file| text += &line(store, file));
    }
    for metric in &METRICS {
        let here = metric.files.iter().filter(|file| store.find(file).is_some()).count();
        let (name, all) = (metric.name, metric.files.len());
        text += &format!("{name}  {here} of {all} files here: {}, for `diffbir eval`\n", metric.about);
        metric.files.iter().for_each(|file| text += &line(store, file));
    }
    let here = FACES.iter().filter(|file| store.find(file).is_some()).count();
    let all = FACES.len();
    text += &format!("faces  {here} of {all} files here: for `diffbir restore --task face-background`\n");
    FACES.iter().for_each(|file| text += &line(store, file));
    text += "files of no set\n";
    let in_set = |file| SETS.iter().any(|set| set.files().contains(file));
    let of_metric = |file| METRICS.iter().any(|metric| metric.files.contains(file));
    let of_faces = |file| FACES.contains(file);
    let of_engine = |file| ENGINES.iter().any(|engine| engine.files().contains(file));
    let is_alone = |file| !in_set(file) && !of_metric(file) && !of_faces(file) && !of_engine(file);
    for file in FILES.iter().filter(|file| is_alone(file)) {
        text += &line(store, file);
    }
    text
}

fn line(store: &Store, file: &WeightFile) -> String {
    let state = if store.find(file).is_some() { "here" } else { "not here" };
    let addresses = match file.addresses.len() {
        1 => "1 address".into(),
        several => format!("{several} addresses"),
    };
    let tried = file.addresses.iter().filter(|address| address.tried).count();
    let hash = if file.sha256.is_some() { "hash known" } else { "no hash" };
    // The terms are told whole before a download.
    let licence = file.licence.split(';').next().unwrap_or_default();
    format!(
        "    {:<32} {:>8}  {state:<8}  {}; {addresses}, {tried} tried; {hash}; {licence}\n",
        file.name, file.about, file.holds
    )
}

/// All that the catalog knows of each file, and where it lies here.
fn described(store: &Store) -> serde_json::Value {
    let sets = |file| SETS.iter().filter(move |set| set.files().contains(file)).map(|set| set.name);
    let engines =
        |file| ENGINES.iter().filter(move |engine| engine.files().contains(file)).map(|engine| engine.name);
    let metrics =
        |file| METRICS.iter().filter(move |metric| metric.files.contains(file)).map(|metric| metric.name);
    let faces = |file| FACES.contains(file).then_some("faces");
    let files = FILES.iter().map(|file| {
        serde_json::json!({
            "name": file.name,
            "holds": file.holds,
            "size": file.about,
            "of": sets(file).chain(engines(file)).chain(metrics(file)).chain(faces(file)).collect::<Vec<_>>(),
            "licence": file.licence,
            "sha256": file.sha256,
            "addresses": file.addresses.iter().map(|address| address.url).collect::<Vec<_>>(),
            "path": store.find(file),
        })
    });
    files.collect()
}

fn pull(store: &Store, files: &[&'static WeightFile]) -> Result<ExitCode> {
    let mut code = ExitCode::SUCCESS;
    let mut missing = Vec::new();
    for file in files {
        let Some(path) = store.find(file) else {
            say(format_args!("{}: {}, licence {}", file.name, file.about, file.licence));
            missing.push(file);
            continue;
        };
        let known = match store.known(file, &path) {
            // Without a hash its own sums tell, if it has some.
            Ok(Verdict::Unpublished) if path.is_file() => checked(store, file, &path),
            known => known,
        };
        match known {
            Ok(Verdict::Wrong(reason)) => {
                code = ExitCode::FAILURE;
                say(format_args!(
                    "error: {}: is here and is another file ({reason}): remove it first",
                    path.display()
                ));
            }
            Ok(_) => say(format_args!("{}: is here", file.name)),
            Err(error) => {
                code = ExitCode::FAILURE;
                say(format_args!("error: {}: cannot be read: {error}", path.display()));
            }
        }
    }
    // A connection that hangs looks at no flag; what is on the disk is safe at any moment.
    let stop = on_ctrl_c("stopping; the next pull goes on from here", Some(Duration::from_secs(1)))?;
    for file in missing {
        let mut teller = Teller::new(file.name);
        let pulled = catalog::pull(store, file, &mut |event| {
            teller.tell(event);
            if stop.load(Ordering::SeqCst) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        teller.finish();
        match pulled {
            Ok(place) => {
                say(format_args!("{}", place.display()));
                if file.sha256.is_none() {
                    say(format_args!(
                        "  its hash is not published: its tensors are checked when it is loaded"
                    ));
                }
            }
            Err(PullError::Stopped) => return Ok(ExitCode::from(STOPPED)),
            Err(error) => {
                say(format_args!("error: {error}"));
                code = ExitCode::FAILURE;
            }
        }
    }
    Ok(code)
}

/// The whole file compared with what is known of it, and progress told.
fn checked(store: &Store, file: &WeightFile, path: &Path) -> std::io::Result<Verdict> {
    let mut teller = Teller::new(file.name);
    let total = path.metadata().ok().map(|found| found.len());
    let verdict = store.verify(file, path, &mut |done| {
        teller.tell(Download::Checking(done, total));
        ControlFlow::Continue(())
    });
    teller.finish();
    verdict
}

fn verify(store: &Store, files: &[&'static WeightFile]) -> Result<ExitCode> {
    let mut code = ExitCode::SUCCESS;
    let mut text = String::new();
    for file in files {
        let Some(path) = store.find(file) else { continue };
        let verdict = if path.is_dir() {
            "here as a folder of the diffusers library, without a hash".to_string()
        } else {
            match checked(store, file, &path)
                .with_context(|| format!("{}: cannot be read", path.display()))?
            {
                Verdict::Right => "right".into(),
                Verdict::Unpublished => match doubts::of_lacking(&catalog::lacking(file, &path)?) {
                    Some(lacking) => format!("here; no hash of it is known; it {lacking}"),
                    None => "here; no hash of it is known, names and shapes of all tensors are right".into(),
                },
                Verdict::Wrong(reason) => {
                    code = ExitCode::FAILURE;
                    format!("WRONG: {reason}: remove {} and pull it", path.display())
                }
            }
        };
        text += &format!("{}: {verdict}\n", file.name);
    }
    if text.is_empty() {
        say("none of these files is here");
    }
    let written = talk::data(text.as_bytes());
    Ok(if written.is_err() { talk::ended(written) } else { code })
}

fn import(store: &Store, paths: &[PathBuf], name: Option<&str>) -> Result<ExitCode> {
    if name.is_some() && paths.len() > 1 {
        bail!("--name names one file, but there are {}", paths.len());
    }
    let stop = on_ctrl_c("stopping; nothing of this file is kept", None)?;
    let mut code = ExitCode::SUCCESS;
    for path in paths {
        match import_one(store, path, name, &stop) {
            Ok(place) => say(format_args!("{}", place.display())),
            Err(error) if matches!(error.downcast_ref(), Some(PullError::Stopped)) => {
                return Ok(ExitCode::from(STOPPED));
            }
            Err(error) if paths.len() == 1 => return Err(error),
            Err(error) => {
                code = ExitCode::FAILURE;
                say(format_args!("error: {error:#}"));
            }
        }
    }
    Ok(code)
}

fn import_one(store: &Store, path: &Path, name: Option<&str>, stop: &AtomicBool) -> Result<PathBuf> {
    let called = path.file_name().unwrap_or_default().to_string_lossy();
    let known = catalog::file_or_copy(name.unwrap_or(&called));
    if kind(path)? == Kind::Folder {
        bail!("{}: is a folder: name files", path.display());
    }
    let Some(file) = known else {
        let name_of_file = name.unwrap_or(&called);
        return match own::is_model(path) {
            Ok(true) => own::import(store, path, name),
            Ok(false) => bail!(
                "{}: the catalog knows no {name_of_file}: say which file it is by --name",
                path.display()
            ),
            // It may be one of those that hold no weights.
            Err(error) => {
                bail!(
                    "{error}; if it is another file of the catalog, which knows no {name_of_file}, say which by --name"
                )
            }
        };
    };
    let mut teller = Teller::new(file.name);
    let total = path.metadata().ok().map(|found| found.len());
    let imported = store.import(file, path, &mut |done| {
        teller.tell(Download::Bytes(done, total));
        if stop.load(Ordering::SeqCst) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    teller.finish();
    let place = imported?;
    if let Some(used) = store.find(file).filter(|used| *used != place) {
        say(format_args!("{}: is here too, and is what is used: remove it to use this one", used.display()));
    }
    Ok(place)
}

/// A bar on a terminal, lines into a pipe.
struct Teller {
    name: &'static str,
    bar: Option<ProgressBar>,
    told: Instant,
}

impl Teller {
    fn new(name: &'static str) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            let style = "{prefix} {bar:24} {bytes}/{total_bytes} {bytes_per_sec} ETA {eta} {msg}";
            bar.set_style(ProgressStyle::with_template(style).expect("a valid template"));
            bar.set_prefix(name);
            bar
        });
        Self { name, bar, told: Instant::now() }
    }

    fn tell(&mut self, event: Download) {
        match (event, &self.bar) {
            (Download::Asking(url, tried), _) => {
                let untried = if tried { "" } else { " (which we have not tried)" };
                self.say(&format!("{}: from {url}{untried}", self.name));
            }
            (Download::Failed(_, error), _) => self.say(&format!("  {error}")),
            (Download::Bytes(done, total), Some(bar)) => {
                bar.set_length(total.unwrap_or(done));
                bar.set_position(done);
            }
            (Download::Checking(done, total), Some(bar)) => {
                bar.set_message("checking");
                bar.set_length(total.unwrap_or(done));
                bar.set_position(done);
            }
            (Download::Bytes(done, total) | Download::Checking(done, total), None)
                if self.told.elapsed() >= TELL_EVERY =>
            {
                self.told = Instant::now();
                let of = total.map_or(String::new(), |total| format!(" of {}", HumanBytes(total)));
                self.say(&format!("  {}{of}", HumanBytes(done)));
            }
            (Download::Bytes(..) | Download::Checking(..), None) => {}
        }
    }

    fn say(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| say(text)),
            None => say(text),
        }
    }

    fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
