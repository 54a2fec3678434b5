//! Memory as a person plans it: `diffbir plan`, and `--memory`.

mod common;

use common::{diffbir, names, picture};
use predicates::prelude::*;
use predicates::str::contains;
use std::path::Path;
use tempfile::TempDir;

fn planned(arguments: &[&str]) -> assert_cmd::assert::Assert {
    diffbir().args(["plan", "--device", "cpu"]).args(arguments).assert()
}

/// What a plan as JSON says.
fn told(arguments: &[&str]) -> serde_json::Value {
    let output = planned(arguments).success().get_output().stdout.clone();
    serde_json::from_slice(&output).unwrap()
}

#[test]
fn a_plan_is_a_table_of_stages() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("a.png");
    picture(160, 120).save(&file).unwrap();
    planned(&[file.to_str().unwrap(), "--upscale", "2"])
        .success()
        .stdout(contains("160 x 120 to 320 x 240, by nano").and(contains("stage    weights")))
        .stdout(
            ["load", "stage 1", "encode", "sample", "decode"]
                .into_iter()
                .fold(predicate::always().boxed(), |all, stage| {
                    all.and(contains(format!("\n  {stage} "))).boxed()
                }),
        );
    // Nothing is restored.
    assert_eq!(names(folder.path()), ["a.png"]);
    planned(&[folder.path().join("none.png").to_str().unwrap()]).code(1).stderr(contains("none.png"));
}

#[test]
fn larger_pictures_need_more_and_stage_1_alone_needs_less() {
    let most = |arguments: &[&str]| {
        let told = told(&[&["--json"], arguments].concat());
        told["predicted"].as_u64().unwrap()
    };
    let (small, large) = (most(&["300x200"]), most(&["600x400"]));
    let both = most(&["300x200", "600x400"]);
    // What the program holds before differs a little from run to run.
    assert!(large > small && both.abs_diff(large) < 4_000_000, "{small}, {large} and {both}");
    assert!(most(&["600x400", "--stage1-only"]) < large);
    let stages = told(&["--json", "300x200", "--stage1-only"])["stages"].as_array().unwrap().len();
    assert_eq!(stages, 2);
}

#[test]
fn where_nothing_draws_stage_1_alone_is_counted() {
    let stages = |flags: &[&str]| {
        let stages = told(&[&["--json", "300x200"], flags].concat())["stages"].clone();
        stages.as_array().unwrap().iter().map(|stage| stage["weights"].clone()).collect::<Vec<_>>()
    };
    let first = stages(&["--fidelity", "1"]);
    assert_eq!(first.len(), 2, "{first:?}");
    assert_eq!(stages(&["--sweep", "fidelity=1", "steps=1,2"]), first);
    // A sweep of plan's own flags, too.
    assert_eq!(stages(&["--sweep", "fidelity=.5,1"]), stages(&["--fidelity", ".5"]));
    planned(&["300x200", "--sweep", "steps=0,1"]).code(2).stderr(contains("invalid value '0' for '--steps"));
}

#[test]
fn results_that_are_kept_for_a_sheet_or_a_map_are_counted() {
    let of = |flags: &[&str]| {
        let told = told(&[&["--json", "100x75", "--fidelity", "0.9", "--steps", "10"], flags].concat());
        told["predicted"].as_u64().unwrap()
    };
    let (one, many) = (of(&["--samples", "2", "--stability"]), of(&["--samples", "90", "--stability"]));
    // 400 x 300 pixels of three bytes each.
    assert!((many - one).abs_diff(88 * 360_000) < 4_000_000, "{one} and {many}");
    let sheet = of(&["--samples", "90", "--sheet"]);
    assert!(sheet > many + 60_000_000, "{many} and {sheet}");
    assert!(of(&["--samples", "90"]) < one + 4_000_000);
}

#[test]
fn what_does_not_fit_is_made_smaller_and_then_refused() {
    let picture = ["--json", "768x768", "--upscale", "1", "--precision", "f32"];
    let whole = told(&picture);
    // So little that networks which are read for their stage are not enough.
    let limit = whole["predicted"].as_u64().unwrap() * 9 / 10;
    let limit = format!("{}kB", limit / 1000);
    let fits = told(&[&picture[..], &["--memory", &limit]].concat());
    assert!(fits["predicted"].as_u64().unwrap() <= fits["limit"].as_u64().unwrap(), "{fits}");
    assert!(fits["most_px"].is_u64() && whole["most_px"].is_null(), "{fits}");
    // Tiles that were asked for stay.
    planned(&["512x384", "--memory", "90MB", "--vae-decoder-tiled", "--vae-encoder-tiled"]).code(2);
    planned(&["1000x750", "--memory", "450MB"]).code(2).stderr(
        contains("--memory 429.15 MiB: 1000x750 (1000 x 750) needs")
            .and(contains("at least"))
            .and(contains("what fits: --upscale")),
    );
    planned(&["100000000x100000000"]).code(2).stderr(contains("more than the limit of 400 megapixels"));
    planned(&["64x64", "--seed-mode", "reference-cli"])
        .code(2)
        .stderr(contains("--seed-mode reference-cli: only for"));
    planned(&["64x64", "--memory", "6"]).code(2).stderr(contains("such as 6GB"));
}

#[test]
fn a_restoration_tells_what_it_took() {
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    picture(48, 32).save(at("a.png")).unwrap();
    let restore = |output: &Path, memory: &[&str]| {
        let mut command = diffbir();
        command.args(["restore", "--device", "cpu", "--steps", "2"]).arg(at("a.png")).arg("-o").arg(output);
        command.args(memory).assert()
    };
    let plain = at("plain.png");
    restore(&plain, &[]).success().stderr(contains("predicted").not());
    for (name, limit) in [("auto.png", "auto"), ("much.png", "4GB")] {
        let output = at(name);
        restore(&output, &["--memory", limit])
            .success()
            .stderr(contains("predicted").and(contains("measured")).and(contains(" %)")));
        assert!(std::fs::read(&output).unwrap() == std::fs::read(&plain).unwrap(), "{limit}");
    }
    let none = at("none.png");
    restore(&none, &["--memory", "12MB"]).code(2).stderr(contains("at least"));
    assert!(!none.exists());
    restore(&none, &["--memory", "2GB", "--task", "face-background"]).code(2).stderr(contains("--task sr"));
}
