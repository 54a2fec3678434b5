//! Downloads that go on where they stopped.
//!
//! A download is written to `NAME.HASH.partial`, the hash being that of its address, so that the halves of
//! two copies are never put together. It gets its name when it is whole and its hash is right. Whatever
//! ends a download, killing included, leaves a partial file that the next one continues.

use super::hashes::sha256_of;
use super::store::looks_right;
use super::{Store, WeightFile};
use diffbir_imaging::remove_orphans;
use diffbir_nn::WeightError;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

/// So long a server may be silent before the next one is asked.
const PATIENCE: Duration = Duration::from_secs(60);

/// Times that a broken connection is taken up again as long as it brings anything.
const RETRIES: u32 = 5;

/// Where a download is.
#[derive(Clone, Copy, Debug)]
pub enum Download<'a> {
    /// An address is asked, and whether a download from it has been seen to work.
    Asking(&'a str, bool),
    /// Bytes at hand, of how many if the server said so.
    Bytes(u64, Option<u64>),
    /// The hash is computed: bytes read, of how many.
    Checking(u64, Option<u64>),
    /// An address failed, and why; the next one is tried.
    Failed(&'a str, &'a PullError),
}

/// Why a file could not be had.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// The server refused or was not there.
    #[error("{url}: {reason}")]
    Server {
        /// The address.
        url: String,
        /// What happened.
        reason: String,
    },
    /// What came is not the file that the catalog knows.
    #[error("{url}: is not the file it should be: it has SHA-256 {found}, not {expected}")]
    Hash {
        /// The address.
        url: String,
        /// Of the catalog.
        expected: String,
        /// Of what came.
        found: String,
    },
    /// A file that is to be imported cannot be read.
    #[error("{}: cannot be read ({reason})", file.display())]
    Read {
        /// Which file.
        file: PathBuf,
        /// Why.
        reason: io::Error,
    },
    /// What came from an address does not hold the tensors that it should.
    #[error("{url}: gave another file than this one, which was removed: {reason}")]
    NotThese {
        /// From where.
        url: String,
        /// What is wrong with it.
        reason: WeightError,
    },
    /// A file that is to be imported does not hold the tensors that it should.
    #[error(transparent)]
    Weights(#[from] WeightError),
    /// The file cannot be written.
    #[error("{}: cannot be written ({reason})", file.display())]
    Write {
        /// Which file.
        file: PathBuf,
        /// Why.
        reason: io::Error,
    },
    /// Another process downloads the same file.
    #[error("{}: another process is downloading it: wait for its end", .0.display())]
    Busy(PathBuf),
    /// No address gave the file.
    #[error("{name}: no address gave it, of {addresses} that were asked; the last said: {last}")]
    Nowhere {
        /// The file.
        name: String,
        /// How many were asked.
        addresses: usize,
        /// What the last one said.
        last: Box<PullError>,
    },
    /// Whoever watches asked to stop.
    #[error("stopped; the next pull goes on from here")]
    Stopped,
}

/// Who watches a download: told where it is, says whether to go on.
pub type WatchDownload<'a> = dyn FnMut(Download) -> ControlFlow<()> + 'a;

/// Downloads a file into the store, address after address until one gives it, and returns its place.
///
/// # Errors
/// When no address gives it, when what comes has another hash than the catalog's, when it cannot be
/// written, or when `watch` says stop.
pub fn pull(store: &Store, file: &WeightFile, watch: &mut WatchDownload) -> Result<PathBuf, PullError> {
    pull_within(PATIENCE, store, file, watch)
}

/// [`pull`] from servers that may be silent for so long.
pub fn pull_within(
    patience: Duration,
    store: &Store,
    file: &WeightFile,
    watch: &mut WatchDownload,
) -> Result<PathBuf, PullError> {
    let place = store.place(file);
    let write = |reason| PullError::Write { file: place.clone(), reason };
    std::fs::create_dir_all(store.folder()).map_err(write)?;
    let Some(_lock) = Lock::take(store.folder().join(format!("{}.lock", file.name))).map_err(write)? else {
        return Err(PullError::Busy(place));
    };
    remove_orphans(store.folder());
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_connect(Some(Duration::from_secs(30)))
        .timeout_recv_response(Some(Duration::from_secs(60)))
        .http_status_as_error(false)
        .build()
        .into();
    let mut last = None;
    let sources = store.sources(file);
    for (url, tried) in &sources {
        tell(watch, Download::Asking(url, *tried))?;
        match from(store, (&agent, patience), url, file, watch) {
            Ok(()) => {
                // What other addresses gave of it is not needed any more; one that stays is in nobody's way.
                let others = sources.iter().map(|(url, _)| partial_of(&place, url));
                others.for_each(|partial| _ = std::fs::remove_file(partial));
                return Ok(place);
            }
            Err(error @ (PullError::Stopped | PullError::Write { .. })) => return Err(error),
            Err(error) => {
                tell(watch, Download::Failed(url, &error))?;
                last = Some(Box::new(error));
            }
        }
    }
    let (name, addresses) = (file.name.to_string(), sources.len());
    Err(PullError::Nowhere { name, addresses, last: last.expect("every file has an address") })
}

/// A file that says, while it is locked, that its process downloads.
struct Lock {
    path: PathBuf,
    _file: File,
}

impl Lock {
    /// Nothing if another process has it.
    fn take(path: PathBuf) -> io::Result<Option<Self>> {
        let file = File::create(&path)?;
        // What another process has is not ours to drop.
        Ok(if file.try_lock().is_ok() { Some(Self { path, _file: file }) } else { None })
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // One that stays is in nobody's way.
        let _ = std::fs::remove_file(&self.path);
    }
}

fn tell(watch: &mut WatchDownload, event: Download) -> Result<(), PullError> {
    match watch(event) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(PullError::Stopped),
    }
}

/// What a download from an address has at hand.
fn partial_of(place: &Path, url: &str) -> PathBuf {
    let mark = url.bytes().fold(0x811c_9dc5u32, |hash, b| (hash ^ u32::from(b)).wrapping_mul(0x0100_0193));
    let mut name = place.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{mark:08x}.partial"));
    place.with_file_name(name)
}

/// Downloads from one address, checks, and puts the file in its place.
fn from(
    store: &Store,
    (agent, patience): (&ureq::Agent, Duration),
    url: &str,
    file: &WeightFile,
    watch: &mut WatchDownload,
) -> Result<(), PullError> {
    let place = &store.place(file);
    let partial = partial_of(place, url);
    let is_of_before = size_of(&partial) > 0;
    fetch((agent, patience), url, &partial, watch)?;
    let mut checked = check(file, url, &partial, watch);
    if is_of_before && matches!(checked, Err(PullError::Hash { .. } | PullError::NotThese { .. })) {
        // What an earlier pull left may be of another file than the address has today.
        fetch((agent, patience), url, &partial, watch)?;
        checked = check(file, url, &partial, watch);
    }
    checked?;
    std::fs::rename(&partial, place).map_err(|reason| PullError::Write { file: place.into(), reason })?;
    if let Some(sha256) = file.sha256 {
        store.remember(place, sha256);
    }
    Ok(())
}

/// Makes `partial` whole; a connection that broke is taken up again as long as it brings anything.
fn fetch(
    (agent, patience): (&ureq::Agent, Duration),
    url: &str,
    partial: &Path,
    watch: &mut WatchDownload,
) -> Result<(), PullError> {
    let mut retries = RETRIES;
    loop {
        let before = size_of(partial);
        match continue_from((agent, patience), url, partial, watch) {
            Err(PullError::Server { .. }) if retries > 0 && size_of(partial) > before => retries -= 1,
            end => return end,
        }
    }
}

/// Whether what came is the file; it is removed if not.
fn check(file: &WeightFile, url: &str, partial: &Path, watch: &mut WatchDownload) -> Result<(), PullError> {
    let write = |reason| PullError::Write { file: partial.to_path_buf(), reason };
    let total = Some(size_of(partial));
    let mut checking = |done| watch(Download::Checking(done, total));
    let Some(expected) = file.sha256 else {
        return match looks_right(file, partial, &mut checking) {
            Ok(ControlFlow::Continue(())) => Ok(()),
            Ok(ControlFlow::Break(())) => Err(PullError::Stopped),
            // Without a known hash a page that says "not found" would pass for the file.
            Err(reason) => {
                std::fs::remove_file(partial).map_err(write)?;
                Err(PullError::NotThese { url: url.into(), reason })
            }
        };
    };
    let found = sha256_of(partial, &mut checking).map_err(|error| {
        if error.kind() == io::ErrorKind::Interrupted { PullError::Stopped } else { write(error) }
    })?;
    if found != expected {
        std::fs::remove_file(partial).map_err(write)?;
        return Err(PullError::Hash { url: url.into(), expected: expected.into(), found });
    }
    Ok(())
}

fn size_of(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |metadata| metadata.len())
}

/// Appends to `partial` what the server still has of the file.
fn continue_from(
    (agent, patience): (&ureq::Agent, Duration),
    url: &str,
    partial: &Path,
    watch: &mut WatchDownload,
) -> Result<(), PullError> {
    let server = |reason: String| PullError::Server { url: url.into(), reason };
    let write = |reason| PullError::Write { file: partial.to_path_buf(), reason };
    let mut done = size_of(partial);
    let request = agent.get(url).header("User-Agent", concat!("diffbir/", env!("CARGO_PKG_VERSION")));
    let request = if done > 0 { request.header("Range", format!("bytes={done}-")) } else { request };
    let mut anew = || {
        std::fs::remove_file(partial).map_err(write)?;
        continue_from((agent, patience), url, partial, watch)
    };
    let response = request.call().map_err(|error| server(error.to_string()))?;
    let header = |name: &str| response.headers().get(name)?.to_str().ok().map(str::to_string);
    match response.status().as_u16() {
        200..300 => {}
        // Nothing is left to send.
        416 if done > 0 && header("Content-Range") == Some(format!("bytes */{done}")) => return Ok(()),
        // The partial file is longer than what is there now, or the server does not say.
        416 if done > 0 => return anew(),
        404 => return Err(server("there is no such file (404)".into())),
        code @ (401 | 403) => {
            return Err(server(format!(
                "wants a login ({code}): download it with a browser and use `diffbir models import`"
            )));
        }
        code => return Err(server(format!("answered {code} instead of the file"))),
    }
    let length = header("Content-Length").and_then(|text| text.parse::<u64>().ok());
    let resumed = response.status().as_u16() == 206;
    if resumed {
        let range = header("Content-Range").unwrap_or_default();
        if !range.starts_with(&format!("bytes {done}-")) {
            if done > 0 {
                return anew();
            }
            return Err(server(format!("sent another part of the file than was asked for ({range})")));
        }
    } else {
        done = 0;
    }
    let total = length.map(|length| done + length);
    let mut out = OpenOptions::new()
        .create(true)
        .write(true)
        .append(resumed)
        .truncate(!resumed)
        .open(partial)
        .map_err(write)?;
    let parts = in_parts(response.into_body().into_reader());
    loop {
        tell(watch, Download::Bytes(done, total))?;
        let part = match parts.recv_timeout(patience) {
            Ok(part) => part.map_err(|error| server(format!("the connection broke: {error}")))?,
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                return Err(server(format!("nothing came for {} s", patience.as_secs_f64())));
            }
        };
        out.write_all(&part).map_err(write)?;
        done += part.len() as u64;
    }
    match total {
        Some(total) if total != done => {
            Err(server(format!("the connection ended at {done} of {total} bytes")))
        }
        _ => out.sync_all().map_err(write),
    }
}

/// What comes, read by a thread of its own, which a silent server may hold for ever.
fn in_parts(mut body: impl Read + Send + 'static) -> Receiver<io::Result<Vec<u8>>> {
    let (sender, receiver) = sync_channel(1);
    std::thread::spawn(move || {
        loop {
            let mut part = vec![0; 256 << 10];
            let read = body.read(&mut part).map(|count| part.truncate(count)).map(|()| part);
            let goes_on = read.as_ref().is_ok_and(|part| !part.is_empty());
            let is_end = !goes_on && read.is_ok();
            if is_end || sender.send(read).is_err() || !goes_on {
                return;
            }
        }
    });
    receiver
}
