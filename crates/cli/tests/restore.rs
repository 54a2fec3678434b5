//! `diffbir` as a person uses it: files in, files out.

mod common;

use common::{diffbir, names, picture, restore, save};
use image::{DynamicImage, ImageBuffer, Luma, Rgb};
use predicates::prelude::*;
use predicates::str::contains;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

#[test]
fn one_picture_goes_to_a_file_or_beside_itself() {
    let folder = TempDir::new().unwrap();
    let input = save(folder.path(), "a.png");
    let output = folder.path().join("out.jpg");
    restore(&[&input, &"-o", &output]).success();
    let result = image::open(&output).unwrap();
    assert_eq!((result.width(), result.height()), (64, 48));
    assert_eq!(std::fs::read(&output).unwrap()[..2], [0xff, 0xd8]);
    restore(&[&input, &"--upscale", &"2"]).success();
    assert_eq!(image::open(folder.path().join("a_restored.png")).unwrap().width(), 32);
}

#[test]
fn a_fidelity_of_one_is_stage_1_itself() {
    let folder = TempDir::new().unwrap();
    let input = save(folder.path(), "a.png");
    let [free, whole, first] =
        [&["--fidelity", "0.9"][..], &["--fidelity", "1"], &["--stage1-only"]].map(|flags| {
            let output = folder.path().join(format!("{}.png", flags.concat()));
            let mut command = diffbir();
            command.args(["restore", "--device", "cpu", "--upscale", "1"]).arg(&input).arg("-o").arg(&output);
            command.args(flags).assert().success();
            image::open(output).unwrap().to_rgb8()
        });
    assert!(whole == first && whole != free);
}

#[test]
fn folders_keep_their_shape_and_go_on_where_they_stopped() {
    let folder = TempDir::new().unwrap();
    let (inputs, outputs) = (folder.path().join("in"), folder.path().join("out"));
    save(&inputs, "a.png");
    save(&inputs, "deep/ä ß 字.PNG");
    restore(&[&inputs, &"-o", &outputs, &"--recursive"]).success();
    assert_eq!(names(&outputs), ["a.png", "deep"]);
    assert_eq!(names(&outputs.join("deep")), ["ä ß 字.png"]);
    restore(&[&inputs, &"-o", &outputs, &"-r"]).code(2).stderr(contains("exists already"));
    std::fs::remove_file(outputs.join("a.png")).unwrap();
    restore(&[&inputs, &"-o", &outputs, &"-r", &"--existing", &"skip"])
        .success()
        .stderr(contains("1 result written by nano, 1 left as they were"));
}

#[test]
fn inputs_are_never_written_over_and_results_never_collide() {
    let folder = TempDir::new().unwrap();
    let png = save(folder.path(), "a.png");
    let jpg = save(folder.path(), "a.jpg");
    restore(&[&png, &jpg, &"-o", &folder.path()]).code(2).stderr(contains("would lie over an input"));
    let output = folder.path().join("out");
    restore(&[&png, &jpg, &"-o", &output]).code(2).stderr(contains("would both become"));
    assert!(!output.exists(), "an error before work leaves nothing behind");
}

#[test]
fn bad_files_are_named_and_the_rest_goes_on() {
    let folder = TempDir::new().unwrap();
    let good = save(folder.path(), "in/good.png");
    let inputs = folder.path().join("in");
    let whole = std::fs::read(&good).unwrap();
    let mut jpeg = Vec::new();
    picture(40, 40).write_with_encoder(image::codecs::jpeg::JpegEncoder::new(&mut jpeg)).unwrap();
    std::fs::write(inputs.join("short.jpg"), &jpeg[..jpeg.len() * 2 / 3]).unwrap();
    std::fs::write(inputs.join("cut.png"), &whole[..whole.len() / 2]).unwrap();
    std::fs::write(inputs.join("empty.png"), b"").unwrap();
    std::fs::write(inputs.join("heic.png"), b"\0\0\0\x18ftypheic\0\0\0\0").unwrap();
    std::fs::write(inputs.join("text.png"), b"this is not a picture").unwrap();
    // A header that claims 100,000 x 100,000 pixels, with its checksum.
    let mut huge = whole[..33].to_vec();
    huge[16..24].copy_from_slice(&[0, 1, 0x86, 0xa0, 0, 1, 0x86, 0xa0]);
    let checksum = crc(&huge[12..29]);
    huge[29..33].copy_from_slice(&checksum.to_be_bytes());
    huge.extend_from_slice(&whole[33..]);
    std::fs::write(inputs.join("huge.png"), huge).unwrap();

    let output = folder.path().join("out");
    restore(&[&inputs, &"-o", &output]).code(1).stderr(
        contains("short.jpg: is damaged")
            .and(contains("cut.png: is damaged"))
            .and(contains("empty.png: is empty"))
            .and(contains("heic.png: HEIC is not supported"))
            .and(contains("text.png: is not a picture"))
            .and(contains("huge.png: claims 100000 x 100000 pixels"))
            .and(contains("1 result written by nano, 6 failed")),
    );
    assert_eq!(names(&output), ["good.png"]);
}

/// The checksum of PNG chunks.
fn crc(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
    })
}

#[test]
fn sixteen_bits_grey_and_alpha_survive() {
    let folder = TempDir::new().unwrap();
    let ramp: ImageBuffer<Rgb<u16>, Vec<u16>> =
        ImageBuffer::from_fn(128, 64, |x, y| Rgb([((y * 128 + x) * 8) as u16; 3]));
    let deep = folder.path().join("deep.tiff");
    DynamicImage::ImageRgb16(ramp).save(&deep).unwrap();
    let output = folder.path().join("deep.png");
    restore(&[&deep, &"-o", &output, &"--upscale", &"1"]).success();
    let DynamicImage::ImageRgb16(result) = image::open(&output).unwrap() else { panic!("16 bits are lost") };
    let levels: std::collections::HashSet<u16> = result.pixels().map(|pixel| pixel[1]).collect();
    assert!(levels.len() > 4096, "{} levels", levels.len());

    let grey = folder.path().join("grey.png");
    ImageBuffer::from_fn(16, 16, |x, y| Luma([(x * y) as u8])).save(&grey).unwrap();
    let output = folder.path().join("grey_out.png");
    restore(&[&grey, &"-o", &output]).success();
    assert!(matches!(image::open(&output).unwrap(), DynamicImage::ImageLuma8(_)));

    let clear = folder.path().join("clear.png");
    let rgba = ImageBuffer::from_fn(16, 16, |x, _| image::Rgba([9, 99, 199, (x * 16) as u8]));
    rgba.save(&clear).unwrap();
    let output = folder.path().join("clear_out.png");
    restore(&[&clear, &"-o", &output]).success();
    let DynamicImage::ImageRgba8(result) = image::open(&output).unwrap() else { panic!("opacity is lost") };
    assert!(result.get_pixel(2, 30)[3] < 16 && result.get_pixel(61, 30)[3] > 220);
}

#[test]
fn events_are_json_and_a_picture_is_the_same_in_any_company() {
    let folder = TempDir::new().unwrap();
    let (a, b) = (save(folder.path(), "a.png"), folder.path().join("b.png"));
    picture(20, 9).save(&b).unwrap();
    let (alone, both) = (folder.path().join("alone"), folder.path().join("both"));
    restore(&[&b, &"-o", &alone]).success();
    let output = restore(&[&a, &b, &"-o", &both, &"--json"]).success().get_output().stdout.clone();
    let events: Vec<serde_json::Value> = String::from_utf8(output)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).expect("each line is JSON"))
        .collect();
    assert_eq!(events[0]["event"], "start");
    let end = events.last().unwrap();
    assert_eq!((&end["restored"], &end["stopped"]), (&2.into(), &false.into()));
    assert!(events.iter().any(|event| event["event"] == "progress" && event["stage"] == "stage 1"));
    assert_eq!(std::fs::read(alone.join("b.png")).unwrap(), std::fs::read(both.join("b.png")).unwrap());
}

#[test]
fn options_act_or_say_why_not() {
    let folder = TempDir::new().unwrap();
    let input = save(folder.path(), "a.png");
    diffbir()
        .args(["restore", "--device", "cpu", "--prompt", "a city", "--steps", "1"])
        .arg(&input)
        .assert()
        .success()
        .stderr(contains("--prompt changes nothing"));
    diffbir()
        .args(["restore", "--device", "cpu", "--prompt", "a city", "--steps", "1", "--json"])
        .args(["--existing", "overwrite"])
        .arg(&input)
        .assert()
        .success()
        .stdout(contains(r#"{"event":"note","message":"warning: --prompt changes nothing"#));
    for only_of_stage2 in
        [["--prompt", "a city"], ["--steps", "5"], ["--cfg-scale", "2"], ["--samples", "2"], ["--seed", "5"]]
    {
        restore(&[&input, &only_of_stage2[0], &only_of_stage2[1]]).code(2).stderr(contains("--stage1-only"));
    }
    restore(&[&input, &"--task", &"face", &"--existing", &"overwrite"])
        .code(2)
        .stderr(contains("no networks for faces"));
    let both = |line: &str| {
        let mut command = diffbir();
        command.args(["restore", "--device", "cpu", "--existing", "overwrite"]).arg(&input);
        command.args(line.split(' ')).assert().code(2)
    };
    both("--task denoise").stderr(contains("one network for all"));
    both("--start-point-type cond").stderr(contains("change nothing"));
    both("--better-start").stderr(contains("change nothing"));
    both("--version v2.1").stderr(contains("goes with --input"));
    both("--stage1-only --cldm-tiled").stderr(contains("cannot be used with"));
    both("--stage1-only --vae-decoder-tiled").stderr(contains("cannot be used with"));
    both("--no-stage1 --cleaner-tiled").stderr(contains("cannot be used with"));
    let of = |sampler: &str, flag: &str, value: &str| {
        let mut command = diffbir();
        command.args(["restore", "--device", "cpu", "--sampler", sampler, flag, value, "--steps", "2"]);
        command.args(["--existing", "overwrite"]).arg(&input).assert()
    };
    of("spaced", "--eta", "0.5").code(2).stderr(contains("spaced does not heed it"));
    of("edm_lms", "--order", "2").success();
    of("edm_euler", "--s_churn", "10").success();
    let bytes = || std::fs::read(folder.path().join("a_restored.png")).unwrap();
    of("edm_euler", "--precision", "f32").success();
    let exact = bytes();
    of("edm_euler", "--precision", "bf16").success();
    assert_ne!(exact, bytes(), "rounded weights round the picture");
    restore(&[&input, &"--quality", &"80", &"--existing", &"overwrite"])
        .code(2)
        .stderr(contains("written without loss"));
    let webp = |quality: &str| {
        let output = folder.path().join("a.webp");
        restore(&[&input, &"-o", &output, &"--quality", &quality, &"--existing", &"overwrite"]).success();
        std::fs::metadata(output).unwrap().len()
    };
    assert!(webp("20") < webp("90"));
    restore(&[&input, &"--model", &"missing", &"--existing", &"overwrite"])
        .code(2)
        .stderr(contains("neither auto, nano, v1, v2, v2.1 nor another model of `diffbir models list`"));
    restore(&[&"nothing.png"]).code(1).stderr(contains("nothing.png: no such file or folder"));
    diffbir()
        .args(["restore", "--device", "vulkan", "--existing", "overwrite"])
        .arg(&input)
        .assert()
        .code(2)
        .stderr(contains(if cfg!(feature = "gpu") { "vulkan" } else { "--features gpu" }));
}

#[test]
fn long_and_foreign_names_are_names() {
    let folder = TempDir::new().unwrap();
    let deep: PathBuf = (0..8).map(|_| "été à Москва 東京 ".trim().repeat(2)).collect();
    let input = save(folder.path(), &deep.join("фото 写真.png").to_string_lossy());
    let output = folder.path().join("out").join(&deep).join("фото 写真.png");
    restore(&[
        &folder.path().join(deep.iter().next().unwrap()),
        &"--recursive",
        &"-o",
        &folder.path().join("out").join(deep.iter().next().unwrap()),
    ])
    .success();
    assert!(input.as_os_str().len() > 260, "a path that old Windows calls refuse");
    assert_eq!(image::open(output).unwrap().width(), 64);
    // The longest name that file systems take.
    let longest = save(folder.path(), &format!("{}.png", "n".repeat(251)));
    restore(&[&longest, &"-o", &folder.path().join("results/")]).success();
    assert_eq!(names(&folder.path().join("results")), [format!("{}.png", "n".repeat(251))]);
    restore(&[&longest]).code(2).stderr(contains("_restored.png: a name of 264 bytes is longer than 255"));
}

/// Ctrl-C, which only Unix lets one program send to another.
#[cfg(unix)]
#[test]
fn a_stopped_run_leaves_nothing_behind() {
    use std::io::{BufRead, BufReader};
    use std::process::Stdio;
    let folder = TempDir::new().unwrap();
    let input = folder.path().join("large.png");
    picture(1500, 1000).save(&input).unwrap();
    let output = folder.path().join("out");
    let mut child = std::process::Command::new(assert_cmd::cargo::cargo_bin("diffbir"))
        .args(["restore", "--json", "--stage1-only", "--device", "cpu"])
        .arg(&input)
        .arg("-o")
        .arg(output.join("large.png"))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut lines = lines.map(Result::unwrap);
    lines.find(|line| line.contains("\"stage\"")).expect("it has begun");
    let kill = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(kill.success());
    // Read to the end: a full pipe would hold it up.
    let end: serde_json::Value = serde_json::from_str(&lines.last().unwrap()).unwrap();
    assert_eq!((&end["event"], &end["stopped"]), (&"end".into(), &true.into()));
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(names(folder.path()), ["large.png"]);
}

/// Products of rounded numbers give nearly the same picture, on every processor.
#[test]
fn in_bf16_the_picture_is_nearly_the_same() {
    let folder = TempDir::new().unwrap();
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/chelsea-small.png");
    let restored = |precision: &str| {
        let output = folder.path().join(format!("{precision}.png"));
        let mut command = diffbir();
        command.args(["restore", "--device", "cpu", "--upscale", "2", "--precision", precision]);
        command.arg(&example).arg("-o").arg(&output).assert().success();
        image::open(output).unwrap().to_rgb8().into_raw()
    };
    let (exact, rounded) = (restored("f32"), restored("bf16"));
    let off: u64 = exact.iter().zip(&rounded).map(|(a, b)| u64::from(a.abs_diff(*b))).sum();
    let mean = off as f64 / exact.len() as f64;
    assert!(mean > 0.0 && mean < 1.5, "{mean} levels");
}
