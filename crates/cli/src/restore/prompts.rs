//! `prompt.csv`: which prompts each picture was restored with, as the reference keeps it (reference 3.9).

use anyhow::{Context, Result};
use diffbir::Options;
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};

const NAME: &str = "prompt.csv";
const COLUMNS: [&str; 3] = ["file_name", "pos_prompt", "neg_prompt"];

/// Appends the row of the picture of this name, after a row of titles where the file is new.
pub fn append(folder: &Option<PathBuf>, name: &str, options: &Options) -> Result<()> {
    let path = folder.as_deref().unwrap_or(Path::new("")).join(NAME);
    let failed = || format!("{}: cannot be written", path.display());
    let is_new = !path.exists();
    let file = OpenOptions::new().create(true).append(true).open(&path).with_context(failed)?;
    let mut rows = csv::Writer::from_writer(file);
    if is_new {
        rows.write_record(COLUMNS).with_context(failed)?;
    }
    rows.write_record([name, &options.prompt, &options.negative_prompt]).with_context(failed)?;
    rows.flush().with_context(failed)
}
