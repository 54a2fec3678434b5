//! `diffbir eval`: numbers of folders, and nothing that is dropped silently.

#[path = "../common/mod.rs"]
mod common;
mod contest;

use common::{diffbir, names, picture};
use image::{DynamicImage, RgbImage};
use predicates::prelude::*;
use predicates::str::contains;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

fn eval(arguments: &[&dyn AsRef<OsStr>]) -> assert_cmd::assert::Assert {
    let mut command = diffbir();
    command.arg("eval");
    for argument in arguments {
        command.arg(argument);
    }
    command.assert()
}

/// Parameters of NIQE that are not its authors'.
fn niqe() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../metrics/tests/goldens/niqe_formula.npz")
}

fn save(folder: &Path, name: &str, picture: impl Into<DynamicImage>) {
    let path = folder.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    picture.into().save(path).unwrap();
}

/// Every value five levels higher.
fn brighter(width: u32, height: u32) -> RgbImage {
    let mut picture = picture(width, height);
    picture.iter_mut().for_each(|value| *value = (*value / 2) + 5);
    picture
}

/// Something with edges for networks.
fn scene(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        let edge = if (x / 7 + y / 5) % 2 == 0 { 60 } else { 0 };
        image::Rgb([(x * 3 % 180 + edge) as u8, (y * 5 % 180 + edge) as u8, 90])
    })
}

fn half(width: u32, height: u32) -> RgbImage {
    let mut picture = picture(width, height);
    picture.iter_mut().for_each(|value| *value /= 2);
    picture
}

fn folders(folder: &TempDir) -> (PathBuf, PathBuf, PathBuf) {
    (folder.path().join("truth"), folder.path().join("restored"), folder.path().join("out"))
}

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

#[test]
fn restored_pictures_are_measured_against_the_truth() {
    let folder = TempDir::new().unwrap();
    let (truth, restored, out) = folders(&folder);
    save(&truth, "a.png", half(200, 180));
    save(&restored, "a.tiff", brighter(200, 180));
    save(&truth, "in/b.png", half(40, 30));
    save(&restored, "in/b.png", half(40, 30));
    let told = eval(&[&"--restored", &restored, &"--truth", &truth, &"-o", &out]).success();
    let told = told.stderr(contains("LPIPS is left out").and(contains("2 measured")));
    let table = String::from_utf8(told.get_output().stdout.clone()).unwrap();
    // Five levels in all channels: 20 log10 51 dB.
    assert!(table.contains("| a         | 34.15  |") && table.contains("| in/b      | inf    |"), "{table}");
    assert!(table.contains("MS-SSIM-Y: below 161 x 161 pixels"), "{table}");
    // The mean is of the pictures that are not equal.
    assert!(table.contains("| mean of 2 | 34.15 ") && table.contains("MS-SSIM-Y of 1"), "{table}");
    assert!(table.contains("PSNR of 1 (1 infinite), PSNR-Y of 1 (1 infinite)"), "{table}");
    assert_eq!(text(&out.join("table.md")), table);
    assert_eq!(names(&out), ["results.jsonl", "table.csv", "table.json", "table.md"]);
    let csv = text(&out.join("table.csv"));
    assert!(csv.starts_with("method,picture,psnr,psnr_y,ssim,ssim_y,ms_ssim_y,colour,note\n"), "{csv}");
    assert!(csv.contains("restored,a,34.151404,"), "{csv}");
    let json: serde_json::Value = serde_json::from_str(&text(&out.join("table.json"))).unwrap();
    assert_eq!(json["pictures"][0]["rows"][0]["values"]["colour"], 5.0);
    assert_eq!(json["pictures"][1]["rows"][0]["values"]["psnr"], "inf");
    let mean = &json["methods"][0]["means"]["psnr"];
    assert!(mean["of"] == 1 && mean["infinite"] == 1 && mean["mean"].as_f64().unwrap() < 35.0, "{json}");
    // A border is cut off first.
    let cut = eval(&[&"--restored", &restored, &"--truth", &truth, &"--border", &"15", &"--table", &"csv"]);
    let cut = cut.code(1).stderr(contains("in/b: the picture has 40 x 30 pixels"));
    cut.stdout(contains("restored,a,34.151404,"));
}

#[test]
fn what_cannot_be_compared_is_told_counted_and_in_the_tables() {
    let folder = TempDir::new().unwrap();
    let (truth, restored, out) = folders(&folder);
    for name in ["good.png", "lonely.png", "large.png", "torn.png", "twice.png"] {
        save(&truth, name, picture(20, 20));
    }
    save(&restored, "good.png", picture(20, 20));
    save(&restored, "stranger.png", picture(20, 20));
    save(&restored, "large.png", picture(21, 20));
    std::fs::write(restored.join("torn.png"), b"no picture").unwrap();
    save(&restored, "twice.png", picture(20, 20));
    save(&restored, "twice.jpg", picture(20, 20));
    let told = eval(&[&"--restored", &restored, &"--truth", &truth, &"-o", &out, &"--sheets"]).code(1);
    // What is not there has its reason on the sheet, in the place of a picture; without any picture there is none.
    let drawn = ["good", "large", "lonely", "stranger", "torn", "twice.jpg", "twice.png"];
    assert_eq!(names(&out.join("sheets")), drawn.map(|name| format!("{name}.png")));
    let (good, lonely) = (out.join("sheets/good.png"), out.join("sheets/lonely.png"));
    assert_eq!(image::open(lonely).unwrap().width(), image::open(good).unwrap().width());
    let output = told.get_output();
    let (table, talk) =
        [&output.stdout, &output.stderr].map(|text| String::from_utf8(text.clone()).unwrap()).into();
    for (name, reason) in [
        ("lonely", "there is no picture of this name in restored"),
        ("stranger", "there is no picture of this name in the folder of --truth"),
        ("large", "differ in size"),
        ("torn", "torn.png"),
        ("twice.jpg", "there is no picture of this name in the folder of --truth"),
    ] {
        let line = talk.lines().find(|line| line.starts_with(&format!("error: {name}: ")));
        assert!(line.is_some_and(|line| line.contains(reason)), "{name} in {talk}");
        let line = table.lines().find(|line| line.starts_with(&format!("| {name} ")));
        assert!(line.is_some_and(|line| line.contains(reason)), "{name} in {table}");
    }
    assert!(talk.contains("2 measured, 5 failed"), "{talk}");
    assert!(table.contains("| mean of 2 ") && table.contains("5 failed"), "{table}");
}

#[cfg(unix)]
#[test]
fn what_is_found_and_not_measured_is_in_the_tables() {
    let folder = TempDir::new().unwrap();
    let (truth, restored, out) = folders(&folder);
    save(&truth, "a.png", picture(20, 20));
    save(&restored, "a.png", picture(20, 20));
    std::os::unix::fs::symlink("nowhere.png", restored.join("b.png")).unwrap();
    std::fs::create_dir(truth.join("in")).unwrap();
    std::fs::write(truth.join("in/c.heic"), b"").unwrap();
    eval(&[&"--restored", &restored, &"--truth", &truth, &"-o", &out])
        .code(1)
        .stderr(contains("b.png: is a link to nothing").and(contains("1 measured, 2 failed")));
    let table = text(&out.join("table.md"));
    assert!(table.contains("| b.png        | restored | is a link to nothing |"), "{table}");
    assert!(table.contains("| in/c.heic    | truth    | is in a format that is not read |"), "{table}");
    let csv = text(&out.join("table.csv"));
    assert!(csv.contains("restored,b.png,,,,,,,is a link to nothing\n"), "{csv}");
    assert!(csv.contains("truth,in/c.heic,,,,,,,is in a format that is not read\n"), "{csv}");
    let json: serde_json::Value = serde_json::from_str(&text(&out.join("table.json"))).unwrap();
    let known = serde_json::json!({
        "folder": "restored", "file": "b.png", "reason": "is a link to nothing"
    });
    assert_eq!(json["problems"][0], known);
    assert_eq!(json["problems"].as_array().unwrap().len(), 2);
}

#[test]
fn pictures_without_a_truth_have_their_niqe() {
    let folder = TempDir::new().unwrap();
    let (_, restored, _) = folders(&folder);
    save(
        &restored,
        "noise.png",
        RgbImage::from_fn(200, 200, |x, y| {
            let value = (x * 7919 + y * 104_729 + x * y * 31) % 251;
            image::Rgb([value as u8, (value * 3 % 251) as u8, (value * 7 % 251) as u8])
        }),
    );
    save(&restored, "small.png", picture(1, 1));
    let told = eval(&[&"--restored", &restored, &"--niqe", &niqe()]).success();
    let table = String::from_utf8(told.get_output().stdout.clone()).unwrap();
    assert!(table.starts_with("| picture   | NIQE ↓ | note"), "{table}");
    assert!(table.contains("| small     |        | NIQE: below 96 x 96 pixels"), "{table}");
    eval(&[&"--restored", &restored]).code(2).stderr(contains("only NIQE"));
    // What was pulled is found; it is looked for under the name of the catalog.
    let models = folder.path().join("models");
    std::fs::create_dir(&models).unwrap();
    std::fs::copy(niqe(), models.join("niqe_pris_params.npz")).unwrap();
    let mut pulled = diffbir();
    pulled.env("DIFFBIR_MODELS", &models).args(["eval", "--restored"]).arg(&restored);
    assert_eq!(pulled.assert().success().get_output().stdout, table.as_bytes());
    eval(&[&"--restored", &restored, &"--niqe", &restored.join("small.png")])
        .code(2)
        .stderr(contains("--niqe").and(contains("niqe_pris_params.npz")));
}

#[test]
fn any_kind_of_picture_is_measured() {
    let folder = TempDir::new().unwrap();
    let (truth, restored, _) = folders(&folder);
    let colours = picture(24, 24);
    let kinds: [(&str, DynamicImage); 4] = [
        ("grey.png", DynamicImage::from(colours.clone()).to_luma8().into()),
        ("alpha.png", DynamicImage::from(colours.clone()).to_rgba8().into()),
        ("deep.png", DynamicImage::from(colours).to_rgb16().into()),
        ("one.png", picture(1, 1).into()),
    ];
    for (name, picture) in kinds {
        save(&restored, name, picture.clone());
        save(&truth, name, picture.to_rgb8());
    }
    let told = eval(&[&"--restored", &restored, &"--truth", &truth, &"--niqe", &niqe()]).success();
    let table = String::from_utf8(told.get_output().stdout.clone()).unwrap();
    for name in ["alpha", "deep", "grey", "one"] {
        let line = table.lines().find(|line| line.starts_with(&format!("| {name} ")));
        assert!(line.is_some_and(|line| line.matches("inf").count() == 2), "{name} in {table}");
    }
}

#[test]
fn a_run_goes_on_and_refuses_other_settings() {
    let folder = TempDir::new().unwrap();
    let (truth, restored, out) = folders(&folder);
    for name in ["a.png", "b.png"] {
        save(&truth, name, half(30, 30));
        save(&restored, name, brighter(30, 30));
    }
    let run = |more: &[&dyn AsRef<OsStr>]| {
        let mut all: Vec<&dyn AsRef<OsStr>> = vec![&"--restored", &restored, &"--truth", &truth, &"-o", &out];
        all.extend(more);
        eval(&all)
    };
    let before = run(&[]).success().get_output().stdout.clone();
    let tables = ["table.md", "table.csv", "table.json"].map(|name| text(&out.join(name)));
    // As a run leaves it that is killed in the middle of a line.
    let results = text(&out.join("results.jsonl"));
    assert_eq!(results.lines().count(), 3);
    std::fs::write(out.join("results.jsonl"), &results[..results.len() - 9]).unwrap();
    let again = run(&[]).success().stderr(contains("1 of 2 pictures were measured before"));
    assert_eq!(again.get_output().stdout, before);
    assert_eq!(text(&out.join("results.jsonl")), results);
    assert_eq!(["table.md", "table.csv", "table.json"].map(|name| text(&out.join(name))), tables);
    run(&[&"--border", &"2"]).code(2).stderr(contains("border 0, now 2").and(contains("--restart")));
    assert_eq!(text(&out.join("results.jsonl")), results);
    // A file that has changed is measured anew.
    save(&restored, "a.png", half(30, 30));
    run(&[])
        .success()
        .stderr(contains("1 of 2 pictures were measured before"))
        .stdout(contains("| a         | inf"));
    run(&[&"--border", &"2", &"--restart"]).success().stderr(contains("before").not());
    // A sheet shows what the tables say, or is not there.
    let sheet = out.join("sheets/a.png");
    run(&[&"--border", &"2", &"--sheets"]).success();
    let drawn = std::fs::read(&sheet).unwrap();
    run(&[&"--restart"]).success();
    assert!(!sheet.exists());
    run(&[&"--sheets"]).success();
    let whole = std::fs::read(&sheet).unwrap();
    save(&restored, "a.png", brighter(30, 30));
    run(&[]).success();
    assert!(!sheet.exists());
    run(&[&"--sheets"]).success();
    let changed = std::fs::read(&sheet).unwrap();
    assert!(changed != whole && changed != drawn);
    std::fs::write(out.join("results.jsonl"), "notes of mine\n").unwrap();
    run(&[]).code(2).stderr(contains("is not a record of an evaluation"));
    assert_eq!(text(&out.join("results.jsonl")), "notes of mine\n");
}

#[test]
fn folders_that_make_no_sense_are_refused_before_work() {
    let folder = TempDir::new().unwrap();
    let (truth, restored, _) = folders(&folder);
    save(&truth, "a.png", picture(9, 9));
    save(&restored, "a.png", picture(9, 9));
    let empty = folder.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    let refused = |restored: &[&Path], truth: &Path, reason: &str| {
        let mut all: Vec<&dyn AsRef<OsStr>> = vec![&"--truth", &truth, &"--restored"];
        restored.iter().for_each(|restored| all.push(restored));
        eval(&all).code(2).stderr(contains(reason)).stdout("");
    };
    refused(&[&empty], &truth, "empty: holds no pictures");
    refused(&[&restored], &empty, "empty: holds no pictures");
    refused(&[&restored], &folder.path().join("nowhere"), "no such file or folder");
    refused(&[&restored], &truth.join("a.png"), "is a file: give the folder");
    refused(&[&truth.join("a.png")], &truth, "is a file: give the folder");
    refused(&[&truth], &truth.join("../truth"), "are the same folder");
    refused(&[&restored, &restored.join(".")], &truth, "is named twice");
    eval(&[]).code(2).stderr(contains("--restored"));
    eval(&[&"--restored", &restored, &"--truth", &truth, &"-o", &truth.join("a.png")])
        .code(2)
        .stderr(contains("a.png: is no folder"));
    #[cfg(target_os = "linux")]
    eval(&[&"--restored", &restored, &"--truth", &truth, &"-o", &"/proc/out"]).code(1).stdout("");
}

#[test]
fn repeated_samples_have_a_spread() {
    let folder = TempDir::new().unwrap();
    let (truth, restored, out) = folders(&folder);
    let second = folder.path().join("second");
    for name in ["a.png", "b.png"] {
        save(&truth, name, half(30, 30));
        save(&restored, name, brighter(30, 30));
        let mut other = half(30, 30);
        other.iter_mut().for_each(|value| *value += 15);
        save(&second, name, other);
    }
    let told =
        eval(&[&"--restored", &restored, &second, &"--truth", &truth, &"-o", &out, &"--sheets"]).success();
    // 34.151404 and 24.608979 dB; values five levels from their mean.
    told.stdout(contains("| 2 samples of 2 pictures | 4.7712 ").and(contains("| 0.0196 ")));
    let json: serde_json::Value = serde_json::from_str(&text(&out.join("table.json"))).unwrap();
    let close = |value: &serde_json::Value, known: f64| (value.as_f64().unwrap() - known).abs() < 1e-9;
    assert!(close(&json["spread"]["l_std"]["mean"], 5.0 / 255.0), "{json}");
    assert!(close(&json["spread"]["g_std"]["psnr"]["mean"], 10.0 * 3f64.log10()), "{json}");
    assert!(text(&out.join("table.csv")).contains("G-STD,mean of 2,4.771213,"));
    assert_eq!(names(&out.join("sheets")), ["a.png", "b.png"]);
    // Sheets are no pictures to be measured, wherever results go.
    eval(&[&"--restored", &out, &"--niqe", &niqe()])
        .code(2)
        .stderr(contains("2 contact sheets").and(contains("holds no pictures")));
    save(&out, "mine/sheets/c.png", half(30, 30));
    eval(&[&"--restored", &folder.path(), &"--niqe", &niqe()]).success().stderr(contains("7 measured"));
    eval(&[&"--restored", &out, &"--niqe", &niqe(), &"-o", &out, &"--restart"])
        .success()
        .stderr(contains("1 measured"));
}

#[test]
fn samples_that_cannot_be_compared_are_told_and_counted() {
    let folder = TempDir::new().unwrap();
    let (_, restored, out) = folders(&folder);
    let second = folder.path().join("second");
    for name in ["a.png", "b.png", "c.png"] {
        save(&restored, name, half(200, 200));
        save(&second, name, if name == "b.png" { half(210, 200) } else { brighter(200, 200) });
    }
    let told = eval(&[&"--restored", &restored, &second, &"--niqe", &niqe(), &"-o", &out]).code(1);
    told.stdout(contains("| 2 samples of 3 pictures |").and(contains("| L-STD of 2, 1 failed |")))
        .stderr(contains("b: the samples have no L-STD").and(contains("6 measured, 1 failed")));
    let json: serde_json::Value = serde_json::from_str(&text(&out.join("table.json"))).unwrap();
    assert_eq!((&json["spread"]["l_std"]["of"], &json["spread"]["failed"]), (&2.into(), &1.into()));
    // What is known of fewer pictures than the rest says so.
    let (truth, equal) = (folder.path().join("truth2"), folder.path().join("equal"));
    let other = folder.path().join("other");
    for name in ["a.png", "b.png"] {
        save(&truth, name, half(30, 30));
        save(&equal, name, if name == "a.png" { half(30, 30) } else { brighter(30, 30) });
        save(&other, name, brighter(30, 30));
    }
    eval(&[&"--restored", &equal, &other, &"--truth", &truth])
        .success()
        .stdout(contains("| 2 samples of 2 pictures |").and(contains("PSNR of 1")));
    eval(&[&"--restored", &equal, &"--truth", &truth, &"--seed", &"3"])
        .code(2)
        .stderr(contains("cannot be used with"));
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(&other, equal.join("in")).unwrap();
        eval(&[&"--restored", &equal, &"--truth", &truth])
            .code(1)
            .stderr(contains("in: is a link to a folder, which is not followed").and(contains("1 failed")));
    }
}

#[test]
fn only_sheets_of_the_evaluation_are_replaced_or_removed() {
    let folder = TempDir::new().unwrap();
    let (truth, restored, out) = folders(&folder);
    for name in ["a.png", "b.png"] {
        save(&truth, name, half(30, 30));
        save(&restored, name, brighter(30, 30));
    }
    let run = |more: &[&dyn AsRef<OsStr>]| {
        let mut all: Vec<&dyn AsRef<OsStr>> = vec![&"--restored", &restored, &"--truth", &truth, &"-o", &out];
        all.extend(more);
        eval(&all)
    };
    // Somebody's pictures in a folder of that name.
    for name in ["sheets/a.png", "sheets/c.png"] {
        save(&out, name, half(10, 10));
    }
    let own = std::fs::read(out.join("sheets/a.png")).unwrap();
    run(&[]).success();
    assert_eq!(names(&out.join("sheets")), ["a.png", "c.png"]);
    run(&[&"--sheets"]).code(1).stderr(contains("sheets/a.png: is there and is no sheet of this evaluation"));
    assert!(std::fs::read(out.join("sheets/a.png")).unwrap() == own);
    assert_eq!(names(&out.join("sheets")), ["a.png", "b.png", "c.png"]);
    std::fs::remove_file(out.join("sheets/a.png")).unwrap();
    run(&[&"--sheets"]).success();
    // A picture that is gone takes its sheet along, and nothing else.
    for side in [&truth, &restored] {
        std::fs::remove_file(side.join("b.png")).unwrap();
    }
    run(&[&"--sheets"]).success();
    assert_eq!(names(&out.join("sheets")), ["a.png", "c.png"]);
    // Nor is what lies there left out of what is measured, before there are sheets.
    let other = folder.path().join("other");
    for name in ["a.png", "sheets/b.png"] {
        save(&other, name, half(30, 30));
    }
    eval(&[&"--restored", &other, &"--niqe", &niqe(), &"-o", &other])
        .success()
        .stderr(contains("2 measured"));
    // However narrow a picture is.
    for side in [&truth, &restored] {
        save(side, "n.png", half(1, 3000));
    }
    run(&[&"--sheets"]).success();
    assert!(image::open(out.join("sheets/n.png")).unwrap().height() < 5000);
}

#[test]
fn features_give_their_distance() {
    let folder = TempDir::new().unwrap();
    let file = |name: &str, rows: [[f64; 2]; 3]| {
        let header = "{'descr': '<f8', 'fortran_order': False, 'shape': (3, 2), }\n";
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((header.len() as u16).to_le_bytes());
        bytes.extend(header.bytes());
        bytes.extend(rows.iter().flatten().flat_map(|value| value.to_le_bytes()));
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let a = file("a.npy", [[-1.0, 0.0], [0.0, 0.0], [1.0, 0.0]]);
    let b = file("b.npy", [[2.0, 4.0], [4.0, 4.0], [6.0, 4.0]]);
    // Means 4 and 4 apart, deviations of 1 and 2.
    eval(&[&"--fid", &a, &b]).success().stdout("33.000000\n");
    eval(&[&"--fid", &a, &a]).success().stdout("0.000000\n");
    let other = folder.path().join("a.txt");
    std::fs::write(&other, b"1 2 3").unwrap();
    eval(&[&"--fid", &a, &other]).code(2).stderr(contains("a.txt"));
    let torn = folder.path().join("torn.npy");
    std::fs::write(&torn, &std::fs::read(&a).unwrap()[..70]).unwrap();
    eval(&[&"--fid", &torn, &a]).code(2).stderr(contains("torn.npy").and(contains("a row for each picture")));
}

#[cfg(unix)]
#[test]
fn ctrl_c_keeps_what_was_measured() {
    let folder = TempDir::new().unwrap();
    let (truth, _, out) = folders(&folder);
    for index in 0..8 {
        save(&truth, &format!("{index}.png"), scene(128, 96 + index));
    }
    let arguments = |output: &Path| {
        let mut command = std::process::Command::new(assert_cmd::cargo::cargo_bin("diffbir"));
        command.args(["eval", "--degrade", "mild", "--device", "cpu", "--truth"]).arg(&truth);
        command.arg("-o").arg(output).env("DIFFBIR_MODELS", "no/models/here");
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        command
    };
    let mut child = arguments(&out).spawn().unwrap();
    let results = out.join("results.jsonl");
    while std::fs::read_to_string(&results).map_or(0, |text| text.lines().count()) < 2 {
        assert!(child.try_wait().unwrap().is_none(), "it ended early");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    let stopped = child.wait_with_output().unwrap();
    let talk = String::from_utf8(stopped.stderr).unwrap();
    assert_eq!(stopped.status.code(), Some(130), "{talk}");
    assert!(talk.contains("the same command goes on from there") && stopped.stdout.is_empty(), "{talk}");
    assert_eq!(names(&out), ["results.jsonl"]);
    let again = arguments(&out).output().unwrap();
    let talk = String::from_utf8(again.stderr).unwrap();
    assert!(again.status.success() && talk.contains("of 8 pictures were measured before"), "{talk}");
    let whole = arguments(&folder.path().join("whole")).output().unwrap();
    assert_eq!(again.stdout, whole.stdout);
}
