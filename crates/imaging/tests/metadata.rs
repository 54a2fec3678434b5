//! What goes in beside the pixels comes out again, through every format that can carry it.

use diffbir_imaging::{
    Density, Encoded, Format, Metadata, Photo, Samples, decode, decode_bytes, write_atomic,
};
use moxcms::ColorProfile;

/// A little-endian EXIF block with one entry: the orientation.
fn exif(orientation: u8) -> Vec<u8> {
    let mut block = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0".to_vec();
    block.extend([orientation, 0, 0, 0, 0, 0, 0, 0]);
    block
}

fn encode(photo: &Photo, metadata: &Metadata, format: Format) -> Vec<u8> {
    Encoded {
        width_px: photo.width_px,
        height_px: photo.height_px,
        channels: photo.channels,
        samples: &photo.samples,
        alpha: photo.alpha.as_ref(),
        metadata,
    }
    .to_bytes(format, 95)
    .unwrap()
}

fn raw(width_px: usize, height_px: usize, rgb: Vec<u8>, metadata: &Metadata, format: Format) -> Vec<u8> {
    Encoded { width_px, height_px, channels: 3, samples: &Samples::U8(rgb), alpha: None, metadata }
        .to_bytes(format, 95)
        .unwrap()
}

#[test]
fn blocks_survive_every_format_that_carries_them() {
    let metadata = Metadata {
        exif: Some(exif(1)),
        xmp: Some(b"<x:xmpmeta xmlns:x='adobe:ns:meta/'>text</x:xmpmeta>".to_vec()),
        iptc: Some(b"8BIM\x04\x04\0\0\0\0\0\x08\x1c\x02\x05\0\x03abc".to_vec()),
        icc: Some(ColorProfile::new_display_p3().encode().unwrap()),
        density: Some(Density { x_dpi: 300.0, y_dpi: 300.0 }),
    };
    for format in [Format::Png, Format::Jpeg, Format::WebP, Format::Tiff] {
        let bytes = raw(8, 8, vec![90; 192], &metadata, format);
        let back = decode_bytes(&bytes, "test").unwrap().metadata;
        assert_eq!(back.icc, metadata.icc, "{format:?}");
        if format != Format::Tiff {
            assert_eq!(back.exif, metadata.exif, "{format:?}");
        }
        if format != Format::WebP {
            assert_eq!(back.xmp, metadata.xmp, "{format:?}");
            let density = back.density.unwrap();
            assert!((density.x_dpi - 300.0).abs() < 0.01, "{format:?}: {density:?}");
        }
        if matches!(format, Format::Jpeg | Format::Tiff) {
            assert_eq!(back.iptc, metadata.iptc, "{format:?}");
        }
    }
}

#[test]
fn pixels_come_out_upright() {
    // Two pixels beside each other, stored turned: orientation 6 wants a quarter to the right.
    let metadata = Metadata { exif: Some(exif(6)), ..Metadata::default() };
    let bytes = raw(2, 1, vec![255, 0, 0, 0, 0, 255], &metadata, Format::Png);
    let photo = decode_bytes(&bytes, "test").unwrap();
    assert_eq!((photo.width_px, photo.height_px), (1, 2));
    assert_eq!(photo.samples, Samples::U8(vec![255, 0, 0, 0, 0, 255]));
    assert_eq!(photo.metadata.exif, Some(exif(1)));
    let again = decode_bytes(&encode(&photo, &photo.metadata, Format::Jpeg), "test").unwrap();
    assert_eq!((again.width_px, again.height_px), (1, 2));
}

#[test]
fn wide_colours_come_back_as_they_were() {
    for profile in [ColorProfile::new_display_p3(), ColorProfile::new_adobe_rgb()] {
        let metadata = Metadata { icc: Some(profile.encode().unwrap()), ..Metadata::default() };
        // Flat patches inside sRGB, which is what the networks see.
        for patch in [[128u8, 128, 128], [180, 140, 120], [90, 110, 150], [200, 190, 60]] {
            let bytes = raw(4, 4, patch.repeat(16), &metadata, Format::Png);
            let photo = decode_bytes(&bytes, "test").unwrap();
            let srgb = photo.to_raster();
            if patch[0] != patch[1] {
                let stored = f32::from(patch[0]) / 255.0;
                assert!((srgb.data[0] - stored).abs() > 0.004, "the profile was ignored");
            }
            let Samples::U8(back) = photo.to_own_colours(&srgb, false) else { panic!("8 bits") };
            for (got, stored) in back.iter().zip(patch.repeat(16)) {
                assert!(got.abs_diff(stored) <= 1, "{back:?} is not {patch:?}");
            }
        }
    }
}

#[test]
fn no_cut_file_panics_or_gives_a_picture_of_another_size() {
    for format in [Format::Png, Format::Jpeg, Format::WebP, Format::Tiff] {
        let rgb: Vec<u8> = (0..24 * 24 * 3).map(|i| (i * 31 % 251) as u8).collect();
        let bytes = raw(24, 24, rgb, &Metadata::default(), format);
        for length in 0..bytes.len() {
            if let Ok(photo) = decode_bytes(&bytes[..length], "cut") {
                assert_eq!((photo.width_px, photo.height_px), (24, 24), "{format:?} cut at {length}");
            }
        }
        for index in 0..bytes.len().min(200) {
            let mut broken = bytes.clone();
            broken[index] ^= 0x55;
            let _ = decode_bytes(&broken, "broken");
        }
    }
}

#[test]
fn writing_leaves_a_whole_file_or_none() {
    let folder = tempfile::TempDir::new().unwrap();
    let path = folder.path().join("ä 字.png");
    let bytes = raw(2, 2, vec![7; 12], &Metadata::default(), Format::Png);
    write_atomic(&path, &bytes).unwrap();
    assert_eq!(decode(&path).unwrap().width_px, 2);
    let missing = folder.path().join("missing").join("a.png");
    let error = write_atomic(&missing, &bytes).unwrap_err().to_string();
    assert!(error.contains("a.png"), "{error}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left");
}
