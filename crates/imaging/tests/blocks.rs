//! Blocks of metadata in the less usual places and sizes.

use diffbir_imaging::{Encoded, Format, Metadata, Samples, decode_bytes};
use img_parts::jpeg::{Jpeg, JpegSegment};
use img_parts::png::{Png, PngChunk};
use std::io::{Cursor, Read, Write};
use tiff::decoder::Decoder;
use tiff::encoder::{TiffEncoder, colortype};
use tiff::tags::Tag;

const RECORD: &[u8] = b"\x1c\x02\x05\0\x03abc";
const RESOURCE: &[u8] = b"8BIM\x04\x04\0\0\0\0\0\x08\x1c\x02\x05\0\x03abc";

/// A picture of 3 x 2 pixels.
fn picture(metadata: &Metadata, format: Format) -> Vec<u8> {
    let samples = Samples::U8((0..18).map(|value| value * 14).collect());
    let encoded =
        Encoded { width_px: 3, height_px: 2, channels: 3, samples: &samples, alpha: None, metadata };
    encoded.to_bytes(format, None).unwrap()
}

fn read(bytes: &[u8]) -> Metadata {
    decode_bytes(bytes, "test").unwrap().metadata
}

/// A PNG with a chunk more, at this index among its chunks.
fn with_chunk(png: Vec<u8>, index: usize, kind: [u8; 4], contents: Vec<u8>) -> Vec<u8> {
    let mut png = Png::from_bytes(png.into()).unwrap();
    png.chunks_mut().insert(index, PngChunk::new(kind, contents.into()));
    png.encoder().bytes().to_vec()
}

fn with_segment(jpeg: Vec<u8>, marker: u8, contents: Vec<u8>) -> Vec<u8> {
    let mut jpeg = Jpeg::from_bytes(jpeg.into()).unwrap();
    jpeg.segments_mut().insert(1, JpegSegment::new_with_contents(marker, contents.into()));
    jpeg.encoder().bytes().to_vec()
}

/// A text of PNG that holds a block in hexadecimal, packed.
fn packed_profile(name: &str, block: &[u8]) -> Vec<u8> {
    let hex: String = block.iter().map(|byte| format!("{byte:02x}")).collect();
    let text = format!("\n{name}\n{:8}\n{hex}\n", block.len());
    let mut packed = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
    packed.write_all(text.as_bytes()).unwrap();
    [format!("Raw profile type {name}\0\0").as_bytes(), &packed.finish().unwrap()].concat()
}

/// A little-endian EXIF block with an orientation and the pixels' width, and a thumbnail's directory.
fn exif(orientation: u8) -> Vec<u8> {
    let entry = |tag: u16, kind: u16, value: u32| {
        let head = [tag.to_le_bytes(), kind.to_le_bytes()].concat();
        [&head[..], &1u32.to_le_bytes(), &value.to_le_bytes()].concat()
    };
    [
        b"II*\0\x08\0\0\0".to_vec(),
        vec![2, 0],
        entry(274, 3, u32::from(orientation)),
        entry(34665, 4, 38),
        56u32.to_le_bytes().to_vec(),
        // The camera's directory, at 38.
        vec![1, 0],
        entry(40962, 4, 4000),
        vec![0; 4],
        // The thumbnail's, at 56.
        vec![1, 0],
        entry(274, 3, u32::from(orientation)),
        vec![0; 4],
    ]
    .concat()
}

fn of_exif(exif: Vec<u8>) -> Metadata {
    Metadata { exif: Some(exif), ..Metadata::default() }
}

#[test]
fn blocks_in_texts_of_a_png_are_read() {
    let iptc = Metadata { iptc: Some(RESOURCE.to_vec()), ..Metadata::default() };
    let png = picture(&read(&picture(&iptc, Format::Jpeg)), Format::Png);
    assert_eq!(read(&png).iptc.as_deref(), Some(RESOURCE));
    let jpeg = picture(&read(&png), Format::Jpeg);
    assert_eq!(read(&jpeg).iptc.as_deref(), Some(RESOURCE), "through PNG and back");
    for block in [RECORD, RESOURCE] {
        let png = with_chunk(
            picture(&Metadata::default(), Format::Png),
            1,
            *b"zTXt",
            packed_profile("iptc", block),
        );
        assert_eq!(read(&png).iptc.as_deref(), Some(RESOURCE));
    }
    let block = [b"Exif\0\0", &exif(1)[..]].concat();
    let png =
        with_chunk(picture(&Metadata::default(), Format::Png), 1, *b"zTXt", packed_profile("exif", &block));
    assert!(read(&png).exif.unwrap().starts_with(b"II*\0"));
    assert!(read(&png).unread.is_empty());
    let png =
        with_chunk(picture(&Metadata::default(), Format::Png), 1, *b"tEXt", b"Comment\0a sunny day".to_vec());
    assert_eq!(read(&png).lost_in(Format::Png), ["texts"]);
}

#[test]
fn exif_behind_the_pixels_of_a_png_turns_them() {
    let png = picture(&Metadata::default(), Format::Png);
    let end = Png::from_bytes(png.clone().into()).unwrap().chunks().len() - 1;
    let photo = decode_bytes(&with_chunk(png, end, *b"eXIf", exif(6)), "test").unwrap();
    assert_eq!((photo.width_px, photo.height_px), (2, 3));
    assert!(photo.metadata.exif.is_some());
}

#[test]
fn exif_with_the_signature_of_a_jpeg_is_read_from_any_format() {
    let signed = of_exif([b"Exif\0\0", &exif(6)[..]].concat());
    for format in [Format::Png, Format::WebP] {
        let photo = decode_bytes(&picture(&signed, format), "test").unwrap();
        assert_eq!((photo.width_px, photo.height_px), (2, 3), "{format:?}");
        assert_eq!(photo.metadata.exif.unwrap()[..19], exif(1)[..19], "{format:?}");
    }
}

#[test]
fn an_iptc_record_in_its_own_tag_of_a_tiff_is_read() {
    for as_long in [false, true] {
        let mut bytes = Cursor::new(Vec::new());
        let mut encoder = TiffEncoder::new(&mut bytes).unwrap();
        let mut image = encoder.new_image::<colortype::Gray8>(1, 1).unwrap();
        let tag = Tag::Unknown(33723);
        if as_long {
            let (longs, _) = RECORD.as_chunks::<4>();
            let longs: Vec<u32> = longs.iter().map(|bytes| u32::from_ne_bytes(*bytes)).collect();
            image.encoder().write_tag(tag, &longs[..]).unwrap();
        } else {
            image.encoder().write_tag(tag, RECORD).unwrap();
        }
        image.write_data(&[7]).unwrap();
        assert_eq!(read(&bytes.into_inner()).iptc.as_deref(), Some(RESOURCE), "as longs: {as_long}");
    }
}

#[test]
fn an_iptc_record_is_written_to_both_places_of_a_tiff() {
    let before = b"8BIM\x03\xed\x02ab\0\0\0\0\x03abc\0";
    let metadata = Metadata { iptc: Some([before, RESOURCE].concat()), ..Metadata::default() };
    let tiff = picture(&metadata, Format::Tiff);
    let mut file = Decoder::new(Cursor::new(&tiff[..])).unwrap();
    assert_eq!(file.get_tag_u8_vec(Tag::Unknown(33723)).unwrap(), RECORD);
    assert_eq!(read(&tiff).iptc, metadata.iptc);
    for length in 0..before.len() + RESOURCE.len() {
        let cut = [before, RESOURCE].concat()[..length].to_vec();
        picture(&Metadata { iptc: Some(cut), ..Metadata::default() }, Format::Tiff);
    }
}

#[test]
fn every_block_says_that_pixels_are_upright() {
    let turned = "<x tiff:Orientation=\"6\"/><tiff:Orientation>6</tiff:Orientation> 6";
    let upright = "<x tiff:Orientation=\"1\"/><tiff:Orientation>1</tiff:Orientation> 6";
    let metadata = Metadata { xmp: Some(turned.as_bytes().to_vec()), ..of_exif(exif(6)) };
    let photo = decode_bytes(&picture(&metadata, Format::Jpeg), "test").unwrap();
    assert_eq!((photo.width_px, photo.height_px), (2, 3));
    assert_eq!(photo.metadata.xmp.as_deref(), Some(upright.as_bytes()));
    let tiff = picture(&photo.metadata, Format::Tiff);
    let mut file = Decoder::new(Cursor::new(&tiff[..])).unwrap();
    assert_eq!(file.get_tag_u32(Tag::Orientation).unwrap(), 1);
    assert_eq!(read(&tiff).xmp.as_deref(), Some(upright.as_bytes()));

    // The other way: a TIFF that is turned, with an author.
    let mut bytes = Cursor::new(Vec::new());
    let mut encoder = TiffEncoder::new(&mut bytes).unwrap();
    let mut image = encoder.new_image::<colortype::Gray8>(2, 1).unwrap();
    image.encoder().write_tag(Tag::Orientation, 6u16).unwrap();
    image.encoder().write_tag(Tag::Artist, "Nadar fils").unwrap();
    image.write_data(&[7, 9]).unwrap();
    let photo = decode_bytes(&bytes.into_inner(), "test").unwrap();
    assert_eq!((photo.width_px, photo.height_px), (1, 2));
    let block = photo.metadata.exif.unwrap();
    let entry: Vec<u8> = [[274u16, 3].map(u16::to_ne_bytes).concat(), 1u32.to_ne_bytes().to_vec()].concat();
    let at = block.windows(8).position(|window| window == entry).expect("it has an orientation");
    assert_eq!(block[at + 8..at + 10], 1u16.to_ne_bytes());
}

#[test]
fn exif_says_the_size_and_turn_of_the_result_and_shows_no_old_thumbnail() {
    for (said, size) in [(6, (2, 3)), (0, (3, 2)), (9, (3, 2)), (1, (3, 2))] {
        let photo = decode_bytes(&picture(&of_exif(exif(said)), Format::Png), "test").unwrap();
        assert_eq!((photo.width_px, photo.height_px), size, "orientation {said}");
        let block = photo.metadata.exif.unwrap();
        assert_eq!(block[18], 1, "orientation {said} has become 1");
        assert_eq!(block[34..38], [0; 4], "nothing points to the thumbnail");
        // Its type, its count and its value: the picture that was written had 3 pixels a row.
        assert_eq!(block[42..52], [3, 0, 1, 0, 0, 0, 3, 0, 0, 0]);
    }
}

#[test]
fn what_is_too_large_for_a_jpeg_is_left_out_and_said() {
    let mut large = exif(1);
    large.resize(100_000, 0);
    let metadata = Metadata { xmp: Some(vec![b' '; 70_000]), ..of_exif(large) };
    let lost = metadata.lost_in(Format::Jpeg);
    assert_eq!(lost, ["EXIF of more than 64 kB", "XMP of more than 64 kB"]);
    let back = read(&picture(&metadata, Format::Jpeg));
    assert!(back.exif.is_none() && back.xmp.is_none());
    assert!(metadata.lost_in(Format::Png).is_empty());
    assert_eq!(read(&picture(&metadata, Format::Png)).xmp, metadata.xmp);
    // As much as a segment holds, behind its six bytes of signature.
    let mut most = exif(1);
    most.resize(65_527, 0);
    let metadata = of_exif(most);
    assert!(metadata.lost_in(Format::Jpeg).is_empty());
    assert_eq!(read(&picture(&metadata, Format::Jpeg)).exif.unwrap().len(), 65_527);
}

#[test]
fn what_is_not_read_is_said() {
    let contents = [&b"http://ns.adobe.com/xmp/extension/\0"[..], &[b' '; 60]].concat();
    let jpeg = with_segment(picture(&Metadata::default(), Format::Jpeg), 0xe1, contents);
    assert_eq!(read(&jpeg).lost_in(Format::Jpeg), ["extended XMP"]);
}

#[test]
fn the_density_of_a_bmp_is_read() {
    let mut bytes = Vec::new();
    let encoder = image::codecs::bmp::BmpEncoder::new(&mut bytes);
    image::ImageEncoder::write_image(encoder, &[9; 6], 2, 1, image::ExtendedColorType::Rgb8).unwrap();
    bytes[38..46].copy_from_slice(&[11811u32.to_le_bytes(), 5906u32.to_le_bytes()].concat());
    let density = read(&bytes).density.unwrap();
    assert!((density.x_dpi - 300.0).abs() < 0.01 && (density.y_dpi - 150.0).abs() < 0.02, "{density:?}");
}

/// So many zeros, packed.
fn zeros(count: usize) -> Vec<u8> {
    let mut packed = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    std::io::copy(&mut std::io::repeat(0).take(count as u64), &mut packed).unwrap();
    packed.finish().unwrap()
}

#[test]
fn packed_metadata_does_not_grow_without_end() {
    let plain = picture(&Metadata::default(), Format::Png);
    let bomb = zeros(200 << 20);
    assert!(bomb.len() < 1 << 20);
    let profile = with_chunk(plain.clone(), 1, *b"iCCP", [b"x\0\0", &bomb[..]].concat());
    let xmp = with_chunk(plain.clone(), 1, *b"iTXt", [b"XML:com.adobe.xmp\0\x01\0\0\0", &bomb[..]].concat());
    for file in [profile, xmp] {
        assert_eq!(diffbir_imaging::Outline::of(&file, "test").unwrap().size(), (3, 2));
        let metadata = read(&file);
        assert!(metadata.icc.is_none() && metadata.xmp.is_none(), "it is left out");
        assert_eq!(metadata.unread.len(), 1, "and said: {:?}", metadata.unread);
    }
    // Many small ones share what there is room for.
    let text = [b"Raw profile type x\0\0", &zeros(8 << 20)[..]].concat();
    let many = (0..6).fold(plain, |png, _| with_chunk(png, 1, *b"zTXt", text.clone()));
    assert!(read(&many).unread.contains(&"a broken text"));
}
