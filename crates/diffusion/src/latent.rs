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

    /// Zeros at the right and bottom up to multiples of `multiple` cells.
    pub fn pad_end(&self, multiple: usize) -> Self {
        let (height, width) = (self.height.next_multiple_of(multiple), self.width.next_multiple_of(multiple));
        let mut data = vec![0.0; self.batch * self.channels * height * width];
        for (from, to) in
            self.data.chunks_exact(self.height * self.width).zip(data.chunks_exact_mut(height * width))
        {
            for (from, to) in from.chunks_exact(self.width).zip(to.chunks_exact_mut(width)) {
                to[..self.width].copy_from_slice(from);
            }
        }
        Self { height, width, data, ..*self }
    }

    /// This batch `count` times, one after the other.
    pub fn repeat(&self, count: usize) -> Self {
        Self { batch: self.batch * count, data: self.data.repeat(count), ..*self }
    }

    /// The images of the batch, each as a batch of one.
    pub fn items(&self) -> impl Iterator<Item = Self> {
        self.data
            .chunks_exact(self.channels * self.height * self.width)
            .map(|item| Self { batch: 1, data: item.to_vec(), ..*self })
    }

    /// One batch of several of the same size; [`Latent::items`] takes it apart.
    ///
    /// # Panics
    /// When there are none.
    pub fn stack(latents: &[Self]) -> Self {
        let batch = latents.iter().map(|latent| latent.batch).sum();
        Self { batch, data: latents.iter().flat_map(|latent| latent.data.clone()).collect(), ..latents[0] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_put_together_and_taken_apart() {
        let latent = |values: [f32; 2]| Latent {
            batch: 1,
            channels: 2,
            height: 1,
            width: 1,
            data: values.to_vec(),
        };
        let both = Latent::stack(&[latent([1.0, 2.0]), latent([3.0, 4.0])]);
        assert_eq!((both.batch, &both.data[..]), (2, &[1.0, 2.0, 3.0, 4.0][..]));
        assert_eq!(both.items().collect::<Vec<_>>(), [latent([1.0, 2.0]), latent([3.0, 4.0])]);
        assert_eq!(latent([1.0, 2.0]).repeat(2).items().nth(1), Some(latent([1.0, 2.0])));
        let padded = latent([1.0, 2.0]).pad_end(2);
        assert_eq!(padded.data, [1.0, 0.0, 0.0, 0.0, 2.0, 0.0, 0.0, 0.0]);
        assert_eq!(padded.crop(0, 0, 1, 1), latent([1.0, 2.0]));
    }
}
