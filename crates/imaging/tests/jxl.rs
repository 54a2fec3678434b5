//! JPEG XL files, read as the reference decoder reads them (`goldens/make_files.py`).

use diffbir_imaging::{DecodeError, Outline, Photo, Samples, decode_bytes, describe, extension_of};
use safetensors::SafeTensors;

fn file(name: &str) -> Vec<u8> {
    let path = format!("{}/tests/goldens/jxl/{name}.jxl", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(path).expect("goldens are in the repository")
}

/// Height, width, channels, and the values' bytes.
fn known(name: &str) -> ([usize; 3], Vec<u8>) {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/goldens/files.safetensors");
    let bytes = std::fs::read(path).expect("goldens are in the repository");
    let tensors = SafeTensors::deserialize(&bytes).expect("a whole file");
    let tensor = tensors.tensor(name).expect("a known name");
    (tensor.shape().try_into().expect("three dimensions"), tensor.data().to_vec())
}

fn read(name: &str) -> Photo {
    decode_bytes(&file(name), name).expect("a whole picture")
}

/// The largest difference to known values, in levels of 8 bits.
fn most_off(photo: &Photo, name: &str) -> u8 {
    let ([height, width, channels], values) = known(name);
    assert_eq!((photo.width_px, photo.height_px, photo.channels), (width, height, channels), "{name}");
    let Samples::U8(samples) = &photo.samples else { panic!("{name} has 8 bits") };
    samples.iter().zip(&values).map(|(a, b)| a.abs_diff(*b)).max().expect("some values")
}

#[test]
fn pictures_without_loss_are_read_to_the_bit() {
    for name in ["rgb", "grey"] {
        assert_eq!(most_off(&read(name), name), 0, "{name}");
        assert_eq!(Outline::of(&file(name), name).unwrap().size(), (37, 29));
    }
    let photo = read("rgba");
    let (_, values) = known("rgba");
    let (pixels, _) = values.as_chunks::<4>();
    let colours = pixels.iter().flat_map(|&[r, g, b, _]| [r, g, b]).collect();
    let alpha = pixels.iter().map(|&[.., alpha]| alpha).collect();
    assert_eq!((photo.samples, photo.alpha), (Samples::U8(colours), Some(Samples::U8(alpha))));
    let photo = read("deep");
    let (_, values) = known("deep");
    let values = values.as_chunks::<2>().0.iter().map(|&bytes| u16::from_le_bytes(bytes)).collect();
    assert_eq!(photo.samples, Samples::U16(values));
}

#[test]
fn lossy_pictures_are_within_rounding() {
    for name in ["lossy", "of_jpeg"] {
        assert!(most_off(&read(name), name) <= 1, "{name}");
    }
}

#[test]
fn metadata_colours_and_orientation_are_kept() {
    let photo = read("rgb");
    let exif = photo.metadata.exif.as_deref().expect("EXIF");
    assert!(exif.windows(5).any(|word| word == b"maker"));
    assert!(photo.metadata.xmp.as_deref().is_some_and(|xmp| xmp.starts_with(b"<x:xmpmeta")));
    assert_eq!(photo.metadata.icc, None, "sRGB needs no profile");
    let adobe = read("adobe");
    assert!(adobe.metadata.icc.is_some());
    // Adobe's greens lie beyond sRGB.
    let Samples::U8(own) = &adobe.samples else { panic!("8 bits") };
    let in_srgb = adobe.to_raster().to_u8_rounding();
    assert_ne!(&in_srgb, own);
    // Turned by the codestream, and by nothing else.
    assert_eq!(known("turned").0, [37, 29, 3]);
    for name in ["turned", "not_turned"] {
        assert!(most_off(&read(name), name) <= 1, "{name}");
    }
}

#[test]
fn files_are_known_and_described_by_their_content() {
    assert_eq!(extension_of(&file("rgb")), Some("jxl"));
    assert_eq!(describe(&file("grey"), "grey").unwrap(), "JXL, 37 x 29 pixels, 8 bits, grey");
}

#[test]
fn what_is_cut_off_or_changed_is_refused_or_read_but_no_panic() {
    let refused = |bytes: &[u8]| decode_bytes(bytes, "test").map(|photo| photo.width_px).unwrap_err();
    assert!(refused(&file("animated")).to_string().contains("animated JPEG XL"));
    for name in ["rgb", "lossy", "deep", "of_jpeg"] {
        let whole = file(name);
        // The last bytes of a container may be padding or metadata.
        for length in (12..whole.len() / 2).step_by(3) {
            assert!(matches!(refused(&whole[..length]), DecodeError::Damaged { .. }), "{name}: {length}");
        }
        for at in (12..whole.len()).step_by(7) {
            let mut changed = whole.clone();
            changed[at] ^= 0x55;
            _ = decode_bytes(&changed, name);
        }
    }
}
