//! WebDataset shards: tar files whose members of one sample follow each other and share the name before the
//! first dot. A shard is gone through once, from header to header; pictures are then read by position.

use super::error::DataError;
use super::sources::{CaptionPlace, Captions, Entry, Place, is_picture};
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

/// Members fill whole blocks of this many bytes.
const BLOCK: u64 = 512;

/// A sample in the making.
#[derive(Default)]
struct Sample {
    key: String,
    picture: Option<(Place, u64)>,
    captions: Option<CaptionPlace>,
}

impl Sample {
    fn finish(self, shard: &Path, entries: &mut Vec<Entry>, left_out: &mut Vec<String>) {
        match self.picture {
            Some((picture, file_bytes)) => {
                let captions = self.captions.unwrap_or(CaptionPlace::Given(Captions::default()));
                entries.push(Entry { picture, captions, file_bytes });
            }
            None if self.key.is_empty() => {}
            None => left_out.push(format!("{}: {}: has no picture", shard.display(), self.key)),
        }
    }
}

/// The entries of a shard, in its order, and the samples without a picture.
pub(super) fn index(path: &Path) -> Result<(Vec<Entry>, Vec<String>), DataError> {
    let fail = |source| DataError::Folder { folder: path.to_path_buf(), source };
    let file = File::open(path).map_err(fail)?;
    let whole = file.metadata().map_err(fail)?.len();
    let shard: Arc<Path> = path.into();
    let (mut entries, mut left_out) = (Vec::new(), Vec::new());
    let mut sample = Sample::default();
    let mut last = "its start".to_string();
    let damaged = |reason: String, last: &str| DataError::Damaged {
        file: path.to_path_buf(),
        reason: format!("{reason}, behind {last}"),
    };
    let mut archive = tar::Archive::new(file);
    for member in archive.entries_with_seek().map_err(fail)? {
        let member = member.map_err(|error| damaged(error.to_string(), &last))?;
        let name = String::from_utf8_lossy(&member.path_bytes()).into_owned();
        let (offset, length) = (member.raw_file_position(), member.size());
        // Going on from header to header does not notice that bytes are missing at the end.
        if length.checked_next_multiple_of(BLOCK).is_none_or(|padded| offset.saturating_add(padded) > whole) {
            return Err(damaged(format!("{name} is not whole"), &last));
        }
        last.clone_from(&name);
        let (folder, file_name) = name.rsplit_once('/').unwrap_or(("", &name));
        if !member.header().entry_type().is_file() || file_name.starts_with('.') {
            continue;
        }
        let (stem, suffix) = file_name.split_once('.').unwrap_or((file_name, ""));
        let key = format!("{folder}/{stem}");
        if key != sample.key {
            std::mem::replace(&mut sample, Sample { key, ..Sample::default() }).finish(
                path,
                &mut entries,
                &mut left_out,
            );
        }
        let place = Place::Member { shard: shard.clone(), name: name.as_str().into(), offset, length };
        match suffix.to_lowercase().as_str() {
            "txt" => sample.captions = Some(CaptionPlace::Text(place)),
            // A text of its own counts more than what stands among other things.
            "json" => {
                sample.captions.get_or_insert(CaptionPlace::Json(place));
            }
            suffix if !suffix.contains('.') && is_picture(Path::new(file_name)) => {
                sample.picture.get_or_insert((place, length));
            }
            _ => {}
        }
    }
    sample.finish(path, &mut entries, &mut left_out);
    Ok((entries, left_out))
}
