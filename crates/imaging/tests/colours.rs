//! Colours that the networks' sRGB cannot hold, and colours that a file describes without a profile.

use diffbir_imaging::resize::Filter;
use diffbir_imaging::{Encoded, Format, Metadata, Samples, decode_bytes};
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
                let Samples::U8(back) = photo.to_own_colours(&srgb, false) else { panic!("8 bits") };
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
