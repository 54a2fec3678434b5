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
        let bytes = Encoded {
            width_px: 48,
            height_px: 48,
            channels: 3,
            samples: &Samples::U8(rgb),
            alpha: None,
            metadata: &Metadata::default(),
        }
        .to_bytes(Format::Png, None)
        .unwrap();
        write_atomic(&folder.join(format!("{number}.png")), &bytes).unwrap();
    }
}

/// The tensors of a checkpoint; beside them it has the configuration, which names the folder.
pub fn tensors(file: &Path) -> BTreeMap<String, Vec<f32>> {
    let checkpoint = Checkpoint::open(file).unwrap();
    let names: Vec<String> = checkpoint.entries().map(|(name, ..)| name.to_string()).collect();
    names.into_iter().map(|name| (name.clone(), checkpoint.get(&name).unwrap().unwrap().1)).collect()
}
