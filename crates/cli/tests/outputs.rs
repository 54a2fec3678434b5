//! Where results go: never over an input, never where they cannot be written, and that before any work.

mod common;

use common::{diffbir, names, restore, save};
use predicates::prelude::*;
use predicates::str::contains;
use tempfile::TempDir;

#[test]
fn a_folder_that_cannot_be_written_is_named() {
    let folder = TempDir::new().unwrap();
    let input = save(folder.path(), "a.png");
    let file = save(folder.path(), "b.png");
    let before = std::fs::read(&file).unwrap();
    restore(&[&input, &"-o", &file.join("inside/")]).failure().stderr(contains("b.png"));
    assert_eq!(std::fs::read(&file).unwrap(), before);
    assert_eq!(names(folder.path()), ["a.png", "b.png"]);
}

#[test]
fn up_and_down_again_is_no_way_around_the_input() {
    let folder = TempDir::new().unwrap();
    let input = save(folder.path(), "a/x.png");
    let a = input.parent().unwrap();
    let before = std::fs::read(&input).unwrap();
    for output in ["new/..", "new/../x.png", "new/deep/../../x.png", "."] {
        restore(&[&input, &"-o", &a.join(output), &"--existing", &"overwrite"])
            .code(2)
            .stderr(contains("would lie over an input"));
    }
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(a, folder.path().join("lnk")).unwrap();
        restore(&[&input, &"-o", &folder.path().join("lnk/new/.."), &"--existing", &"overwrite"])
            .code(2)
            .stderr(contains("would lie over an input"));
    }
    assert_eq!(std::fs::read(&input).unwrap(), before);
    assert_eq!(names(a), ["x.png"], "an error before work leaves nothing behind");
    // Where it means another place it is a place like any other.
    restore(&[&input, &"-o", &a.join("new/../../b"), &"--upscale", &"1"]).success();
    assert_eq!(names(&folder.path().join("b")), ["x.png"]);
    assert_eq!(names(a), ["x.png"]);
}

#[test]
fn names_that_are_not_written_are_refused() {
    let folder = TempDir::new().unwrap();
    let input = save(folder.path(), "a.png");
    for name in ["r.bmp", "r.GIF", "r.heic"] {
        restore(&[&input, &"-o", &folder.path().join(name)])
            .code(2)
            .stderr(contains("png, jpeg, webp and tiff"));
    }
    assert_eq!(names(folder.path()), ["a.png"]);
    restore(&[&input, &"-o", &folder.path().join("r.bmp/"), &"--upscale", &"1"]).success();
    restore(&[&input, &"-o", &folder.path().join("r.png/"), &"--upscale", &"1"]).success();
    assert_eq!(names(&folder.path().join("r.bmp")), ["a.png"]);
    assert_eq!(names(&folder.path().join("r.png")), ["a.png"]);
}

#[test]
fn what_is_no_file_is_neither_replaced_nor_a_result() {
    let folder = TempDir::new().unwrap();
    let input = save(folder.path(), "a.png");
    let output = folder.path().join("out");
    std::fs::create_dir_all(output.join("a.png")).unwrap();
    for existing in ["error", "skip", "overwrite"] {
        restore(&[&input, &"-o", &output, &"--existing", &existing])
            .code(2)
            .stderr(contains("a.png: is a folder"));
    }
    // A file in the way of a folder, and a folder of one result that is another's file.
    std::fs::write(folder.path().join("plain"), b"").unwrap();
    restore(&[&input, &"-o", &folder.path().join("plain")]).code(2).stderr(contains("plain: is no folder"));
    let inputs = folder.path().join("in");
    save(&inputs, "x.jpg");
    save(&inputs, "x.png/y.jpg");
    restore(&[&inputs, &"-r", &"-o", &folder.path().join("results")])
        .code(2)
        .stderr(contains("y.jpg: the folder of its result"));
    assert!(!folder.path().join("results").exists());
}

#[cfg(unix)]
#[test]
fn links_devices_and_closed_folders_are_found_before_work() {
    let folder = TempDir::new().unwrap();
    let input = save(folder.path(), "a.png");
    let link = folder.path().join("link.png");
    std::os::unix::fs::symlink(folder.path().join("nowhere.png"), &link).unwrap();
    restore(&[&input, &"-o", &link]).code(2).stderr(contains("exists already"));
    restore(&[&input, &"-o", &link, &"--existing", &"skip"]).code(2).stderr(contains("a link to nothing"));
    restore(&[&input, &"-o", &link, &"--existing", &"overwrite", &"--upscale", &"1"]).success();
    assert!(link.is_file() && !link.is_symlink());
    restore(&[&input, &"-o", &"/dev/null"]).code(2).stderr(contains("/dev/null: is no folder"));
    if cfg!(target_os = "linux") {
        restore(&[&input, &"-o", &"/proc/results"])
            .code(1)
            .stderr(contains("/proc: no result can be written"));
    }
}

#[test]
fn leftovers_of_a_killed_run_are_removed_and_living_files_are_not() {
    let folder = TempDir::new().unwrap();
    let input = save(folder.path(), "a.png");
    let (output, values) = (folder.path().join("out"), folder.path().join("values"));
    let old = |folder: &std::path::Path, name: &str| {
        std::fs::create_dir_all(folder).unwrap();
        let file = std::fs::File::create(folder.join(name)).unwrap();
        file.set_modified(std::time::SystemTime::now() - std::time::Duration::from_secs(600)).unwrap();
        file
    };
    let living = old(&output, ".diffbir-living.partial");
    living.try_lock().unwrap();
    drop(old(&output, ".diffbir-orphan.partial"));
    drop(old(&values, ".diffbir-orphan.partial"));
    restore(&[&input, &"-o", &output, &"--upscale", &"1", &"--save-intermediates", &values]).success();
    assert_eq!(names(&output), [".diffbir-living.partial", "a.png"]);
    assert_eq!(names(&values), ["a.safetensors"]);
    // Programs that other tests are starting may hold its lock a moment longer.
    std::fs::remove_file(output.join(".diffbir-living.partial")).unwrap();
    drop(old(&output, ".diffbir-orphan.partial"));
    diffbir()
        .arg("degrade")
        .arg(&input)
        .arg("-o")
        .arg(output.join(""))
        .args(["--existing", "overwrite"])
        .assert()
        .success();
    assert_eq!(names(&output), ["a.json", "a.png"]);
}

#[test]
fn values_on_the_way_keep_folders_and_never_collide() {
    let folder = TempDir::new().unwrap();
    let inputs = folder.path().join("in");
    let named = [save(&inputs, "one/a.png"), save(&inputs, "two/a.png")];
    let values = folder.path().join("values");
    let more = |inputs: &[&dyn AsRef<std::ffi::OsStr>]| {
        let mut all = inputs.to_vec();
        all.extend([&"--upscale" as &dyn AsRef<std::ffi::OsStr>, &"1", &"--save-intermediates", &values]);
        restore(&all)
    };
    more(&[&inputs, &"-r", &"-o", &folder.path().join("out")]).success();
    assert_eq!(names(&values), ["one", "two"]);
    assert_eq!(names(&values.join("two")), ["a.safetensors"]);
    std::fs::remove_dir_all(&values).unwrap();
    more(&[&named[0], &named[1]])
        .code(2)
        .stderr(contains("--save-intermediates").and(contains("would both become")));
    assert!(!values.exists());
    // What cannot be a folder is noticed before any picture is restored.
    std::fs::write(&values, b"notes").unwrap();
    more(&[&named[0]]).code(2).stderr(contains("--save-intermediates").and(contains("is no folder")));
    std::fs::remove_file(&values).unwrap();
    std::fs::create_dir_all(values.join("a_restored.safetensors")).unwrap();
    more(&[&named[0]]).code(2).stderr(contains("a_restored.safetensors: is a folder"));
    std::fs::remove_dir_all(&values).unwrap();
    // A picture under the name of such a file, and a result in the way of the folder.
    let odd = save(&inputs, "odd.png").with_file_name("b.safetensors");
    std::fs::rename(inputs.join("odd.png"), &odd).unwrap();
    let over = |output: &std::path::Path, values: &std::path::Path| {
        restore(&[&odd, &"-o", &output, &"--upscale", &"1", &"--save-intermediates", &values])
            .code(2)
            .stderr(contains("would lie over an input, the model or a result"));
    };
    let out = folder.path().join("b.png");
    over(&out, &inputs);
    over(&out, &out);
    assert!(odd.exists() && !out.exists());
    let long = save(&inputs, &format!("{}.png", "n".repeat(248)));
    let out = folder.path().join("new/");
    restore(&[&long, &"-o", &out, &"--upscale", &"1", &"--save-intermediates", &folder.path().join("fresh")])
        .code(2)
        .stderr(contains("a name of 260 bytes is longer than 255"));
    assert!(!out.exists());
    std::fs::remove_file(long).unwrap();
    // Values of an earlier run stay, whatever is done with results.
    std::fs::create_dir(&values).unwrap();
    std::fs::write(values.join("a_restored.safetensors"), b"mine").unwrap();
    more(&[&named[0], &"--existing", &"skip"]).code(2).stderr(contains("exists already"));
    more(&[&named[0], &"--existing", &"overwrite"]).success();
    std::fs::remove_file(inputs.join("one/a_restored.png")).unwrap();
    std::fs::remove_file(odd).unwrap();
    assert_eq!(names(&inputs.join("one")), ["a.png"]);
}

#[cfg(target_os = "linux")]
#[test]
fn names_that_are_no_text_stay_what_they_are() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let folder = TempDir::new().unwrap();
    let good = save(folder.path(), "good.png");
    let output = folder.path().join("out");
    let inputs = [b"bad\xff.png", b"bad\xfe.png"].map(|name| folder.path().join(OsStr::from_bytes(name)));
    for input in &inputs {
        std::fs::copy(&good, input).unwrap();
    }
    let told = restore(&[&inputs[0], &inputs[1], &"-o", &output, &"--upscale", &"1", &"--json"]).success();
    for input in &inputs {
        assert!(output.join(input.file_name().unwrap()).is_file());
    }
    for line in String::from_utf8(told.get_output().stdout.clone()).unwrap().lines() {
        let event: serde_json::Value = serde_json::from_str(line).expect("each line is JSON");
        assert!(event["event"].is_string());
    }
}
