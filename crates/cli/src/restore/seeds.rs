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
    /// The noise as it was before the batch of pictures that is drawn at once.
    before_all: Option<TorchNoise>,
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
            before_all: None,
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
        let stream = self.one_stream();
        self.stream.insert(Stacked(vec![stream]))
    }

    /// The one stream of the reference's modes, where it is now.
    fn one_stream(&mut self) -> TorchNoise {
        let stream = self.stream.take().and_then(|mut stream| stream.0.pop());
        let stream = stream.unwrap_or_else(|| TorchNoise::after(self.source, self.seed, self.before));
        stream.among(0, 1)
    }

    /// The noise of the `index`th of `count` pictures that the reference restores as one batch, for a sample of this
    /// number; asked for in their order.
    pub fn of_batch(&mut self, sample: u64, (index, count): (usize, usize)) -> &mut dyn Noise {
        if index == 0 {
            self.before_all = Some(match self.mode {
                SeedMode::Each => TorchNoise::new(self.source, self.seed.wrapping_add(sample)),
                _ => self.one_stream(),
            });
        }
        let before = self.before_all.clone().expect("the first picture comes first");
        self.stream.insert(Stacked(vec![before.among(index, count)]))
    }

    /// The seed that a result is told to have come from.
    pub fn of(&self, sample: u64) -> u64 {
        if self.mode == SeedMode::Each { self.seed.wrapping_add(sample) } else { self.seed }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// v1's program for faces: the faces of a picture in one batch, the background behind them; both once more.
    #[test]
    fn pictures_of_one_batch_share_what_is_drawn_and_a_stream_goes_on_behind_it() {
        let torch = || TorchNoise::new(Source::TorchCpu, 231);
        let mut stream = torch();
        let known: Vec<Vec<f32>> = [40, 20, 40, 20].map(|count| stream.normal(count)).into();
        let new = |mode| Seeds {
            mode,
            source: Source::TorchCpu,
            seed: 231,
            stream: None,
            before_all: None,
            before: 0,
        };
        let mut seeds = new(SeedMode::ReferenceCli);
        for repetition in 0..2 {
            for face in 0..2 {
                let drawn = seeds.of_batch(repetition, (face, 2)).normal(20);
                assert_eq!(drawn, known[2 * repetition as usize][face * 20..][..20]);
            }
            assert_eq!(seeds.batch(&[repetition]).normal(20), known[2 * repetition as usize + 1]);
        }
        let mut each = new(SeedMode::Each);
        assert_eq!(each.of_batch(0, (0, 2)).normal(20), known[0][..20]);
        assert_eq!(each.of_batch(0, (1, 2)).normal(20), known[0][20..]);
        assert_eq!(each.batch(&[0]).normal(20), torch().normal(20));
    }

    /// First number of the first batches of two pictures.
    fn firsts(mode: SeedMode, before: u64) -> [f32; 2] {
        let mut seeds =
            Seeds { mode, source: Source::TorchCpu, seed: 231, stream: None, before_all: None, before };
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
