//! Random numbers, the same as the reference draws on the CPU: PyTorch's generator and torchsde's
//! Brownian tree.

mod brownian;
mod generator;
mod seed_sequence;

pub use brownian::BrownianTree;
pub use generator::TorchCpu;
pub use seed_sequence::SeedSequence;

/// Where a sampler gets its noise from.
pub trait Noise {
    /// `count` standard normal numbers, the next field in the order of draws.
    fn normal(&mut self, count: usize) -> Vec<f32>;

    /// Starts a Brownian motion over `sigma_min..sigma_max` whose intervals are asked for next.
    fn start_interval(&mut self, count: usize, sigma_min: f32, sigma_max: f32);

    /// The motion's normalised increment from `sigma` down to `sigma_next`.
    fn interval(&mut self, sigma: f32, sigma_next: f32) -> Vec<f32>;
}

/// The reference's noise on the CPU for one image: a fresh generator from its seed.
pub struct CpuNoise {
    generator: TorchCpu,
    tree: Option<BrownianTree>,
}

impl CpuNoise {
    /// From a seed.
    pub fn new(seed: u64) -> Self {
        Self { generator: TorchCpu::new(seed), tree: None }
    }
}

impl Noise for CpuNoise {
    fn normal(&mut self, count: usize) -> Vec<f32> {
        self.generator.normal(count)
    }

    fn start_interval(&mut self, count: usize, sigma_min: f32, sigma_max: f32) {
        let entropy = self.generator.below(i64::MAX as u64);
        self.tree = Some(BrownianTree::new(entropy, count, f64::from(sigma_min), f64::from(sigma_max)));
    }

    fn interval(&mut self, sigma: f32, sigma_next: f32) -> Vec<f32> {
        self.tree.as_mut().expect("started before it is asked").normalised(sigma, sigma_next)
    }
}
