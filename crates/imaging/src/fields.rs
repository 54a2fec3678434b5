//! The fields of a TIFF structure where they lie, as files of that name and EXIF blocks have them. A block is
//! changed in place, since a camera's own notes hold offsets into it.

use image::metadata::Orientation;

const ORIENTATION: u16 = 274;
const EXIF_DIRECTORY: u16 = 34665;
const PIXEL_X_DIMENSION: u16 = 40962;
const PIXEL_Y_DIMENSION: u16 = 40963;

/// Bytes of an entry: tag, type, count, value.
const ENTRY: usize = 12;

/// A TIFF structure with offsets of 32 bits.
pub(crate) struct Fields<'a> {
    bytes: &'a [u8],
    little: bool,
}

impl<'a> Fields<'a> {
    pub fn of(bytes: &'a [u8]) -> Option<Self> {
        match bytes.get(..4)? {
            b"II*\0" => Some(Self { bytes, little: true }),
            b"MM\0*" => Some(Self { bytes, little: false }),
            _ => None,
        }
    }

    fn short(&self, at: usize) -> Option<u16> {
        let bytes = self.bytes.get(at..)?.first_chunk().copied()?;
        Some(if self.little { u16::from_le_bytes(bytes) } else { u16::from_be_bytes(bytes) })
    }

    fn long(&self, at: usize) -> Option<u32> {
        let bytes = self.bytes.get(at..)?.first_chunk().copied()?;
        Some(if self.little { u32::from_le_bytes(bytes) } else { u32::from_be_bytes(bytes) })
    }

    /// Where the first directory is; 0 if there is none.
    pub fn first(&self) -> u32 {
        self.long(4).unwrap_or(0)
    }

    /// Where the offset of the next directory stands.
    fn end(&self, directory: u32) -> Option<usize> {
        let directory = directory as usize;
        Some(directory + 2 + ENTRY * usize::from(self.short(directory)?))
    }

    /// Where the directory behind this one is; 0 if there is none.
    pub fn next(&self, directory: u32) -> u32 {
        self.end(directory).and_then(|at| self.long(at)).unwrap_or(0)
    }

    /// Where the entry of a tag is.
    pub fn entry(&self, directory: u32, tag: u16) -> Option<usize> {
        let entries = directory as usize + 2..self.end(directory)?;
        entries.step_by(ENTRY).find(|&entry| self.short(entry) == Some(tag))
    }

    /// The whole numbers of an entry; none if it is of another type or broken.
    pub fn numbers(&self, entry: usize) -> Vec<u32> {
        let read = || {
            let size = match self.short(entry + 2)? {
                3 => 2,
                4 | 13 => 4,
                _ => return None,
            };
            let count = self.long(entry + 4)? as usize;
            let at = if count * size <= 4 { entry + 8 } else { self.long(entry + 8)? as usize };
            let one = |at| if size == 2 { self.short(at).map(u32::from) } else { self.long(at) };
            (0..count.min(self.bytes.len())).map(|index| one(at + index * size)).collect()
        };
        read().unwrap_or_default()
    }

    /// An entry's type, count and value for one number.
    fn one_number(&self, value: u32) -> [u8; ENTRY - 2] {
        let short = |value: u16| if self.little { value.to_le_bytes() } else { value.to_be_bytes() };
        let long = |value: u32| if self.little { value.to_le_bytes() } else { value.to_be_bytes() };
        let mut bytes = [0; ENTRY - 2];
        bytes[2..6].copy_from_slice(&long(1));
        match u16::try_from(value) {
            Ok(value) => {
                bytes[..2].copy_from_slice(&short(3));
                bytes[6..8].copy_from_slice(&short(value));
            }
            Err(_) => {
                bytes[..2].copy_from_slice(&short(4));
                bytes[6..].copy_from_slice(&long(value));
            }
        }
        bytes
    }
}

/// Says in an EXIF block that its pixels are upright; returns what it said before. The thumbnail, which
/// shows the picture as it was, is cut off with the directory that points to it.
pub(crate) fn make_upright(block: &mut [u8]) -> Orientation {
    let Some(fields) = Fields::of(block) else { return Orientation::NoTransforms };
    let first = fields.first();
    let entry = fields.entry(first, ORIENTATION);
    let said = entry.and_then(|entry| fields.numbers(entry).first().copied()).unwrap_or(1);
    let upright = fields.one_number(1);
    let end = fields.end(first).filter(|_| first != 0);
    if let Some(place) = entry.and_then(|entry| block.get_mut(entry + 2..entry + ENTRY)) {
        place.copy_from_slice(&upright);
    }
    if let Some(place) = end.and_then(|end| block.get_mut(end..end + 4)) {
        place.fill(0);
    }
    u8::try_from(said).ok().and_then(Orientation::from_exif).unwrap_or(Orientation::NoTransforms)
}

/// Says the picture's size in an EXIF block that says one.
pub(crate) fn set_size(block: &mut [u8], width: u32, height: u32) {
    for (tag, value) in [(PIXEL_X_DIMENSION, width), (PIXEL_Y_DIMENSION, height)] {
        let Some(fields) = Fields::of(block) else { return };
        let place = fields
            .entry(fields.first(), EXIF_DIRECTORY)
            .and_then(|entry| fields.numbers(entry).first().copied())
            .and_then(|directory| fields.entry(directory, tag));
        let number = fields.one_number(value);
        if let Some(place) = place.and_then(|entry| block.get_mut(entry + 2..entry + ENTRY)) {
            place.copy_from_slice(&number);
        }
    }
}
