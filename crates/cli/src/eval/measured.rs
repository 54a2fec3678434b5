//! What is found of pictures.

use super::meter::Meter;
use super::metric::Metric;
use diffbir_metrics::{MetricError, Picture, local_deviation};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A picture to be measured, in all its versions.
pub struct Subject {
    /// By which it is told of: its place and name without the ending.
    pub name: String,
    /// Changes with its files.
    pub stamp: String,
    /// What it should be, if that is known, or why it cannot be had.
    pub truth: Option<Result<Picture, String>>,
    /// What the methods started from, if it is known.
    pub input: Option<Picture>,
    /// What each method made of it, or why that cannot be had.
    pub versions: Vec<(String, Result<Picture, String>)>,
}

/// What was found of a picture.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// See [`Subject::name`].
    pub picture: String,
    /// See [`Subject::stamp`].
    pub stamp: String,
    /// A row for each method.
    pub rows: Vec<Row>,
    /// How much repeated samples differ pixel by pixel (L-STD), if these are such and all could be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spread: Option<Number>,
    /// Why repeated samples, all of which could be read, cannot be compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub apart: Option<String>,
}

/// What was found of a picture as one method made it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Which method.
    pub method: String,
    /// By the keys of metrics.
    pub values: BTreeMap<String, Number>,
    /// Why there is no value of a metric, by its key.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub without: BTreeMap<String, String>,
    /// Why there is nothing at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
}

/// A number that JSON may not know: the PSNR of equal pictures is infinite.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(into = "serde_json::Value", try_from = "serde_json::Value")]
pub struct Number(pub f64);

impl From<Number> for serde_json::Value {
    fn from(Number(value): Number) -> Self {
        if value.is_finite() { value.into() } else { value.to_string().into() }
    }
}

impl TryFrom<serde_json::Value> for Number {
    type Error = &'static str;

    fn try_from(value: serde_json::Value) -> Result<Self, Self::Error> {
        let number = value.as_str().map_or(value.as_f64(), |text| text.parse().ok());
        number.map(Self).ok_or("a number is expected")
    }
}

impl Measured {
    /// Why versions are missing; what is the same for all is told once.
    pub fn failures(&self) -> Vec<String> {
        let all = self.rows.windows(2).all(|pair| pair[0].failed == pair[1].failed);
        let told = self.rows.iter().filter_map(|row| {
            let reason = row.failed.as_ref()?;
            let of = if all { String::new() } else { format!(": {}", row.method) };
            Some(format!("{}{of}: {reason}", self.picture))
        });
        let told: Vec<String> = if all { told.take(1).collect() } else { told.collect() };
        let apart = self.apart.iter().map(|reason| format!("{}: {reason}", self.picture));
        told.into_iter().chain(apart).collect()
    }

    /// Whether nothing is missing that another try could bring.
    pub fn is_whole(&self) -> bool {
        self.rows.iter().all(|row| row.failed.is_none()) && self.apart.is_none()
    }
}

/// Measures pictures, several at once.
pub fn measure(meter: &Meter, subjects: &[Subject]) -> Vec<Measured> {
    let quick = |subject: &Subject| -> Vec<(Row, Option<Pair>)> {
        subject.versions.iter().map(|(method, picture)| first(meter, subject, method, picture)).collect()
    };
    let mut rows: Vec<(Row, Option<Pair>)> = subjects.par_iter().flat_map_iter(quick).collect();
    // These networks run on all threads by themselves, and would not fit into memory for several at once.
    for (row, pair) in &mut rows {
        if let Some((picture, truth)) = pair {
            row.add(meter, picture, truth.as_ref(), |metric| {
                matches!(metric, Metric::Lpips | Metric::LpipsVgg)
            });
        }
    }
    let mut rows = rows.into_iter();
    let result = |subject: &Subject| {
        let (rows, pairs): (Vec<Row>, Vec<Option<Pair>>) = rows.by_ref().take(subject.versions.len()).unzip();
        let samples: Option<Vec<&Picture>> =
            pairs.iter().map(|pair| pair.as_ref().map(|(picture, _)| picture)).collect();
        let samples = samples.filter(|samples| meter.repeated && samples.len() > 1);
        let spread = samples.map(|samples| local_deviation(&samples)).transpose();
        let (spread, apart) = match spread {
            Ok(spread) => (spread.map(Number), None),
            Err(error) => (None, Some(format!("the samples have no L-STD: {error}"))),
        };
        Measured { picture: subject.name.clone(), stamp: subject.stamp.clone(), rows, spread, apart }
    };
    subjects.iter().map(result).collect()
}

/// A picture and its truth, without their borders.
type Pair = (Picture, Option<Picture>);

/// What is quickly found, and the pair for the rest.
fn first(
    meter: &Meter,
    subject: &Subject,
    method: &str,
    picture: &Result<Picture, String>,
) -> (Row, Option<Pair>) {
    let mut row = Row { method: method.into(), ..Row::default() };
    match pair(meter, subject, picture) {
        Ok((picture, truth)) => {
            let quick = |metric| !matches!(metric, Metric::Lpips | Metric::LpipsVgg);
            row.add(meter, &picture, truth.as_ref(), quick);
            (row, Some((picture, truth)))
        }
        Err(reason) => {
            row.failed = Some(reason);
            (row, None)
        }
    }
}

fn pair(meter: &Meter, subject: &Subject, picture: &Result<Picture, String>) -> Result<Pair, String> {
    let picture = picture.as_ref().map_err(Clone::clone)?;
    let truth = subject.truth.as_ref().map(Result::as_ref).transpose().map_err(Clone::clone)?;
    let cut = |picture: &Picture| meter.cut(picture).map_err(|error| error.to_string());
    if let Some(truth) = truth {
        picture.same_size(truth).map_err(|error| error.to_string())?;
    }
    Ok((cut(picture)?, truth.map(cut).transpose()?))
}

impl Row {
    /// The values of the metrics that `which` picks.
    fn add(
        &mut self,
        meter: &Meter,
        picture: &Picture,
        truth: Option<&Picture>,
        which: impl Fn(Metric) -> bool,
    ) {
        for metric in meter.metrics().into_iter().filter(|metric| which(*metric)) {
            match meter.value(metric, picture, truth) {
                Some(Ok(value)) => _ = self.values.insert(metric.key().into(), Number(value)),
                Some(Err(error)) => _ = self.without.insert(metric.key().into(), short(&error)),
                None => {}
            }
        }
    }

    /// The value of a metric.
    pub fn value(&self, metric: Metric) -> Option<f64> {
        self.values.get(metric.key()).map(|number| number.0)
    }

    /// What a reader of the table has to know.
    pub fn note(&self) -> String {
        let mut notes: Vec<String> = self.failed.iter().cloned().collect();
        let mut reasons: Vec<(&str, Vec<&str>)> = Vec::new();
        for metric in Metric::ALL {
            let Some(reason) = self.without.get(metric.key()) else { continue };
            match reasons.iter_mut().find(|(known, _)| known == reason) {
                Some((_, names)) => names.push(metric.name()),
                None => reasons.push((reason, vec![metric.name()])),
            }
        }
        notes.extend(reasons.iter().map(|(reason, names)| format!("{}: {reason}", names.join(", "))));
        notes.join("; ")
    }
}

/// A reason beside the name of the metric and the picture.
fn short(error: &MetricError) -> String {
    match error {
        MetricError::Small { least_px, .. } => format!("below {least_px} x {least_px} pixels"),
        MetricError::Flat { .. } => "too small or flat".into(),
        error => error.to_string(),
    }
}
