//! Which noise each result gets.

use crate::args::{Restore, SeedMode};
use anyhow::{Result, bail};
use diffbir::catalog::{Set, Task};
use diffbir_diffusion::noise::{Noise, Source, Stacked, TorchNoise};

/// The noise of a run.
pub struct Seeds {
    mode: SeedMode,
    source: Source,
    seed: u64,
    /// The one stream of the reference's modes, or that of the batch that is going on.
    stream: Option<Stacked>,
    /// Draws of the CPU's generator before a stream begins.
    before: u64,
}

impl Seeds {
    /// For a model that is the official `set`, if it is one.
    pub fn new(arguments: &Restore, set: Option<&Set>, task: Task) -> Result<Self> {
        let before = match (arguments.seed_mode, set) {
            (SeedMode::ReferenceCli, Some(set)) => set.construction_draws(task),
            (SeedMode::ReferenceCli, None) => {
                bail!("--seed-mode reference-cli: only for v1, v2 and v2.1, whose first draws are known")
            }
            _ => 0,
        };
        Ok(Self {
            mode: arguments.seed_mode,
            source: arguments.noise,
            seed: arguments.seed,
            stream: None,
            before,
        })
    }

    /// Told before each picture.
    pub fn picture(&mut self) {
        if self.mode == SeedMode::ReferencePage {
            self.stream = None;
        }
    }

    /// The noise of a batch of samples with these numbers.
    pub fn batch(&mut self, samples: &[u64]) -> &mut dyn Noise {
        let (source, seed) = (self.source, self.seed);
        if self.mode == SeedMode::Each {
            let new = |sample: &u64| TorchNoise::new(source, seed.wrapping_add(*sample));
            return self.stream.insert(Stacked(samples.iter().map(new).collect()));
        }
        let before = self.before;
        self.stream.get_or_insert_with(|| Stacked(vec![TorchNoise::after(source, seed, before)]))
    }

    /// The seed that a result is told to have come from.
    pub fn of(&self, sample: u64) -> u64 {
        if self.mode == SeedMode::Each { self.seed.wrapping_add(sample) } else { self.seed }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// First number of the first batches of two pictures.
    fn firsts(mode: SeedMode, before: u64) -> [f32; 2] {
        let mut seeds = Seeds { mode, source: Source::TorchCpu, seed: 231, stream: None, before };
        [0, 1].map(|_| {
            seeds.picture();
            seeds.batch(&[0]).normal(20)[0]
        })
    }

    /// A command runs on in one stream, behind what building the networks drew; the page
    /// and the default begin anew with each picture.
    #[test]
    fn a_stream_goes_on_over_pictures_or_begins_anew() {
        let mut torch = TorchNoise::new(Source::TorchCpu, 231);
        let (first, second) = (torch.normal(20)[0], torch.normal(20)[0]);
        assert_eq!(firsts(SeedMode::ReferenceCli, 0), [first, second]);
        assert_eq!(firsts(SeedMode::ReferencePage, 0), [first, first]);
        assert_eq!(firsts(SeedMode::Each, 0), [first, first]);
        assert_ne!(firsts(SeedMode::ReferenceCli, 5)[0], first, "networks were built before");
    }
}
