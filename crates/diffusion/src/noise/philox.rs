//! PyTorch's CUDA generator: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3",
//! 2011), one counter for each thread of the grid.

use std::fmt;
use std::str::FromStr;

const ROUNDS: usize = 10;
const MULTIPLIERS: (u32, u32) = (0xd251_1f53, 0xcd9e_8d57);
const KEY_STEPS: (u32, u32) = (0x9e37_79b9, 0xbb67_ae85);

/// Threads of a block of PyTorch's kernel.
const BLOCK: usize = 256;
/// Numbers that a thread makes of one counter.
const UNROLL: usize = 4;

/// An NVIDIA GPU, whose number of threads decides which numbers it draws: only for more than
/// [`Gpu::threads`] values at once, on an A100 in the latents of pictures above 1880 pixels square.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gpu {
    name: &'static str,
    multiprocessors: usize,
    threads_each: usize,
}

impl Gpu {
    /// Those that are known by name, the default first.
    pub const ALL: [Self; 12] = [
        Self::new("a100", 108, 2048),
        Self::new("h100", 132, 2048),
        Self::new("h100-pcie", 114, 2048),
        Self::new("v100", 80, 2048),
        Self::new("t4", 40, 1024),
        Self::new("a10", 72, 1536),
        Self::new("l4", 58, 1536),
        Self::new("l40s", 142, 1536),
        Self::new("rtx2080ti", 68, 1024),
        Self::new("rtx3090", 82, 1536),
        Self::new("rtx4090", 128, 1536),
        Self::new("rtx5090", 170, 1536),
    ];

    const fn new(name: &'static str, multiprocessors: usize, threads_each: usize) -> Self {
        Self { name, multiprocessors, threads_each }
    }

    /// How many threads it holds at once.
    pub fn threads(self) -> usize {
        self.multiprocessors * (self.threads_each / BLOCK) * BLOCK
    }
}

impl Default for Gpu {
    fn default() -> Self {
        Self::ALL[0]
    }
}

impl fmt::Display for Gpu {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl FromStr for Gpu {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|gpu| gpu.name.eq_ignore_ascii_case(name));
        known
            .ok_or_else(|| format!("no GPU `{name}`: known are {}", Self::ALL.map(|gpu| gpu.name).join(", ")))
    }
}

/// The state after `torch.cuda.manual_seed`.
#[derive(Clone)]
pub struct TorchCuda {
    gpu: Gpu,
    seed: u64,
    offset: u64,
}

impl TorchCuda {
    /// From a seed.
    pub fn new(gpu: Gpu, seed: u64) -> Self {
        Self { gpu, seed, offset: 0 }
    }

    /// `torch.randn` of `count` floats.
    pub fn normal(&mut self, count: usize) -> Vec<f32> {
        if count == 0 {
            return Vec::new();
        }
        let threads = (count.div_ceil(BLOCK) * BLOCK).min(self.gpu.threads());
        let passes = count.div_ceil(UNROLL * threads);
        let mut values = vec![0.0; count];
        for thread in 0..threads.min(count) {
            for pass in 0..passes {
                let drawn = normal4(self.seed, self.offset / 4 + pass as u64, thread as u64);
                let places = (pass * UNROLL * threads + thread..count).step_by(threads);
                places.zip(drawn).for_each(|(place, value)| values[place] = value);
            }
        }
        self.offset += (passes * UNROLL) as u64;
        values
    }
}

/// Four normal numbers by Box and Muller.
fn normal4(seed: u64, counter: u64, thread: u64) -> [f32; 4] {
    const UNIT: f32 = 1.0 / (1u64 << 32) as f32;
    let [a, b, c, d] = philox(seed, counter, thread);
    let pair = |x: u32, y: u32| {
        let radius = (-2.0 * (x as f32 * UNIT + UNIT / 2.0).ln()).sqrt();
        let turn = UNIT * std::f32::consts::TAU;
        let (sin, cos) = (y as f32 * turn + turn / 2.0).sin_cos();
        [radius * sin, radius * cos]
    };
    let ([p, q], [r, s]) = (pair(a, b), pair(c, d));
    [p, q, r, s]
}

/// The four words of a counter.
fn philox(seed: u64, counter: u64, thread: u64) -> [u32; 4] {
    let wide = |a: u32, b: u32| {
        let product = u64::from(a) * u64::from(b);
        ((product >> 32) as u32, product as u32)
    };
    let (mut key0, mut key1) = (seed as u32, (seed >> 32) as u32);
    let mut c = [counter as u32, (counter >> 32) as u32, thread as u32, (thread >> 32) as u32];
    for _ in 0..ROUNDS {
        let ((high0, low0), (high1, low1)) = (wide(MULTIPLIERS.0, c[0]), wide(MULTIPLIERS.1, c[2]));
        c = [high1 ^ c[1] ^ key0, low1, high0 ^ c[3] ^ key1, low0];
        key0 = key0.wrapping_add(KEY_STEPS.0);
        key1 = key1.wrapping_add(KEY_STEPS.1);
    }
    c
}

#[cfg(test)]
#[allow(clippy::excessive_precision, reason = "known values stand as they are published")]
mod tests {
    use super::*;

    fn close(got: &[f32], known: &[f32]) {
        for (got, known) in got.iter().zip(known) {
            assert!((got - known).abs() < 1e-5, "{got} is not {known}");
        }
    }

    #[test]
    fn words_are_those_of_the_paper() {
        // Known answers of Random123 for philox4x32 with 10 rounds.
        assert_eq!(philox(0, 0, 0), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        let ones = u64::MAX;
        assert_eq!(philox(ones, ones, ones), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
    }

    #[test]
    fn normal_numbers_are_those_of_a_gpu() {
        close(&TorchCuda::new(Gpu::default(), 0).normal(4), &[-0.92466, -0.42534, -2.64385, 0.14518]);
        let mut generator = TorchCuda::new(Gpu::default(), 231);
        close(
            &generator.normal(8),
            &[1.6443266, -0.1739993, -0.0271317, -0.3741519, 0.6350908, -0.1269047, -0.7401108, -0.4399005],
        );
        close(&generator.normal(8), &[-0.7899783, 0.1521494, 0.4918890, -0.0737469]);
    }

    #[test]
    fn the_gpu_matters_above_its_threads_only() {
        let known = [
            ("a100", 221_184),
            ("h100", 270_336),
            ("rtx4090", 196_608),
            ("rtx3090", 125_952),
            ("v100", 163_840),
            ("t4", 40_960),
        ];
        for (name, threads) in known {
            assert_eq!(name.parse::<Gpu>().map(Gpu::threads), Ok(threads), "{name}");
        }
        let draw = |name: &str, count| {
            let mut generator = TorchCuda::new(name.parse().expect("known"), 231);
            (generator.normal(count), generator.offset)
        };
        assert_eq!(draw("t4", 40_960), draw("a100", 40_960));
        let count = 5 * 40_960;
        let ((t4, offset), (a100, _)) = (draw("t4", count), draw("a100", count));
        assert_eq!(t4[..40_960], a100[..40_960]);
        assert_ne!(t4[40_960..], a100[40_960..]);
        // Element 40 960 is the second number of thread 0, element 4 · 40 960 the first of its next counter.
        assert_eq!(t4[40_960], normal4(231, 0, 0)[1]);
        assert_eq!(t4[4 * 40_960], normal4(231, 1, 0)[0]);
        assert_eq!(offset, 8);
    }
}
