//! Where training pictures come from: folders, lists and shards become one list of entries, in an order that is
//! the same on every machine.

use super::error::DataError;
use super::{shard, table};
use diffbir_imaging::EXTENSIONS;
use rayon::prelude::*;
use serde_json::Value;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What some editors put in front of a text.
const BOM: char = '\u{feff}';

/// Bytes somewhere on the disk.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Place {
    /// A whole file.
    File(PathBuf),
    /// A member of a shard.
    Member {
        /// The shard.
        shard: Arc<Path>,
        /// Its name in there.
        name: Box<str>,
        /// Where its bytes begin.
        offset: u64,
        /// How many there are.
        length: u64,
    },
}

impl Place {
    /// The name in messages.
    pub fn name(&self) -> String {
        match self {
            Self::File(file) => file.display().to_string(),
            Self::Member { shard, name, .. } => format!("{}: {name}", shard.display()),
        }
    }

    /// The bytes. A shard is opened anew each time: there may be more shards than a process may hold open.
    pub fn read(&self) -> io::Result<Vec<u8>> {
        match self {
            Self::File(file) => std::fs::read(file),
            Self::Member { shard, offset, length, .. } => {
                let mut file = File::open(shard)?;
                file.seek(SeekFrom::Start(*offset))?;
                let mut bytes = Vec::new();
                file.take(*length).read_to_end(&mut bytes)?;
                Ok(bytes)
            }
        }
    }
}

/// The words for a picture.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Captions {
    /// The usual one.
    pub short: Option<Box<str>>,
    /// A longer one.
    pub long: Option<Box<str>>,
}

/// Where they are.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum CaptionPlace {
    /// In the list.
    Given(Captions),
    /// A text.
    Text(Place),
    /// A JSON object.
    Json(Place),
}

/// A picture to be.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    pub picture: Place,
    pub captions: CaptionPlace,
    /// Size of the picture's file, bytes.
    pub file_bytes: u64,
}

impl Entry {
    /// The words; an error names the file that cannot be read.
    pub fn captions(&self, columns: &Columns) -> Result<Captions, String> {
        let read = |place: &Place| {
            let bytes = place.read().map_err(|error| format!("{}: {error}", place.name()))?;
            String::from_utf8(bytes).map_err(|_| format!("{}: is no text in UTF-8", place.name()))
        };
        match &self.captions {
            CaptionPlace::Given(captions) => Ok(captions.clone()),
            CaptionPlace::Text(place) => {
                let text = read(place)?;
                Ok(Captions { short: Some(text.trim_start_matches(BOM).trim().into()), long: None })
            }
            CaptionPlace::Json(place) => {
                let object: Value = serde_json::from_str(&read(place)?)
                    .map_err(|error| format!("{}: is no JSON: {error}", place.name()))?;
                Ok(columns.captions(&object))
            }
        }
    }
}

/// Names of the columns of lists in JSON Lines and Parquet, and of the fields of captions in JSON. Defaults are those of the
/// reference's recipe for v2.1.
#[derive(Clone, Debug, PartialEq)]
pub struct Columns {
    /// The picture's path, relative to the list's folder.
    pub picture: String,
    /// Names of the usual caption: the first one that there is counts.
    pub short: Vec<String>,
    /// Names of a longer one.
    pub long: Vec<String>,
}

impl Default for Columns {
    fn default() -> Self {
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect();
        Self {
            picture: "image_path".into(),
            short: names(&["llava_short", "caption", "text"]),
            long: names(&["llava_long", "long_caption"]),
        }
    }
}

impl Columns {
    pub(super) fn names(&self) -> impl Iterator<Item = &String> {
        [&self.picture].into_iter().chain(&self.short).chain(&self.long)
    }

    fn captions(&self, object: &Value) -> Captions {
        let first = |names: &[String]| {
            names.iter().find_map(|name| object.get(name)?.as_str()).map(|text| text.trim().into())
        };
        Captions { short: first(&self.short), long: first(&self.long) }
    }
}

/// All entries of all sources, and what was left out of them.
pub(super) fn entries(paths: &[PathBuf], columns: &Columns) -> Result<(Vec<Entry>, Vec<String>), DataError> {
    let (mut entries, mut left_out) = (Vec::new(), Vec::new());
    let files: Vec<PathBuf> = paths.iter().map(|path| expand(path)).collect::<Result<Vec<_>, _>>()?.concat();
    let found: Vec<_> = files.par_iter().map(|path| of_source(path, columns)).collect();
    for (path, found) in files.iter().zip(found) {
        let (some, without) = found?;
        if some.is_empty() && without.is_empty() {
            left_out.push(format!("{}: holds no picture", path.display()));
        }
        entries.extend(some);
        left_out.extend(without);
    }
    Ok((entries, left_out))
}

fn of_source(path: &Path, columns: &Columns) -> Result<(Vec<Entry>, Vec<String>), DataError> {
    let fail = |source| DataError::Folder { folder: path.to_path_buf(), source };
    if std::fs::metadata(path).map_err(fail)?.is_dir() {
        // One that cannot be looked at is told of when it is its turn, as any that cannot be read.
        let entry = |file: PathBuf| {
            of_file(file.clone()).unwrap_or_else(|_| Entry {
                picture: Place::File(file),
                captions: CaptionPlace::Given(Captions::default()),
                file_bytes: 0,
            })
        };
        return Ok((pictures_in(path)?.into_par_iter().map(entry).collect(), Vec::new()));
    }
    match extension(path).as_str() {
        "tar" => shard::index(path),
        "txt" => Ok((text_list(path)?, Vec::new())),
        "jsonl" => Ok((json_lines(path, columns)?, Vec::new())),
        "parquet" => Ok((table_rows(path, columns)?, Vec::new())),
        _ if is_picture(path) => Ok((vec![of_file(path.to_path_buf()).map_err(fail)?], Vec::new())),
        _ => Err(DataError::Kind { file: path.to_path_buf() }),
    }
}

/// A picture's file, with the text of the same name beside it as its caption.
fn of_file(file: PathBuf) -> io::Result<Entry> {
    let found = std::fs::metadata(&file)?;
    if !found.is_file() {
        return Err(io::Error::other("is no file"));
    }
    let text = file.with_extension("txt");
    let captions = match text.is_file() {
        true => CaptionPlace::Text(Place::File(text)),
        false => CaptionPlace::Given(Captions::default()),
    };
    Ok(Entry { picture: Place::File(file), captions, file_bytes: found.len() })
}

/// One path a line, then, if wanted, a tab and a caption.
fn text_list(list: &Path) -> Result<Vec<Entry>, DataError> {
    lines(list, |text| {
        let (path, caption) = match text.split_once('\t') {
            Some((path, caption)) => (path, Some(caption.trim())),
            None => (text, None),
        };
        let mut entry = of_line(list, path.trim())?;
        if let Some(caption) = caption {
            entry.captions = CaptionPlace::Given(Captions { short: Some(caption.into()), long: None });
        }
        Ok(entry)
    })
}

/// One JSON object a line.
fn json_lines(list: &Path, columns: &Columns) -> Result<Vec<Entry>, DataError> {
    lines(list, |text| {
        let object = serde_json::from_str(text).map_err(|error| format!("is no JSON: {error}"))?;
        of_object(list, &object, columns)
    })
}

/// A table in Parquet; its rows are numbered as lines.
fn table_rows(list: &Path, columns: &Columns) -> Result<Vec<Entry>, DataError> {
    let rows = table::rows(list, columns)?;
    numbered(list, rows.iter().enumerate().collect(), |row| of_object(list, row, columns))
}

fn of_object(list: &Path, object: &Value, columns: &Columns) -> Result<Entry, String> {
    let path = object
        .get(&columns.picture)
        .and_then(Value::as_str)
        .ok_or_else(|| format!("has no text under \"{}\", the column of pictures", columns.picture))?;
    let mut entry = of_line(list, path)?;
    let captions = columns.captions(object);
    if captions != Captions::default() {
        entry.captions = CaptionPlace::Given(captions);
    }
    Ok(entry)
}

fn of_line(list: &Path, path: &str) -> Result<Entry, String> {
    let file = list.parent().unwrap_or(Path::new("")).join(path);
    of_file(file.clone()).map_err(|error| format!("{}: {error}", file.display()))
}

/// The entries of the lines that are not blank.
fn lines(list: &Path, entry: impl Fn(&str) -> Result<Entry, String> + Sync) -> Result<Vec<Entry>, DataError> {
    let text = std::fs::read_to_string(list)
        .map_err(|source| DataError::Folder { folder: list.to_path_buf(), source })?;
    let lines = text.trim_start_matches(BOM).lines().enumerate();
    numbered(list, lines.filter(|(_, text)| !text.trim().is_empty()).collect(), entry)
}

/// The entries of numbered lines. Asking the disk for millions of files takes long: all threads do it. The first wrong
/// line counts.
fn numbered<T: Sync + ?Sized>(
    list: &Path,
    lines: Vec<(usize, &T)>,
    entry: impl Fn(&T) -> Result<Entry, String> + Sync,
) -> Result<Vec<Entry>, DataError> {
    let of_line = |&(index, line): &(usize, &T)| {
        entry(line).map_err(|reason| DataError::Line { list: list.to_path_buf(), line: index + 1, reason })
    };
    let entries: Vec<_> = lines.par_iter().map(of_line).collect();
    entries.into_iter().collect()
}

/// What a path stands for: itself where it is there, otherwise the files that fit it as a pattern with `*`, `?`,
/// `[ab]`, `{a,b}` and `{000..009}`.
fn expand(path: &Path) -> Result<Vec<PathBuf>, DataError> {
    let text = path.to_string_lossy();
    if path.exists() || !text.contains(['*', '?', '[', '{']) {
        return Ok(vec![path.to_path_buf()]);
    }
    let mut files = Vec::new();
    for pattern in braces(&text) {
        if pattern.contains(['*', '?', '[']) {
            let found = glob::glob(&pattern).into_iter().flatten().filter_map(Result::ok);
            files.extend(found);
        } else {
            // One that is missing from a range is told when it is opened.
            files.push(PathBuf::from(pattern));
        }
    }
    match files.is_empty() {
        true => Err(DataError::Pattern { pattern: path.to_path_buf() }),
        false => Ok(files),
    }
}

/// The texts that a text with `{a,b}` and `{000..009}` stands for.
fn braces(text: &str) -> Vec<String> {
    let Some((before, (inner, after))) =
        text.split_once('{').and_then(|(before, rest)| Some((before, rest.split_once('}')?)))
    else {
        return vec![text.to_string()];
    };
    let range = || {
        let (first, last) = inner.split_once("..")?;
        let (low, high) = (first.parse::<u64>().ok()?, last.parse::<u64>().ok()?);
        Some((low..=high).map(|number| format!("{number:0width$}", width = first.len())).collect())
    };
    let parts: Vec<String> = range().unwrap_or_else(|| inner.split(',').map(String::from).collect());
    let rest = braces(after);
    parts.iter().flat_map(|part| rest.iter().map(move |rest| format!("{before}{part}{rest}"))).collect()
}

fn extension(path: &Path) -> String {
    path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_lowercase()
}

/// Names of pictures that are not read by every build, or by none; whoever trains hears why.
const NOT_READ: [&str; 3] = ["heic", "heif", "avif"];

/// Whether a name is a picture's.
pub(super) fn is_picture(path: &Path) -> bool {
    let extension = extension(path);
    EXTENSIONS.contains(&extension.as_str()) || NOT_READ.contains(&extension.as_str())
}

/// The pictures in a folder and its sub-folders, by path: the order of a folder's entries differs between
/// machines. Hidden files and folders do not count.
pub fn pictures_in(folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    let is_hidden = |entry: &walkdir::DirEntry| {
        entry.depth() > 0 && entry.file_name().as_encoded_bytes().starts_with(b".")
    };
    let mut files = Vec::new();
    for entry in walkdir::WalkDir::new(folder).follow_links(true).into_iter().filter_entry(|e| !is_hidden(e))
    {
        let entry = match entry {
            Ok(entry) => entry,
            Err(error) => {
                let path = error.path().unwrap_or(folder).to_path_buf();
                // A link to nowhere: a picture that cannot be read.
                if error.io_error().is_none() || path.is_dir() || !is_picture(&path) {
                    let leads_back = || io::Error::other("a link leads back to a folder above");
                    let source = error.into_io_error().unwrap_or_else(leads_back);
                    return Err(DataError::Folder { folder: path, source });
                }
                files.push(path);
                continue;
            }
        };
        if !entry.file_type().is_dir() && is_picture(entry.path()) {
            files.push(entry.into_path());
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn braces_are_ranges_and_lists() {
        assert_eq!(braces("a-{08..11}.tar"), ["a-08.tar", "a-09.tar", "a-10.tar", "a-11.tar"]);
        assert_eq!(braces("{x,y}/{1..2}"), ["x/1", "x/2", "y/1", "y/2"]);
        assert_eq!(braces("plain"), ["plain"]);
        assert_eq!(braces("half{open"), ["half{open"]);
    }
}
