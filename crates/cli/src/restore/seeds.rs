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
        Ok(Self { mode: arguments.seed_mode, source: arguments.noise, seed: arguments.seed, stream: None, before })
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
