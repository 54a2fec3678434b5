//! What the tests of the trainers share.

use diffbir_imaging::{Encoded, Format, Metadata, Samples, write_atomic};
use diffbir_nn::checkpoint::Checkpoint;
use std::collections::BTreeMap;
use std::path::Path;

/// Three pictures.
pub fn pictures(folder: &Path) {
    std::fs::create_dir_all(folder).unwrap();
    for number in 0..3usize {
        let rgb: Vec<u8> = (0..48 * 48)
            .flat_map(|i| {
                let (x, y) = (i % 48, i / 48);
                [x * 5, y * 5, (x / (4 + number) + y / 6) % 2 * 200].map(|v| v as u8)
            })
            .collect();
        save_picture(&folder.join(format!("{number}.png")), (48, 48), rgb);
    }
}

/// A PNG of RGB pixels.
pub fn save_picture(file: &Path, (width_px, height_px): (usize, usize), rgb: Vec<u8>) {
    let samples = &Samples::U8(rgb);
    let metadata = &Metadata::default();
    let picture = Encoded { width_px, height_px, channels: 3, samples, alpha: None, metadata };
    write_atomic(file, &picture.to_bytes(Format::Png, None).unwrap()).unwrap();
}

/// The tensors of a checkpoint; beside them it has the configuration, which names the folder.
#[allow(dead_code, reason = "not every test looks into files")]
pub fn tensors(file: &Path) -> BTreeMap<String, Vec<f32>> {
    let checkpoint = Checkpoint::open(file).unwrap();
    let names: Vec<String> = checkpoint.entries().map(|(name, ..)| name.to_string()).collect();
    names.into_iter().map(|name| (name.clone(), checkpoint.get(&name).unwrap().unwrap().1)).collect()
}
