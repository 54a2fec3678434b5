//! The recipes that `diffbir degrade` offers by name.

use super::Recipe;

macro_rules! presets {
    ($($name:literal),*) => {
        /// Names and TOML.
        pub const PRESETS: &[(&str, &str)] = &[$(($name, include_str!(concat!("presets/", $name, ".toml")))),*];
    };
}

presets!("mild", "medium", "heavy", "codeformer", "codeformer-face", "realesrgan", "article");

/// The TOML of a preset.
pub fn text(name: &str) -> Option<&'static str> {
    PRESETS.iter().find(|(known, _)| *known == name).map(|(_, text)| *text)
}

/// A preset.
///
/// # Panics
/// When there is none of this name.
pub fn preset(name: &str) -> Recipe {
    let text = text(name).expect("a name of a preset");
    Recipe::from_toml(text).expect("presets are tested")
}
