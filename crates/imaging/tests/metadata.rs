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
    .to_bytes(format, None)
    .unwrap()
}

fn raw(width_px: usize, height_px: usize, rgb: Vec<u8>, metadata: &Metadata, format: Format) -> Vec<u8> {
    Encoded { width_px, height_px, channels: 3, samples: &Samples::U8(rgb), alpha: None, metadata }
        .to_bytes(format, None)
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
        unread: Vec::new(),
    };
    for (format, quality) in [
        (Format::Png, None),
        (Format::Jpeg, None),
        (Format::WebP, None),
        (Format::WebP, Some(80)),
        (Format::Tiff, None),
    ] {
        let samples = &Samples::U8(vec![90; 192]);
        let encoded =
            Encoded { width_px: 8, height_px: 8, channels: 3, samples, alpha: None, metadata: &metadata };
        let bytes = encoded.to_bytes(format, quality).unwrap();
        let back = decode_bytes(&bytes, "test").unwrap().metadata;
        assert_eq!(back.icc, metadata.icc, "{format:?}");
        // A TIFF's own directories are read into a block of their own making.
        match format {
            Format::Tiff => assert!(back.exif.is_none(), "only an orientation was in it"),
            _ => assert_eq!(back.exif, metadata.exif, "{format:?}"),
        }
        assert_eq!(back.xmp, metadata.xmp, "{format:?}");
        if format != Format::WebP {
            let density = back.density.unwrap();
            assert!((density.x_dpi - 300.0).abs() < 0.01, "{format:?}: {density:?}");
        }
        if format != Format::WebP {
            assert_eq!(back.iptc, metadata.iptc, "{format:?}");
        }
        let lost = metadata.lost_in(format);
        assert_eq!(lost.contains(&"IPTC"), back.iptc.is_none(), "{format:?}: {lost:?}");
        assert_eq!(lost.contains(&"a resolution"), back.density.is_none(), "{format:?}: {lost:?}");
    }
}

/// A block with an author, a date in the camera's directory and a place in the map's.
fn full_exif() -> Vec<u8> {
    use tiff::encoder::{Rational, TiffEncoder};
    use tiff::tags::Tag;
    let mut block = std::io::Cursor::new(Vec::new());
    let mut encoder = TiffEncoder::new(&mut block).unwrap();
    let mut camera = encoder.extra_directory().unwrap();
    camera.write_tag(Tag::Unknown(36867), "1987:06:05 04:03:02").unwrap();
    camera.write_tag(Tag::Unknown(37386), Rational { n: 50, d: 1 }).unwrap();
    let camera = camera.finish_with_offsets().unwrap().offset;
    let mut place = encoder.extra_directory().unwrap();
    place.write_tag(Tag::Unknown(1), "N").unwrap();
    let latitude = [52, 31, 12].map(|n| Rational { n, d: 1 });
    place.write_tag(Tag::Unknown(2), &latitude[..]).unwrap();
    let place = place.finish_with_offsets().unwrap().offset;
    let mut first = encoder.image_directory().unwrap();
    first.write_tag(Tag::Artist, "Nadar fils").unwrap();
    first.write_tag(Tag::ImageWidth, 4000u32).unwrap();
    first.write_tag(Tag::ExifDirectory, camera).unwrap();
    first.write_tag(Tag::GpsDirectory, place).unwrap();
    first.finish().unwrap();
    block.into_inner()
}

#[test]
fn exif_passes_through_the_directories_of_a_tiff() {
    let metadata = Metadata { exif: Some(full_exif()), ..Metadata::default() };
    let tiff = raw(3, 2, vec![50; 18], &metadata, Format::Tiff);
    let photo = decode_bytes(&tiff, "test").unwrap();
    assert_eq!((photo.width_px, photo.height_px), (3, 2), "the block's own width is not the picture's");
    let block = photo.metadata.exif.clone().unwrap();
    let holds = |what: &[u8]| block.windows(what.len()).any(|window| window == what);
    assert!(holds(b"Nadar fils\0") && holds(b"1987:06:05 04:03:02\0"));
    let latitude: Vec<u8> = [52u32, 1, 31, 1, 12, 1].iter().flat_map(|n| n.to_ne_bytes()).collect();
    assert!(holds(&latitude));
    // Through a PNG and into a TIFF again, nothing changes any more.
    let png = decode_bytes(&encode(&photo, &photo.metadata, Format::Png), "test").unwrap();
    assert_eq!(png.metadata.exif.as_ref(), Some(&block));
    let again = decode_bytes(&encode(&png, &png.metadata, Format::Tiff), "test").unwrap();
    assert_eq!(again.metadata.exif, Some(block.clone()));

    let mut large = full_exif();
    for length in 0..block.len() {
        let cut = Metadata { exif: Some(block[..length].to_vec()), ..Metadata::default() };
        decode_bytes(&raw(3, 2, vec![50; 18], &cut, Format::Tiff), "a cut block").unwrap();
    }
    for index in 0..large.len() {
        large[index] ^= 0xff;
        let broken = Metadata { exif: Some(large.clone()), ..Metadata::default() };
        decode_bytes(&raw(3, 2, vec![50; 18], &broken, Format::Tiff), "a broken block").unwrap();
        large[index] ^= 0xff;
    }
}

#[test]
fn lossy_webp_is_smaller_and_keeps_opacity() {
    let samples = Samples::U8((0..64 * 64 * 3).map(|i| (i * i / 97) as u8).collect());
    let alpha = Samples::U8((0..64 * 64).map(|i| (i / 16) as u8).collect());
    let encoded = Encoded {
        width_px: 64,
        height_px: 64,
        channels: 3,
        samples: &samples,
        alpha: Some(&alpha),
        metadata: &Metadata::default(),
    };
    let bytes = |quality| encoded.to_bytes(Format::WebP, quality).unwrap();
    assert!(bytes(Some(30)).len() < bytes(Some(90)).len());
    assert!(bytes(Some(90)).len() < bytes(None).len());
    let back = decode_bytes(&bytes(Some(30)), "test").unwrap();
    assert_eq!(back.alpha, Some(alpha), "opacity is kept without loss");
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
