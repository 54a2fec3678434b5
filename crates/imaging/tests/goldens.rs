//! Resampling against Pillow and torch, the colour fix and the tiles against the reference
//! (`goldens/make.py`, which names versions and commit).

use diffbir_imaging::resize::{self, Filter};
use diffbir_imaging::tiles::{gaussian_weights, sliding_windows};
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
        for size in [(11, 9), (37, 58), (74, 29), (100, 41), (150, 117)] {
            let golden = file.tensor(&format!("{name}_{}x{}", size.0, size.1)).expect("a known name");
            let got = resize::pil(&pixels(), (WIDTH, HEIGHT), 3, size, filter);
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
    let golden = file.tensor("windows").expect("a known name");
    let known: Vec<i64> =
        golden.data().as_chunks::<8>().0.iter().map(|&bytes| i64::from_le_bytes(bytes)).collect();
    let got: Vec<i64> = [(24, 20, 16, 8), (64, 64, 64, 32), (70, 131, 64, 48)]
        .into_iter()
        .flat_map(|(height, width, tile, stride)| sliding_windows(height, width, tile, stride))
        .flat_map(|window| [window.y0, window.y1, window.x0, window.x1].map(|at| at as i64))
        .collect();
    assert_eq!(got, known);
}
