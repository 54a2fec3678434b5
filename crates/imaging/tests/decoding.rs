//! What an outline foretells of decoding, against what is asked of the allocator: a decoder that takes more, in a newer
//! version perhaps, would let a photograph exceed its limit of memory.

use diffbir_imaging::{Encoded, Format, Metadata, Outline, Samples, decode_bytes};
use flate2::write::ZlibEncoder;
use image::{ExtendedColorType, ImageEncoder};
use img_parts::png::{Png, PngChunk};
use std::alloc::{GlobalAlloc, Layout, System};
use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The system's allocator, counting.
struct Counted;

static HELD: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

fn took(bytes: usize) {
    let held = HELD.fetch_add(bytes, Ordering::Relaxed) + bytes;
    MOST.fetch_max(held, Ordering::Relaxed);
}

// SAFETY: all that is asked for is passed on.
#[allow(unsafe_code, reason = "an allocator")]
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        took(layout.size());
        // SAFETY: as the caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        took(size);
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static COUNTED: Counted = Counted;

const WIDTH: usize = 1280;
const HEIGHT: usize = 1024;

/// Smooth enough for small files.
fn values(channels: usize) -> Vec<u8> {
    let value =
        |at: usize| ((at / channels % WIDTH + at / channels / WIDTH) / 6 + 20 * (at % channels)) as u8;
    (0..WIDTH * HEIGHT * channels).map(value).collect()
}

fn written(format: Format, channels: usize, deep: bool, alpha: bool, quality: Option<u8>) -> Vec<u8> {
    let samples = |values: Vec<u8>| match deep {
        true => Samples::U16(values.into_iter().map(|value| u16::from(value) * 257).collect()),
        false => Samples::U8(values),
    };
    let (metadata, alpha) = (Metadata::default(), alpha.then(|| samples(values(1))));
    let (samples, alpha, metadata) = (&samples(values(channels)), alpha.as_ref(), &metadata);
    let picture = Encoded { width_px: WIDTH, height_px: HEIGHT, channels, samples, alpha, metadata };
    picture.to_bytes(format, quality).unwrap()
}

fn jpeg(progressive: bool, sampling: jpeg_encoder::SamplingFactor) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = jpeg_encoder::Encoder::new(&mut bytes, 90);
    encoder.set_progressive(progressive);
    encoder.set_sampling_factor(sampling);
    encoder.encode(&values(3), WIDTH as u16, HEIGHT as u16, jpeg_encoder::ColorType::Rgb).unwrap();
    bytes
}

/// A PNG whose pixels are places in a table.
fn indexed(table: Vec<u8>) -> Vec<u8> {
    let mut png = Png::from_bytes(written(Format::Png, 1, false, false, None).into()).unwrap();
    let mut rows = ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    for row in values(1).chunks(WIDTH) {
        rows.write_all(&[0]).unwrap();
        rows.write_all(row).unwrap();
    }
    let mut header = png.chunks()[0].contents().to_vec();
    header[9] = 3;
    png.chunks_mut().retain(|chunk| chunk.kind() != *b"IDAT");
    png.chunks_mut()[0] = PngChunk::new(*b"IHDR", header.into());
    png.chunks_mut().insert(1, PngChunk::new(*b"IDAT", rows.finish().unwrap().into()));
    png.chunks_mut().insert(1, PngChunk::new(*b"PLTE", table.into()));
    png.encoder().bytes().to_vec()
}

fn bmp(colours: ExtendedColorType, channels: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    let encoder = image::codecs::bmp::BmpEncoder::new(&mut bytes);
    encoder.write_image(&values(channels), WIDTH as u32, HEIGHT as u32, colours).unwrap();
    bytes
}

/// A BMP whose rows are runs of a colour.
fn bmp_of_runs() -> Vec<u8> {
    let mut bytes = bmp(ExtendedColorType::L8, 1);
    let start = u32::from_le_bytes(bytes[10..14].try_into().unwrap()) as usize;
    bytes.truncate(start);
    for row in 0..HEIGHT {
        for run in 0..WIDTH / 128 {
            bytes.extend([128, (row / 4 + run) as u8]);
        }
        bytes.extend([0, if row + 1 < HEIGHT { 0 } else { 1 }]);
    }
    bytes[30..34].copy_from_slice(&1u32.to_le_bytes());
    let length = (bytes.len() - start) as u32;
    bytes[34..38].copy_from_slice(&length.to_le_bytes());
    bytes
}

fn golden(name: &str) -> Vec<u8> {
    std::fs::read(format!("{}/tests/goldens/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// Names and files, one of each way in which a decoder holds pixels.
fn files() -> Vec<(String, Vec<u8>)> {
    use jpeg_encoder::SamplingFactor::{F_1_1, F_2_2};
    let mut files = Vec::new();
    let mut add = |name: &str, bytes: Vec<u8>| files.push((name.to_string(), bytes));
    for (channels, alpha) in [(1, false), (3, false), (1, true), (3, true)] {
        for (format, deep, quality) in [
            (Format::Png, false, None),
            (Format::Png, true, None),
            (Format::Tiff, false, None),
            (Format::Tiff, true, None),
            (Format::WebP, false, None),
            (Format::WebP, false, Some(80)),
        ] {
            let name = format!("{format:?} {channels} alpha {alpha} deep {deep} quality {quality:?}");
            add(&name, written(format, channels, deep, alpha, quality));
        }
    }
    add("JPEG, grey", written(Format::Jpeg, 1, false, false, None));
    for (progressive, sampling) in [(false, F_1_1), (false, F_2_2), (true, F_1_1), (true, F_2_2)] {
        add(&format!("JPEG {sampling:?} progressive {progressive}"), jpeg(progressive, sampling));
    }
    add("PNG, table of greys", indexed((0..=255).flat_map(|grey| [grey; 3]).collect()));
    add("PNG, table of colours", indexed((0..=255).flat_map(|value| [value, 255 - value, 0]).collect()));
    add("BMP, greys", bmp(ExtendedColorType::L8, 1));
    add("BMP, colours", bmp(ExtendedColorType::Rgb8, 3));
    add("BMP, opacity", bmp(ExtendedColorType::Rgba8, 4));
    add("BMP, runs", bmp_of_runs());
    for kind in ["rgb", "rgba", "grey", "deep", "lossy_rgb", "lossy_rgba", "lossy_grey", "lossy_deep"] {
        let name = format!("jxl/large_{kind}.jxl");
        add(&name, golden(&name));
    }
    #[cfg(feature = "heic")]
    for kind in ["rgb", "half", "rgba"] {
        let name = format!("heic/large_{kind}.heic");
        add(&name, golden(&name));
    }
    files
}

#[test]
fn decoding_takes_what_is_foretold() {
    // What is made once, for all pictures.
    decode_bytes(&golden("jxl/large_rgb.jxl"), "first").unwrap();
    let mut wrong = Vec::new();
    for (name, bytes) in files() {
        let outline = Outline::of(&bytes, &name).unwrap();
        let foretold = outline.decoding + outline.bytes() - bytes.len();
        let before = HELD.load(Ordering::Relaxed);
        MOST.store(before, Ordering::Relaxed);
        let photo = decode_bytes(&bytes, &name).unwrap();
        let mut most = MOST.load(Ordering::Relaxed) - before;
        if name.starts_with("jxl/large_") && !name.contains("lossy") {
            // Its decoder asks once more for two bytes of each value, and leaves them as they come: the system gives none.
            most -= 2 * (outline.channels + usize::from(outline.has_alpha)) * outline.pixels();
        }
        assert_eq!((outline.channels, outline.has_alpha), (photo.channels, photo.alpha.is_some()), "{name}");
        let (a_pixel, off) = (most as f64 / (WIDTH * HEIGHT) as f64, foretold as f64 / most as f64 - 1.0);
        println!("{name}: {a_pixel:.2} bytes a pixel, foretold {:+.0} %", 100.0 * off);
        // Decoders have tables and rows of their own, whatever the size.
        if most > foretold + foretold / 8 + (1 << 19) || off > 0.4 {
            wrong.push(name);
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}
