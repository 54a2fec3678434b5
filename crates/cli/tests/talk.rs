//! stdout and stderr, and what happens when nobody reads them.

mod common;

use common::{diffbir, save};
use predicates::prelude::*;
use predicates::str::contains;
use tempfile::TempDir;

#[test]
fn info_and_completions_speak_on_stdout() {
    let folder = TempDir::new().unwrap();
    let input = save(folder.path(), "a.png");
    diffbir().arg("info").arg(&input).assert().success().stdout(contains("PNG, 16 x 12 pixels, 8 bits, RGB"));
    let origin = contains("model `nano`").and(contains("TAEF2")).and(contains("MIT"));
    diffbir().args(["info", "nano"]).assert().success().stdout(origin);
    diffbir().args(["completions", "bash"]).assert().success().stdout(contains("restore"));
    diffbir().arg("man").assert().success().stdout(contains("diffbir"));
    let options = contains("diffbir\\-restore").and(contains("\\-\\-upscale"));
    diffbir().args(["man", "restore"]).assert().success().stdout(options);
    diffbir().args(["man", "train", "stage1"]).assert().success().stdout(contains("\\-\\-network"));
    diffbir().args(["man", "paint"]).assert().code(2).stderr(contains("no such command"));
    let other = folder.path().join("network.onnx");
    std::fs::write(&other, b"\x08\x07\x12\x07pytorch and more").unwrap();
    diffbir().arg("info").arg(&other).assert().code(1).stderr(contains("is not a whole ONNX file"));
}

#[test]
fn a_bench_says_what_was_measured_in_one_line() {
    let run = diffbir()
        .args([
            "bench",
            "--model",
            "nano",
            "--device",
            "cpu",
            "--size",
            "64",
            "--runs",
            "2",
            "--steps",
            "5",
            "--precision",
            "f32",
        ])
        .assert()
        .success()
        .stderr(contains("run to warm up").and(contains("run 2 of 2")));
    let line = String::from_utf8(run.get_output().stdout.clone()).unwrap();
    assert_eq!(line.lines().count(), 1, "{line}");
    let parts: Vec<&str> = line.split(" | ").collect();
    assert_eq!(parts.len(), 8, "{line}");
    assert!(parts[0].starts_with("diffbir ") && parts[1] == "nano" && parts[2].contains(" thread"), "{line}");
    assert_eq!(parts[3..5], ["f32", "64 x 64"]);
    // Of five steps nano spares its share.
    for stage in ["stage 1 ", "encode ", "sample 4 steps ", "decode "] {
        assert!(parts[5].contains(stage), "{stage} in {line}");
    }
    assert!(parts[6].contains(" 2 runs)") && parts[7].contains("iB at most"), "{line}");
}

#[test]
fn a_cause_is_given_once() {
    let folder = TempDir::new().unwrap();
    let talk = diffbir().arg("restore").arg(folder.path().join("x.png/y")).assert().code(1);
    let talk = String::from_utf8(talk.get_output().stderr.clone()).unwrap();
    assert_eq!(talk.matches("no such file").count(), 1, "{talk}");
}

/// Readers that have gone, and disks that are full, as Unix shows them.
#[cfg(unix)]
mod unheard {
    use super::*;
    use std::process::{Command, Stdio};

    fn command(arguments: &[&str]) -> Command {
        let mut command = Command::new(assert_cmd::cargo::cargo_bin("diffbir"));
        command.args(arguments);
        command
    }

    /// The writing end of a pipe that nobody reads.
    fn closed_pipe() -> Stdio {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        writer.into()
    }

    #[test]
    fn results_do_not_depend_on_talk() {
        let folder = TempDir::new().unwrap();
        let input = save(folder.path(), "a.png");
        let run = |name: &str, json: bool, stdout: Stdio, stderr: Stdio| {
            let output = folder.path().join(name);
            let mut command = command(&["restore", "--stage1-only", "--device", "cpu", "--upscale", "1"]);
            command.arg(&input).arg("-o").arg(&output).args(json.then_some("--json"));
            let status = command.stdout(stdout).stderr(stderr).status().unwrap();
            assert!(output.is_file(), "{name} is lost");
            status.code()
        };
        assert_eq!(run("talk.png", false, Stdio::null(), closed_pipe()), Some(0));
        assert_eq!(run("events.png", true, closed_pipe(), closed_pipe()), Some(0));
        #[cfg(target_os = "linux")]
        {
            let full = || std::fs::File::create("/dev/full").unwrap().into();
            assert_eq!(run("full talk.png", false, Stdio::null(), full()), Some(0));
            assert_eq!(run("full.png", true, full(), Stdio::null()), Some(1));
        }
    }

    #[test]
    fn data_for_a_closed_pipe_ends_quietly_and_on_a_full_disk_with_an_error() {
        for arguments in [&["completions", "bash"][..], &["man"], &["info", "nano"]] {
            let closed = command(arguments).stdout(closed_pipe()).output().unwrap();
            assert_eq!(
                (closed.status.code(), closed.stderr.as_slice()),
                (Some(0), &b""[..]),
                "{arguments:?}"
            );
            #[cfg(target_os = "linux")]
            {
                let full = std::fs::File::create("/dev/full").unwrap();
                let full = command(arguments).stdout(full).output().unwrap();
                let talk = String::from_utf8(full.stderr).unwrap();
                assert_eq!(full.status.code(), Some(1), "{arguments:?}");
                assert!(talk.starts_with("error: stdout cannot be written"), "{talk}");
            }
        }
    }
}
