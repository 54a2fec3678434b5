//! Camera RAW: a DNG of a sensor with four colour filters, written here.
#![cfg(feature = "raw")]

use diffbir_imaging::{DecodeError, Outline, Samples, decode_bytes, extension_of};
use std::io::Cursor;
use tiff::encoder::{Rational, SRational, TiffEncoder, colortype as kind};
use tiff::tags::Tag;

const WIDTH: u32 = 64;
const HEIGHT: u32 = 48;

/// A DNG of 16 bits in the pattern RGGB, whose camera sees sRGB's primaries: left half red, right half grey.
fn dng(orientation: u16) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    let mut encoder = TiffEncoder::new(&mut bytes).unwrap();
    let mut image = encoder.new_image::<kind::Gray16>(WIDTH, HEIGHT).unwrap();
    let tags = image.encoder();
    // XYZ under D65 to linear sRGB, in ten thousandths.
    let matrix = [32406, -15372, -4986, -9689, 18758, 415, 557, -2040, 10570];
    let matrix = matrix.map(|n| SRational { n, d: 10000 });
    tags.write_tag(Tag::PhotometricInterpretation, 32803u16).unwrap();
    tags.write_tag(Tag::Make, "Maker").unwrap();
    tags.write_tag(Tag::Model, "Camera").unwrap();
    tags.write_tag(Tag::Orientation, orientation).unwrap();
    tags.write_tag(Tag::Unknown(33421), &[2u16, 2][..]).unwrap();
    tags.write_tag(Tag::Unknown(33422), &[0u8, 1, 1, 2][..]).unwrap();
    tags.write_tag(Tag::Unknown(50706), &[1u8, 4, 0, 0][..]).unwrap();
    tags.write_tag(Tag::Unknown(50708), "Maker Camera").unwrap();
    tags.write_tag(Tag::Unknown(50714), &[0u16][..]).unwrap();
    tags.write_tag(Tag::Unknown(50717), &[65535u32][..]).unwrap();
    tags.write_tag(Tag::Unknown(50721), &matrix[..]).unwrap();
    tags.write_tag(Tag::Unknown(50728), &[1, 1, 1].map(|n| Rational { n, d: 1 })[..]).unwrap();
    tags.write_tag(Tag::Unknown(50778), 21u16).unwrap();
    let grey = 65535 / 5;
    let mut pixels = Vec::new();
    for y in 0..HEIGHT {
        for x in 0..WIDTH {
            let is_red_filter = x % 2 == 0 && y % 2 == 0;
            pixels.push(if x >= WIDTH / 2 || is_red_filter { grey } else { 0u16 });
        }
    }
    image.write_data(&pixels).unwrap();
    bytes.into_inner()
}

#[test]
fn a_dng_is_developed_to_sixteen_bits_of_srgb() {
    let photo = decode_bytes(&dng(1), "test.dng").unwrap();
    assert_eq!((photo.width_px, photo.height_px, photo.channels), (64, 48, 3));
    let Samples::U16(samples) = &photo.samples else { panic!("16 bits") };
    let at = |x: usize, y: usize| &samples[(y * 64 + x) * 3..][..3];
    // A fifth of the light is .485 in sRGB's curve.
    let grey = f64::from(at(48, 24)[1]) / 65535.0;
    assert!((grey - 0.485).abs() < 0.01, "{grey}");
    let spread = at(48, 24).iter().max().unwrap() - at(48, 24).iter().min().unwrap();
    assert!(spread < 1000, "{:?} is no grey", at(48, 24));
    let red = at(12, 24);
    assert!(red[0] > 25_000 && red[1] < 8_000 && red[2] < 8_000, "{red:?}");
    assert_eq!(extension_of(&dng(1)), Some("raw"));
}

#[test]
fn it_is_turned_as_the_file_says() {
    let photo = decode_bytes(&dng(6), "test.dng").unwrap();
    assert_eq!((photo.width_px, photo.height_px), (48, 64));
    assert_eq!(Outline::of(&dng(6), "test.dng").unwrap().size(), (48, 64));
    let Samples::U16(samples) = &photo.samples else { panic!("16 bits") };
    // What was left is above.
    let top = &samples[(12 * 48 + 24) * 3..][..3];
    assert!(top[0] > 25_000 && top[1] < 8_000, "{top:?}");
}

#[test]
fn cut_off_files_are_refused() {
    let whole = dng(1);
    for length in [200, whole.len() / 2, whole.len() - 400] {
        let refused = decode_bytes(&whole[..length], "test.dng").map(|photo| photo.width_px);
        assert!(
            matches!(refused, Err(DecodeError::Damaged { .. } | DecodeError::Unsupported { .. })),
            "{length}: {refused:?}"
        );
    }
}
