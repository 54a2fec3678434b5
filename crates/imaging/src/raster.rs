//! A picture as floats.

/// Rows of interleaved channels (height, width, channel), values nominally 0..1 with the sRGB curve, not
/// clamped.
#[derive(Clone, Debug, PartialEq)]
pub struct Raster {
    /// Pixels a row.
    pub width_px: usize,
    /// Rows.
    pub height_px: usize,
    /// Values a pixel.
    pub channels: usize,
    /// `height_px · width_px · channels` values.
    pub data: Vec<f32>,
}

impl Raster {
    /// All values 0.
    pub fn new(width_px: usize, height_px: usize, channels: usize) -> Self {
        Self { width_px, height_px, channels, data: vec![0.0; width_px * height_px * channels] }
    }

    /// From 8-bit values, 255 being 1.
    pub fn from_u8(width_px: usize, height_px: usize, channels: usize, values: &[u8]) -> Self {
        let data = values.iter().map(|&value| f32::from(value) / 255.0).collect();
        Self { width_px, height_px, channels, data }
    }

    /// Width and height in pixels.
    pub fn size(&self) -> (usize, usize) {
        (self.width_px, self.height_px)
    }

    /// The rectangle from column `x` and row `y`.
    ///
    /// # Panics
    /// When it reaches outside.
    pub fn crop(&self, x: usize, y: usize, width_px: usize, height_px: usize) -> Self {
        let mut data = Vec::with_capacity(width_px * height_px * self.channels);
        for row in y..y + height_px {
            let start = (row * self.width_px + x) * self.channels;
            data.extend_from_slice(&self.data[start..start + width_px * self.channels]);
        }
        Self { width_px, height_px, channels: self.channels, data }
    }

    /// Zeros at the right and bottom up to multiples of `multiple_px`.
    pub fn pad_end(&self, multiple_px: usize) -> Self {
        let (width, height) =
            (self.width_px.next_multiple_of(multiple_px), self.height_px.next_multiple_of(multiple_px));
        let mut padded = Self::new(width, height, self.channels);
        padded.paste(self, 0, 0);
        padded
    }

    /// The last column and row repeated up to multiples of `multiple_px`.
    pub fn repeat_end(&self, multiple_px: usize) -> Self {
        let channels = self.channels;
        let mut padded = self.pad_end(multiple_px);
        let length = padded.width_px * channels;
        for y in 0..padded.height_px {
            let source = y.min(self.height_px - 1);
            for x in 0..padded.width_px {
                let from = (source * self.width_px + x.min(self.width_px - 1)) * channels;
                let to = y * length + x * channels;
                padded.data[to..to + channels].copy_from_slice(&self.data[from..from + channels]);
            }
        }
        padded
    }

    /// Writes `other` over this picture from column `x` and row `y` on.
    ///
    /// # Panics
    /// When it reaches outside or has other channels.
    pub fn paste(&mut self, other: &Self, x: usize, y: usize) {
        assert_eq!(self.channels, other.channels, "channels differ");
        let length = other.width_px * self.channels;
        for row in 0..other.height_px {
            let start = ((y + row) * self.width_px + x) * self.channels;
            self.data[start..start + length].copy_from_slice(&other.data[row * length..(row + 1) * length]);
        }
    }

    /// Whether no value is NaN or infinite.
    pub fn is_finite(&self) -> bool {
        self.data.iter().all(|value| value.is_finite())
    }

    /// Times 255, clamped, fractions cut off, as the reference ends (reference 3.1, step 6).
    pub fn to_u8_truncating(&self) -> Vec<u8> {
        self.data.iter().map(|value| (value * 255.0).clamp(0.0, 255.0) as u8).collect()
    }

    /// Times 255, clamped, to the nearest.
    pub fn to_u8_rounding(&self) -> Vec<u8> {
        self.data.iter().map(|value| (value * 255.0 + 0.5).clamp(0.0, 255.0) as u8).collect()
    }

    /// Times 65535, clamped, to the nearest.
    pub fn to_u16_rounding(&self) -> Vec<u16> {
        self.data.iter().map(|value| (value * 65535.0 + 0.5).clamp(0.0, 65535.0) as u16).collect()
    }
}
