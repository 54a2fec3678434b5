//! One training example: a crop, what a recipe leaves of it, and a caption.

use super::error::DataError;
use super::order;
use super::{Augment, Pictures};
use crate::degrade::{Drawn, Recipe, generator};
use diffbir_imaging::Raster;
use rand::Rng;

/// One training example: both pictures RGB, values about 0..1.
#[derive(Clone, Debug, PartialEq)]
pub struct Example {
    /// The true crop.
    pub truth: Raster,
    /// What is left of it.
    pub degraded: Raster,
    /// The words for it, or nothing.
    pub caption: String,
}

/// How examples are made.
#[derive(Clone, Debug, PartialEq)]
pub struct ExampleConfig {
    /// How crops vary.
    pub augment: Augment,
    /// From which the degradation is drawn.
    pub recipe: Recipe,
    /// Whether pictures of a batch share what [`crate::degrade::chain::Chain::draw_batch`] says.
    pub by_batch: bool,
    /// Pairs in the pool that mixes batches, a multiple of the batch; 0 for none.
    pub pool: usize,
    /// Chance of the long caption where a picture has two.
    pub long_caption: f64,
    /// Chance of no caption.
    pub no_caption: f64,
}

impl ExampleConfig {
    /// Degraded by `recipe`, each picture for itself, with its usual caption.
    pub fn new(recipe: Recipe) -> Self {
        Self {
            augment: Augment::default(),
            recipe,
            by_batch: false,
            pool: 0,
            long_caption: 0.0,
            no_caption: 0.0,
        }
    }
}

/// Which example: from 0, the step and the place in its batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Id {
    pub step: u64,
    pub place: usize,
}

/// How often another picture is taken in place of one that cannot be used, before there seem to be none.
const MOST_TRIES: usize = 1000;

impl Pictures {
    /// An example, which follows from the arguments alone.
    pub(super) fn example(
        &self,
        config: &ExampleConfig,
        seed: u64,
        batch: usize,
        id: Id,
    ) -> Result<Example, DataError> {
        let Id { step, place } = id;
        let mut random = generator(seed, &format!("{step}/{place}"));
        let mut index = order::picture(seed, step * batch as u64 + place as u64, self.len());
        let mut others = generator(seed, &format!("{step}/{place}/others"));
        let mut tries = 0;
        let (stored, captions) = loop {
            if let Some(usable) = self.usable(index) {
                break usable;
            }
            tries += 1;
            if tries == MOST_TRIES {
                return Err(self.nothing());
            }
            index = others.random_range(0..self.len());
        };
        let open = &self.0.config;
        let crop = open.crop.of(&stored, open.size_px, config.augment, &mut random);
        let drawn = self.degradation(config, seed, batch, id, &mut random);
        let pair = drawn.pair(crop);
        let (truth, degraded) =
            pair.map_err(|source| DataError::Degrade { size_px: open.size_px, source })?;
        let mut random = generator(seed, &format!("{step}/{place}/caption"));
        let is_long = random.random::<f64>() < config.long_caption;
        let is_none = random.random::<f64>() < config.no_caption;
        let (short, long) = (captions.short, captions.long);
        let caption = if is_long { long.or(short) } else { short.or(long) };
        let caption = caption.filter(|_| !is_none).map_or_else(String::new, String::from);
        Ok(Example { truth, degraded, caption })
    }

    fn degradation(
        &self,
        config: &ExampleConfig,
        seed: u64,
        batch: usize,
        Id { step, place }: Id,
        random: &mut rand_chacha::ChaCha8Rng,
    ) -> Drawn {
        if !config.by_batch {
            return config.recipe.draw(random);
        }
        // Each thread draws the whole batch: that takes microseconds, and none has to wait for another.
        config.recipe.draw_batch(batch, &mut generator(seed, &step.to_string())).swap_remove(place)
    }
}
