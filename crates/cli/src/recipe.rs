//! Recipes of degradations as a flag names them.

use anyhow::{Context, Result};
use diffbir_train::degrade::{PRESETS, Recipe, presets};

/// The preset of this name, or the recipe in a file; with a factor, reducing by that instead of its own.
pub fn open(name: &str, factor: Option<u8>) -> Result<Recipe> {
    let recipe = match presets::text(name) {
        Some(_) => presets::preset(name),
        None => Recipe::from_toml(&read(name)?)
            .with_context(|| format!("{name}: is no recipe (docs/degradations.md says what one is)"))?,
    };
    match factor {
        None => Ok(recipe),
        Some(factor) => recipe.with_factor(factor.into()).with_context(|| {
            format!("another factor changes nothing: no step of {name} resizes to the small size")
        }),
    }
}

/// The text of a file that is given where a preset can be.
pub fn read(name: &str) -> Result<String> {
    std::fs::read_to_string(name).with_context(|| {
        let names: Vec<&str> = PRESETS.iter().map(|(name, _)| *name).collect();
        format!("{name}: is no preset ({}), and cannot be read as a file", names.join(", "))
    })
}
