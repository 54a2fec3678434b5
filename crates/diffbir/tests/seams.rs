//! Whether tiles show: on an even sky the picture changes at their borders as much as elsewhere.

use diffbir::model::Loading;
use diffbir::restore::{ColourFix, Value, Watch};
use diffbir::tiling::{Cut, Joining, Sliding, Tiling};
use diffbir::{Model, Options, Progress};
use diffbir_diffusion::Latent;
use diffbir_diffusion::noise::{Source, TorchNoise};
use diffbir_imaging::tiles::{band_rows, sliding_windows};
use diffbir_imaging::{Encoded, Format, Metadata, Photo, Raster, Samples, decode_bytes};
use diffbir_nn::{Device, Precision};
use std::collections::BTreeSet;
use std::ops::ControlFlow;

/// The most that the change at borders may differ from that elsewhere.
const MOST: f64 = 0.02;

fn nano() -> Model {
    Model::nano(Loading { precision: Precision::F32, ..Loading::on(&Device::flex()) }).unwrap()
}

/// A sky: blue that grows lighter towards the horizon, and faint noise.
fn sky(width: usize, height: usize) -> Photo {
    let mut state = 1u64;
    let mut noise = || {
        // The sum of four even numbers is near enough to a normal one.
        let mut even = || {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            (state >> 40) as f64 / (1u64 << 24) as f64 - 0.5
        };
        2.0 * (even() + even() + even() + even())
    };
    let mut samples = Vec::new();
    for y in 0..height {
        let light = y as f64 / height as f64;
        for _ in 0..width {
            let grain = noise();
            samples.extend(
                [90.0 + 50.0 * light, 140.0 + 40.0 * light, 200.0 + 20.0 * light]
                    .map(|value| (value + grain) as u8),
            );
        }
    }
    let encoded = Encoded {
        width_px: width,
        height_px: height,
        channels: 3,
        samples: &Samples::U8(samples),
        alpha: None,
        metadata: &Metadata::default(),
    };
    decode_bytes(&encoded.to_bytes(Format::Png, None).unwrap(), "sky").unwrap()
}

/// Mean change of brightness from each row (or, across, column) to the next, one of each pair of neighbours.
fn changes(picture: &Raster, across: bool) -> Vec<f64> {
    let grey: Vec<f64> = picture
        .data
        .chunks_exact(picture.channels)
        .map(|pixel| pixel.iter().map(|value| f64::from(*value)).sum())
        .collect();
    let (width, height) = (picture.width_px, picture.height_px);
    let (lines, along) = if across { (width, height) } else { (height, width) };
    let at = |line: usize, place: usize| {
        if across { grey[place * width + line] } else { grey[line * width + place] }
    };
    (1..lines)
        .map(|line| {
            (0..along).map(|place| (at(line, place) - at(line - 1, place)).abs()).sum::<f64>() / along as f64
        })
        .collect()
}

/// The mean change at `borders` (in pixels) over that elsewhere. The decoder makes cells of 8 pixels, within which
/// pixels differ less or more than between them; so elsewhere is at other borders of cells.
fn ratio(picture: &Raster, borders: [&BTreeSet<usize>; 2]) -> f64 {
    let (mut at, mut elsewhere) = (Vec::new(), Vec::new());
    for (across, borders) in [false, true].into_iter().zip(borders) {
        let changes = changes(picture, across);
        for line in (8..changes.len() - 7).step_by(8) {
            if borders.contains(&line) {
                at.push(changes[line - 1])
            } else {
                elsewhere.push(changes[line - 1])
            }
        }
    }
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    assert!(!at.is_empty(), "there are borders");
    mean(&at) / mean(&elsewhere)
}

/// Where the windows of one direction begin and end within the picture.
fn edges(side: usize, tile: usize, stride: usize) -> BTreeSet<usize> {
    let windows = sliding_windows(tile, side, tile, stride).into_iter();
    windows.flat_map(|window| [window.x0, window.x1]).filter(|edge| (1..side).contains(edge)).collect()
}

/// Says how far tiles differ from the whole in what `ratio` measures.
fn check(what: &str, tiled: &Raster, whole: &Raster, borders: [&BTreeSet<usize>; 2]) {
    let found = ratio(tiled, borders) / ratio(whole, borders);
    println!("{what}: {found:.4}");
    assert!((found - 1.0).abs() <= MOST, "{what}: {found} of the change that the whole has there");
    // A step of half a level at the borders is seen.
    let mut stepped = tiled.clone();
    for (at, value) in stepped.data.iter_mut().enumerate() {
        let (x, y) = (at / 3 % tiled.width_px, at / 3 / tiled.width_px);
        let before = |borders: &BTreeSet<usize>, place| borders.range(..=place).count();
        if (before(borders[0], y) + before(borders[1], x)) % 2 == 1 {
            *value += 0.5 / 255.0;
        }
    }
    let seen = ratio(&stepped, borders) / ratio(whole, borders);
    assert!(seen > 1.0 + MOST, "{what}: a step is not seen: {seen}");
}

/// Keeps what comes about on the way.
#[derive(Default)]
struct Kept {
    condition: Option<Latent>,
    decoded: Option<Raster>,
}

impl Watch for Kept {
    fn progress(&mut self, _: Progress) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    fn value(&mut self, value: Value) {
        match value {
            Value::Condition(latent) => self.condition = Some(latent.clone()),
            Value::Decoded(picture) => self.decoded = Some(picture.clone()),
            _ => {}
        }
    }
}

/// A sky four times as large, and what came about on the way.
fn restored(model: &Model, photo: &Photo, tiling: Tiling) -> (Raster, Kept) {
    let options = Options { tiling, steps: 3, colour_fix: ColourFix::None, ..Options::of(model) };
    let mut kept = Kept::default();
    let prepared = model.prepare(photo, &options, true, &mut kept).unwrap();
    let mut noise = TorchNoise::new(Source::TorchCpu, 231);
    let result = model.detail(&prepared, 1, &options, &mut noise, &mut kept).unwrap().remove(0);
    (result, kept)
}

const SLIDING: Sliding = Sliding { tile_px: 256, stride_px: 128 };

#[test]
fn windows_leave_no_seams_on_a_sky() {
    let model = nano();
    let photo = sky(96, 80);
    let whole = restored(&model, &photo, Tiling::WHOLE).0;

    // The denoiser: windows that are blended in each step.
    let tiled = restored(&model, &photo, Tiling { denoiser: Cut::Tiles(SLIDING), ..Tiling::WHOLE }).0;
    assert_ne!(tiled.data, whole.data);
    check("denoiser", &tiled, &whole, [&edges(320, 256, 128), &edges(384, 256, 128)]);

    // Stage 1 in windows that are blended.
    let sliding = Sliding { tile_px: 64, stride_px: 32 };
    let clean = |tiling| {
        let options = Options { tiling, ..Options::of(&model) };
        let mut on = |_: Progress| ControlFlow::Continue(());
        model.prepare(&photo, &options, false, &mut on).unwrap().clean().clone()
    };
    let tiled = clean(Tiling { cleaner: Cut::Tiles(sliding), ..Tiling::WHOLE });
    check("stage 1", &tiled, &clean(Tiling::WHOLE), [&edges(320, 256, 128), &edges(384, 256, 128)]);
}

/// Bands give what the whole gives. The reference's tiles do not: nearest to it are pooled statistics, and of its fast mode,
/// whose small copy is a sixteenth of the picture here, that with the colour fix.
#[test]
fn tiles_of_the_autoencoder_are_as_near_to_the_whole_as_they_say() {
    let model = nano();
    let photo = sky(64, 64);
    let picture = |joining: Option<Joining>| {
        let (encoder, decoder) = (Cut::Tiles(64), Cut::Tiles(64));
        let tiling =
            joining.map_or(Tiling::WHOLE, |joining| Tiling { encoder, decoder, joining, ..Tiling::WHOLE });
        restored(&model, &photo, tiling).1
    };
    let whole = picture(None);
    let exact = picture(Some(Joining::Exact));
    assert_eq!(exact.condition.as_ref().unwrap().data, whole.condition.as_ref().unwrap().data, "encoder");
    let (exact, decoded) = (exact.decoded.unwrap(), whole.decoded.unwrap());
    assert_eq!(exact.data, decoded.data, "decoder");
    let bands = (64..256).step_by(band_rows(256, 64)).collect();
    check("autoencoder", &exact, &decoded, [&bands, &BTreeSet::new()]);
    let whole = whole.condition.unwrap();
    let [pooled, fixed, estimated] =
        [Joining::Pooled, Joining::Estimated { colour_fix: true }, Joining::Estimated { colour_fix: false }]
            .map(|joining| {
                let latent = picture(Some(joining)).condition.unwrap();
                let errors = latent.data.iter().zip(&whole.data).map(|(a, b)| f64::from(a - b).powi(2));
                (errors.sum::<f64>() / whole.data.len() as f64).sqrt()
            });
    println!("latents: pooled {pooled:.4}, with the colour fix {fixed:.4}, estimated {estimated:.4}");
    assert!(0.0 < pooled && pooled <= fixed && fixed < estimated, "{pooled}, {fixed}, {estimated}");
}
