//! What speaks against weights being those that their authors published.

use anyhow::{Context, Result};
use diffbir::catalog::{self, Set, Store, Task, sha256_of};
use diffbir::model::Stages;
use std::ops::ControlFlow;
use std::path::Path;

/// SHA-256 of a file; that of one that has not changed since is not computed again.
pub fn hash_of(path: &Path) -> Result<String> {
    let mut watch = |_| ControlFlow::Continue(());
    let hash = match Store::of_user() {
        Some(store) => store.hash_of(path, &mut watch),
        None => sha256_of(path, &mut watch),
    };
    hash.with_context(|| format!("{}: cannot be read", path.display()))
}

/// A warning if a file is called like one of the catalog and is another one.
pub fn of_file(path: &Path) -> Result<Option<String>> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let Some(file) = catalog::file(name) else { return Ok(None) };
    let Some(published) = file.hash_at(path).filter(|_| path.is_file()) else { return Ok(None) };
    let found = hash_of(path)?;
    Ok((found != published).then(|| {
        format!(
            "warning: {}: is not the file that its authors published (SHA-256 {found}, not {published}), so results \
             may be others: `diffbir models pull {name}` after removing it gets theirs",
            path.display()
        )
    }))
}

/// What a file lacks that its network computes for itself, in words.
pub fn of_lacking(lacking: &[String]) -> Option<String> {
    let first = lacking.first()?;
    let count = lacking.len();
    Some(format!("lacks {count} tensors that its file should hold, first `{first}`: they are computed"))
}

/// A line for each file of an official model that is another one, or that holds more than it should, and one for those
/// of which no hash is known.
pub fn of_set(set: &Set, task: Task, stages: Stages, store: &Store) -> Result<Vec<String>> {
    let (mut doubts, mut unknown) = (Vec::new(), Vec::new());
    for file in set.files_for(task, stages) {
        let Some(path) = store.find(file) else { continue };
        match file.hash_at(&path) {
            Some(_) => doubts.extend(of_file(&path)?),
            // Under its own name, or as what it is.
            None if path.ends_with(file.name) => unknown.push(file.name.to_string()),
            None => unknown.push(path.display().to_string()),
        }
        if path.is_file() {
            let strangers = catalog::strangers(file, &path)?;
            if let Some(first) = strangers.first() {
                let count = strangers.len();
                let shown = path.display();
                doubts.push(format!(
                    "warning: {shown}: holds {count} tensors of no known place, such as `{first}`: left out"
                ));
            }
        }
    }
    if !unknown.is_empty() {
        let names = unknown.join(", ");
        doubts.push(format!("{names}: no hash is known; names and shapes of all tensors are right"));
    }
    Ok(doubts)
}
