//! A latent on the host.

/// Values in PyTorch's order `[batch, channels, height, width]`, so that drawn noise falls on the same
/// cells as the reference's.
#[derive(Clone, Debug, PartialEq)]
pub struct Latent {
    /// Images.
    pub batch: usize,
    /// Channels.
    pub channels: usize,
    /// Cells down.
    pub height: usize,
    /// Cells across.
    pub width: usize,
    /// All values.
    pub data: Vec<f32>,
}

impl Latent {
    /// This shape with other values.
    ///
    /// # Panics
    /// When there are more or fewer values.
    pub fn with(&self, data: Vec<f32>) -> Self {
        assert_eq!(data.len(), self.data.len(), "values do not fit the latent");
        Self { data, ..*self }
    }

    /// Every value through `f`.
    pub fn map(&self, f: impl Fn(f32) -> f32) -> Self {
        self.with(self.data.iter().map(|&value| f(value)).collect())
    }

    /// Pairs of values through `f`.
    pub fn zip(&self, other: &Self, f: impl Fn(f32, f32) -> f32) -> Self {
        self.with(self.data.iter().zip(&other.data).map(|(&a, &b)| f(a, b)).collect())
    }

    /// `self + factor · other`.
    pub fn add_scaled(&self, other: &Self, factor: f32) -> Self {
        self.zip(other, |a, b| a + factor * b)
    }

    /// Whether no value is NaN or infinite.
    pub fn is_finite(&self) -> bool {
        self.data.iter().all(|value| value.is_finite())
    }

    /// The rectangle of all channels from row `y` and column `x`.
    pub fn crop(&self, y: usize, x: usize, height: usize, width: usize) -> Self {
        let mut data = Vec::with_capacity(self.batch * self.channels * height * width);
        for plane in self.data.chunks_exact(self.height * self.width) {
            for row in y..y + height {
                data.extend_from_slice(&plane[row * self.width + x..][..width]);
            }
        }
        Self { height, width, data, ..*self }
    }
}
