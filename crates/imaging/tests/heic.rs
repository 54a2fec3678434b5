//! HEIC files, read as libheif reads them (`goldens/make_files.py`).
#![cfg(feature = "heic")]

use diffbir_imaging::{DecodeError, Outline, Photo, Samples, decode_bytes, describe, extension_of};
use safetensors::SafeTensors;

fn file(name: &str) -> Vec<u8> {
    let path = format!("{}/tests/goldens/heic/{name}.heic", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(path).expect("goldens are in the repository")
}

fn read(name: &str) -> Photo {
    decode_bytes(&file(name), name).expect("a whole picture")
}

/// Colours and opacity as one, for each pixel.
fn joined(photo: &Photo) -> Vec<u8> {
    let Samples::U8(samples) = &photo.samples else { panic!("8 bits") };
    let Some(Samples::U8(alpha)) = &photo.alpha else { return samples.clone() };
    samples.chunks(3).zip(alpha).flat_map(|(rgb, &alpha)| [rgb[0], rgb[1], rgb[2], alpha]).collect()
}

#[test]
fn pictures_are_read_as_libheif_reads_them() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/goldens/files.safetensors");
    let bytes = std::fs::read(path).expect("goldens are in the repository");
    let tensors = SafeTensors::deserialize(&bytes).expect("a whole file");
    // Planes of half the size are enlarged in different ways.
    for (name, most) in [("rgb", 1), ("turned", 1), ("rgba", 1), ("half", 40)] {
        let known = tensors.tensor(&format!("heic_{name}")).expect("a known name");
        let photo = read(name);
        assert_eq!((photo.height_px, photo.width_px), (known.shape()[0], known.shape()[1]), "{name}");
        assert_eq!(Outline::of(&file(name), name).unwrap().size(), (photo.width_px, photo.height_px));
        let values = joined(&photo);
        assert_eq!(values.len(), known.data().len(), "{name}");
        let off: Vec<u8> = values.iter().zip(known.data()).map(|(a, b)| a.abs_diff(*b)).collect();
        let mean = off.iter().map(|&off| f64::from(off)).sum::<f64>() / off.len() as f64;
        assert!(off.iter().all(|&off| off <= most), "{name}: {:?}", off.iter().max());
        assert!(mean < 3.0, "{name}: {mean}");
    }
}

#[test]
fn metadata_is_kept_and_turned_once() {
    let photo = read("rgb");
    let exif = photo.metadata.exif.as_deref().expect("EXIF");
    assert!(exif.windows(5).any(|word| word == b"maker"));
    assert!(photo.metadata.xmp.as_deref().is_some_and(|xmp| xmp.starts_with(b"<x:xmpmeta")));
    assert_eq!(extension_of(&file("rgb")), Some("heic"));
    assert!(describe(&file("rgb"), "rgb").unwrap().starts_with("HEIC, 37 x 29 pixels, 8 bits, RGB"));
}

#[test]
fn what_is_cut_off_or_changed_is_refused_or_read_but_no_panic() {
    let whole = file("rgb");
    // The picture's own data ends where EXIF and XMP begin.
    for length in 32..whole.len() - 200 {
        let refused = decode_bytes(&whole[..length], "test").map(|photo| photo.width_px);
        assert!(
            matches!(refused, Err(DecodeError::Damaged { .. } | DecodeError::Unsupported { .. })),
            "{length} of {}",
            whole.len()
        );
    }
    for at in 12..whole.len() {
        let mut changed = whole.clone();
        changed[at] ^= 0x55;
        _ = decode_bytes(&changed, "test");
    }
}
