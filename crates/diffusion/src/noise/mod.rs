//! Random numbers, the same as the reference draws: PyTorch's generators of the CPU and of NVIDIA's GPUs,
//! and torchsde's Brownian tree.

mod brownian;
mod generator;
mod philox;
mod seed_sequence;

pub use brownian::BrownianTree;
pub(crate) use brownian::Counting;
pub use generator::TorchCpu;
pub use philox::{Gpu, TorchCuda};
pub use seed_sequence::SeedSequence;

use std::fmt;
use std::str::FromStr;

/// Where a sampler gets its noise from.
pub trait Noise {
    /// `count` standard normal numbers, the next field in the order of draws.
    fn normal(&mut self, count: usize) -> Vec<f32>;

    /// Starts a Brownian motion over `sigma_min..sigma_max` whose intervals are asked for next.
    fn start_interval(&mut self, count: usize, sigma_min: f32, sigma_max: f32);

    /// The motion's normalised increment from `sigma` down to `sigma_next`.
    fn interval(&mut self, sigma: f32, sigma_next: f32) -> Vec<f32>;

    /// Ends the motion: what is remembered of it can go.
    fn end_interval(&mut self) {}
}

/// The device on which the reference would hold the latent: it decides which numbers follow from a seed.
/// Its name is `torch-cpu`, or `torch-cuda` (an A100), or `torch-cuda:GPU`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Source {
    /// The CPU.
    #[default]
    TorchCpu,
    /// An NVIDIA GPU.
    TorchCuda(Gpu),
}

impl Source {
    /// `count` normal numbers of the device's generator, freshly seeded.
    fn field(self, seed: u64, count: usize) -> Vec<f32> {
        match self {
            Self::TorchCpu => TorchCpu::new(seed).normal(count),
            Self::TorchCuda(gpu) => TorchCuda::new(gpu, seed).normal(count),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::TorchCpu => f.write_str("torch-cpu"),
            Self::TorchCuda(gpu) => write!(f, "torch-cuda:{gpu}"),
        }
    }
}

impl FromStr for Source {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name.split_once(':') {
            None if name == "torch-cpu" => Ok(Self::TorchCpu),
            None if name == "torch-cuda" => Ok(Self::TorchCuda(Gpu::default())),
            Some(("torch-cuda", gpu)) => gpu.parse().map(Self::TorchCuda),
            _ => Err(format!("no random numbers `{name}`: there are torch-cpu and torch-cuda[:GPU]")),
        }
    }
}

/// The reference's noise for one image: fresh generators from its seed.
#[derive(Clone)]
pub struct TorchNoise {
    source: Source,
    cpu: TorchCpu,
    /// Draws the fields if the latent is on a GPU.
    cuda: Option<TorchCuda>,
    tree: Option<BrownianTree>,
    /// Which image of how many it is whose noise is drawn at once.
    among: (usize, usize),
}

impl TorchNoise {
    /// From a seed.
    pub fn new(source: Source, seed: u64) -> Self {
        let cuda = match source {
            Source::TorchCpu => None,
            Source::TorchCuda(gpu) => Some(TorchCuda::new(gpu, seed)),
        };
        Self { source, cpu: TorchCpu::new(seed), cuda, tree: None, among: (0, 1) }
    }

    /// From a seed, after the CPU's generator gave `draws` times 32 bits to something else.
    pub fn after(source: Source, seed: u64, draws: u64) -> Self {
        let mut noise = Self::new(source, seed);
        noise.cpu.skip(draws);
        noise
    }

    /// From now on what the `index`th of `count` images gets that are one batch: the numbers of all are drawn at once,
    /// those of the others thrown away. Each image has a clone from before the batch; any of them goes on behind it.
    pub fn among(mut self, index: usize, count: usize) -> Self {
        self.among = (index, count);
        self
    }

    /// Of what is drawn for all images that of this one.
    fn own(&self, all: Vec<f32>) -> Vec<f32> {
        let (index, images) = self.among;
        if images == 1 {
            return all;
        }
        let count = all.len() / images;
        all[index * count..][..count].to_vec()
    }
}

impl Noise for TorchNoise {
    fn normal(&mut self, count: usize) -> Vec<f32> {
        let count = count * self.among.1;
        let all = match &mut self.cuda {
            Some(cuda) => cuda.normal(count),
            None => self.cpu.normal(count),
        };
        self.own(all)
    }

    fn start_interval(&mut self, count: usize, sigma_min: f32, sigma_max: f32) {
        // The entropy comes from the CPU wherever the latent is.
        let entropy = self.cpu.below(i64::MAX as u64);
        let (start, end) = (f64::from(sigma_min), f64::from(sigma_max));
        self.tree = Some(BrownianTree::new(self.source, entropy, count * self.among.1, start, end));
    }

    fn interval(&mut self, sigma: f32, sigma_next: f32) -> Vec<f32> {
        let all = self.tree.as_mut().expect("started before it is asked").normalised(sigma, sigma_next);
        self.own(all)
    }

    fn end_interval(&mut self) {
        self.tree = None;
    }
}

/// Noise for a batch whose images have each their own: what an image gets does not depend on the others.
pub struct Stacked(pub Vec<TorchNoise>);

impl Noise for Stacked {
    fn normal(&mut self, count: usize) -> Vec<f32> {
        let each = count / self.0.len();
        self.0.iter_mut().flat_map(|noise| noise.normal(each)).collect()
    }

    fn start_interval(&mut self, count: usize, sigma_min: f32, sigma_max: f32) {
        let each = count / self.0.len();
        self.0.iter_mut().for_each(|noise| noise.start_interval(each, sigma_min, sigma_max));
    }

    fn interval(&mut self, sigma: f32, sigma_next: f32) -> Vec<f32> {
        self.0.iter_mut().flat_map(|noise| noise.interval(sigma, sigma_next)).collect()
    }

    fn end_interval(&mut self) {
        self.0.iter_mut().for_each(Noise::end_interval);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_have_names() {
        assert_eq!("torch-cpu".parse(), Ok(Source::TorchCpu));
        assert_eq!("torch-cuda".parse(), Ok(Source::TorchCuda(Gpu::default())));
        for source in Gpu::ALL.map(Source::TorchCuda) {
            assert_eq!(source.to_string().parse(), Ok(source));
        }
        assert!("torch-cuda:abacus".parse::<Source>().is_err_and(|error| error.contains("a100, h100")));
        assert!("cuda".parse::<Source>().is_err_and(|error| error.contains("torch-cuda[:GPU]")));
    }

    #[test]
    fn what_is_skipped_is_as_good_as_drawn() {
        for draws in [0, 5, 624, 2000] {
            let mut drawn = TorchCpu::new(231);
            (0..draws).for_each(|_| _ = drawn.bits32());
            let mut skipped = TorchNoise::after(Source::TorchCpu, 231, draws);
            assert_eq!(skipped.normal(32), drawn.normal(32), "{draws}");
        }
    }

    #[test]
    fn an_image_of_a_batch_gets_what_it_would_get_alone() {
        let new = |seed| TorchNoise::new(Source::TorchCpu, seed);
        let (mut alone, mut stacked) = (new(8), Stacked(vec![new(7), new(8)]));
        assert_eq!(stacked.normal(32)[16..], alone.normal(16));
        stacked.start_interval(32, 0.5, 4.0);
        alone.start_interval(16, 0.5, 4.0);
        assert_eq!(stacked.interval(4.0, 0.5)[16..], alone.interval(4.0, 0.5));
    }

    #[test]
    fn an_image_among_others_gets_its_share_of_what_is_drawn_for_all() {
        for source in [Source::TorchCpu, Source::TorchCuda(Gpu::default())] {
            let start = TorchNoise::new(source, 231);
            let mut whole = start.clone();
            let [first, second] = [60, 36].map(|count| whole.normal(count));
            whole.start_interval(48, 0.5, 4.0);
            let motion = whole.interval(4.0, 0.5);
            for index in 0..3 {
                let mut one = start.clone().among(index, 3);
                assert_eq!(one.normal(20), first[index * 20..][..20]);
                assert_eq!(one.normal(12), second[index * 12..][..12]);
                one.start_interval(16, 0.5, 4.0);
                assert_eq!(one.interval(4.0, 0.5), motion[index * 16..][..16]);
                // All of them end where the batch does.
                assert_eq!(one.among(0, 1).normal(8), whole.clone().normal(8));
            }
        }
    }

    #[test]
    fn a_gpus_motion_has_its_fields_and_the_cpus_entropy() {
        let source = Source::TorchCuda(Gpu::default());
        let mut noise = TorchNoise::new(source, 231);
        // Fields drawn before do not move the CPU's generator.
        assert_eq!(noise.normal(16), TorchCuda::new(Gpu::default(), 231).normal(16));
        noise.start_interval(16, 0.5, 4.0);
        let whole = noise.interval(4.0, 0.5);
        let seed = SeedSequence::new(TorchCpu::new(231).below(i64::MAX as u64), &[], 24).state(1)[0];
        let root = TorchCuda::new(Gpu::default(), u64::from(seed)).normal(16);
        for (whole, root) in whole.iter().zip(root) {
            assert!((whole + root).abs() < 1e-5, "{whole} is not -{root}");
        }
    }
}
