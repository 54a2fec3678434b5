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
    run(&folder, "--sampler ddim --fidelity 0.5")
        .code(2)
        .stderr(contains("--fidelity: ddim can only start from noise, unlike spaced and edm_*"));
    refused("--guidance --sampler spaced", "--guidance: ");
    run(&folder, "--guidance --g-scale 0.5 --sampler edm_euler")
        .code(2)
        .stderr(contains("restoration guidance goes with the sampler spaced alone, not with edm_euler"));
    refused("--g-scale 0.5", "--g-scale: changes nothing without --guidance");
    run(&folder, "--guidance --g_scale 0.5 --sampler spaced --g_loss mse --steps 4 --fidelity 0 --g_start 100 --g_stop 50")
        .code(2)
        .stderr(contains("--guidance: no step lies below --g-start 100 and above --g-stop 50").and(contains("at 1000, 667, 334, 1")));
    run(&folder, "--guidance --g_scale 1e300 --sampler spaced --g_loss mse --steps 2").code(1).stderr(
        contains("guidance pulls so hard that no numbers are left").and(contains("give a smaller --g-scale")),
    );
    run(&folder, "--guidance --g_scale 0.5 --sampler spaced --g_space latent")
        .code(2)
        .stderr(contains("--g-space latent: the loss w_mse looks for edges"));
    // Before any work, and not once for each picture.
    run(&folder, "--sampler ddim --steps 9").code(2).stderr(contains("the nearest it can do: 8 and 10"));
    run(&folder, "--sampler spaced --fidelity 0.9 --steps 10")
        .code(2)
        .stderr(contains("takes 2 to 1000 steps, not 1; a fidelity of 0.9 leaves 1 of 10 steps"));
    for own_start in ["--start-point-type noise", "--better-start"] {
        run(&folder, &format!("--fidelity 0.5 {own_start}")).code(2).stderr(contains("cannot be used with"));
    }
    assert_eq!(names(folder.path()), ["a.png"]);
    for acts in [
        "--steps 2 --sampler edm_euler --s-churn 1 --s-tmin 0.1 --s-tmax 9 --s-noise 1.1",
        "--steps 2 --sampler edm_euler_a --s-noise 1.1",
        "--steps 2 --rescale-cfg --cfg-scale 2",
        "--steps 2 --fidelity 0 --sampler spaced --guidance --g_scale 0.01",
        "--steps 2 --fidelity 0 --sampler spaced --guidance --g_scale 0.01 --g_loss mse --g_repeat 2",
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
    run(&folder, "--fidelity 1.5").code(2).stderr(contains("it must be from 0 to 1"));
    run(&folder, "--fidelity -0.1").code(2).stderr(contains("it must not be negative"));
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

#[test]
fn fidelity_spares_steps_and_stays_near_stage_1() {
    let folder = TempDir::new().unwrap();
    let (near, free) =
        ("--output near.png --fidelity 0.9 --steps 10", "--output free.png --fidelity 0 --steps 10");
    let events = |line: &str| {
        let out = run(&folder, &format!("{line} --json")).success().get_output().stdout.clone();
        String::from_utf8(out).unwrap()
    };
    let in_folder = |line: &str| line.replace("--output ", &format!("--output {}/", folder.path().display()));
    let steps = |text: String| text.matches(r#""stage":"sample""#).count();
    let (few, many) = (steps(events(&in_folder(near))), steps(events(&in_folder(free))));
    assert!(few < many, "{few} and {many} events");
    run(&folder, &in_folder("--output clean.png --stage1-only")).success();
    let open = |name: &str| image::open(folder.path().join(name)).unwrap().to_rgb8().into_raw();
    let clean = open("clean.png");
    let far = |name: &str| open(name).iter().zip(&clean).map(|(a, b)| u64::from(a.abs_diff(*b))).sum::<u64>();
    assert!(far("near.png") < far("free.png"), "{} and {}", far("near.png"), far("free.png"));
}
