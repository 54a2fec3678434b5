//! Which numbers make a network. What people write, in a configuration or a model's description, is asked here before
//! anything is built of it.

use diffbir_nn::params::keys_of;
use diffbir_nn::{Params, WeightError};
use std::ops::RangeInclusive;

/// A size that makes no network.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct SizeError {
    /// The field.
    pub field: String,
    /// What it is, and what it must be.
    pub reason: String,
}

impl SizeError {
    fn new(field: &str, reason: String) -> Self {
        Self { field: field.into(), reason }
    }

    /// The same of a configuration that lies at `place` of another.
    pub fn within(self, place: &str) -> Self {
        Self { field: format!("{place}.{}", self.field), ..self }
    }
}

/// Sizes of a network.
pub trait Checked {
    /// The first field of which no network can be built, or none that works.
    fn check(&self) -> Result<(), SizeError>;
}

/// Widest layer, channels.
const MOST_WIDE: usize = 1 << 14;

/// Most layers or blocks in a row.
pub(crate) const MOST_DEEP: usize = 256;

/// Most sizes that a network works at: its smallest is a 128th of the picture or latent.
const MOST_LEVELS: usize = 8;

/// Most parameters of a network, four times those of Stable Diffusion's UNet: with more, memory would be out.
const MOST_PARAMETERS: f64 = 4e9;

/// An error unless the value lies in the range.
pub(crate) fn between(field: &str, value: usize, range: RangeInclusive<usize>) -> Result<(), SizeError> {
    if range.contains(&value) {
        return Ok(());
    }
    let (from, to) = range.into_inner();
    Err(SizeError::new(field, format!("it is {value}, but must be from {from} to {to}")))
}

/// An error unless it is the width of a layer.
pub(crate) fn wide(field: &str, channels: usize) -> Result<(), SizeError> {
    between(field, channels, 1..=MOST_WIDE)
}

/// An error unless it is a number of layers.
pub(crate) fn deep(field: &str, layers: usize) -> Result<(), SizeError> {
    between(field, layers, 1..=MOST_DEEP)
}

/// An error unless the value can be divided by `divisor`, which is `what`.
pub(crate) fn multiple(field: &str, value: usize, divisor: usize, what: &str) -> Result<(), SizeError> {
    if divisor > 0 && value.is_multiple_of(divisor) {
        return Ok(());
    }
    Err(SizeError::new(field, format!("it is {value}, but must be a multiple of {divisor}, {what}")))
}

/// An error unless `number`, which is `what`, can be divided by the value.
pub(crate) fn divides(field: &str, value: usize, number: usize, what: &str) -> Result<(), SizeError> {
    if value > 0 && number.is_multiple_of(value) {
        return Ok(());
    }
    Err(SizeError::new(field, format!("it is {value}, but must divide {number}, {what}")))
}

/// An error unless the value is 1, 2, 4, 8 and so on.
pub(crate) fn power_of_two(field: &str, value: usize) -> Result<(), SizeError> {
    if value.is_power_of_two() {
        return Ok(());
    }
    Err(SizeError::new(field, format!("it is {value}, but must be a power of two")))
}

/// An error unless there are as many values as `others` has.
pub(crate) fn as_many<A, B>(
    field: &str,
    values: &[A],
    (other, others): (&str, &[B]),
) -> Result<(), SizeError> {
    if values.len() == others.len() {
        return Ok(());
    }
    let (count, wanted) = (values.len(), others.len());
    let reason = format!("it has {count} values, but must have {wanted}, as many as {other}");
    Err(SizeError::new(field, reason))
}

/// An error unless there is at least one value, and no more than `most`.
pub(crate) fn some<T>(field: &str, values: &[T], most: usize) -> Result<(), SizeError> {
    let count = values.len();
    if (1..=most).contains(&count) {
        return Ok(());
    }
    Err(SizeError::new(field, format!("it has {count} values, but must have from 1 to {most}")))
}

/// An error unless these are the widths of levels over a first one, and how many there can be.
pub(crate) fn levels(field: &str, multipliers: &[usize]) -> Result<(), SizeError> {
    some(field, multipliers, MOST_LEVELS)?;
    multipliers.iter().try_for_each(|&multiplier| between(field, multiplier, 1..=64))
}

/// An error unless a latent can be multiplied by it and divided.
pub(crate) fn scale(field: &str, value: f64) -> Result<(), SizeError> {
    if value.is_finite() && value > 0.0 {
        return Ok(());
    }
    Err(SizeError::new(field, format!("it is {value}, but must be larger than 0")))
}

/// An error where a network is too large for any memory; `field` is what makes it so.
pub(crate) fn holdable<N>(
    field: &str,
    network: impl FnOnce(&Params) -> Result<N, WeightError>,
) -> Result<(), SizeError> {
    let keys = keys_of(network).map_err(|error| SizeError::new(field, error.to_string()))?;
    let count = |(.., shape): (_, _, &[usize])| shape.iter().map(|&side| side as f64).product::<f64>();
    let parameters: f64 = keys.parameters().map(count).sum();
    if parameters <= MOST_PARAMETERS {
        return Ok(());
    }
    let reason = format!(
        "the network would have {:.0} million parameters, more than {:.0} million: make it narrower or less deep",
        parameters / 1e6,
        MOST_PARAMETERS / 1e6
    );
    Err(SizeError::new(field, reason))
}
