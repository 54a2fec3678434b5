//! Event files for TensorBoard: scalars, grids of pictures, texts.
//!
//! A file is a row of records, each a length and a message of Protocol Buffers with a checksum behind either. Of the
//! messages `Event` and `Summary` only what is written here is encoded.

use crate::run::TrainError;
use diffbir_imaging::{Format, Raster, encode_rgb};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Writes what happens in a run. Each call ends up in the file before it returns, so that a running training can be
/// watched and a killed one loses nothing.
pub struct EventWriter {
    file: File,
    path: PathBuf,
}

/// Pictures in a row of a grid.
const COLUMNS: usize = 4;

/// Black around each picture of a grid, pixels.
const GAP_PX: usize = 2;

impl EventWriter {
    /// A new file in a folder, which is made if need be. `steps` lie behind: what earlier files of a run that goes on
    /// have of later ones, from before it was stopped, TensorBoard then hides.
    pub fn create(folder: &Path, steps: u64) -> Result<Self, TrainError> {
        let fail = |source| TrainError::Write { file: folder.to_path_buf(), source };
        std::fs::create_dir_all(folder).map_err(fail)?;
        let name = format!("events.out.tfevents.{:010}.{}.{}", now().as_secs(), host(), std::process::id());
        // Two may be made in one second.
        let (file, path) = (0..)
            .find_map(|number| {
                let path = folder.join(format!("{name}.{number}"));
                match OpenOptions::new().append(true).create_new(true).open(&path) {
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => None,
                    opened => Some(opened.map(|file| (file, path))),
                }
            })
            .expect("numbers do not end")
            .map_err(fail)?;
        let mut writer = Self { file, path };
        writer.event(0, |event| event.bytes(3, b"brain.Event:2"))?;
        if steps > 0 {
            // A session's start, from which on TensorBoard takes the new file.
            writer.event(steps + 1, |event| event.message(7, |session| session.number(1, 1)))?;
        }
        Ok(writer)
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A number.
    pub fn scalar(&mut self, step: u64, tag: &str, value: f64) -> Result<(), TrainError> {
        self.value(step, tag, |out| out.float(2, value as f32))
    }

    /// RGB pictures, values 0 to 1, side by side in rows of four. A single one stands alone.
    pub fn pictures(&mut self, step: u64, tag: &str, pictures: &[Raster]) -> Result<(), TrainError> {
        let grid = grid(pictures);
        let (width_px, height_px) = grid.size();
        let png = encode_rgb((width_px, height_px), grid.to_u8_rounding(), Format::Png, None)
            .map_err(|error| self.failed(io::Error::other(error)))?;
        self.value(step, tag, |out| {
            out.message(4, |image| {
                image.number(1, height_px as u64);
                image.number(2, width_px as u64);
                image.number(3, 3);
                image.bytes(4, &png);
            });
        })
    }

    /// A text, in Markdown.
    pub fn text(&mut self, step: u64, tag: &str, text: &str) -> Result<(), TrainError> {
        /// `DT_STRING`
        const STRING: u64 = 7;
        self.value(step, tag, |out| {
            out.message(8, |tensor| {
                tensor.number(1, STRING);
                tensor.message(2, |shape| shape.message(2, |dimension| dimension.number(1, 1)));
                tensor.bytes(8, text.as_bytes());
            });
            out.message(9, |metadata| metadata.message(1, |plugin| plugin.bytes(1, b"text")));
        })
    }

    fn value(&mut self, step: u64, tag: &str, fill: impl FnOnce(&mut Message)) -> Result<(), TrainError> {
        self.event(step, |event| {
            event.message(5, |summary| {
                summary.message(1, |value| {
                    value.bytes(1, tag.as_bytes());
                    fill(value);
                });
            });
        })
    }

    fn event(&mut self, step: u64, fill: impl FnOnce(&mut Message)) -> Result<(), TrainError> {
        let mut event = Message::default();
        event.double(1, now().as_secs_f64());
        event.number(2, step);
        fill(&mut event);
        self.file.write_all(&record(&event.0)).map_err(|source| self.failed(source))
    }

    fn failed(&self, source: io::Error) -> TrainError {
        TrainError::Write { file: self.path.clone(), source }
    }
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// The machine's name, as far as it is known without asking the system's library.
fn host() -> String {
    let file = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let named = file.or_else(|| std::env::var("HOSTNAME").or_else(|_| std::env::var("COMPUTERNAME")).ok());
    let name: String = named
        .unwrap_or_default()
        .trim()
        .chars()
        .map(|letter| if letter.is_ascii_alphanumeric() || ".-_".contains(letter) { letter } else { '-' })
        .collect();
    if name.is_empty() { "localhost".into() } else { name }
}

/// Pictures in rows of [`COLUMNS`], each in a cell as large as the largest.
fn grid(pictures: &[Raster]) -> Raster {
    if let [one] = pictures {
        return one.clone();
    }
    let side = |of: fn(&Raster) -> usize| pictures.iter().map(of).max().unwrap_or(0) + GAP_PX;
    let (width, height) = (side(|picture| picture.width_px), side(|picture| picture.height_px));
    let (columns, rows) = (pictures.len().clamp(1, COLUMNS), pictures.len().div_ceil(COLUMNS).max(1));
    let mut grid = Raster::new(columns * width + GAP_PX, rows * height + GAP_PX, 3);
    for (index, picture) in pictures.iter().enumerate() {
        let (column, row) = (index % COLUMNS, index / COLUMNS);
        grid.paste(picture, column * width + GAP_PX, row * height + GAP_PX);
    }
    grid
}

/// A message of Protocol Buffers.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.0.push(number as u8);
    }

    /// A field's number and how it is stored.
    fn key(&mut self, field: u64, wire: u64) {
        self.varint(field << 3 | wire);
    }

    fn number(&mut self, field: u64, number: u64) {
        self.key(field, 0);
        self.varint(number);
    }

    fn double(&mut self, field: u64, number: f64) {
        self.key(field, 1);
        self.0.extend(number.to_le_bytes());
    }

    fn float(&mut self, field: u64, number: f32) {
        self.key(field, 5);
        self.0.extend(number.to_le_bytes());
    }

    fn bytes(&mut self, field: u64, bytes: &[u8]) {
        self.key(field, 2);
        self.varint(bytes.len() as u64);
        self.0.extend(bytes);
    }

    fn message(&mut self, field: u64, fill: impl FnOnce(&mut Self)) {
        let mut inner = Self::default();
        fill(&mut inner);
        self.bytes(field, &inner.0);
    }
}

/// A message with its length and the checksums of both.
fn record(message: &[u8]) -> Vec<u8> {
    let length = (message.len() as u64).to_le_bytes();
    [&length[..], &masked_crc(&length).to_le_bytes(), message, &masked_crc(message).to_le_bytes()].concat()
}

/// CRC-32C, turned and moved so that checksums of checksums do not coincide.
fn masked_crc(bytes: &[u8]) -> u32 {
    crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

fn crc32c(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = table();
    !bytes.iter().fold(!0, |crc, &byte| TABLE[usize::from(crc as u8 ^ byte)] ^ (crc >> 8))
}

/// What each byte adds, by Castagnoli's polynomial, lowest bit first.
const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let (mut crc, mut bit) = (index as u32, 0);
        while bit < 8 {
            crc = if crc & 1 == 1 { 0x82f6_3b78 ^ (crc >> 1) } else { crc >> 1 };
            bit += 1;
        }
        table[index] = crc;
        index += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// Fields of a message by number, each as it is stored.
    fn fields(mut bytes: &[u8]) -> BTreeMap<u64, Vec<u8>> {
        fn varint(bytes: &mut &[u8]) -> u64 {
            let (mut number, mut shift) = (0, 0);
            loop {
                let byte = bytes[0];
                *bytes = &bytes[1..];
                number |= u64::from(byte & 0x7f) << shift;
                shift += 7;
                if byte < 0x80 {
                    return number;
                }
            }
        }
        let mut found = BTreeMap::new();
        while !bytes.is_empty() {
            let key = varint(&mut bytes);
            let value = match key & 7 {
                0 => varint(&mut bytes).to_le_bytes().to_vec(),
                wire => {
                    let length = match wire {
                        1 => 8,
                        5 => 4,
                        _ => varint(&mut bytes) as usize,
                    };
                    let (value, rest) = bytes.split_at(length);
                    bytes = rest;
                    value.to_vec()
                }
            };
            found.insert(key >> 3, value);
        }
        found
    }

    /// Events of a file: step and fields; checksums are checked by another implementation, bit by bit.
    fn read(file: &Path) -> Vec<(u64, BTreeMap<u64, Vec<u8>>)> {
        let check = |bytes: &[u8], sum: &[u8]| {
            let mut crc = !0u32;
            for bit in bytes.iter().flat_map(|byte| (0..8).map(move |bit| byte >> bit & 1)) {
                let out = (crc & 1) ^ u32::from(bit);
                crc = (crc >> 1) ^ (out * 0x82f6_3b78);
            }
            let masked = (!crc).rotate_right(15).wrapping_add(0xa282_ead8);
            assert_eq!(masked.to_le_bytes(), sum);
        };
        let bytes = std::fs::read(file).unwrap();
        let (mut rest, mut events) = (bytes.as_slice(), Vec::new());
        while !rest.is_empty() {
            let (length, after) = rest.split_at(8);
            check(length, &after[..4]);
            let (message, after) =
                after[4..].split_at(u64::from_le_bytes(length.try_into().unwrap()) as usize);
            check(message, &after[..4]);
            rest = &after[4..];
            let event = fields(message);
            let step = u64::from_le_bytes(event[&2].as_slice().try_into().unwrap());
            events.push((step, event));
        }
        events
    }

    fn value((_, event): &(u64, BTreeMap<u64, Vec<u8>>)) -> BTreeMap<u64, Vec<u8>> {
        fields(&fields(&event[&5])[&1])
    }

    #[test]
    fn checksums_are_castagnolis() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
    }

    #[test]
    fn a_file_holds_what_was_written() {
        let folder = tempfile::TempDir::new().unwrap();
        let folder = folder.path().join("logs");
        let mut writer = EventWriter::create(&folder, 0).unwrap();
        writer.scalar(300, "loss/loss_simple_step", 0.25).unwrap();
        let pictures: Vec<Raster> = (0..5)
            .map(|number| Raster { data: vec![0.2 * number as f32; 72], ..Raster::new(6, 4, 3) })
            .collect();
        writer.pictures(300, "image/gt", &pictures).unwrap();
        writer.text(7, "image/prompt", "a lighthouse").unwrap();
        let name = writer.path().file_name().unwrap().to_str().unwrap().to_string();
        assert!(name.starts_with("events.out.tfevents.") && writer.path().starts_with(&folder), "{name}");

        let events = read(writer.path());
        assert_eq!(events.len(), 4);
        assert_eq!(events[0].1[&3], b"brain.Event:2");
        let scalar = value(&events[1]);
        assert_eq!((events[1].0, scalar[&1].as_slice()), (300, &b"loss/loss_simple_step"[..]));
        assert_eq!(scalar[&2], 0.25f32.to_le_bytes());
        let image = fields(&value(&events[2])[&4]);
        let size = [&image[&2], &image[&1]].map(|side| usize::from(side[0]));
        assert_eq!(size, [4 * (6 + 2) + 2, 2 * (4 + 2) + 2]);
        let decoded = diffbir_imaging::decode_bytes(&image[&4], "grid").unwrap().to_raster();
        assert_eq!([decoded.width_px, decoded.height_px], size);
        let at = |x: usize, y: usize| decoded.data[(y * decoded.width_px + x) * 3];
        assert_eq!([at(0, 0), at(10, 2), at(17, 5), at(2, 8)], [0.0, 0.2, 0.0, 0.8]);
        let text = value(&events[3]);
        assert_eq!(fields(&text[&8])[&8], b"a lighthouse");
        assert_eq!(fields(&fields(&text[&9])[&1])[&1], b"text");
    }

    #[test]
    fn a_run_that_goes_on_says_from_where() {
        let folder = tempfile::TempDir::new().unwrap();
        let [first, second] = [0, 40].map(|steps| EventWriter::create(folder.path(), steps).unwrap());
        assert_ne!(first.path(), second.path());
        let events = read(second.path());
        assert_eq!((events.len(), events[1].0), (2, 41));
        assert_eq!(fields(&events[1].1[&7])[&1][0], 1);
        assert_eq!(read(first.path()).len(), 1);
        let error = EventWriter::create(&first.path().join("below"), 0).err().unwrap().to_string();
        assert!(error.ends_with("below: cannot be written"), "{error}");
    }
}
