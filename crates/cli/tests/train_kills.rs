//! Runs that are killed at any moment end as one that never was.

#![cfg(unix)]

mod common;

use common::picture;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

const STEPS: &str = "150";

fn start(data: &Path, output: &Path) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_diffbir"));
    command.args(["train", "stage1", "--steps", STEPS, "--batch", "1", "--checkpoint-every", "3", "--data"]);
    command.arg(data).arg("--validation").arg(data).arg("--output").arg(output);
    for field in ["network.features=4", "network.convolutions=1", "data.crop_px=32", "run.log_every=1"] {
        command.args(["--set", field]);
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Lets the run end; its last words.
fn end(run: Child) -> String {
    let output = run.wait_with_output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{told}");
    told
}

/// The newest checkpoint.
fn newest(output: &Path) -> Option<u64> {
    let entries = std::fs::read_dir(output.join("checkpoints")).ok()?;
    entries.filter_map(|entry| entry.ok()?.path().file_stem()?.to_str()?.parse().ok()).max()
}

/// Each time a little later or sooner after it began.
#[test]
fn fifty_kills_change_nothing() {
    let folder = TempDir::new().unwrap();
    let data = folder.path().join("data");
    std::fs::create_dir(&data).unwrap();
    picture(40, 40).save(data.join("good.png")).unwrap();
    // Both under one name: a checkpoint holds the configuration, and that the folder.
    let (output, whole) = (folder.path().join("run"), folder.path().join("whole"));
    end(start(&data, &output));
    std::fs::rename(&output, &whole).unwrap();
    let (mut moment, mut killed, mut last) = (7u64, 0, None);
    while killed < 50 {
        let mut run = start(&data, &output);
        moment = moment.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        std::thread::sleep(Duration::from_millis(20 + (moment >> 33) % 150));
        let early = run.try_wait().unwrap().is_none();
        run.kill().unwrap();
        run.wait().unwrap();
        killed += 1;
        let there = newest(&output);
        assert!(there >= last, "a kill costs no more than the steps since the last checkpoint");
        last = there;
        if !early {
            std::fs::remove_dir_all(&output).unwrap();
            last = None;
        }
    }
    end(start(&data, &output));
    for name in ["checkpoints/0000150.safetensors", "stage1.safetensors", "stage1-best.safetensors"] {
        let read = |folder: &Path| std::fs::read(folder.join(name)).unwrap();
        assert!(read(&whole) == read(&output), "{name} differs from that of the run that was left alone");
    }
}
