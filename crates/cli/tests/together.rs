//! What several results of a picture give together: contact sheets, maps of how much samples differ, sweeps.

mod common;

use common::{diffbir, names, save};
use diffbir_metrics::{Picture, local_deviation};
use predicates::prelude::*;
use predicates::str::contains;
use std::path::Path;
use tempfile::TempDir;

fn restore(input: &Path, flags: &str) -> assert_cmd::assert::Assert {
    let output = input.with_file_name("out");
    diffbir().arg("restore").arg(input).arg("-o").arg(output).args(flags.split_whitespace()).assert()
}

#[test]
fn samples_have_a_sheet_and_a_map_of_where_they_differ() {
    let folder = TempDir::new().unwrap();
    let input = save(folder.path(), "a.png");
    let flags = "--samples 2 --sheet --stability --steps 1 --fidelity 0 --json";
    let done = restore(&input, flags).success();
    let out = folder.path().join("out");
    assert_eq!(names(&out), ["a_0.png", "a_1.png", "a_sheet.png", "a_stability.png"]);
    let open = |name: &str| Picture::open(&out.join(name)).unwrap();
    let (first, second, map) = (open("a_0.png"), open("a_1.png"), open("a_stability.png"));
    assert_eq!((map.width_px, map.height_px), (first.width_px, first.height_px));
    // Where there is no colour at all the samples are the same.
    for ((a, b), heat) in first.rgb.chunks(3).zip(second.rgb.chunks(3)).zip(map.rgb.chunks(3)) {
        assert_eq!(a == b, heat == [0; 3]);
    }
    let told = local_deviation(&[&first, &second]).unwrap();
    assert!(told > 0.0);
    done.stdout(contains(format!("\"stability\":{told}")).and(contains("a_sheet.png")));
    // Input, stage 1 and two samples of less than 512 pixels each, shown as large as whole numbers allow.
    let sheet = open("a_sheet.png");
    assert!(sheet.width_px > 4 * 256, "{}", sheet.width_px);
    restore(&input, flags).code(2).stderr(contains("exists already"));
    std::fs::remove_file(out.join("a_0.png")).unwrap();
    std::fs::remove_file(out.join("a_sheet.png")).unwrap();
    restore(&input, &format!("{flags} --existing skip")).success();
    assert_eq!(names(&out), ["a_0.png", "a_1.png", "a_sheet.png", "a_stability.png"]);
    assert_eq!(open("a_0.png"), first);
}

#[test]
fn a_sweep_gives_what_the_settings_give_by_themselves() {
    let folder = TempDir::new().unwrap();
    let input = save(folder.path(), "a.png");
    restore(&input, "--fidelity 0 --sweep steps=1,2 cfg=1,2")
        .success()
        .stderr(contains("steps 2, cfg-scale 1"));
    let out = folder.path().join("out");
    assert_eq!(
        names(&out),
        [
            "a_sheet.png",
            "a_steps-1_cfg-scale-1.png",
            "a_steps-1_cfg-scale-2.png",
            "a_steps-2_cfg-scale-1.png",
            "a_steps-2_cfg-scale-2.png"
        ]
    );
    restore(&input, "--fidelity 0 --steps 2 --cfg-scale 1").success();
    let read = |name: &str| std::fs::read(out.join(name)).unwrap();
    assert_eq!(read("a.png"), read("a_steps-2_cfg-scale-1.png"));
    assert_ne!(read("a.png"), read("a_steps-2_cfg-scale-2.png"));
}

#[test]
fn what_cannot_be_compared_is_refused_before_any_work() {
    let folder = TempDir::new().unwrap();
    let input = save(folder.path(), "a.png");
    for (flags, told) in [
        ("--stability", "--stability: compares samples: give --samples 2 or more"),
        ("--sweep steps=0,2", "--sweep: invalid value '0' for '--steps"),
        ("--sweep model=a,b", "there is no such setting to sweep"),
        ("--sweep steps=1,2 --steps 3", "cannot be used multiple times"),
        ("--sweep steps=1,2 --save-intermediates x", "cannot be used with"),
        ("--sweep steps=1,2 --stage1-only", "cannot be used with"),
        ("--sweep sampler=ddim,spaced eta=.5", "--eta: ddim does not heed it"),
    ] {
        restore(&input, flags).code(2).stderr(contains(told));
        assert!(!folder.path().join("out").exists(), "{flags}");
    }
}

#[test]
fn a_mask_keeps_parts_of_a_picture_as_stage_1_made_them() {
    let folder = TempDir::new().unwrap();
    let input = save(folder.path(), "a.png");
    let mask = folder.path().join("mask.png");
    // Twice as large as the picture, of the same shape.
    let light = |x| if x < 16 { 255 } else { 0 };
    image::GrayImage::from_fn(32, 24, |x, _| image::Luma([light(x)])).save(&mask).unwrap();
    let flags = format!("--steps 2 --mask {}", mask.display());
    restore(&input, &flags).success();
    let out = folder.path().join("out/a.png");
    let found = image::open(&out).unwrap().into_rgb8();
    restore(&input, "--stage1-only --existing overwrite").success();
    let clean = image::open(&out).unwrap().into_rgb8();
    let differing = |from: u32, to: u32| {
        found
            .enumerate_pixels()
            .filter(|(x, y, pixel)| (from..to).contains(x) && *pixel != clean.get_pixel(*x, *y))
            .count()
    };
    assert_eq!(differing(0, 28), 0);
    assert!(differing(36, 64) > 100, "{}", differing(36, 64));
    image::GrayImage::new(30, 12).save(&mask).unwrap();
    restore(&input, &format!("{flags} --existing overwrite"))
        .code(1)
        .stderr(contains("--mask: has another shape (30 x 12) than the picture (16 x 12)"));
    restore(&input, &format!("{flags} --existing overwrite --memory 4GB"))
        .code(2)
        .stderr(contains("--mask: has another shape").and(contains("predicted").not()));
    restore(&input, &format!("{flags} --fidelity .3")).code(2).stderr(contains("cannot be used with"));
}

#[test]
fn parts_that_contradict_the_photograph_are_told_and_kept_as_stage_1_made_them() {
    let folder = TempDir::new().unwrap();
    let input = save(folder.path(), "a.png");
    let out = folder.path().join("out/a.png");
    let distance = |a: &image::RgbImage, b: &image::RgbImage| -> i64 {
        a.iter().zip(b.iter()).map(|(a, b)| (i64::from(*a) - i64::from(*b)).pow(2)).sum()
    };
    let open = || image::open(&out).unwrap().into_rgb8();
    // One step from noise with far too much guidance is no picture any more.
    let wild = "--fidelity 0 --steps 1 --cfg-scale 40 --color-fix none --existing overwrite";
    restore(&input, wild)
        .success()
        .stderr(contains("1 of 1 parts are further from the input than stage 1 is: --safe"));
    let without = open();
    restore(&input, &format!("{wild} --safe --json"))
        .success()
        .stdout(contains("\"parts\":1,\"harmed\":1,\"kept\":true"));
    let with = open();
    restore(&input, "--stage1-only --existing overwrite").success();
    let clean = open();
    assert!(distance(&without, &clean) > 0);
    assert_eq!(with, clean, "the only part is stage 1's");
    restore(&input, "--stage1-only --safe").code(2).stderr(contains("cannot be used with"));
}
