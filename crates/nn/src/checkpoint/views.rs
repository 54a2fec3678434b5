//! A checkpoint seen otherwise: parts of it, other names, tensors put together. Values are read when they are asked for, but by mixing.

use super::{Checkpoint, Float, Read, Stored};
use crate::params::WeightError;
use burn::tensor::TensorData;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

impl Checkpoint {
    /// The tensors whose names begin with `prefix` and a dot, without that beginning.
    pub fn part(&self, prefix: &str) -> Self {
        let tensors = self
            .tensors
            .iter()
            .filter_map(|(name, tensor)| {
                let rest = name.strip_prefix(prefix)?.strip_prefix('.')?;
                Some((rest.to_string(), tensor.clone()))
            })
            .collect();
        let place = format!("{}{prefix}.", self.place).into();
        Checkpoint { tensors, place, ..self.without_use() }
    }

    /// The tensors under other names and in other shapes of as many values; those for which `rule` gives
    /// none are left out.
    pub fn renamed(&self, rule: impl Fn(&str, &[usize]) -> Option<(String, Vec<usize>)>) -> Self {
        let mut tensors = BTreeMap::new();
        let ruled =
            self.tensors.iter().filter_map(|(old, tensor)| Some((old, tensor, rule(old, &tensor.shape)?)));
        // What the rule knows comes before what has such a name already.
        let (kept, moved): (Vec<_>, Vec<_>) = ruled.partition(|(old, _, (new, _))| *old == new);
        for (old, tensor, (new, shape)) in moved.into_iter().chain(kept) {
            // A place that is taken is no place for another: that stays where it is refused by name.
            let mut new = if tensors.contains_key(&new) { old.clone() } else { new };
            while tensors.contains_key(&new) {
                new.push('\'');
            }
            let own = match &tensor.own {
                Some(own) => Some(own.clone()),
                None if new == *old => None,
                None => Some((self.whole(old).into(), tensor.shape.clone())),
            };
            tensors.insert(new, Stored { shape, own, ..tensor.clone() });
        }
        Checkpoint { tensors, ..self.without_use() }
    }

    /// The same, knowing what a tensor that is missing is called in the file: `origin` gives the names and the shape
    /// of the parts that it would be joined from, or of itself.
    pub fn missing_as(
        self,
        origin: impl Fn(&str, &[usize]) -> Option<(Vec<String>, Vec<usize>)> + Send + Sync + 'static,
    ) -> Self {
        Self { origin: Some(Arc::new(origin)), ..self }
    }

    /// What parts and renamed copies have of it.
    fn without_use(&self) -> Self {
        let (file, place) = (self.file.clone(), self.place.clone());
        Self { file, place, metadata: self.metadata.clone(), ..Self::default() }
    }

    /// Puts tensors of one shape together into one, along their first dimension, in f32 where their formats differ.
    /// Does nothing where one is missing or they do not fit: the network that asks for `joined` will say so.
    pub fn join(&mut self, joined: String, from: &[String]) {
        let Some(parts) = from.iter().map(|name| self.tensors.get(name).cloned()).collect::<Option<Vec<_>>>()
        else {
            return;
        };
        let Some(first) = parts.first() else { return };
        let Some(formats) = parts.iter().map(|part| part.format).collect::<Option<Vec<_>>>() else { return };
        let fit = |part: &Stored| part.shape == first.shape;
        if first.shape.is_empty() || !parts.iter().all(fit) || from.contains(&joined) {
            return;
        }
        // One that is there already makes room, and is then a tensor that nobody knows.
        if let Some(mut other) = self.tensors.remove(&joined) {
            other.own =
                other.own.or_else(|| Some((format!("{}{joined}", self.place).into(), other.shape.clone())));
            self.tensors.insert(format!("{joined}'"), other);
        }
        let mut shape = first.shape.clone();
        shape[0] = parts.iter().map(|part| part.shape[0]).sum();
        let alike = formats.iter().all(|format| *format == formats[0]);
        let format = if alike { formats[0] } else { Float::F32 };
        let names = from.iter().map(|name| self.whole(name)).collect::<Vec<_>>().join("`, `");
        from.iter().for_each(|name| _ = self.tensors.remove(name));
        let read: Read = Arc::new(move || {
            let mut bytes = Vec::new();
            for (part, own) in parts.iter().zip(&formats) {
                let stored = (part.read)()?;
                if alike {
                    bytes.extend_from_slice(&stored);
                } else {
                    bytes.extend(own.decode(&stored).into_iter().flat_map(f32::to_le_bytes));
                }
            }
            Ok(Cow::Owned(bytes))
        });
        let own = Some((names.into(), shape.clone()));
        self.tensors.insert(joined, Stored { shape, format: Some(format), read, own });
    }

    /// `share` of every tensor and the rest of the same of `other`, which is an error where there is none of this shape.
    pub fn mixed(&self, other: &Checkpoint, share: f32) -> Result<Self, WeightError> {
        let mut tensors = BTreeMap::new();
        for (name, ..) in self.weights() {
            let (Some((shape, mut values)), Some((others_shape, others))) =
                (self.get(name)?, other.get(name)?)
            else {
                let shape = self.tensors[name].shape.clone();
                return Err(WeightError::Missing { file: other.file.to_string(), key: name.clone(), shape });
            };
            if shape != others_shape {
                let (file, key) = (other.file.to_string(), name.clone());
                return Err(WeightError::Shape { file, key, expected: shape, found: others_shape });
            }
            for (value, other) in values.iter_mut().zip(others) {
                *value = share * *value + (1.0 - share) * other;
            }
            tensors.insert(name.clone(), TensorData::new(values, shape));
        }
        Ok(Self::from_tensors(tensors).named(&self.file))
    }

    /// Adds all tensors of `other` under `prefix` and a dot.
    pub fn insert(&mut self, prefix: &str, other: Checkpoint) {
        self.tensors
            .extend(other.tensors.into_iter().map(|(name, tensor)| (format!("{prefix}.{name}"), tensor)));
    }
}
