//! JPEG XL (ISO/IEC 18181), by jxl-oxide.

use super::{CONVERT, Facts, Refusal, upright};
use crate::metadata::Metadata;
use image::error::{DecodingError, ImageFormatHint};
use image::{ColorType, ImageDecoder, ImageError, ImageResult};
use jxl_oxide::frame::Encoding;
use jxl_oxide::image::BitDepth;
use jxl_oxide::{AllocTracker, AuxBoxData, FrameHeader, InitializeResult, JxlImage};

/// Bytes that a picture's header, its profile and its frames' tables may grow to.
const HEADER_BYTES: usize = 256 << 20;

/// Bytes a pixel that the decoder may take: three planes of floats and their copies between its filters.
const PIXEL_BYTES: usize = 96;

/// A file whose header is read and whose pixels are not yet decoded.
pub(super) struct Jxl {
    image: JxlImage,
    room: AllocTracker,
}

impl Jxl {
    /// Reads the header.
    pub fn open(bytes: &[u8]) -> Result<Self, Refusal> {
        let broken = |error: Box<dyn std::error::Error + Send + Sync>| Refusal::Damaged(error.to_string());
        let room = AllocTracker::with_limit(HEADER_BYTES);
        let mut start = JxlImage::builder().alloc_tracker(room.clone()).build_uninit();
        start.feed_bytes(bytes).map_err(broken)?;
        match start.try_init().map_err(broken)? {
            InitializeResult::Initialized(mut image) => {
                image.finalize().map_err(broken)?;
                Ok(Self { image, room })
            }
            InitializeResult::NeedMoreData(_) => Err(Refusal::Damaged("it ends within its header".into())),
        }
    }

    /// What the file says of its picture. The codestream's orientation is the one that counts and is already
    /// applied to the size; EXIF's is a copy (ISO/IEC 18181-2, 9.4).
    pub fn inspect(&self) -> Result<Facts, Refusal> {
        let header = &self.image.image_header().metadata;
        if header.animation.is_some() {
            return Err(Refusal::unsupported("an animated JPEG XL", "save one of its frames as a picture"));
        }
        if self.image.hdr_type().is_some() {
            return Err(Refusal::unsupported("an HDR picture", "save it without HDR first"));
        }
        if self.image.pixel_format().has_black() {
            return Err(Refusal::unsupported("a CMYK picture", super::TO_RGB));
        }
        match header.bit_depth {
            BitDepth::FloatSample { .. } => {
                return Err(Refusal::unsupported("a picture of floats", CONVERT));
            }
            BitDepth::IntegerSample { bits_per_sample: 17.. } => {
                return Err(Refusal::unsupported("a picture of more than 16 bits", CONVERT));
            }
            BitDepth::IntegerSample { .. } => {}
        }
        let boxes = self.image.aux_boxes();
        let mut metadata = Metadata::default();
        match boxes.first_exif() {
            Ok(AuxBoxData::Data(exif)) => {
                // What comes before the TIFF structure is its signature in other formats.
                let start = exif.tiff_header_offset() as usize;
                metadata.exif = exif.payload().get(start..).map(<[u8]>::to_vec);
            }
            Ok(_) => {}
            Err(_) => metadata.unread("broken EXIF"),
        }
        if let AuxBoxData::Data(xmp) = boxes.first_xml() {
            metadata.xmp = Some(xmp.to_vec());
        }
        // Primaries and transfer of sRGB by ITU-T H.273; primaries make no other grey.
        let is_srgb = match self.image.rendered_cicp() {
            Some([1, 13, ..]) => true,
            Some([_, 13, ..]) => self.image.pixel_format().is_grayscale(),
            _ => false,
        };
        metadata.icc = (!is_srgb).then(|| self.image.rendered_icc());
        let premultiplied =
            header.ec_info.iter().find_map(|extra| extra.alpha_associated()).unwrap_or_default();
        Ok(Facts {
            metadata: upright(metadata),
            size: Some(self.dimensions()),
            premultiplied,
            ..Facts::default()
        })
    }

    /// Bytes that decoding its pixels takes, beside the file and what comes of it (measured, by version 0.12.6 of the
    /// decoder): planes of floats and their copy between filters, or, without loss, planes of whole numbers, with opacity of
    /// 16 bits some more; and samples of 16 bits once more.
    pub fn decoding(&self) -> usize {
        let metadata = &self.image.image_header().metadata;
        let pixels = self.image.pixel_format();
        let alpha = usize::from(pixels.has_alpha());
        let channels = alpha + if pixels.is_grayscale() { 1 } else { 3 };
        let by_cosines = |frame: &FrameHeader| frame.encoding == Encoding::VarDct;
        let lossy = metadata.xyb_encoded || self.image.frame_header(0).is_some_and(by_cosines);
        let a_pixel = match lossy {
            true => 8 * (3 + alpha),
            false if self.is_deep() => 4 * channels + 8 * alpha,
            false => channels * if metadata.modular_16bit_buffers { 2 } else { 4 },
        };
        let twice = if self.is_deep() { 2 * channels } else { 0 };
        (a_pixel + twice) * self.image.width() as usize * self.image.height() as usize
    }

    fn is_deep(&self) -> bool {
        self.image.image_header().metadata.bit_depth.bits_per_sample() > 8
    }
}

impl ImageDecoder for Jxl {
    fn dimensions(&self) -> (u32, u32) {
        (self.image.width(), self.image.height())
    }

    fn color_type(&self) -> ColorType {
        let pixels = self.image.pixel_format();
        match (pixels.is_grayscale(), pixels.has_alpha(), self.is_deep()) {
            (true, false, false) => ColorType::L8,
            (true, false, true) => ColorType::L16,
            (true, true, false) => ColorType::La8,
            (true, true, true) => ColorType::La16,
            (false, false, false) => ColorType::Rgb8,
            (false, false, true) => ColorType::Rgb16,
            (false, true, false) => ColorType::Rgba8,
            (false, true, true) => ColorType::Rgba16,
        }
    }

    fn read_image(self, buffer: &mut [u8]) -> ImageResult<()> {
        let failed = |error: Box<dyn std::error::Error + Send + Sync>| {
            ImageError::Decoding(DecodingError::new(ImageFormatHint::Name("JPEG XL".into()), error))
        };
        // The decoder would show what has come and leave out the rest.
        if !self.image.is_loading_done() {
            return Err(failed("its data ends before the picture does".into()));
        }
        let (width, height) = self.dimensions();
        self.room.expand_limit(PIXEL_BYTES * width as usize * height as usize);
        let render = self.image.render_frame(0).map_err(failed)?;
        let mut stream = render.stream();
        let written = if self.is_deep() {
            let mut values = vec![0u16; buffer.len() / 2];
            let written = stream.write_to_buffer(&mut values);
            for (bytes, value) in buffer.as_chunks_mut().0.iter_mut().zip(values) {
                *bytes = value.to_ne_bytes();
            }
            2 * written
        } else {
            stream.write_to_buffer(buffer)
        };
        if written == buffer.len() {
            Ok(())
        } else {
            Err(failed("its channels do not fit its header".into()))
        }
    }

    fn read_image_boxed(self: Box<Self>, buffer: &mut [u8]) -> ImageResult<()> {
        (*self).read_image(buffer)
    }
}
