//! Colours that the networks' sRGB cannot hold, and colours that a file describes without a profile.

use diffbir_imaging::resize::Filter;
use diffbir_imaging::{Depth, Encoded, Format, Metadata, Samples, decode_bytes};
use img_parts::png::{Png, PngChunk};
use moxcms::{ColorProfile, ToneReprCurve};

/// CIE L*a*b* (D50) of a colour in the space of `profile`.
fn lab(profile: &ColorProfile, rgb: [u8; 3]) -> [f64; 3] {
    let curve = profile.red_trc.as_ref().unwrap();
    let linear = rgb.map(|value| {
        let value = f64::from(value) / 255.0;
        match curve {
            ToneReprCurve::Lut(gamma) => value.powf(f64::from(gamma[0]) / 256.0),
            ToneReprCurve::Parametric(p) if p.len() < 5 => value.powf(f64::from(p[0])),
            ToneReprCurve::Parametric(p) if value < f64::from(p[4]) => value * f64::from(p[3]),
            ToneReprCurve::Parametric(p) => (value * f64::from(p[1]) + f64::from(p[2])).powf(f64::from(p[0])),
        }
    });
    let rows = profile.colorant_matrix().v;
    let xyz = rows.map(|row| row.iter().zip(linear).map(|(m, value)| m * value).sum::<f64>());
    let f = |ratio: f64| if ratio > 0.008_856 { ratio.cbrt() } else { 7.787 * ratio + 16.0 / 116.0 };
    let [x, y, z] = [f(xyz[0] / 0.9642), f(xyz[1]), f(xyz[2] / 0.8249)];
    [116.0 * y - 16.0, 500.0 * (x - y), 200.0 * (y - z)]
}

/// The CIE colour difference of 1976.
fn distance(a: [f64; 3], b: [f64; 3]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt()
}

/// Two patches beside each other, 8 pixels wide each.
fn two_patches(left: [u8; 3], right: [u8; 3], icc: Option<Vec<u8>>, format: Format) -> Vec<u8> {
    let row = [left.repeat(8), right.repeat(8)].concat();
    let encoded = Encoded {
        width_px: 16,
        height_px: 8,
        channels: 3,
        samples: &Samples::U8(row.repeat(8)),
        alpha: None,
        metadata: &Metadata { icc, ..Metadata::default() },
    };
    encoded.to_bytes(format, None).unwrap()
}

#[test]
fn wide_colours_come_back_as_they_were() {
    // Greys, mid-tones, and what lies far outside sRGB.
    let patches = [
        [128u8, 128, 128],
        [180, 140, 120],
        [90, 110, 150],
        [200, 190, 60],
        [255, 0, 0],
        [0, 255, 0],
        [0, 0, 255],
        [0, 255, 255],
        [255, 0, 255],
        [255, 255, 0],
        [0, 128, 0],
        [20, 200, 90],
        [250, 60, 10],
        [8, 4, 2],
    ];
    for (name, profile) in [
        ("Display P3", ColorProfile::new_display_p3()),
        ("Adobe RGB", ColorProfile::new_adobe_rgb()),
        ("ProPhoto RGB", ColorProfile::new_pro_photo_rgb()),
    ] {
        let icc = Some(profile.encode().unwrap());
        assert!(distance(lab(&profile, [255; 3]), [100.0, 0.0, 0.0]) < 0.1, "white is white");
        for upscale in [1, 4] {
            let (mut sum, mut worst) = (0.0, 0.0f64);
            for (index, &patch) in patches.iter().enumerate() {
                let other = patches[(index + 1) % patches.len()];
                let photo =
                    decode_bytes(&two_patches(patch, other, icc.clone(), Format::Png), "test").unwrap();
                let (width, height) = (16 * upscale, 8 * upscale);
                let srgb = photo.resized(width, height, Filter::Bicubic);
                if index == 1 {
                    let stored = f32::from(patch[0]) / 255.0;
                    assert!((srgb.data[0] - stored).abs() > 0.004, "the profile was ignored");
                }
                let Samples::U8(back) = photo.to_own_colours(&srgb, Depth::Eight) else { panic!("8 bits") };
                // The middles of both, away from the edge between them.
                for (x, truth) in [(4 * upscale, patch), (12 * upscale, other)] {
                    let at = 3 * (width * height / 2 + x);
                    let got = [back[at], back[at + 1], back[at + 2]];
                    let apart = distance(lab(&profile, got), lab(&profile, truth));
                    sum += apart;
                    worst = worst.max(apart);
                }
            }
            let mean = sum / (2.0 * patches.len() as f64);
            println!("{name} x{upscale}: dE76 mean {mean:.3}, worst {worst:.3}");
            assert!(mean < 0.5 && worst < 1.5, "{name} x{upscale}: mean {mean}, worst {worst}");
        }
    }
}

/// A PNG of [200, 100, 50] with chunks that tell its colours.
fn told(chunks: &[(&[u8; 4], &[u8])]) -> Vec<u8> {
    let patch = [200, 100, 50];
    let mut png = Png::from_bytes(two_patches(patch, patch, None, Format::Png).into()).unwrap();
    for (kind, contents) in chunks {
        png.chunks_mut().insert(1, PngChunk::new(**kind, contents.to_vec().into()));
    }
    png.encoder().bytes().to_vec()
}

fn longs(values: &[u32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_be_bytes()).collect()
}

#[test]
fn colours_told_without_a_profile_are_followed() {
    let seen = |chunks: &[(&[u8; 4], &[u8])]| {
        let photo = decode_bytes(&told(chunks), "test").unwrap();
        let pixel = photo.to_raster().to_u8_rounding()[..3].to_vec();
        (pixel, photo.metadata.icc.is_some())
    };
    let near = |a: &[u8], b: [u8; 3]| a.iter().zip(b).all(|(a, b)| a.abs_diff(b) <= 1);
    let srgb = longs(&[31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000]);
    let p3 = longs(&[31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000]);
    let (gamma, linear) = (longs(&[45455]), longs(&[100_000]));
    // The words of sRGB in any of their forms are nothing.
    for chunks in [&[(b"gAMA", &gamma[..]), (b"cHRM", &srgb)][..], &[(b"cICP", &[1, 13, 0, 1])]] {
        assert_eq!(seen(chunks), (vec![200, 100, 50], false));
    }
    // Linear light: 200 / 255 is 0.7843, which sRGB stores as 0.8963.
    let (pixel, kept) = seen(&[(b"gAMA", &linear)]);
    assert!(kept && near(&pixel, [229, 168, 122]), "{pixel:?}");
    // Display P3, by its code point and by its chromaticities.
    let (pixel, kept) = seen(&[(b"cICP", &[12, 13, 0, 1])]);
    assert!(kept && near(&pixel, [215, 93, 31]), "{pixel:?}");
    let (by_chromaticities, kept) = seen(&[(b"gAMA", &gamma), (b"cHRM", &p3)]);
    assert!(kept && by_chromaticities[0] > 208, "{by_chromaticities:?}");
    // What sRGB's own chunk says comes before a gamma.
    assert_eq!(seen(&[(b"gAMA", &linear), (b"sRGB", &[0])]).0, [200, 100, 50]);
    for (transfer, name) in [(16, "PQ"), (18, "HLG")] {
        let error = decode_bytes(&told(&[(b"cICP", &[9, transfer, 0, 1])]), "test").unwrap_err().to_string();
        assert!(error.contains("HDR") && error.contains(name), "{error}");
    }
}

#[test]
fn a_profile_of_greys_stays_with_greys() {
    let icc = ColorProfile::new_gray_with_gamma(1.8).encode().unwrap();
    let metadata = Metadata { icc: Some(icc.clone()), ..Metadata::default() };
    let samples = Samples::U8(vec![9, 200]);
    let encoded = Encoded {
        width_px: 2,
        height_px: 1,
        channels: 1,
        samples: &samples,
        alpha: None,
        metadata: &metadata,
    };
    let back = |format| {
        let bytes = encoded.to_bytes(format, None).unwrap();
        decode_bytes(&bytes, "test").unwrap().metadata.icc
    };
    assert_eq!(back(Format::Png), Some(icc));
    assert_eq!(back(Format::WebP), None, "WebP knows no grey");
    assert_eq!(metadata.lost_in(Format::WebP), ["a profile of greys"]);
}
