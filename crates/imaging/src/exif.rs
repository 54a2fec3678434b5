//! EXIF between its block, as JPEG, PNG and WebP carry it, and the directories of a TIFF file.
//!
//! The block is itself a TIFF structure, without a picture: a first directory with tags that describe
//! the photograph, and two more, for the camera's settings and for the place.

use std::io::{Cursor, Read, Seek, Write};
use tiff::TiffResult;
use tiff::decoder::Decoder;
use tiff::encoder::{DirectoryEncoder, TiffEncoder, TiffKindStandard};
use tiff::tags::{ByteOrder, IfdPointer, Tag, Type, ValueBuffer};

/// Tags of the first directory that describe the photograph, not its pixels: names, device, software,
/// orientation, dates, people, rights, rating.
const DESCRIPTIVE: [u16; 18] = [
    269, 270, 271, 272, 274, 285, 305, 306, 315, 316, 18246, 18249, 33432, 40091, 40092, 40093, 40094, 40095,
];

/// Points from the camera's settings to a directory about file formats, which is left behind.
const INTEROPERABILITY: u16 = 40965;

type Tags = Vec<(Tag, ValueBuffer)>;

/// What EXIF says, taken out of its file.
pub(crate) struct Directories {
    main: Tags,
    /// Where each further directory is named in the first, and its tags.
    further: Vec<(Tag, Tags)>,
}

impl Directories {
    /// What a TIFF file says in its first directory.
    pub fn of_file<R: Read + Seek>(decoder: &mut Decoder<R>) -> Option<Self> {
        let first = decoder.ifd_pointer()?;
        Self::read(decoder, first).ok()
    }

    /// What a block says; nothing if it is broken.
    pub fn of_block(block: &[u8]) -> Option<Self> {
        let little = match block.get(..4)? {
            b"II*\0" => true,
            b"MM\0*" => false,
            _ => return None,
        };
        let short = |value: u16| if little { value.to_le_bytes() } else { value.to_be_bytes() };
        let long = |value: u32| if little { value.to_le_bytes() } else { value.to_be_bytes() };
        let first: [u8; 4] = block.get(4..8)?.try_into().ok()?;
        let first = if little { u32::from_le_bytes(first) } else { u32::from_be_bytes(first) };
        // The library opens files with a picture only, so the block gets a directory of one grey pixel
        // behind its end.
        let mut file = block.to_vec();
        file.resize(file.len().next_multiple_of(2), 0);
        let picture = u32::try_from(file.len()).ok()?;
        file[4..8].copy_from_slice(&long(picture));
        let tags = [(256u16, 1u32), (257, 1), (258, 8), (262, 1), (273, 0), (279, 1)];
        file.extend(short(tags.len() as u16));
        for (tag, value) in tags {
            // A LONG, once.
            file.extend([short(tag), short(4)].concat());
            file.extend([long(1), long(value)].concat());
        }
        file.extend(long(0));
        let mut decoder = Decoder::new(Cursor::new(file)).ok()?;
        Self::read(&mut decoder, IfdPointer(u64::from(first))).ok()
    }

    fn read<R: Read + Seek>(decoder: &mut Decoder<R>, first: IfdPointer) -> TiffResult<Self> {
        let mut main = tags(decoder, first, |tag| DESCRIPTIVE.contains(&tag))?;
        // Pixels are kept upright.
        for (_, value) in main.iter_mut().filter(|(tag, _)| *tag == Tag::Orientation) {
            *value = ValueBuffer::from_value(&1u16);
        }
        let mut further = Vec::new();
        for tag in [Tag::ExifDirectory, Tag::GpsDirectory] {
            let directory = decoder.read_directory(first)?;
            let Ok(Some(pointer)) = decoder.read_directory_tags(&directory).find_tag(tag) else { continue };
            let Ok(pointer) = pointer.into_u32() else { continue };
            // A further directory that is broken does not take the first with it.
            let pointer = IfdPointer(u64::from(pointer));
            if let Ok(found) = tags(decoder, pointer, |tag| tag != INTEROPERABILITY) {
                further.push((tag, found));
            }
        }
        Ok(Self { main, further })
    }

    /// As a block; nothing if there is nothing to say.
    pub fn to_block(&self) -> Option<Vec<u8>> {
        let mut main = self.main.iter();
        if main.all(|(tag, _)| *tag == Tag::Orientation)
            && self.further.iter().all(|(_, tags)| tags.is_empty())
        {
            return None;
        }
        let mut block = Cursor::new(Vec::new());
        let write = |block: &mut Cursor<Vec<u8>>| -> TiffResult<()> {
            let mut encoder = TiffEncoder::new(block)?;
            let pointers = self.write_further(&mut encoder)?;
            let mut directory = encoder.image_directory()?;
            self.write_main(&mut directory, &pointers)?;
            directory.finish()
        };
        write(&mut block).ok()?;
        Some(block.into_inner())
    }

    /// Writes the directories that the first one points to; returns what it has to say of them.
    pub fn write_further<W: Write + Seek>(
        &self,
        encoder: &mut TiffEncoder<W, TiffKindStandard>,
    ) -> TiffResult<Vec<(Tag, u32)>> {
        let mut pointers = Vec::new();
        for (tag, values) in self.further.iter().filter(|(_, values)| !values.is_empty()) {
            let mut directory = encoder.extra_directory()?;
            for (tag, value) in values {
                directory.write_tag_buf(*tag, value)?;
            }
            pointers.push((*tag, directory.finish_with_offsets()?.offset));
        }
        Ok(pointers)
    }

    /// Writes the tags of the first directory.
    pub fn write_main<W: Write + Seek>(
        &self,
        directory: &mut DirectoryEncoder<W, TiffKindStandard>,
        pointers: &[(Tag, u32)],
    ) -> TiffResult<()> {
        for (tag, value) in &self.main {
            directory.write_tag_buf(*tag, value)?;
        }
        for (tag, pointer) in pointers {
            directory.write_tag(*tag, *pointer)?;
        }
        Ok(())
    }
}

/// The tags of a directory that are `wanted`, in this machine's byte order; what cannot be read is left out.
fn tags<R: Read + Seek>(
    decoder: &mut Decoder<R>,
    pointer: IfdPointer,
    wanted: impl Fn(u16) -> bool,
) -> TiffResult<Tags> {
    let directory = decoder.read_directory(pointer)?;
    let names: Vec<Tag> = directory.iter().map(|(tag, _)| tag).filter(|tag| wanted(tag.to_u16())).collect();
    let mut reader = decoder.read_directory_tags(&directory);
    let mut found = Vec::new();
    for tag in names {
        let mut value = ValueBuffer::empty(Type::BYTE);
        if matches!(reader.find_tag_buf(tag, &mut value), Ok(Some(_))) {
            value.set_byte_order(ByteOrder::native());
            found.push((tag, value));
        }
    }
    Ok(found)
}
