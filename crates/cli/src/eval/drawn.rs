//! Which contact sheets in the output's folder are of this evaluation: no other file is ever replaced or removed.
//!
//! `sheets.jsonl` beside the ledger, which keeps other runs out: the name of a sheet a line, written before the sheet.

use super::sheet::SHEETS;
use crate::outputs;
use anyhow::{Context, Result, ensure};
use diffbir_imaging::{Format, encode_rgb};
use diffbir_metrics::Picture;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The file's name.
const NAME: &str = "sheets.jsonl";

/// The sheets of an evaluation.
pub struct Drawn {
    output: PathBuf,
    names: BTreeSet<String>,
    /// Whether tables may still tell of an earlier run.
    has_tables: bool,
}

impl Drawn {
    /// Whether a folder has sheets of an evaluation.
    pub fn is_in(output: &Path) -> bool {
        output.join(NAME).is_file()
    }

    /// Those of the folder.
    pub fn open(output: &Path) -> Result<Self> {
        let path = output.join(NAME);
        let text = match std::fs::read_to_string(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("{}: cannot be read", path.display()));
            }
            text => text.unwrap_or_default(),
        };
        let names = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        Ok(Self { output: output.to_path_buf(), names, has_tables: true })
    }

    /// Whether the sheet of a picture is there.
    pub fn is_there(&self, key: &Path) -> bool {
        let name = name_of(key);
        self.names.contains(&name) && self.place(&name).is_file()
    }

    /// Removes the sheets of pictures that are not among `present`, and those of `outdated` ones.
    pub fn tidy<'a>(
        &mut self,
        present: impl Iterator<Item = &'a Path>,
        outdated: impl Iterator<Item = &'a Path>,
    ) -> Result<()> {
        let mut kept: BTreeSet<String> = present.map(name_of).collect();
        outdated.for_each(|key| _ = kept.remove(&name_of(key)));
        let (kept, gone) = std::mem::take(&mut self.names).into_iter().partition(|name| kept.contains(name));
        self.names = kept;
        let gone: BTreeSet<String> = gone;
        if gone.is_empty() {
            return Ok(());
        }
        gone.iter().try_for_each(|name| outputs::remove(&self.place(name)))?;
        self.write()
    }

    /// Writes the sheet of a picture.
    pub fn draw(&mut self, key: &Path, sheet: &Picture) -> Result<()> {
        let name = name_of(key);
        let path = self.place(&name);
        ensure!(
            self.names.contains(&name) || path.symlink_metadata().is_err(),
            "{}: is there and is no sheet of this evaluation: move it away, or choose another --output",
            path.display()
        );
        if std::mem::take(&mut self.has_tables) {
            // Until there are new ones: a run that is stopped leaves no sheet beside numbers that it does not show.
            for table in super::TABLES {
                outputs::remove(&self.output.join(table))?;
            }
        }
        if self.names.insert(name.clone()) {
            self.write()?;
        }
        let size = (sheet.width_px, sheet.height_px);
        let written = outputs::write(&path, &encode_rgb(size, sheet.rgb.clone(), Format::Png, None)?);
        if written.is_err() && self.names.remove(&name) {
            self.write()?;
        }
        written
    }

    fn place(&self, name: &str) -> PathBuf {
        self.output.join(SHEETS).join(name)
    }

    fn write(&self) -> Result<()> {
        let lines: Result<Vec<String>, _> = self.names.iter().map(serde_json::to_string).collect();
        let text: String = lines?.into_iter().map(|line| line + "\n").collect();
        outputs::write(&self.output.join(NAME), text.as_bytes())
    }
}

/// The name of the picture and `.png`, below the folder of sheets.
fn name_of(key: &Path) -> String {
    let mut name = OsString::from(key.file_name().unwrap_or_default());
    name.push(".png");
    key.with_file_name(name).to_string_lossy().into_owned()
}
