//! Numbers of recipes and what is accepted of them. Each limit is read by the field of its name, so that an
//! error says where in the file the number stands, which key it has and what it may be.

use super::kernels::Kind;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, SeqAccess, Visitor};
use std::collections::BTreeMap;
use std::fmt::{Formatter, Result as Written};
use std::ops::RangeInclusive;

/// From where to where a number is drawn, evenly. In TOML two numbers, or one that is always taken.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Span {
    /// The least.
    pub low: f64,
    /// The most.
    pub high: f64,
}

impl Span {
    /// Draws a number.
    pub fn draw(self, random: &mut ChaCha8Rng) -> f64 {
        self.low + (self.high - self.low) * random.random::<f64>()
    }
}

/// What is accepted under a key.
pub struct Limit {
    /// The key.
    pub key: &'static str,
    /// The numbers.
    pub range: RangeInclusive<f64>,
}

impl Limit {
    /// Whether a number may stand under the key. Drawn numbers are kept in single precision, which may round
    /// them up to the next one beyond.
    pub fn admits(&self, value: f64) -> bool {
        (*self.range.start() as f32..=*self.range.end() as f32).contains(&(value as f32))
    }

    fn span<'de, D: Deserializer<'de>>(&self, source: D) -> Result<Span, D::Error> {
        source.deserialize_any(SpanVisitor(self))
    }

    fn number<'de, D: Deserializer<'de>>(&self, source: D) -> Result<f64, D::Error> {
        source.deserialize_any(NumberVisitor(self))
    }
}

struct SpanVisitor<'a>(&'a Limit);

impl<'de> Visitor<'de> for SpanVisitor<'_> {
    type Value = Span;

    fn expecting(&self, f: &mut Formatter) -> Written {
        let Limit { key, range } = self.0;
        write!(
            f,
            "{key} = [a, b] with a not above b, or one number, from {} to {}",
            range.start(),
            range.end()
        )
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Span, E> {
        if self.0.admits(value) {
            Ok(Span { low: value, high: value })
        } else {
            Err(E::custom(format_args!("expected {}", &self as &dyn serde::de::Expected)))
        }
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Span, E> {
        self.visit_f64(value as f64)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut numbers: A) -> Result<Span, A::Error> {
        let two = (numbers.next_element::<f64>()?, numbers.next_element::<f64>()?);
        match (two, numbers.next_element::<IgnoredAny>()?) {
            ((Some(low), Some(high)), None) if self.0.admits(low) && self.0.admits(high) && low <= high => {
                Ok(Span { low, high })
            }
            _ => Err(A::Error::custom(format_args!("expected {}", &self as &dyn serde::de::Expected))),
        }
    }
}

struct NumberVisitor<'a>(&'a Limit);

impl Visitor<'_> for NumberVisitor<'_> {
    type Value = f64;

    fn expecting(&self, f: &mut Formatter) -> Written {
        let Limit { key, range } = self.0;
        write!(f, "{key} = a number from {} to {}", range.start(), range.end())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<f64, E> {
        if self.0.admits(value) {
            Ok(value)
        } else {
            Err(E::custom(format_args!("expected {}", &self as &dyn serde::de::Expected)))
        }
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<f64, E> {
        self.visit_f64(value as f64)
    }
}

/// The limits, and for each the function that reads a field of that name.
macro_rules! limits {
    ($($(#[$meta:meta])* $key:literal $name:ident = $constant:ident: $read:ident -> $kind:ty, $range:expr;)*) => {$(
        $(#[$meta])*
        pub const $constant: Limit = Limit { key: $key, range: $range };

        pub(super) fn $name<'de, D: Deserializer<'de>>(source: D) -> Result<$kind, D::Error> {
            $constant.$read(source)
        }
    )*};
}

limits! {
    /// By how much a picture is reduced.
    "factor" factor = FACTOR: span -> Span, 0.5..=32.0;
    /// Side of a kernel; an even one counts as the odd one below.
    "size_px" size_px = SIZE_PX: span -> Span, 1.0..=101.0;
    /// Of a blur.
    "sigma_px" sigma_px = SIGMA_PX: span -> Span, 0.05..=50.0;
    /// Exponent of generalized bells.
    "beta_generalized" beta_generalized = BETA_GENERALIZED: span -> Span, 0.1..=10.0;
    /// Exponent of plateaus.
    "beta_plateau" beta_plateau = BETA_PLATEAU: span -> Span, 0.1..=10.0;
    /// Of a sinc.
    "cutoff_rad" cutoff_rad = CUTOFF_RAD: span -> Span, 0.1..=3.2;
    /// Of a large sinc.
    "cutoff_rad_large" cutoff_rad_large = CUTOFF_RAD_LARGE: span -> Span, 0.1..=3.2;
    /// Of a resize.
    "scale" scale = SCALE: span -> Span, 0.05..=4.0;
    /// Of Gaussian noise.
    "sigma_levels" sigma_levels = SIGMA_LEVELS: span -> Span, 0.0..=255.0;
    /// Of Poisson noise.
    "poisson_scale" poisson_scale = POISSON_SCALE: span -> Span, 0.0..=10.0;
    /// Of compression.
    "quality" quality = QUALITY: span -> Span, 1.0..=100.0;
    /// How often steps come.
    "times" times = TIMES: span -> Span, 1.0..=10.0;
    /// That a step comes.
    "chance" chance = CHANCE: number -> f64, 0.0..=1.0;
    /// That noise is Gaussian.
    "gaussian" gaussian = GAUSSIAN: number -> f64, 0.0..=1.0;
    /// That noise is grey.
    "grey" grey = GREY: number -> f64, 0.0..=1.0;
    /// That a resize enlarges.
    "up" up = UP: number -> f64, 0.0..=1.0;
    /// That a resize reduces.
    "down" down = DOWN: number -> f64, 0.0..=1.0;
    /// By how much the simple recipe reduces; the fraction is cut off.
    "factor" whole_factor = WHOLE_FACTOR: number -> f64, 1.0..=16.0;
    /// Of the simple recipe.
    "blur_sigma_px" blur_sigma_px = BLUR_SIGMA_PX: span -> Span, 0.0..=50.0;
    /// Of the simple recipe.
    "noise_levels" noise_levels = NOISE_LEVELS: span -> Span, 0.0..=255.0;
    /// Of the simple recipe.
    "jpeg_quality" jpeg_quality = JPEG_QUALITY: span -> Span, 1.0..=100.0;
    /// Of the simple recipe.
    "second_chance" second_chance = SECOND_CHANCE: number -> f64, 0.0..=1.0;
}

/// A multiple that changes nothing.
pub(super) fn one() -> Span {
    Span { low: 1.0, high: 1.0 }
}

/// The chance of what always comes.
pub(super) fn always() -> f64 {
    1.0
}

/// Weights of kinds of kernels: at least one above 0.
pub(super) fn kinds<'de, D: Deserializer<'de>>(source: D) -> Result<BTreeMap<Kind, f64>, D::Error> {
    let weights = BTreeMap::<Kind, f64>::deserialize(source)?;
    let all = weights.values().all(|weight| weight.is_finite() && *weight >= 0.0);
    if all && weights.values().any(|weight| *weight > 0.0) {
        Ok(weights)
    } else {
        Err(D::Error::custom(
            "expected kinds = { KIND = weight, .. } with weights of 0 and more, one above 0",
        ))
    }
}

/// A list that holds something.
pub(super) fn some<'de, T: Deserialize<'de>, D: Deserializer<'de>>(source: D) -> Result<Vec<T>, D::Error> {
    let list = Vec::deserialize(source)?;
    if list.is_empty() { Err(D::Error::custom("expected a list of at least one")) } else { Ok(list) }
}
