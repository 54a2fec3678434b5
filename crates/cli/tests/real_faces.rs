//! A face of a real picture, found by the published RetinaFace mobile0.25, restored and laid back as the reference does, with the
//! goldens' networks. `DIFFBIR_DATA` names a folder with `weights/retinaface_mobilenet0.25_Final.pth` and `real/`:
//!
//!     DIFFBIR_DATA=FOLDER cargo test --release --workspace --test real_faces -- --ignored

mod common;
#[path = "../../diffbir/tests/support/faces.rs"]
mod faces;
#[path = "common/networks.rs"]
mod networks;
#[path = "../../models/tests/parity/support.rs"]
mod support;

use networks::{golden, planes, run};
use std::path::Path;
use tempfile::TempDir;

#[test]
#[ignore = "needs real weights: DIFFBIR_DATA"]
fn a_face_of_a_real_picture_is_restored_as_the_reference_does() {
    let data =
        std::env::var_os("DIFFBIR_DATA").expect("DIFFBIR_DATA names the folder with weights/ and real/");
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(data);
    let (golden, folder) = (golden("real_unaligned"), TempDir::new().unwrap());
    faces::files(folder.path(), 255.0);
    std::fs::create_dir(folder.path().join("in")).unwrap();
    let picture = data.join("real").join(golden.fact("photo"));
    std::fs::copy(picture, folder.path().join("in/photo.png")).unwrap();
    let detector = data.join("weights/retinaface_mobilenet0.25_Final.pth");
    run(&golden, folder.path(), &[Path::new("--face-detector"), &detector]);
    let files: Vec<&str> = golden.fact("files").split(' ').filter(|file| *file != "prompt.csv").collect();
    assert_eq!(files.len(), 4, "{files:?}");
    for file in files {
        golden.compare_levels_but(
            file.trim_end_matches(".png"),
            &planes(&folder.path().join("out").join(file)),
            faces::share_off(file),
        );
    }
}
