//! What was measured before, so that a run that was stopped goes on.
//!
//! `results.jsonl` in the output's folder: a line of the settings, then a line for each picture.

use super::measured::Measured;
use crate::outputs;
use anyhow::{Context, Result, bail, ensure};
use serde_json::{Map, Value};
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

/// The file's name.
pub const NAME: &str = "results.jsonl";

/// The file, and what stood in it.
pub struct Ledger {
    file: Option<(PathBuf, File)>,
    /// By picture what was found last: a sheet beside it shows that.
    known: HashMap<String, Measured>,
}

impl Ledger {
    /// Goes on with the file in the folder, or begins it; without a folder nothing is kept.
    ///
    /// # Errors
    /// When the file was made with other settings, unless it is to be begun anew.
    pub fn open(folder: Option<&Path>, settings: &Map<String, Value>, anew: bool) -> Result<Self> {
        let mut known = HashMap::new();
        let Some(path) = folder.map(|folder| folder.join(NAME)) else {
            return Ok(Self { file: None, known });
        };
        let shown = path.display();
        // Held while the file may be replaced.
        let before =
            OpenOptions::new().append(true).open(&path).ok().map(|file| locked(file, &path)).transpose()?;
        let text = match std::fs::read_to_string(&path) {
            Ok(text) if !anew => text,
            Err(error) if error.kind() != std::io::ErrorKind::NotFound && !anew => {
                return Err(error)
                    .with_context(|| format!("{shown}: cannot be read; --restart begins it anew"));
            }
            _ => String::new(),
        };
        let mut whole = String::new();
        // A line without its end is what a run that was killed left.
        let mut lines = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        if let Some(first) = lines.next() {
            let found: Map<String, Value> = serde_json::from_str(first).with_context(|| {
                format!("{shown}: is not a record of an evaluation: choose another --output")
            })?;
            differences(&found, settings).with_context(|| shown.to_string())?;
        }
        whole += &(serde_json::to_string(settings)? + "\n");
        for line in lines {
            let measured: Measured = serde_json::from_str(line)
                .with_context(|| format!("{shown}: is damaged; --restart measures anew"))?;
            whole += line;
            known.insert(measured.picture.clone(), measured);
        }
        if whole != text {
            outputs::write(&path, whole.as_bytes())?;
        }
        let file = OpenOptions::new().append(true).open(&path);
        let file = file.with_context(|| format!("{shown}: cannot be written"))?;
        drop(before);
        Ok(Self { file: Some((path.clone(), locked(file, &path)?)), known })
    }

    /// Whether what is added is kept.
    pub fn is_kept(&self) -> bool {
        self.file.is_some()
    }

    /// What is known of a picture whose files are still the same.
    pub fn take(&mut self, picture: &str, stamp: &str) -> Option<Measured> {
        self.known.remove(picture).filter(|known| known.stamp == stamp)
    }

    /// Keeps what was found, unless something failed that may not fail the next time.
    pub fn add(&mut self, measured: &Measured) -> Result<()> {
        let Some((path, file)) = self.file.as_mut().filter(|_| measured.is_whole()) else { return Ok(()) };
        let line = line(measured)?;
        file.write_all(line.as_bytes()).with_context(|| format!("{}: cannot be written", path.display()))
    }
}

/// A picture's line. Numbers stand in it as text, which is read to the last bit; serde_json reads its own to the last
/// but one.
fn line(measured: &Measured) -> Result<String> {
    fn as_text(value: &mut Value) {
        match value {
            Value::Number(number) => *value = number.to_string().into(),
            Value::Array(values) => values.iter_mut().for_each(as_text),
            Value::Object(values) => values.values_mut().for_each(as_text),
            _ => {}
        }
    }
    let mut value = serde_json::to_value(measured)?;
    as_text(&mut value);
    Ok(value.to_string() + "\n")
}

/// The file, as long as no other run has it.
fn locked(file: File, path: &Path) -> Result<File> {
    ensure!(
        file.try_lock().is_ok(),
        "{}: another evaluation is writing it: wait for its end",
        path.display()
    );
    Ok(file)
}

/// An error that names what was set otherwise.
fn differences(found: &Map<String, Value>, settings: &Map<String, Value>) -> Result<()> {
    let keys = found.keys().chain(settings.keys().filter(|key| !found.contains_key(*key)));
    let differ: Vec<String> = keys
        .filter(|key| found.get(*key) != settings.get(*key))
        .map(|key| {
            let told = |value: Option<&Value>| value.map_or("none".to_string(), Value::to_string);
            format!("{key} {}, now {}", told(found.get(key)), told(settings.get(key)))
        })
        .collect();
    if differ.is_empty() {
        return Ok(());
    }
    bail!("holds what was measured otherwise ({}): choose another --output, or --restart", differ.join("; "))
}

#[cfg(test)]
mod tests {
    use super::super::measured::{Number, Row};
    use super::*;

    #[test]
    fn numbers_are_read_to_the_last_bit() {
        // The sine's digits fill the mantissa; serde_json misreads some of these.
        for i in 1..2000 {
            let value = Number((f64::from(i)).sin() * 40.0);
            let row = Row { values: [("psnr".to_string(), value)].into(), ..Row::default() };
            let spread = Some(Number(value.0 / 3.0));
            let measured =
                Measured { picture: "a".into(), stamp: "1@2".into(), rows: vec![row], spread, apart: None };
            assert_eq!(serde_json::from_str::<Measured>(&line(&measured).unwrap()).unwrap(), measured);
        }
    }
}
