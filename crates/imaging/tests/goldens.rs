//! Resampling against Pillow and torch, the colour fix and the tiles against the reference
//! (`goldens/make.py`, which names versions and commit).

use diffbir_imaging::resize::{self, Filter};
use diffbir_imaging::tiles::{VaeTile, Window, gaussian_weights, sliding_windows, vae_tiles};
use diffbir_imaging::{Raster, colour_fix};
use safetensors::SafeTensors;

const WIDTH: usize = 37;
const HEIGHT: usize = 29;

fn goldens() -> Vec<u8> {
    std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/goldens/imaging.safetensors"))
        .expect("goldens are in the repository")
}

fn pixels() -> Vec<u8> {
    (0..(WIDTH * HEIGHT * 3) as u64).map(|i| ((i * i * 31 + i * 7) % 256) as u8).collect()
}

fn floats(file: &SafeTensors, name: &str) -> Vec<f32> {
    let tensor = file.tensor(name).expect("a known name");
    tensor.data().as_chunks::<4>().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect()
}

fn close(name: &str, got: &[f32], known: &[f32], tolerance: f32) {
    assert_eq!(got.len(), known.len(), "{name}");
    for (index, (got, known)) in got.iter().zip(known).enumerate() {
        assert!((got - known).abs() <= tolerance, "{name}: {got} is not {known} at {index}");
    }
}

#[test]
fn eight_bit_resampling_is_pillows_bit_for_bit() {
    let bytes = goldens();
    let file = SafeTensors::deserialize(&bytes).expect("a whole file");
    for (name, filter) in [
        ("box", Filter::Box),
        ("bilinear", Filter::Bilinear),
        ("bicubic", Filter::Bicubic),
        ("lanczos", Filter::Lanczos),
    ] {
        let resized = |size| resize::pil(&pixels(), (WIDTH, HEIGHT), 3, size, filter);
        for size in [(11, 9), (37, 58), (74, 29), (100, 41)] {
            let golden = file.tensor(&format!("{name}_{}x{}", size.0, size.1)).expect("a known name");
            assert_eq!(golden.data(), resized(size), "{name} {size:?}");
        }
        for size in [(150, 117), (296, 232), (222, 87), (12, 232)] {
            let golden = file.tensor(&format!("sparse_{name}_{}x{}", size.0, size.1)).expect("a known name");
            let got: Vec<u8> = resized(size).into_iter().step_by(53).collect();
            assert_eq!(golden.data(), got, "{name} {size:?}");
        }
    }
}

#[test]
fn float_resampling_is_torchs() {
    let bytes = goldens();
    let file = SafeTensors::deserialize(&bytes).expect("a whole file");
    let picture = Raster::from_u8(WIDTH, HEIGHT, 3, &pixels());
    for (width, height) in [(11, 9), (100, 41)] {
        let got = resize::float(&picture, width, height, Filter::Bicubic);
        // torch computes the weights themselves in f32, which costs it the last digits.
        close("float", &got.data, &floats(&file, &format!("torch_{width}x{height}")), 3e-6);
    }
    for (width, height) in [(653, 512), (20, 116)] {
        let got = resize::float(&picture, width, height, Filter::Bicubic);
        let got: Vec<f32> = got.data.into_iter().step_by(331).collect();
        close("float", &got, &floats(&file, &format!("sparse_torch_{width}x{height}")), 1e-5);
    }
}

#[test]
fn colour_fix_and_tiles_are_the_references() {
    let bytes = goldens();
    let file = SafeTensors::deserialize(&bytes).expect("a whole file");
    let picture = Raster::from_u8(WIDTH, HEIGHT, 3, &pixels());
    let mut turned = picture.clone();
    for y in 0..HEIGHT {
        turned.paste(&picture.crop(0, HEIGHT - 1 - y, WIDTH, 1), 0, y);
    }
    close("wavelet", &colour_fix::wavelet(&picture, &turned).data, &floats(&file, "wavelet"), 1e-6);
    close("gaussian", &gaussian_weights(16), &floats(&file, "gaussian_16"), 1e-6);
    let mut squared = turned;
    squared.data.iter_mut().for_each(|value| *value *= *value);
    close("adain", &colour_fix::adain(&picture, &squared).data, &floats(&file, "adain"), 1e-6);
}

/// Rows of integers.
fn rows<const N: usize>(file: &SafeTensors, name: &str) -> Vec<[usize; N]> {
    let golden = file.tensor(name).expect("a known name");
    let values = golden.data().as_chunks::<8>().0.iter().map(|&bytes| i64::from_le_bytes(bytes) as usize);
    values.collect::<Vec<_>>().as_chunks::<N>().0.to_vec()
}

#[test]
fn tiles_are_the_references() {
    let bytes = goldens();
    let file = SafeTensors::deserialize(&bytes).expect("a whole file");
    let corners = |window: Window| [window.y0, window.y1, window.x0, window.x1];
    let windows: Vec<[usize; 4]> = rows(&file, "sizes of windows")
        .into_iter()
        .flat_map(|[height, width, tile, stride]| sliding_windows(height, width, tile, stride))
        .map(corners)
        .collect();
    assert_eq!(windows, rows(&file, "windows"));
    let corners = |window: Window| [window.x0, window.x1, window.y0, window.y1];
    let tiles: Vec<[usize; 8]> = rows(&file, "sizes of vae tiles")
        .into_iter()
        .flat_map(|[height, width, tile, pad]| vae_tiles(height, width, tile, pad))
        .map(|VaeTile { input, output }| {
            let both = [corners(input), corners(output)].concat();
            both.try_into().expect("eight numbers")
        })
        .collect();
    assert_eq!(tiles, rows(&file, "vae tiles"));
}
