//! What is wrong with a checkpoint: tensors that are missing, of another shape, of other numbers, or that nobody knows.
//! Names are those that the file has, whatever they were renamed to.

use super::{Checkpoint, Float, Stored};
use crate::params::{Keys, WeightError};
use std::collections::BTreeSet;

impl Checkpoint {
    /// An error if these are not the tensors of a network by name and shape. No values are read.
    pub fn expect(&self, network: &Keys) -> Result<(), WeightError> {
        for entry in network.entries() {
            if entry.is_read() {
                self.of_weights(&entry.key, &entry.shape)?;
            } else {
                self.of_shape_if_there(&entry.key, &entry.shape)?;
            }
        }
        let known: BTreeSet<&str> = network.entries().iter().map(|entry| entry.key.as_str()).collect();
        self.expect_known(|name| known.contains(name))
    }

    /// The tensors that files of a network hold, that it computes for itself, and that are not there.
    pub fn lacking(&self, network: &Keys) -> Vec<String> {
        let computed = network.entries().iter().filter(|entry| entry.is_computed());
        computed.filter(|entry| !self.contains(&entry.key)).map(|entry| self.whole(&entry.key)).collect()
    }

    /// An error if any tensor was not asked for since the file was opened.
    pub fn expect_all_used(&self) -> Result<(), WeightError> {
        self.expect_known(|name| self.used.contains(name))
    }

    fn expect_known(&self, known: impl Fn(&str) -> bool) -> Result<(), WeightError> {
        let names = self.tensors.keys().filter(|name| !known(name));
        let names: Vec<String> = names.map(|name| self.whole(name)).collect();
        if names.is_empty() {
            return Ok(());
        }
        Err(WeightError::Unknown { file: self.file.to_string(), names })
    }

    /// An error if a parameter of a network is missing or has another shape; nothing is read.
    pub fn expect_parameters(&self, keys: &Keys) -> Result<(), WeightError> {
        for (_, key, shape) in keys.parameters() {
            self.of_weights(key, shape)?;
        }
        Ok(())
    }

    /// A tensor's name in the file.
    pub(super) fn whole(&self, name: &str) -> String {
        match self.tensors.get(name).and_then(|stored| stored.own.as_ref()) {
            Some((name, _)) => name.to_string(),
            None => format!("{}{name}", self.place),
        }
    }

    pub(super) fn of_shape_if_there(&self, key: &str, shape: &[usize]) -> Result<(), WeightError> {
        if self.contains(key) {
            return self.of_shape(key, shape).map(drop);
        }
        // Of one that is joined from parts, all are there or none.
        let origin = self.origin.as_ref().and_then(|origin| origin(key, shape));
        let parts = origin.map_or(Vec::new(), |(names, _)| if names.len() > 1 { names } else { Vec::new() });
        let is_begun = self.tensors.keys().any(|name| parts.contains(&self.whole(name)));
        if is_begun { Err(self.missing(key, shape)) } else { Ok(()) }
    }

    fn of_shape(&self, key: &str, shape: &[usize]) -> Result<&Stored, WeightError> {
        let file = || self.file.to_string();
        let Some(stored) = self.tensors.get(key) else { return Err(self.missing(key, shape)) };
        if stored.shape == shape {
            return Ok(stored);
        }
        let key_in_file = self.whole(key);
        // In the dimensions that the file has it in, where those are known.
        let (expected, found) =
            match (&stored.own, self.origin.as_ref().and_then(|origin| origin(key, shape))) {
                (Some((_, own)), Some((names, shape))) if names.len() == 1 => (shape, own.clone()),
                _ => (shape.to_vec(), stored.shape.clone()),
            };
        Err(WeightError::Shape { file: file(), key: key_in_file, expected, found })
    }

    /// As [`Checkpoint::of_shape`], of numbers that weights can have.
    pub(super) fn of_weights(&self, key: &str, shape: &[usize]) -> Result<Float, WeightError> {
        let numbers = || WeightError::Numbers { file: self.file.to_string(), key: self.whole(key) };
        self.of_shape(key, shape)?.format.ok_or_else(numbers)
    }

    /// What is wrong where a tensor is not there: it is missing, or a part of it is or cannot be one.
    fn missing(&self, key: &str, shape: &[usize]) -> WeightError {
        let file = self.file.to_string();
        let origin = self.origin.as_ref().and_then(|origin| origin(key, shape));
        let (names, shape) = origin.unwrap_or_else(|| (vec![self.whole(key)], shape.to_vec()));
        for key in &names {
            let key = key.clone();
            match self.tensors.iter().find(|(own, _)| self.whole(own) == key).map(|(_, part)| part) {
                None => return WeightError::Missing { file, key, shape },
                Some(part) if part.shape != shape => {
                    return WeightError::Shape { file, key, expected: shape, found: part.shape.clone() };
                }
                Some(part) if part.format.is_none() => return WeightError::Numbers { file, key },
                Some(_) => {}
            }
        }
        WeightError::Missing { file, key: names.join("`, `"), shape }
    }

    /// An error if any tensor lies outside these places.
    pub fn expect_places(&self, places: &[&str]) -> Result<(), WeightError> {
        self.expect_known(|name| places.contains(&name.split('.').next().unwrap_or_default()))
    }
}
