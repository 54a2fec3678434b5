//! Which pictures are meant: what is none is named, and the rest goes on.

mod common;

use common::{diffbir, names, restore, save};
use predicates::prelude::*;
use predicates::str::contains;
use tempfile::TempDir;

#[test]
fn what_is_missing_or_empty_is_one_failure_among_others() {
    let folder = TempDir::new().unwrap();
    let (a, b) = (save(folder.path(), "a.png"), save(folder.path(), "b.png"));
    let empty = folder.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    let output = folder.path().join("out");
    restore(&[&a, &folder.path().join("nofile.png"), &empty, &b, &"-o", &output, &"--upscale", &"1"])
        .code(1)
        .stderr(
            contains("nofile.png: no such file or folder")
                .and(contains("empty: holds no pictures"))
                .and(contains("2 results written by nano, 2 failed")),
        );
    assert_eq!(names(&output), ["a.png", "b.png"]);
    restore(&[&empty, &folder.path().join("no*.png")]).code(1).stderr(
        contains("empty: holds no pictures")
            .and(contains("no*.png: matches no file"))
            .and(contains("0 results written, 2 failed")),
    );
}

#[test]
fn what_is_missing_alone_fails_as_it_does_among_others() {
    let folder = TempDir::new().unwrap();
    let missing = folder.path().join("nofile.png");
    restore(&[&missing])
        .code(1)
        .stderr(contains("nofile.png: no such file or folder").and(contains("0 results written, 1 failed")));
    let told = restore(&[&missing, &"--json"]).code(1);
    let told = String::from_utf8(told.get_output().stdout.clone()).unwrap();
    let events: Vec<serde_json::Value> =
        told.lines().map(|line| serde_json::from_str(line).expect("each line is JSON")).collect();
    assert_eq!(events.iter().map(|event| &event["event"]).collect::<Vec<_>>(), ["error", "end"]);
    assert_eq!((&events[1]["failed"], &events[1]["model"]), (&1.into(), &serde_json::Value::Null));
    diffbir()
        .arg("restore")
        .arg("--input")
        .arg(folder.path().join("nofolder"))
        .arg("--output")
        .arg(folder.path().join("out"))
        .assert()
        .code(1)
        .stderr(contains("nofolder: no such file or folder"));
    diffbir()
        .arg("degrade")
        .arg(&missing)
        .arg("-o")
        .arg(folder.path())
        .assert()
        .code(1)
        .stderr(contains("nofile.png: no such file or folder").and(contains("0 results written, 1 failed")));
}

#[test]
fn what_a_folder_holds_in_other_formats_is_said() {
    let folder = TempDir::new().unwrap();
    let inputs = folder.path().join("in");
    save(&inputs, "a.png");
    for name in ["a.AVIF", "b.psd", "notes.txt"] {
        std::fs::write(inputs.join(name), "not read").unwrap();
    }
    let output = folder.path().join("out");
    restore(&[&inputs, &"-o", &output, &"--upscale", &"1"])
        .success()
        .stderr(contains("2 left out in formats that are not read"));
}

#[test]
fn jpeg_xl_is_found_and_becomes_a_png_with_its_metadata() {
    let folder = TempDir::new().unwrap();
    let inputs = folder.path().join("in");
    std::fs::create_dir(&inputs).unwrap();
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../imaging/tests/goldens/jxl/rgb.jxl");
    std::fs::copy(file, inputs.join("a.jxl")).unwrap();
    let output = folder.path().join("out");
    restore(&[&inputs, &"-o", &output, &"--upscale", &"1"]).success();
    assert_eq!(names(&output), ["a.png"]);
    let result = diffbir_imaging::decode(&output.join("a.png")).unwrap();
    assert_eq!((result.width_px, result.height_px), (37, 29));
    assert!(result.metadata.exif.is_some() && result.metadata.xmp.is_some());
}

#[test]
fn a_picture_whose_name_has_no_ending_is_found_by_what_it_holds() {
    let folder = TempDir::new().unwrap();
    let inputs = folder.path().join("in");
    std::fs::rename(save(&inputs, "a.png"), inputs.join("scan 12")).unwrap();
    std::fs::write(inputs.join("NOTES"), "BMW, in the garage. A text of more than a header's bytes.")
        .unwrap();
    for name in ["README", ".hidden", "short"] {
        std::fs::write(inputs.join(name), &b"no picture at all, though it is long enough"[..name.len()])
            .unwrap();
    }
    let output = folder.path().join("out");
    restore(&[&inputs, &"-o", &output, &"--upscale", &"1"]).success();
    assert_eq!(names(&output), ["scan 12.png"]);
}

#[cfg(unix)]
#[test]
fn links_to_nothing_and_pipes_are_named() {
    use std::os::unix::fs::symlink;
    let folder = TempDir::new().unwrap();
    let inputs = folder.path().join("in");
    save(&inputs, "good.png");
    symlink("nowhere", inputs.join("dangling.png")).unwrap();
    symlink("loop.png", inputs.join("loop.png")).unwrap();
    std::fs::create_dir(inputs.join("folder.png")).unwrap();
    let made = std::process::Command::new("mkfifo").arg(inputs.join("pipe.png")).status().unwrap();
    assert!(made.success());
    let problems = || {
        contains("dangling.png: is a link to nothing")
            .and(contains("loop.png: cannot be read"))
            .and(contains("pipe.png: is a pipe or a device"))
    };
    let in_folder = folder.path().join("a");
    restore(&[&inputs, &"-o", &in_folder, &"--upscale", &"1"])
        .code(1)
        .stderr(problems().and(contains("1 result written by nano, 3 failed")));
    assert_eq!(names(&in_folder), ["good.png"]);
    let by_pattern = folder.path().join("b");
    restore(&[&inputs.join("*"), &"-o", &by_pattern, &"--upscale", &"1"])
        .code(1)
        .stderr(problems().and(contains("folder.png: holds no pictures")));
    assert_eq!(names(&by_pattern), ["good.png"]);
    diffbir()
        .arg("info")
        .args([inputs.join("pipe.png"), inputs.join("good.png"), inputs.clone()])
        .assert()
        .code(1)
        .stdout(contains("good.png: PNG"))
        .stderr(contains("pipe.png: is a pipe or a device").and(contains("is a folder")));
}

#[test]
fn results_of_an_earlier_run_are_no_inputs() {
    let folder = TempDir::new().unwrap();
    let inputs = folder.path().join("in");
    save(&inputs, "a.png");
    save(&inputs, "b.jpg");
    restore(&[&inputs, &"--upscale", &"1"]).success();
    let all = ["a.png", "a_restored.png", "b.jpg", "b_restored.png"];
    assert_eq!(names(&inputs), all);
    restore(&[&inputs, &"--upscale", &"1"]).code(2).stderr(contains("exists already"));
    restore(&[&inputs, &"--upscale", &"1", &"--existing", &"skip"])
        .success()
        .stderr(contains("0 results written by nano, 2 left as they were"));
    assert_eq!(names(&inputs), all);

    let output = inputs.join("out");
    let again = |existing: &str| {
        restore(&[&inputs, &"-r", &"-o", &output, &"--upscale", &"1", &"--existing", &existing])
    };
    again("error").success().stderr(contains("4 results"));
    again("skip").success().stderr(contains("4 left as they were"));
    assert_eq!(names(&output), ["a.png", "a_restored.png", "b.png", "b_restored.png"]);
    // One that is named is meant.
    restore(&[&inputs.join("a_restored.png"), &"--upscale", &"1"]).success();
    assert!(inputs.join("a_restored_restored.png").exists());
}

#[test]
fn patterns_keep_the_folders_below_their_fixed_part() {
    let folder = TempDir::new().unwrap();
    let inputs = folder.path().join("in");
    save(&inputs, "one/a.png");
    save(&inputs, "two/deep/a.png");
    let output = folder.path().join("out");
    restore(&[&inputs.join("**/*.png"), &"-o", &output, &"--upscale", &"1"]).success();
    assert_eq!(names(&output), ["one", "two"]);
    assert_eq!(names(&output.join("two/deep")), ["a.png"]);
}
