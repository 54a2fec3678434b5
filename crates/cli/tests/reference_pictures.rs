//! A command line of the reference, run by the binary, ends at the reference's own pictures, names and
//! prompts (goldens and what they are: `crates/diffbir/tests/goldens/README.md`).

mod common;
#[path = "../../diffbir/tests/support/faces.rs"]
mod faces;
#[path = "common/networks.rs"]
mod networks;
#[path = "../../models/tests/parity/support.rs"]
mod support;

use common::names;
use networks::{golden, planes, run, write_photo};
use std::path::Path;
use tempfile::TempDir;

#[test]
fn a_command_line_of_the_reference_gives_its_picture() {
    let (golden, folder) = (golden("v21_no_guidance"), TempDir::new().unwrap());
    std::fs::create_dir(folder.path().join("in")).unwrap();
    write_photo(&golden, &folder.path().join("in/photo.png"));
    run(&golden, folder.path(), &[]);
    let out = folder.path().join("out");
    assert_eq!(names(&out).join(" "), golden.fact("files"));
    golden.compare_levels("final", &planes(&out.join("photo.png")));
}

/// Found by a detector, cut, restored in one stream of random numbers with the background, and laid back by ParseNet's
/// mask. The golden's faces and background have one stage 1, as a model of one's own has.
#[test]
fn faces_in_a_photograph_are_restored_as_the_reference_does() {
    let (golden, folder) = (golden("unaligned_v21"), TempDir::new().unwrap());
    let least = golden.fact("least").parse().unwrap();
    let (detector, _) = faces::files(folder.path(), least);
    std::fs::create_dir(folder.path().join("in")).unwrap();
    write_photo(&golden, &folder.path().join("in/photo.png"));
    run(&golden, folder.path(), &[Path::new("--face-detector"), &detector]);
    let out = folder.path().join("out");
    for file in golden.fact("files").split(' ').filter(|file| *file != "prompt.csv") {
        golden.compare_levels_but(
            file.trim_end_matches(".png"),
            &planes(&out.join(file)),
            faces::share_off(file),
        );
    }
}
