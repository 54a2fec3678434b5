//! Real-ESRGAN's pool of training pairs (reference 5.5, step 11): a batch, whose pictures share choices, is
//! exchanged for pairs of many batches.

use rand::Rng;
use rand_chacha::ChaCha8Rng;

/// Holds pairs, or whatever an example is.
pub struct Pool<T> {
    size: usize,
    held: Vec<T>,
}

impl<T: Clone> Pool<T> {
    /// An empty one for `size` examples; nothing where that is no multiple of the batch.
    pub fn new(size: usize, batch: usize) -> Option<Self> {
        (batch > 0 && size.is_multiple_of(batch)).then(|| Self { size, held: Vec::with_capacity(size) })
    }

    /// The same pool of what `change` makes of its examples.
    pub fn try_map<U, E>(self, change: impl FnMut(T) -> Result<U, E>) -> Result<Pool<U>, E> {
        let held = self.held.into_iter().map(change).collect::<Result<_, _>>()?;
        Ok(Pool { size: self.size, held })
    }

    /// Until it is full it keeps a copy of each batch. Then it is shuffled each time, and its first examples are
    /// exchanged for the batch.
    pub fn exchange(&mut self, batch: Vec<T>, random: &mut ChaCha8Rng) -> Vec<T> {
        let mut order: Vec<usize> = (0..self.size).collect();
        for last in (1..order.len()).rev() {
            order.swap(last, random.random_range(0..=last));
        }
        self.exchange_by(batch, &order)
    }

    /// With a given permutation.
    ///
    /// # Panics
    /// When `order` does not name each place once.
    pub fn exchange_by(&mut self, mut batch: Vec<T>, order: &[usize]) -> Vec<T> {
        if self.held.len() < self.size {
            self.held.extend(batch.iter().cloned());
            return batch;
        }
        let mut places: Vec<Option<T>> = std::mem::take(&mut self.held).into_iter().map(Some).collect();
        let shuffled = order.iter().map(|&place| places[place].take().expect("a permutation"));
        self.held = shuffled.collect();
        let count = batch.len();
        batch.swap_with_slice(&mut self.held[..count]);
        batch
    }
}
