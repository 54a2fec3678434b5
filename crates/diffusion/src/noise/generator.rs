//! PyTorch's CPU generator: MT19937 and the two ways in which it makes normal numbers.

use rayon::prelude::*;

const LENGTH: usize = 624;
const SHIFT: usize = 397;

/// Fewest blocks of sixteen normal numbers of a task.
const BLOCKS: usize = 128;

/// The state after `torch.manual_seed`.
#[derive(Clone)]
pub struct TorchCpu {
    state: [u32; LENGTH],
    next: usize,
    /// The second of a pair from the double-precision path.
    spare: Option<f64>,
}

impl TorchCpu {
    /// From a seed, of which 32 bits count.
    pub fn new(seed: u64) -> Self {
        let mut state = [0; LENGTH];
        state[0] = seed as u32;
        for index in 1..LENGTH {
            let before: u32 = state[index - 1];
            state[index] = 1_812_433_253u32.wrapping_mul(before ^ (before >> 30)).wrapping_add(index as u32);
        }
        Self { state, next: LENGTH, spare: None }
    }

    /// As if `count` times 32 bits had been drawn.
    pub fn skip(&mut self, count: u64) {
        let mut left = count;
        while left > 0 {
            if self.next == LENGTH {
                self.turn();
            }
            let step = left.min((LENGTH - self.next) as u64);
            self.next += step as usize;
            left -= step;
        }
    }

    /// The next state.
    fn turn(&mut self) {
        // In spans that neither wrap around nor write what they read, so that several words are turned at once.
        let new = LENGTH - SHIFT;
        let (low, high) = self.state.split_at_mut(new);
        let after = high[0];
        twist(low, after, &high[SHIFT - new..]);
        let (middle, last) = high.split_at_mut(new);
        let after = last[0];
        twist(middle, after, low);
        let after = low[0];
        twist(last, after, middle);
        self.next = 0;
    }

    /// The next 32 bits.
    pub fn bits32(&mut self) -> u32 {
        if self.next == LENGTH {
            self.turn();
        }
        self.next += 1;
        tempered(self.state[self.next - 1])
    }

    /// The next 64 bits, the first draw on top.
    pub fn bits64(&mut self) -> u64 {
        let high = u64::from(self.bits32());
        (high << 32) | u64::from(self.bits32())
    }

    /// A whole number below `range`, as `torch.randint` draws it.
    pub fn below(&mut self, range: u64) -> u64 {
        if range >= 1 << 32 { self.bits64() % range } else { u64::from(self.bits32()) % range }
    }

    /// `torch.randn` of `count` floats.
    pub fn normal(&mut self, count: usize) -> Vec<f32> {
        if count < 16 {
            return (0..count).map(|_| self.single() as f32).collect();
        }
        let mut values = vec![0.0; count];
        self.uniform(&mut values);
        // Drawing is one after the other, the functions are most of the work.
        values.as_chunks_mut::<16>().0.par_iter_mut().with_min_len(BLOCKS).for_each(box_muller);
        if !count.is_multiple_of(16) {
            // The last sixteen are drawn anew, over numbers that are already done.
            let mut block = [0.0; 16];
            self.uniform(&mut block);
            box_muller(&mut block);
            values[count - 16..].copy_from_slice(&block);
        }
        values
    }

    /// Numbers of 24 bits in 0..1.
    fn uniform(&mut self, values: &mut [f32]) {
        let mut rest = values;
        while !rest.is_empty() {
            if self.next == LENGTH {
                self.turn();
            }
            let (values, later) = rest.split_at_mut(rest.len().min(LENGTH - self.next));
            for (value, word) in values.iter_mut().zip(&self.state[self.next..]) {
                *value = (tempered(*word) & 0xff_ffff) as f32 / (1 << 24) as f32;
            }
            self.next += values.len();
            rest = later;
        }
    }

    /// One normal number in double precision; every second is kept from the draw before.
    fn single(&mut self) -> f64 {
        if let Some(spare) = self.spare.take() {
            return spare;
        }
        let mut uniform = || (self.bits64() & ((1 << 53) - 1)) as f64 / (1u64 << 53) as f64;
        let (angle, radius) = (uniform() * std::f64::consts::TAU, (-2.0 * (-uniform()).ln_1p()).sqrt());
        self.spare = Some(radius * angle.sin());
        radius * angle.cos()
    }
}

/// Words of the next state from those of this one: each with the top bit of itself and the others of the word behind it, which
/// is `after` behind the last, and a word of `far`.
fn twist(words: &mut [u32], after: u32, far: &[u32]) {
    let twisted = |word: u32, after: u32, far: u32| {
        let mixed = (word & 0x8000_0000) | (after & 0x7fff_ffff);
        far ^ (mixed >> 1) ^ ((mixed & 1).wrapping_neg() & 0x9908_b0df)
    };
    let (last, far) = (words.len() - 1, &far[..words.len()]);
    for index in 0..last {
        words[index] = twisted(words[index], words[index + 1], far[index]);
    }
    words[last] = twisted(words[last], after, far[last]);
}

/// A word of the state as it is handed out.
fn tempered(mut bits: u32) -> u32 {
    bits ^= bits >> 11;
    bits ^= (bits << 7) & 0x9d2c_5680;
    bits ^= (bits << 15) & 0xefc6_0000;
    bits ^ (bits >> 18)
}

/// Eight pairs at once: cosines first, then sines.
fn box_muller(block: &mut [f32; 16]) {
    for j in 0..8 {
        let radius = (-2.0 * (1.0 - block[j]).ln()).sqrt();
        let angle = std::f32::consts::TAU * block[j + 8];
        block[j] = radius * angle.cos();
        block[j + 8] = radius * angle.sin();
    }
}

#[cfg(test)]
#[allow(clippy::excessive_precision, reason = "known values stand as they are published")]
mod tests {
    use super::*;

    fn close(got: &[f32], known: &[f32]) {
        for (got, known) in got.iter().zip(known) {
            assert!((got - known).abs() < 1e-4, "{got} is not {known}");
        }
    }

    #[test]
    fn bits_are_those_of_mt19937() {
        let mut generator = TorchCpu::new(231);
        let bits: Vec<u32> = (0..4).map(|_| generator.bits32()).collect();
        assert_eq!(bits, [3_356_491_351, 2_600_961_200, 2_509_159_060, 1_021_729_225]);
        // The C++ standard names the ten thousandth: every word of the state has been turned by then, many times.
        let mut generator = TorchCpu::new(5489);
        generator.skip(9999);
        assert_eq!(generator.bits32(), 4_123_659_995);
        let mut generator = TorchCpu::new(231);
        assert_eq!(generator.below(i64::MAX as u64), 5_192_648_547_598_042_289);
        assert_eq!(generator.below(i64::MAX as u64), 1_553_384_067_329_055_178);
    }

    #[test]
    fn normal_numbers_are_those_of_torch() {
        close(&TorchCpu::new(0).normal(5), &[1.5410, -0.2934, -2.1788, 0.5684, -1.0845]);
        close(&TorchCpu::new(0).normal(16), &[-1.1258, -1.1524, -0.2506, -0.4339]);
        close(
            &TorchCpu::new(231).normal(16),
            &[-0.145_956_3, -0.162_532_1, -0.223_075_2, 2.040_834_7, 0.722_208_5],
        );
    }

    #[test]
    fn a_short_last_block_is_drawn_anew() {
        let mut generator = TorchCpu::new(7);
        let values = generator.normal(20);
        let mut counting = TorchCpu::new(7);
        (0..36).for_each(|_| {
            counting.bits32();
        });
        assert_eq!(generator.bits32(), counting.bits32());
        // The first four are not among the last sixteen and stay.
        assert_eq!(values[..4], TorchCpu::new(7).normal(16)[..4]);
    }
}
