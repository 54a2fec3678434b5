//! An option acts, or fails with its reason before any work.

mod common;

use common::{diffbir, names, save};
use predicates::prelude::*;
use predicates::str::contains;
use tempfile::TempDir;

/// Runs the built-in model on one picture with these flags.
fn run(folder: &TempDir, line: &str) -> assert_cmd::assert::Assert {
    let input = save(folder.path(), "a.png");
    let mut command = diffbir();
    command.args(["restore", "--device", "cpu", "--upscale", "1", "--existing", "overwrite"]).arg(input);
    command.args(line.split(' ')).assert()
}

#[test]
fn what_would_change_nothing_is_refused() {
    let folder = TempDir::new().unwrap();
    let refused = |line: &str, reason: &str| {
        run(&folder, line).code(2).stderr(contains("changes nothing").and(contains(reason)));
    };
    refused("--sampler edm_euler --s-tmin 1", "--s-tmin: ");
    refused("--sampler edm_heun --s-tmax 9 --s-churn 0", "give --s-churn above 0");
    refused("--sampler edm_dpm_2 --s-noise 1.1", "--s-noise: ");
    refused("--sampler edm_euler_a --s-noise 1.1 --eta 0", "give --eta above 0");
    refused("--rescale-cfg --cfg-scale 1", "--rescale-cfg: ");
    refused("--rescale-cfg --cfg-scale 0.5", "a guidance scale of 0.5");
    run(&folder, "--sampler edm_euler --s-churn 1 --s-tmin 9 --s-tmax 8")
        .code(2)
        .stderr(contains("--s-tmin 9: is above --s-tmax 8"));
    assert_eq!(names(folder.path()), ["a.png"]);
    for acts in [
        "--steps 2 --sampler edm_euler --s-churn 1 --s-tmin 0.1 --s-tmax 9 --s-noise 1.1",
        "--steps 2 --sampler edm_euler_a --s-noise 1.1",
        "--steps 2 --rescale-cfg --cfg-scale 2",
        "--steps 2 --rescale-cfg --cfg-scale 0.5 --sampler dpm++_m2",
    ] {
        run(&folder, acts).success();
    }
}

#[test]
fn numbers_out_of_range_are_called_so() {
    let folder = TempDir::new().unwrap();
    for number in ["1e30", "101", "-1", "-0.5"] {
        for line in [format!("--cfg-scale {number}"), format!("--cfg_scale={number}")] {
            run(&folder, &line).code(2).stderr(contains("it must be from 0 to 100"));
        }
    }
    for number in ["NaN", "inf", "1e999", "six"] {
        run(&folder, &format!("--cfg-scale {number}")).code(2).stderr(contains("it must be a number"));
    }
    run(&folder, "--strength -1").code(2).stderr(contains("it must not be negative"));
    for line in ["--seed -1", "--seed=-1"] {
        run(&folder, line).code(2).stderr(contains("as -1 does on the reference's pages"));
    }
    run(&folder, "--seed 1.5").code(2).stderr(contains("it must be a whole number from 0 to"));
    assert_eq!(names(folder.path()), ["a.png"]);
}

#[test]
fn a_conflict_names_what_was_given() {
    let folder = TempDir::new().unwrap();
    run(&folder, "--stage1-only --eta 0")
        .code(2)
        .stderr(contains("--eta").and(contains("--s-churn").not()).and(contains("--order").not()));
}
