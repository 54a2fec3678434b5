//! Tables of what was measured.

use super::measured::{Measured, Number, Row};
use super::metric::Metric;
use super::pairs::{G_STD, Problem};
use diffbir_metrics::global_deviation;
use serde_json::{Map, Value, json};
use std::fmt::Write;

/// All that was measured.
pub struct Table {
    pub metrics: Vec<Metric>,
    pub methods: Vec<String>,
    /// In the order of the tables.
    pub pictures: Vec<Measured>,
    /// Of the folders.
    pub problems: Vec<Problem>,
}

/// Of repeated samples, means over pictures.
struct Spread {
    /// G-STD of each metric, and of how many pictures.
    global: Vec<Option<(f64, usize)>>,
    /// L-STD, and of how many pictures.
    local: Option<(f64, usize)>,
    /// Pictures whose samples cannot be compared.
    apart: usize,
}

impl Spread {
    /// The number of pictures that the most is known of.
    fn of(&self) -> usize {
        self.global.iter().chain([&self.local]).flatten().map(|(_, of)| *of).max().unwrap_or(0)
    }

    /// Which values are of fewer pictures.
    fn note(&self, metrics: &[Metric]) -> String {
        let names = metrics.iter().map(|metric| metric.name()).chain(["L-STD"]);
        let fewer = names.zip(self.global.iter().chain([&self.local])).filter_map(|(name, value)| {
            let (_, of) = (*value)?;
            (of < self.of()).then(|| format!("{name} of {of}"))
        });
        let apart = (self.apart > 0).then(|| format!("{} failed", self.apart));
        fewer.chain(apart).collect::<Vec<_>>().join(", ")
    }
}

/// A method over all pictures.
struct Mean {
    /// Of each metric, if any picture has it.
    values: Vec<Option<MeanValue>>,
    measured: usize,
    failed: usize,
}

/// A metric over the pictures that have a value: the mean of the finite ones, or infinity if there is no other.
#[derive(Clone, Copy)]
struct MeanValue {
    value: f64,
    /// Pictures that it is the mean of.
    of: usize,
    /// Pictures that are left out, since they are equal to the truth and their PSNR is infinite.
    infinite: usize,
}

impl MeanValue {
    fn of(values: &[f64]) -> Option<Self> {
        let finite: Vec<f64> = values.iter().copied().filter(|value| value.is_finite()).collect();
        let counted = if finite.is_empty() { values } else { &finite };
        (!counted.is_empty()).then(|| Self {
            value: counted.iter().sum::<f64>() / counted.len() as f64,
            of: counted.len(),
            infinite: values.len() - counted.len(),
        })
    }
}

impl Table {
    fn rows<'a>(&'a self, method: &'a str) -> impl Iterator<Item = (&'a str, &'a Row)> {
        let of = move |measured: &'a Measured| {
            let rows = measured.rows.iter().filter(move |row| row.method == method);
            rows.map(move |row| (measured.picture.as_str(), row))
        };
        self.pictures.iter().flat_map(of)
    }

    fn mean(&self, method: &str) -> Mean {
        let mean = |metric: &Metric| {
            let values: Vec<f64> = self.rows(method).filter_map(|(_, row)| row.value(*metric)).collect();
            MeanValue::of(&values)
        };
        let failed = self.rows(method).filter(|(_, row)| row.failed.is_some()).count();
        let measured = self.rows(method).count() - failed;
        Mean { values: self.metrics.iter().map(mean).collect(), measured, failed }
    }

    /// How much repeated samples of a picture differ, if there are such.
    fn spread(&self) -> Option<Spread> {
        let local: Vec<f64> = self.pictures.iter().filter_map(|measured| Some(measured.spread?.0)).collect();
        let apart = self.pictures.iter().filter(|measured| measured.apart.is_some()).count();
        if local.is_empty() && apart == 0 {
            return None;
        }
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
        let global = self.metrics.iter().map(|metric| {
            // Of equal pictures PSNR is infinite and has no deviation.
            let of_picture = |measured: &Measured| {
                let values =
                    measured.rows.iter().map(|row| row.value(*metric).filter(|value| value.is_finite()));
                values.collect::<Option<Vec<f64>>>().map(|values| global_deviation(&values))
            };
            let found: Vec<f64> = self.pictures.iter().filter_map(of_picture).collect();
            (!found.is_empty()).then(|| (mean(&found), found.len()))
        });
        let local = (!local.is_empty()).then(|| (mean(&local), local.len()));
        Some(Spread { global: global.collect(), local, apart })
    }

    /// How many versions of pictures were measured, and how much could not be, problems of folders included.
    pub fn count(&self) -> (usize, usize) {
        let means = self.methods.iter().map(|method| self.mean(method));
        let apart = self.pictures.iter().filter(|measured| measured.apart.is_some()).count();
        means.fold((0, self.problems.len() + apart), |(measured, failed), mean| {
            (measured + mean.measured, failed + mean.failed)
        })
    }

    /// For people: means of methods, if there are several, then each picture, then what else was found.
    pub fn markdown(&self) -> String {
        let titles = self.metrics.iter().map(|metric| format!("{} {}", metric.name(), metric.better()));
        let titles: Vec<String> = titles.collect();
        let several = self.methods.len() > 1;
        let mut text = String::new();
        let means: Vec<Vec<String>> =
            self.methods.iter().map(|method| self.mean_cells(method, several)).collect();
        if several {
            let head = ["method".to_string()].into_iter().chain(titles.clone());
            text += &grid(head.chain(["note".into()]).collect(), means.clone());
            text += "\n";
        }
        if let Some(spread) = self.spread() {
            let head = titles.iter().map(|title| title.trim_end_matches(['↑', '↓', ' ']).to_string());
            let head =
                ["G-STD of".to_string()].into_iter().chain(head).chain(["L-STD".into(), "note".into()]);
            let value = |value: &Option<(f64, usize)>| {
                value.map_or(String::new(), |(value, _)| format!("{value:.4}"))
            };
            let line = [format!("{} samples of {} pictures", self.methods.len(), spread.of())].into_iter();
            let line = line.chain(spread.global.iter().chain([&spread.local]).map(value));
            let line = line.chain([spread.note(&self.metrics)]);
            text += &grid(head.collect(), vec![line.collect()]);
            text += "\n";
        }
        let mut lines = Vec::new();
        for measured in &self.pictures {
            for row in &measured.rows {
                let mut line = vec![measured.picture.clone()];
                line.extend(several.then(|| row.method.clone()));
                line.extend(self.metrics.iter().map(|metric| cell(*metric, row.value(*metric))));
                line.push(row.note());
                lines.push(line);
            }
        }
        if !several {
            lines.extend(means);
        }
        let head = ["picture".to_string()].into_iter().chain(several.then(|| "method".into()));
        text += &grid(head.chain(titles).chain(["note".into()]).collect(), lines);
        if !self.problems.is_empty() {
            let problem = |problem: &Problem| {
                vec![problem.file.clone(), problem.folder.clone(), problem.reason.clone()]
            };
            let head = ["not measured", "folder", "note"].map(String::from).to_vec();
            text += "\n";
            text += &grid(head, self.problems.iter().map(problem).collect());
        }
        text
    }

    fn mean_cells(&self, method: &str, several: bool) -> Vec<String> {
        let mean = self.mean(method);
        let name = if several { method.to_string() } else { format!("mean of {}", mean.measured) };
        let values = self.metrics.iter().zip(&mean.values);
        let values = values.map(|(metric, value)| cell(*metric, value.map(|mean| mean.value)));
        [name]
            .into_iter()
            .chain(values)
            .chain([mean.note(&self.metrics, several && mean.measured < self.pictures.len())])
            .collect()
    }

    /// A line for each version of each picture, and one for the mean of each method; in the end what else was found,
    /// with its folder for a method.
    pub fn csv(&self) -> Result<String, csv::Error> {
        let mut writer = csv::Writer::from_writer(Vec::new());
        let keys = self.metrics.iter().map(|metric| metric.key());
        writer.write_record(["method", "picture"].into_iter().chain(keys).chain(["note"]))?;
        let number = |value: Option<f64>| value.map_or(String::new(), |value| format!("{value:.6}"));
        for method in &self.methods {
            for (picture, row) in self.rows(method) {
                let values = self.metrics.iter().map(|metric| number(row.value(*metric)));
                let line = [method.clone(), picture.to_string()].into_iter().chain(values);
                writer.write_record(line.chain([row.note()]))?;
            }
            let mean = self.mean(method);
            let values = mean.values.iter().map(|value| number(value.map(|mean| mean.value)));
            let line = [method.clone(), format!("mean of {}", mean.measured)].into_iter().chain(values);
            writer.write_record(line.chain([mean.note(&self.metrics, false)]))?;
        }
        if let Some(spread) = self.spread() {
            let values = spread.global.iter().map(|value| number(value.map(|(value, _)| value)));
            let line = [G_STD.to_string(), format!("mean of {}", spread.of())].into_iter().chain(values);
            let local = spread.local.map(|(value, _)| format!("L-STD {value:.6}"));
            let note = spread.note(&self.metrics);
            let note: Vec<String> = local.into_iter().chain((!note.is_empty()).then_some(note)).collect();
            writer.write_record(line.chain([note.join(", ")]))?;
        }
        for Problem { folder, file, reason } in &self.problems {
            let values = self.metrics.iter().map(|_| String::new());
            let line = [folder.clone(), file.clone()].into_iter().chain(values);
            writer.write_record(line.chain([reason.clone()]))?;
        }
        let bytes = writer.into_inner().expect("memory takes all");
        Ok(String::from_utf8(bytes).expect("of text"))
    }

    /// Everything, with the settings.
    pub fn json(&self, settings: &Map<String, Value>) -> Value {
        let methods = self.methods.iter().map(|method| {
            let mean = self.mean(method);
            let values = self.metrics.iter().zip(&mean.values);
            let values = values.filter_map(|(metric, value)| {
                let MeanValue { value, of, infinite } = (*value)?;
                let value = json!({ "mean": Number(value), "of": of, "infinite": infinite });
                Some((metric.key().to_string(), value))
            });
            let values: Map<String, Value> = values.collect();
            json!({ "method": method, "measured": mean.measured, "failed": mean.failed, "means": values })
        });
        let methods: Vec<Value> = methods.collect();
        let spread = self.spread().map(|Spread { global, local, apart }| {
            let global = self.metrics.iter().zip(global);
            let global = global.filter_map(|(metric, value)| {
                let (value, of) = value?;
                Some((metric.key().to_string(), json!({ "mean": value, "of": of })))
            });
            let local = local.map(|(value, of)| json!({ "mean": value, "of": of }));
            json!({ "g_std": global.collect::<Map<_, _>>(), "l_std": local, "failed": apart })
        });
        json!({
            "settings": settings,
            "methods": methods,
            "spread": spread,
            "pictures": self.pictures,
            "problems": self.problems,
        })
    }
}

impl Mean {
    /// Which values are of fewer pictures than were measured, and how many failed.
    fn note(&self, metrics: &[Metric], with_count: bool) -> String {
        let fewer = metrics.iter().zip(&self.values).filter_map(|(metric, value)| {
            let MeanValue { of, infinite, .. } = (*value)?;
            let without = if infinite > 0 { format!(" ({infinite} infinite)") } else { String::new() };
            (of < self.measured).then(|| format!("{} of {of}{without}", metric.name()))
        });
        let count = with_count.then(|| format!("of {}", self.measured));
        let failed = (self.failed > 0).then(|| format!("{} failed", self.failed));
        count.into_iter().chain(fewer).chain(failed).collect::<Vec<_>>().join(", ")
    }
}

fn cell(metric: Metric, value: Option<f64>) -> String {
    value.map_or(String::new(), |value| format!("{value:.*}", metric.decimals()))
}

/// A Markdown table whose columns stand in line; the last one is left out if it is empty.
fn grid(mut head: Vec<String>, mut lines: Vec<Vec<String>>) -> String {
    let noted = lines.iter().any(|line| line.last().is_some_and(|note| !note.is_empty()));
    if !noted {
        head.pop();
        lines.iter_mut().for_each(|line| _ = line.pop());
    }
    let escape = |cell: &String| cell.replace('|', "\\|").replace('\n', " ");
    let lines: Vec<Vec<String>> =
        [head].iter().chain(&lines).map(|line| line.iter().map(escape).collect()).collect();
    let columns = lines[0].len();
    let width =
        |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0).max(3);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for (index, line) in lines.iter().enumerate() {
        for (column, (cell, width)) in line.iter().zip(&widths).enumerate() {
            // Notes may be long in one line and empty in the others.
            let width = if noted && column + 1 == columns { 0 } else { *width };
            let _ = write!(text, "| {cell:<width$} ");
        }
        text += "|\n";
        if index == 0 {
            widths.iter().for_each(|width| text += &format!("|{}", "-".repeat(width.min(&40) + 2)));
            text += "|\n";
        }
    }
    text
}
