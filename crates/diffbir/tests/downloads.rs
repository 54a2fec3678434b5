//! Downloads against a server on this machine that behaves and misbehaves as it is told.

use burn::tensor::TensorData;
use diffbir::catalog::{
    Address, Download, Network, PullError, Store, Verdict, WeightFile, pull, pull_within,
};
use diffbir_models::swinir::SwinIrConfig;
use diffbir_nn::checkpoint::Checkpoint;
use diffbir_nn::params::keys_of;
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::net::{TcpListener, TcpStream};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What the server does with a request.
#[derive(Clone, Copy)]
enum Manner {
    /// Sends what is asked for.
    Good,
    /// Sends everything, whatever part is asked for.
    IgnoresRanges,
    /// Sends everything, but takes its time.
    Slow,
    /// Sends so many bytes of each answer, and then nothing for long.
    StallsAfter(usize),
    /// Breaks off after so many bytes of each answer.
    BreaksAfter(usize),
    /// Does not say how long the file is when nothing of it is left.
    IsSilentOfLength,
    /// Sends another part than was asked for.
    AnotherPart,
    /// Has nothing to send.
    NothingLeft,
    /// Has no such file.
    Missing,
}

/// Serves `content` and returns its address and the `Range` of each request.
fn serve(content: Vec<u8>, manner: Manner) -> (&'static str, Arc<Mutex<Vec<Option<usize>>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/weights.bin", listener.local_addr().unwrap());
    let asked = Arc::new(Mutex::new(Vec::new()));
    let log = asked.clone();
    std::thread::spawn(move || {
        std::thread::scope(|scope| {
            for stream in listener.incoming() {
                scope.spawn(|| answer(stream.unwrap(), &content, manner, &log));
            }
        });
    });
    (url.leak(), asked)
}

fn answer(
    mut stream: TcpStream,
    content: &[u8],
    manner: Manner,
    log: &Mutex<Vec<Option<usize>>>,
) -> std::io::Result<()> {
    let mut from = None;
    for line in BufReader::new(stream.try_clone()?).lines() {
        let line = line?.to_lowercase();
        if let Some(range) = line.strip_prefix("range: bytes=") {
            from = range.trim_end_matches('-').parse().ok();
        }
        if line.is_empty() {
            break;
        }
    }
    log.lock().unwrap().push(from);
    if matches!(manner, Manner::Missing) {
        return write!(stream, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    }
    if matches!(manner, Manner::NothingLeft) {
        return write!(
            stream,
            "HTTP/1.1 416 No\r\nContent-Range: bytes */0\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        );
    }
    let from = if matches!(manner, Manner::IgnoresRanges) { None } else { from };
    let length = content.len();
    match from {
        Some(from) if from >= length => {
            let whole = if matches!(manner, Manner::IsSilentOfLength) { "*" } else { &length.to_string() };
            return write!(
                stream,
                "HTTP/1.1 416 No\r\nContent-Range: bytes */{whole}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            );
        }
        Some(_) if matches!(manner, Manner::AnotherPart) => {
            write!(
                stream,
                "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-9/{length}\r\nContent-Length: 10\r\n"
            )?;
        }
        Some(from) => write!(
            stream,
            "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {from}-{}/{length}\r\nContent-Length: {}\r\n",
            length - 1,
            length - from
        )?,
        None => write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n")?,
    }
    write!(stream, "Connection: close\r\n\r\n")?;
    let rest = &content[from.unwrap_or(0)..];
    match manner {
        Manner::Slow => rest.chunks(10_000).try_for_each(|part| {
            std::thread::sleep(Duration::from_millis(1));
            stream.write_all(part)
        }),
        Manner::StallsAfter(count) => {
            stream.write_all(&rest[..count.min(rest.len())])?;
            std::thread::sleep(Duration::from_secs(20));
            Ok(())
        }
        Manner::BreaksAfter(count) => stream.write_all(&rest[..count.min(rest.len())]),
        _ => stream.write_all(rest),
    }
}

fn content() -> Vec<u8> {
    (0..3_000_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

/// The hash of [`content`].
fn hash() -> &'static str {
    use sha2::{Digest, Sha256};
    let hash: String = Sha256::digest(content()).iter().map(|byte| format!("{byte:02x}")).collect();
    hash.leak()
}

fn file(sha256: Option<&'static str>, urls: &[&'static str]) -> WeightFile {
    let addresses: Vec<Address> = urls.iter().map(|&url| Address { url, tried: true }).collect();
    WeightFile {
        name: "weights.bin",
        holds: "a test",
        network: Network::SwinIr,
        about: "3 MB",
        sha256,
        licence: "none",
        addresses: addresses.leak(),
    }
}

fn all(_: Download) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// What lies in the folder beside the hashes that are known.
fn names(store: &Store) -> Vec<String> {
    let entries = std::fs::read_dir(store.folder()).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
    names.filter(|name| name != "hashes.json").collect()
}

/// The half of a download that lies in the folder.
fn partial_in(folder: &Path) -> Option<PathBuf> {
    let entries = std::fs::read_dir(folder).ok()?;
    entries
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|end| end == "partial"))
}

/// A whole file for the official SwinIR, all zeros.
fn swinir() -> Vec<u8> {
    let keys = keys_of(|params| SwinIrConfig::official().build(params)).unwrap();
    let tensors = keys.entries().iter().filter(|entry| entry.is_read()).map(|entry| {
        let zeros = TensorData::new(vec![0f32; entry.shape.iter().product()], entry.shape.clone());
        (entry.key.clone(), zeros)
    });
    Checkpoint::from_tensors(tensors.collect()).to_safetensors(true).unwrap()
}

#[test]
fn a_whole_file_gets_its_name_and_leaves_nothing_beside_it() {
    let folder = tempfile::TempDir::new().unwrap();
    let store = Store::at(folder.path().join("models"));
    let (url, _) = serve(content(), Manner::Good);
    let place = pull(&store, &file(Some(hash()), &[url]), &mut all).unwrap();
    assert_eq!(std::fs::read(place).unwrap(), content());
    assert_eq!(names(&store), ["weights.bin"]);
}

#[test]
fn a_stopped_download_goes_on_where_it_was() {
    for manner in [Manner::Good, Manner::IgnoresRanges] {
        let folder = tempfile::TempDir::new().unwrap();
        let store = Store::at(folder.path());
        let (url, asked) = serve(content(), manner);
        let file = file(Some(hash()), &[url]);
        let stopped = pull(&store, &file, &mut |event| match event {
            Download::Bytes(done, _) if done > 1_000_000 => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        });
        assert!(matches!(stopped, Err(PullError::Stopped)));
        assert!(store.find(&file).is_none(), "half a file has no name");
        let place = pull(&store, &file, &mut all).unwrap();
        assert_eq!(std::fs::read(place).unwrap(), content());
        let asked = asked.lock().unwrap();
        assert!(asked[0].is_none() && asked[1].is_some_and(|from| from > 1_000_000), "{asked:?}");
    }
}

#[test]
fn one_process_at_a_time_downloads_a_file() {
    let folder = tempfile::TempDir::new().unwrap();
    let store = Store::at(folder.path());
    let (url, _) = serve(content(), Manner::Good);
    let file = file(Some(hash()), &[url]);
    let mut others = 0;
    pull(&store, &file, &mut |event| {
        if let Download::Bytes(1_000_000.., _) = event {
            // A second one, and a third: the second takes nothing away from the first.
            assert!(matches!(pull(&store, &file, &mut all), Err(PullError::Busy(_))));
            others += 1;
        }
        ControlFlow::Continue(())
    })
    .unwrap();
    assert!(others > 1);
    assert_eq!(names(&store), ["weights.bin"]);
}

#[test]
fn a_broken_connection_is_taken_up_again() {
    let folder = tempfile::TempDir::new().unwrap();
    let store = Store::at(folder.path());
    let (url, asked) = serve(content(), Manner::BreaksAfter(800_000));
    let place = pull(&store, &file(Some(hash()), &[url]), &mut all).unwrap();
    assert_eq!(std::fs::read(place).unwrap(), content());
    assert_eq!(asked.lock().unwrap().len(), 4);
}

/// A pull that was stopped while the file was checked.
#[test]
fn a_partial_file_that_is_whole_already_is_not_got_again() {
    for (manner, then) in
        [(Manner::Good, vec![Some(3_000_000)]), (Manner::IsSilentOfLength, vec![Some(3_000_000), None])]
    {
        let folder = tempfile::TempDir::new().unwrap();
        let store = Store::at(folder.path());
        let (url, asked) = serve(content(), manner);
        let file = file(Some(hash()), &[url]);
        let stopped = pull(&store, &file, &mut |event| match event {
            Download::Checking(..) => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        });
        assert!(matches!(stopped, Err(PullError::Stopped)));
        assert_eq!(std::fs::read(pull(&store, &file, &mut all).unwrap()).unwrap(), content());
        assert_eq!(asked.lock().unwrap()[1..], then);
    }
}

/// What an earlier pull left is of a file that has changed since.
#[test]
fn a_half_of_another_file_costs_one_more_request() {
    let folder = tempfile::TempDir::new().unwrap();
    let store = Store::at(folder.path());
    let (url, asked) = serve(content(), Manner::Good);
    let file = file(Some(hash()), &[url]);
    let _ = pull(&store, &file, &mut |event| match event {
        Download::Bytes(done, _) if done > 1_000_000 => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    });
    let partial = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
    let partial =
        partial.filter(|path| path.extension().is_some_and(|ending| ending == "partial")).last().unwrap();
    let half = std::fs::metadata(&partial).unwrap().len() as usize;
    std::fs::write(&partial, vec![7; half]).unwrap();
    assert_eq!(std::fs::read(pull(&store, &file, &mut all).unwrap()).unwrap(), content());
    assert_eq!(*asked.lock().unwrap(), [None, Some(half), None]);
}

/// It is asked again as long as it brings anything, then the next one is.
#[test]
fn a_server_that_falls_silent_is_left() {
    let folder = tempfile::TempDir::new().unwrap();
    let store = Store::at(folder.path());
    let (silent, _) = serve(content(), Manner::StallsAfter(400_000));
    let (good, _) = serve(content(), Manner::Good);
    let mut failures = Vec::new();
    let patience = Duration::from_millis(200);
    let place = pull_within(patience, &store, &file(Some(hash()), &[silent, good]), &mut |event| {
        if let Download::Failed(_, error) = event {
            failures.push(error.to_string());
        }
        ControlFlow::Continue(())
    });
    assert_eq!(std::fs::read(place.unwrap()).unwrap(), content());
    assert!(failures.len() == 1 && failures[0].contains("nothing came for 0.2 s"), "{failures:?}");
}

#[test]
fn a_server_that_resumes_elsewhere_is_asked_for_all() {
    let folder = tempfile::TempDir::new().unwrap();
    let store = Store::at(folder.path());
    let (url, asked) = serve(content(), Manner::AnotherPart);
    let file = file(Some(hash()), &[url]);
    let _ = pull(&store, &file, &mut |event| match event {
        Download::Bytes(done, _) if done > 1_000_000 => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    });
    assert_eq!(std::fs::read(pull(&store, &file, &mut all).unwrap()).unwrap(), content());
    let asked = asked.lock().unwrap();
    assert!(asked.len() == 3 && asked[1].is_some() && asked[2].is_none(), "{asked:?}");
}

/// And leave nothing of what the first had given.
#[test]
fn a_mirror_takes_over_from_a_server_that_has_nothing_left() {
    let folder = tempfile::TempDir::new().unwrap();
    let store = Store::at(folder.path());
    let (empty, _) = serve(content(), Manner::NothingLeft);
    let (breaks, _) = serve(content(), Manner::StallsAfter(400_000));
    let (good, _) = serve(content(), Manner::Good);
    let file = file(Some(hash()), &[empty, breaks, good]);
    let place = pull_within(Duration::from_millis(200), &store, &file, &mut all).unwrap();
    assert_eq!(std::fs::read(place).unwrap(), content());
    let left = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
    let left: Vec<_> = left.filter(|name| name.to_string_lossy().ends_with(".partial")).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_mirror_of_ones_own_is_asked_and_no_other() {
    let folder = tempfile::TempDir::new().unwrap();
    let (theirs, asked) = serve(content(), Manner::Good);
    let (own, _) = serve(content(), Manner::Good);
    let own = own.trim_end_matches("weights.bin");
    let store = Store::at(folder.path()).with_mirror(own);
    let file = file(Some(hash()), &[theirs]);
    let mut sources = Vec::new();
    let place = pull(&store, &file, &mut |event| {
        if let Download::Asking(url, _) = event {
            sources.push(url.to_string());
        }
        ControlFlow::Continue(())
    });
    assert_eq!(std::fs::read(place.unwrap()).unwrap(), content());
    assert_eq!(sources, [format!("{own}{}", file.name)]);
    assert!(asked.lock().unwrap().is_empty());
}

#[test]
fn mirrors_take_over_and_a_wrong_hash_is_thrown_away() {
    let folder = tempfile::TempDir::new().unwrap();
    let store = Store::at(folder.path());
    let (missing, _) = serve(content(), Manner::Missing);
    let (wrong, _) = serve(vec![7; 1000], Manner::Good);
    let (good, _) = serve(content(), Manner::Good);
    let mut failures = Vec::new();
    let place = pull(&store, &file(Some(hash()), &[missing, wrong, good]), &mut |event| {
        if let Download::Failed(_, error) = event {
            failures.push(error.to_string());
        }
        ControlFlow::Continue(())
    })
    .unwrap();
    assert_eq!(std::fs::read(place).unwrap(), content());
    assert!(failures[0].contains("404") && failures[1].contains("SHA-256"), "{failures:?}");
    assert_eq!(names(&store), ["weights.bin"]);

    let folder = tempfile::TempDir::new().unwrap();
    let store = Store::at(folder.path());
    let nowhere = pull(&store, &file(Some(hash()), &[missing, wrong]), &mut all).unwrap_err().to_string();
    assert!(nowhere.contains("weights.bin") && nowhere.contains("SHA-256"), "{nowhere}");
    assert!(names(&store).is_empty(), "a refused download leaves nothing");
    assert!(store.find(&file(None, &[missing])).is_none());
}

#[test]
fn what_comes_without_a_known_hash_must_be_the_networks_weights() {
    let folder = tempfile::TempDir::new().unwrap();
    let store = Store::at(folder.path());
    let (page, _) = serve(b"<html>Sorry</html>".to_vec(), Manner::Good);
    let index = br#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
    let (other, _) = serve([&(index.len() as u64).to_le_bytes()[..], index, &[0; 4]].concat(), Manner::Good);
    let weights = swinir();
    let (cut, _) = serve(weights[..weights.len() - 1].to_vec(), Manner::Good);
    for (url, why) in
        [(page, "nor a whole PyTorch"), (other, "lacks the tensor"), (cut, "its end is missing")]
    {
        let nowhere = pull(&store, &file(None, &[url]), &mut all).unwrap_err().to_string();
        assert!(nowhere.contains("gave another file") && nowhere.contains(why), "{nowhere}");
        assert!(names(&store).is_empty());
    }
    let (good, _) = serve(weights.clone(), Manner::Good);
    let file = file(None, &[page, good]);
    let place = pull(&store, &file, &mut all).unwrap();
    assert_eq!(std::fs::read(&place).unwrap(), weights);
    let verdict = |stop: bool| {
        let mut watch = |_| if stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
        store.verify(&file, &place, &mut watch)
    };
    assert_eq!(verdict(false).unwrap(), Verdict::Unpublished);
    // PyTorch's format has sums of its own: values that were lost show.
    let mut zip = Vec::new();
    Checkpoint::open(&place).unwrap().write_pytorch(None, &mut zip).unwrap();
    let original = folder.path().join("original.pth");
    std::fs::write(&original, &zip).unwrap();
    let middle = zip.len() / 2;
    zip[middle..middle + 100].iter_mut().for_each(|byte| *byte ^= 1);
    std::fs::write(&place, &zip).unwrap();
    let damaged = verdict(false).unwrap();
    assert!(matches!(&damaged, Verdict::Wrong(reason) if reason.contains("is damaged")), "{damaged:?}");
    assert_eq!(verdict(true).unwrap_err().kind(), ErrorKind::Interrupted);
    let imported = store.import(&file, &place, &mut |_| ControlFlow::Continue(())).unwrap_err().to_string();
    assert!(imported.contains("is damaged"), "{imported}");
    let (url, _) = serve(zip, Manner::Good);
    let pulled = pull(&store, &self::file(None, &[url]), &mut all).unwrap_err().to_string();
    assert!(pulled.contains("is damaged"), "{pulled}");
    store.import(&file, &original, &mut |_| ControlFlow::Continue(())).unwrap();
    assert_eq!(verdict(false).unwrap(), Verdict::Unpublished);
}

/// Where the process that [`killed_at_any_moment`] kills finds its folder and its address.
const CHILD: [&str; 2] = ["DIFFBIR_TEST_FOLDER", "DIFFBIR_TEST_ADDRESS"];

#[test]
#[ignore = "is run, and killed, by the test `killed_at_any_moment`"]
fn child() {
    let [folder, address] = CHILD.map(|name| std::env::var(name).expect("set by the other test"));
    pull(&Store::at(folder), &file(Some(hash()), &[address.leak()]), &mut all).unwrap();
}

#[test]
fn killed_at_any_moment() {
    let folder = tempfile::TempDir::new().unwrap();
    let store = Store::at(folder.path());
    let (url, asked) = serve(content(), Manner::Slow);
    let file = file(Some(hash()), &[url]);
    for at_least in [0, 1, 700_000, 1_400_000, 2_100_000, 2_800_000] {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child", "--ignored"])
            .envs(CHILD.into_iter().zip([folder.path().to_str().unwrap(), url]))
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let size = || partial_in(folder.path()).and_then(|path| Some(path.metadata().ok()?.len()));
        while size().is_none_or(|size| size < at_least) && child.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(1));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(store.find(&file).is_none(), "half a file has no name");
    }
    let place = pull(&store, &file, &mut all).unwrap();
    assert_eq!(std::fs::read(place).unwrap(), content());
    assert_eq!(names(&store), ["weights.bin"]);
    let asked = asked.lock().unwrap();
    assert!(asked.iter().skip(2).all(|from| from.is_some_and(|from| from > 0)), "{asked:?}");
}

/// The partial file is a link to a device on which nothing has room.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_told_and_leaves_what_was_there() {
    let folder = tempfile::TempDir::new().unwrap();
    let store = Store::at(folder.path());
    let (url, _) = serve(content(), Manner::Good);
    let file = file(Some(hash()), &[url]);
    let _ = pull(&store, &file, &mut |event| match event {
        Download::Bytes(done, _) if done > 1_000_000 => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    });
    let partial = partial_in(folder.path()).unwrap();
    let kept = folder.path().join("kept");
    std::fs::rename(&partial, &kept).unwrap();
    std::os::unix::fs::symlink("/dev/full", &partial).unwrap();
    let full = pull(&store, &file, &mut all).unwrap_err();
    assert!(matches!(&full, PullError::Write { reason, .. } if reason.kind() == ErrorKind::StorageFull));
    assert!(full.to_string().contains("cannot be written"), "{full}");
    assert!(store.find(&file).is_none());
    // With room again it goes on.
    std::fs::rename(&kept, &partial).unwrap();
    assert_eq!(std::fs::read(pull(&store, &file, &mut all).unwrap()).unwrap(), content());
}

#[test]
fn an_import_that_is_stopped_or_wrong_leaves_nothing() {
    let folder = tempfile::TempDir::new().unwrap();
    let store = Store::at(folder.path().join("models"));
    let own = folder.path().join("own.bin");
    std::fs::write(&own, content()).unwrap();
    let file = file(Some(hash()), &["http://127.0.0.1:1/"]);
    let stopped = store.import(&file, &own, &mut |_| ControlFlow::Break(()));
    assert!(matches!(stopped, Err(PullError::Stopped)));
    let other = WeightFile { sha256: Some("00"), ..file };
    let wrong = store.import(&other, &own, &mut |_| ControlFlow::Continue(()));
    assert!(matches!(wrong, Err(PullError::Hash { .. })));
    assert!(names(&store).is_empty());
    let place = store.import(&file, &own, &mut |_| ControlFlow::Continue(())).unwrap();
    assert_eq!(std::fs::read(&place).unwrap(), content());
    assert_eq!(names(&store), ["weights.bin"]);
    assert_eq!(store.verify(&file, &place, &mut |_| ControlFlow::Continue(())).unwrap(), Verdict::Right);
    std::fs::write(&place, b"another").unwrap();
    let verdict = store.verify(&file, &place, &mut |_| ControlFlow::Continue(())).unwrap();
    assert!(matches!(verdict, Verdict::Wrong(reason) if reason.contains("SHA-256")));
}
