//! `diffbir degrade`.

mod common;

use common::{diffbir, names, picture, save};
use predicates::prelude::*;
use predicates::str::contains;
use std::path::Path;
use tempfile::TempDir;

/// Degrades, with these further arguments.
fn degrade(input: &Path, output: &Path, more: &[&str]) -> assert_cmd::assert::Assert {
    diffbir().arg("degrade").arg(input).arg("-o").arg(output).args(more).assert()
}

fn bytes(folder: &Path) -> Vec<(String, Vec<u8>)> {
    names(folder).into_iter().map(|name| (name.clone(), std::fs::read(folder.join(name)).unwrap())).collect()
}

const PRESETS: [&str; 7] =
    ["mild", "medium", "heavy", "codeformer", "codeformer-face", "realesrgan", "article"];

#[test]
fn degrading_follows_the_seed_and_the_name() {
    let folder = TempDir::new().unwrap();
    let input = save(folder.path(), "a.png");
    save(folder.path(), "in/deep/b.png");
    let deep = folder.path().join("deep");
    diffbir()
        .args(["degrade", "--recursive", "-o"])
        .args([&deep, &folder.path().join("in")])
        .assert()
        .success();
    assert_eq!(names(&deep.join("deep")), ["b.json", "b.png"]);
    let run = |seed: &str, name: &str| {
        let output = folder.path().join(name);
        diffbir().arg("degrade").arg(&input).arg("-o").arg(&output).args(["--seed", seed]).assert().success();
        std::fs::read(output.join("a.png")).unwrap()
    };
    assert_eq!(run("5", "x"), run("5", "y"));
    assert_ne!(run("5", "y1"), run("6", "z"));
}

#[test]
fn degrading_replaces_nothing_unasked() {
    let folder = TempDir::new().unwrap();
    let input = save(folder.path(), "in/a.png");
    let output = folder.path().join("out");
    std::fs::create_dir(&output).unwrap();
    std::fs::write(output.join("a.png"), b"mine").unwrap();
    save(folder.path(), "in/b.png");
    let run = |more: &[&str]| {
        diffbir().arg("degrade").arg(input.parent().unwrap()).arg("-o").arg(&output).args(more).assert()
    };
    let kept = || std::fs::read(output.join("a.png")).unwrap() == b"mine";
    run(&[]).code(2).stderr(contains("a.png: exists already: choose --existing"));
    assert!(kept() && names(&output) == ["a.png"]);
    run(&["--existing", "skip"]).success().stderr(contains("1 result written, 1 left as they were"));
    assert!(kept() && names(&output) == ["a.png", "b.json", "b.png"]);
    // A record without its picture is what a stopped run leaves; another file of its name is not.
    std::fs::remove_file(output.join("b.png")).unwrap();
    run(&["--existing", "error"]).code(2).stderr(contains("a.png: exists already"));
    run(&["--existing", "skip"]).success().stderr(contains("1 result written, 1 left as they were"));
    std::fs::remove_file(output.join("b.png")).unwrap();
    std::fs::write(output.join("b.json"), b"mine").unwrap();
    run(&["--existing", "skip"]).code(2).stderr(contains("b.json: exists already and is no record"));
    std::fs::remove_file(output.join("a.png")).unwrap();
    run(&[]).code(2).stderr(contains("b.json: exists already: choose --existing"));
    assert_eq!(std::fs::read(output.join("b.json")).unwrap(), b"mine");
    run(&["--existing", "overwrite"]).success().stderr(contains("2 results written"));
    assert_eq!(names(&output), ["a.json", "a.png", "b.json", "b.png"]);
}

#[test]
fn every_preset_treats_every_size_and_is_repeated_from_its_record() {
    let folder = TempDir::new().unwrap();
    let inputs = folder.path().join("in");
    std::fs::create_dir(&inputs).unwrap();
    for (width, height) in [(1, 1), (2, 40), (53, 37)] {
        picture(width, height).save(inputs.join(format!("{width}.png"))).unwrap();
    }
    for preset in PRESETS {
        let output = folder.path().join(preset);
        degrade(&inputs, &output, &["--preset", preset, "--seed", "4"]).success();
        let size = |name: &str| image::image_dimensions(output.join(name)).unwrap();
        let reduced = ["mild", "medium", "heavy"].contains(&preset);
        assert_eq!(size("53.png"), if reduced { (13, 9) } else { (53, 37) });
        assert_eq!(size("2.png"), if reduced { (1, 10) } else { (2, 40) });
        // The printed recipe does the same, and so does the record.
        let printed = diffbir().args(["degrade", "--print-preset", preset]).assert().success();
        let recipe = folder.path().join("recipe.toml");
        std::fs::write(&recipe, &printed.get_output().stdout).unwrap();
        let again = folder.path().join("again");
        let more = ["--seed", "4", "--existing", "overwrite", "--preset", recipe.to_str().unwrap()];
        degrade(&inputs, &again, &more).success();
        let same = |name: &str| {
            std::fs::read(again.join(name)).unwrap() == std::fs::read(output.join(name)).unwrap()
        };
        assert!(same("53.png") && same("2.png") && same("1.png"));
        let record = output.join("53.json");
        let text = std::fs::read_to_string(&record).unwrap();
        assert!(text.contains(&format!("\"preset\": \"{preset}\"")) && text.contains("\"seed\": 4"));
        let more = ["--existing", "overwrite", "--preset", record.to_str().unwrap()];
        degrade(&inputs.join("53.png"), &again, &more).success();
        assert!(same("53.png") && same("53.json"));
    }
}

#[test]
fn threads_change_nothing() {
    let folder = TempDir::new().unwrap();
    let inputs = folder.path().join("in");
    for name in ["a.png", "b.png", "c.png", "d.png", "e.png"] {
        save(&inputs, name);
    }
    let run = |threads: &str| {
        let output = folder.path().join(threads);
        let mut command = diffbir();
        command.env("RAYON_NUM_THREADS", threads).arg("degrade").arg(&inputs).arg("-o").arg(&output);
        command.args(["--preset", "realesrgan"]).assert().success();
        bytes(&output)
    };
    assert_eq!(run("1"), run("4"));
}

#[test]
fn the_factor_and_codecs_are_what_is_asked_for() {
    let folder = TempDir::new().unwrap();
    let input = folder.path().join("a.png");
    picture(60, 40).save(&input).unwrap();
    let output = folder.path().join("out");
    degrade(&input, &output, &["--factor", "2"]).success();
    assert_eq!(image::image_dimensions(output.join("a.png")).unwrap(), (30, 20));
    degrade(&input, &output, &["--factor", "2", "--preset", "codeformer", "--existing", "overwrite"])
        .success();
    assert!(std::fs::read_to_string(output.join("a.json")).unwrap().contains("\"factor\": 2.0"));
    // WebP of low quality leaves less of a picture than of high.
    let lost = |quality: u8| {
        let recipe = folder.path().join("webp.toml");
        let step = format!("{{ compress = {{ codecs = [\"webp\"], quality = {quality} }} }}");
        std::fs::write(&recipe, format!("[chain]\nsteps = [{step}]\n")).unwrap();
        degrade(&input, &output, &["--existing", "overwrite", "--preset", recipe.to_str().unwrap()])
            .success();
        let (truth, degraded) = (picture(60, 40), image::open(output.join("a.png")).unwrap().to_rgb8());
        truth.as_raw().iter().zip(degraded.as_raw()).map(|(a, b)| u32::from(a.abs_diff(*b))).sum::<u32>()
    };
    assert!(lost(5) > lost(95) && lost(95) > 0);
}

#[test]
fn what_is_no_recipe_is_said_before_any_work() {
    let folder = TempDir::new().unwrap();
    let input = save(folder.path(), "a.png");
    let output = folder.path().join("out");
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_string()
    };
    let range =
        file("range.toml", "[chain]\nsteps = [\n{ compress = { codecs = [\"jpeg\"], quality = [0, 9] } }]");
    degrade(&input, &output, &["--preset", &range]).code(2).stderr(
        contains("range.toml").and(contains("line 3")).and(contains("quality")).and(contains("1 to 100")),
    );
    degrade(&input, &output, &["--preset", "strong"]).code(2).stderr(contains("is no preset (mild, medium"));
    let text = r#"{"preset":"x","seed":1,"drawn":{"chain":{"factor":1,"sharpen":false,"steps":[STEP]}}}"#;
    for step in [
        r#"{"blur":{"sinc":{"size_px":100000001,"cutoff_rad":1}}}"#,
        r#"{"blur":{"sinc":{"size_px":8,"cutoff_rad":1}}}"#,
        r#"{"resize":{"to":"current","scale":-1,"filter":"area"}}"#,
        r#"{"noise":{"kind":{"poisson":1e9},"grey":false,"seed":1}}"#,
        r#"{"compress":{"codec":"webp","quality":0}}"#,
        r#"{"sharpen":{}}"#,
    ] {
        let record = file("record.json", &text.replace("STEP", step));
        degrade(&input, &output, &["--preset", &record]).code(2).stderr(contains("record.json"));
    }
    let sound = file("record.json", &text.replace("STEP", "\"round\""));
    for more in [["--seed", "3"], ["--factor", "2"]] {
        let all = [&more[..], &["--preset", &sound]].concat();
        degrade(&input, &output, &all).code(2).stderr(contains("changes nothing"));
    }
    degrade(&input, &output, &["--preset", "article", "--factor", "2"])
        .code(2)
        .stderr(contains("--factor: another factor changes nothing"));
    assert!(!output.exists());
    degrade(&input, &output, &["--preset", &sound]).success();
}
