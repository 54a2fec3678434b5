//! Files of every kind that people have: read rightly, or refused by name.

use diffbir_imaging::{Encoded, Format, Metadata, Samples, decode_bytes};
use image::{ExtendedColorType, ImageEncoder};
use img_parts::png::{Png, PngChunk};
use std::io::Cursor;
use tiff::decoder::Decoder;
use tiff::encoder::{DirectoryEncoder, TiffEncoder, TiffKindStandard, colortype as kind};
use tiff::tags::Tag;

fn error(bytes: &[u8]) -> String {
    decode_bytes(bytes, "test").map(|photo| photo.width_px).unwrap_err().to_string()
}

fn encode(channels: usize, samples: Samples, alpha: Option<Samples>, format: Format) -> Vec<u8> {
    let (metadata, alpha) = (&Metadata::default(), alpha.as_ref());
    let pixels = match &samples {
        Samples::U8(samples) => samples.len(),
        Samples::U16(samples) => samples.len(),
    } / channels;
    let encoded =
        Encoded { width_px: pixels / 2, height_px: 2, channels, samples: &samples, alpha, metadata };
    encoded.to_bytes(format, None).unwrap()
}

type Tags<'a> = DirectoryEncoder<'a, &'a mut Cursor<Vec<u8>>, TiffKindStandard>;

/// A TIFF of 2 x 1 pixels with tags of the caller's.
fn tiff<K: kind::ColorType>(pixels: &[K::Inner], tags: impl Fn(&mut Tags)) -> Vec<u8>
where
    [K::Inner]: tiff::encoder::TiffValue,
{
    let mut bytes = Cursor::new(Vec::new());
    {
        let mut encoder = TiffEncoder::new(&mut bytes).unwrap();
        let mut image = encoder.new_image::<K>(2, 1).unwrap();
        tags(image.encoder());
        image.write_data(pixels).unwrap();
    }
    bytes.into_inner()
}

#[cfg(not(feature = "raw"))]
#[test]
fn a_camera_raw_with_a_thumbnail_in_front_is_refused() {
    let mut bytes = Cursor::new(Vec::new());
    let mut encoder = TiffEncoder::new(&mut bytes).unwrap();
    let mut sensor = encoder.extra_directory().unwrap();
    sensor.write_tag(Tag::PhotometricInterpretation, 32803u16).unwrap();
    let sensor = sensor.finish_with_offsets().unwrap().offset;
    let mut image = encoder.new_image::<kind::RGB8>(2, 1).unwrap();
    image.encoder().write_tag(Tag::Unknown(330), sensor).unwrap();
    image.write_data(&[7; 6]).unwrap();
    assert!(error(&bytes.into_inner()).contains("camera RAW"));
}

#[test]
fn tables_of_greys_are_grey() {
    let mut bmp = Vec::new();
    let encoder = image::codecs::bmp::BmpEncoder::new(&mut bmp);
    encoder.write_image(&[9, 200], 2, 1, ExtendedColorType::L8).unwrap();
    let photo = decode_bytes(&bmp, "test").unwrap();
    assert_eq!((photo.channels, photo.samples), (1, Samples::U8(vec![9, 200])));

    let png = encode(1, Samples::U8(vec![0, 1, 1, 0]), None, Format::Png);
    let with_table = |table: &[u8]| {
        let mut png = Png::from_bytes(png.clone().into()).unwrap();
        let mut header = png.chunks()[0].contents().to_vec();
        header[9] = 3;
        png.chunks_mut()[0] = PngChunk::new(*b"IHDR", header.into());
        png.chunks_mut().insert(1, PngChunk::new(*b"PLTE", table.to_vec().into()));
        decode_bytes(&png.encoder().bytes(), "test").unwrap()
    };
    let photo = with_table(&[8, 8, 8, 77, 77, 77]);
    assert_eq!((photo.channels, photo.samples), (1, Samples::U8(vec![8, 77, 77, 8])));
    assert_eq!(with_table(&[8, 8, 8, 77, 76, 77]).channels, 3);
    // Colours without a table stay what the file says they are.
    let photo = decode_bytes(&encode(3, Samples::U8(vec![5; 12]), None, Format::Png), "test").unwrap();
    assert_eq!(photo.channels, 3);
}

#[test]
fn opacity_in_a_tiff_is_named_and_read_as_it_is_meant() {
    let colours: Vec<u8> = (0..12).map(|value| value * 20).collect();
    for channels in [1, 3] {
        let colours = &colours[..4 * channels];
        let alpha = [255, 128, 3, 0];
        let deep = |values: &[u8]| Samples::U16(values.iter().map(|&value| u16::from(value) * 251).collect());
        for (samples, alpha) in
            [(Samples::U8(colours.to_vec()), Samples::U8(alpha.to_vec())), (deep(colours), deep(&alpha))]
        {
            let bytes = encode(channels, samples.clone(), Some(alpha.clone()), Format::Tiff);
            let mut file = Decoder::new(Cursor::new(&bytes[..])).unwrap();
            assert_eq!(file.get_tag_u16_vec(Tag::ExtraSamples).unwrap(), [2]);
            let photo = decode_bytes(&bytes, "test").unwrap();
            assert_eq!((photo.channels, photo.samples, photo.alpha), (channels, samples, Some(alpha)));
        }
    }
    let premultiplied = tiff::<kind::RGBA8>(&[50, 100, 128, 128, 10, 20, 30, 255], |tags| {
        tags.write_tag(Tag::ExtraSamples, &[1u16][..]).unwrap();
    });
    let photo = decode_bytes(&premultiplied, "test").unwrap();
    assert_eq!(photo.samples, Samples::U8(vec![100, 199, 255, 10, 20, 30]));
}

#[test]
fn whole_files_that_are_not_decoded_are_called_unsupported() {
    let none = |_: &mut Tags| {};
    for (bytes, name) in [
        (tiff::<kind::CMYK8>(&[1; 8], none), "CMYK"),
        (tiff::<kind::YCbCr8>(&[1; 6], none), "YCbCr"),
        (tiff::<kind::Gray32>(&[1; 2], none), "more than 16 bits"),
        (tiff::<kind::RGB32Float>(&[1.0; 6], none), "floats"),
        (tiff::<kind::GrayI16>(&[1; 2], none), "signed numbers"),
        (
            tiff::<kind::Gray8>(&[1; 2], |tags| {
                tags.write_tag(Tag::PhotometricInterpretation, 3u16).unwrap();
            }),
            "palette",
        ),
        (tiff::<kind::Gray8>(&[1; 2], |tags| tags.write_tag(Tag::Compression, 50000u16).unwrap()), "ZSTD"),
    ] {
        let error = error(&bytes);
        assert!(error.contains("not supported") && error.contains(name), "{name}: {error}");
    }
    // A JPEG whose frame claims another method or depth.
    let jpeg = encode(3, Samples::U8(vec![5; 12]), None, Format::Jpeg);
    let frame = jpeg.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
    for (offset, value, name) in
        [(1, 0xc9, "arithmetic-coded"), (1, 0xc3, "lossless"), (4, 12, "more than 8 bits")]
    {
        let mut jpeg = jpeg.clone();
        jpeg[frame + offset] = value;
        let error = error(&jpeg);
        assert!(error.contains("not supported") && error.contains(name), "{name}: {error}");
    }
}

#[test]
fn long_offsets_and_late_brands_are_understood() {
    let mut bytes = Cursor::new(Vec::new());
    let mut encoder = TiffEncoder::new_big(&mut bytes).unwrap();
    encoder.write_image::<kind::Gray8>(2, 1, &[3, 4]).unwrap();
    let photo = decode_bytes(&bytes.into_inner(), "test").unwrap();
    assert_eq!(photo.samples, Samples::U8(vec![3, 4]));
    let brands = |list: &str| [&[0, 0, 0, 8 + list.len() as u8], b"ftyp", list.as_bytes(), &[0; 9]].concat();
    assert!(error(&brands("mif1\0\0\0\0mif1avif")).contains("AVIF"));
    assert!(error(&brands("mif1\0\0\0\0mif1heic")).contains("HEIC"));
    assert!(error(&brands("isom\0\0\0\0isom")).contains("film"));
}

#[test]
fn sizes_beyond_the_limit_are_called_so() {
    let mut bmp = Vec::new();
    let encoder = image::codecs::bmp::BmpEncoder::new(&mut bmp);
    encoder.write_image(&[9; 6], 2, 1, ExtendedColorType::Rgb8).unwrap();
    bmp[18..22].copy_from_slice(&100_000u32.to_le_bytes());
    bmp[22..26].copy_from_slice(&(-100_000i32).to_le_bytes());
    let mut webp = b"RIFF\x5e\x02\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0".to_vec();
    webp.extend([0x9f, 0x86, 1, 0x9f, 0x86, 1]);
    for bytes in [bmp, webp] {
        let error = error(&bytes);
        assert!(error.contains("claims 100000 x 100000 pixels"), "{error}");
    }
}

/// A JPEG of 64 x 48 pixels, every block of which has something to say.
fn busy_jpeg(components: u8) -> Vec<u8> {
    let samples = (0..64 * 48 * usize::from(components)).map(|i| (i * i / 7 % 251) as u8).collect();
    let encoded = Encoded {
        width_px: 64,
        height_px: 48,
        channels: usize::from(components),
        samples: &Samples::U8(samples),
        alpha: None,
        metadata: &Metadata::default(),
    };
    encoded.to_bytes(Format::Jpeg, None).unwrap()
}

#[test]
fn a_hole_in_a_jpeg_is_noticed() {
    for components in [1, 3] {
        let whole = busy_jpeg(components);
        assert_eq!(decode_bytes(&whole, "whole").unwrap().width_px, 64);
        let half = &whole[..whole.len() * 3 / 4];
        let closed = [half, &[0xff, 0xd9]].concat();
        let another = [half, &whole].concat();
        let behind = [&closed[..], &whole].concat();
        // The header claims more than the data fill.
        let mut large = whole.clone();
        let frame = large.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
        large[frame + 5..frame + 9].copy_from_slice(&[0x4e, 0x20, 0x4e, 0x20]);
        for (bytes, what) in
            [(closed, "closed"), (another, "another"), (behind, "one behind"), (large, "large")]
        {
            let error = error(&bytes);
            assert!(error.contains("is damaged"), "{what} {components}: {error}");
        }
        // Something behind the end is no part of the picture.
        assert!(decode_bytes(&[&whole[..], b"trailer"].concat(), "trailer").is_ok());
    }
}

#[test]
fn holes_are_noticed_in_progressive_and_restarted_scans() {
    use jpeg_encoder::{ColorType, Encoder, SamplingFactor};
    let rgb: Vec<u8> = (0..61 * 45 * 3).map(|i: usize| (i * i / 7 % 251) as u8).collect();
    for (progressive, restart) in [(true, 0), (true, 3), (false, 3)] {
        for sampling in [SamplingFactor::F_1_1, SamplingFactor::F_2_1, SamplingFactor::F_2_2] {
            let mut whole = Vec::new();
            let mut encoder = Encoder::new(&mut whole, 80);
            encoder.set_progressive(progressive);
            encoder.set_sampling_factor(sampling);
            if restart > 0 {
                encoder.set_restart_interval(restart);
            }
            encoder.encode(&rgb, 61, 45, ColorType::Rgb).unwrap();
            let photo = decode_bytes(&whole, "whole").unwrap();
            assert_eq!((photo.width_px, photo.height_px), (61, 45));
            let scan = whole.windows(2).position(|pair| pair == [0xff, 0xda]).unwrap();
            for cut in (scan..whole.len() - 20).step_by(37) {
                let closed = [&whole[..cut], &[0xff, 0xd9]].concat();
                assert!(
                    error(&closed).contains("is damaged"),
                    "progressive {progressive}, restarts every {restart}, {sampling:?}, cut at {cut}"
                );
            }
            for index in (0..whole.len()).step_by(11) {
                let mut broken = whole.clone();
                broken[index] ^= 0x55;
                if let Ok(photo) = decode_bytes(&broken, "broken") {
                    assert!(photo.width_px > 0);
                }
            }
        }
    }
}
