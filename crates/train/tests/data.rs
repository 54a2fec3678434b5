//! Where training pictures come from, and what a step sees.

use diffbir_imaging::{Format, encode_rgb};
use diffbir_train::data::{
    Augment, Batches, Crop, DataError, Example, ExampleConfig, LoadConfig, OpenConfig, Pictures,
};
use diffbir_train::degrade::{Recipe, preset};
use diffbir_train::run::Report;
use parquet::basic::Compression;
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;

const SIZE_PX: usize = 32;

/// A picture of 40 x 36 pixels that differs from those with another number.
fn png(number: usize) -> Vec<u8> {
    let rgb = (0..40 * 36)
        .flat_map(|i| {
            let (x, y) = (i % 40, i / 40);
            [x * 5 + number * 31, y * 5, (x / (3 + number) + y / 6) % 2 * 200].map(|v| v as u8)
        })
        .collect();
    encode_rgb((40, 36), rgb, Format::Png, None).unwrap()
}

fn write(file: PathBuf, bytes: impl AsRef<[u8]>) {
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(file, bytes).unwrap();
}

/// Six pictures in sub-folders, the even ones with captions.
fn folder(root: &Path) -> PathBuf {
    let folder = root.join("photos");
    for number in 0..6 {
        let stem = format!("{}/{number}", number / 3);
        write(folder.join(format!("{stem}.png")), png(number));
        if number % 2 == 0 {
            write(folder.join(format!("{stem}.txt")), format!("\u{feff}number {number}\n"));
        }
    }
    folder
}

fn shard(file: &Path, members: &[(String, Vec<u8>)]) {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, bytes) in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, bytes.as_slice()).unwrap();
    }
    write(file.to_path_buf(), builder.into_inner().unwrap());
}

/// The same six pictures as members of a shard.
fn members(numbers: std::ops::Range<usize>) -> Vec<(String, Vec<u8>)> {
    let caption = |number: usize| match number {
        0 | 4 => vec![(format!("a/{number}.txt"), format!("number {number}").into_bytes())],
        2 => vec![("a/2.json".to_string(), br#"{"caption": "number 2", "url": 7}"#.to_vec())],
        _ => vec![],
    };
    numbers
        .flat_map(|number| {
            let mut all = caption(number);
            // A longer suffix is another kind of data, as of a mask.
            all.push((format!("a/{number}.mask.png"), b"no picture".to_vec()));
            all.push((format!("a/{number}.png"), png(number)));
            all
        })
        .collect()
}

fn open_with(paths: &[PathBuf], config: &OpenConfig) -> (Result<Pictures, DataError>, Vec<String>) {
    let mut told = Vec::new();
    let pictures = Pictures::open(paths, config, &mut |report| {
        if let Report::LeftOut { why } = report {
            told.push(why);
        }
    });
    (pictures, told)
}

fn config() -> OpenConfig {
    OpenConfig::new(Crop::Inside, SIZE_PX)
}

fn open(path: impl Into<PathBuf>) -> Pictures {
    let (pictures, told) = open_with(&[path.into()], &config());
    assert_eq!(told, Vec::<String>::new());
    pictures.unwrap()
}

fn error(path: &Path) -> String {
    open_with(&[path.to_path_buf()], &config()).0.err().expect("an error").to_string()
}

fn simple() -> ExampleConfig {
    let augment = Augment { mirror: true, flip: true, transpose: true };
    ExampleConfig { augment, ..ExampleConfig::new(preset("medium")) }
}

/// All that the reference's training of v2.1 has.
fn pooled() -> ExampleConfig {
    let config = ExampleConfig::new(preset("realesrgan"));
    ExampleConfig { by_batch: true, pool: 6, long_caption: 0.2, no_caption: 0.2, ..config }
}

fn load(workers: usize) -> LoadConfig {
    LoadConfig { seed: 11, batch: 2, workers: Some(workers) }
}

fn take(batches: &mut Batches, steps: usize) -> Vec<Vec<Example>> {
    (0..steps).map(|_| batches.next(&mut |_| {}).unwrap()).collect()
}

fn examples(pictures: &Pictures, config: &ExampleConfig, steps: usize) -> Vec<Vec<Example>> {
    take(&mut pictures.batches(config, &load(2), 0).unwrap(), steps)
}

#[test]
fn neither_threads_nor_memory_change_what_a_step_sees() {
    let root = TempDir::new().unwrap();
    let photos = folder(root.path());
    for config in [simple(), pooled()] {
        let pictures = open(&photos);
        let expected = examples(&pictures, &config, 6);
        assert_ne!(expected[0], expected[1]);
        for workers in [1, 7] {
            let mut batches = pictures.batches(&config, &load(workers), 0).unwrap();
            assert!(take(&mut batches, 6) == expected, "{workers} threads");
            assert_eq!(batches.step(), 6);
        }
        let none = OpenConfig { memory_bytes: 0, ..self::config() };
        let pictures = open_with(std::slice::from_ref(&photos), &none).0.unwrap();
        assert!(examples(&pictures, &config, 6) == expected, "nothing kept");
    }
}

#[test]
fn a_run_that_goes_on_sees_what_it_would_have_seen() {
    let root = TempDir::new().unwrap();
    let pictures = open(folder(root.path()));
    for config in [simple(), pooled()] {
        let whole = examples(&pictures, &config, 9);
        for first in 0..9 {
            let mut batches = pictures.batches(&config, &load(2), first as u64).unwrap();
            assert!(take(&mut batches, 9 - first) == whole[first..], "from step {first}");
        }
    }
}

#[test]
fn the_pool_mixes_batches() {
    let root = TempDir::new().unwrap();
    let pictures = open(folder(root.path()));
    let plain = examples(&pictures, &ExampleConfig { pool: 0, ..pooled() }, 12);
    let mixed = examples(&pictures, &pooled(), 12);
    assert!(mixed[..3] == plain[..3], "until it is full, batches pass");
    let origins = |batch: &[Example]| -> Vec<usize> {
        let of = |example| plain.iter().position(|batch| batch.contains(example)).expect("made before");
        batch.iter().map(of).collect()
    };
    let apart = mixed[3..].iter().filter(|batch| origins(batch)[0] != origins(batch)[1]).count();
    assert!(apart >= 3, "{apart}");
}

#[test]
fn all_sources_of_the_same_pictures_are_equal() {
    let root = TempDir::new().unwrap();
    let at = |name: &str| root.path().join(name);
    let photos = folder(root.path());
    let expected = examples(&open(&photos), &simple(), 6);
    let captions: Vec<_> = expected.iter().flatten().map(|example| example.caption.as_str()).collect();
    assert!(captions.contains(&"number 2") && captions.contains(&""), "{captions:?}");

    let names: Vec<String> = (0..6).map(|number| format!("photos/{}/{number}.png", number / 3)).collect();
    write(at("list.txt"), format!("\u{feff}{}\r\n", names.join("\n\n")));
    // With captions of its own; an empty one is one too.
    let with_captions = (0..6).map(|number| {
        let caption = if number % 2 == 0 { format!("number {number}") } else { String::new() };
        format!("{}\t{caption}", names[number])
    });
    write(at("captions.txt"), with_captions.collect::<Vec<_>>().join("\n"));
    let objects: Vec<String> = (0..6)
        .map(|number| match number % 2 {
            0 => format!(r#"{{"image_path": "{}", "caption": "number {number}"}}"#, names[number]),
            _ => format!(r#"{{"image_path": "{}"}}"#, names[number]),
        })
        .collect();
    write(at("list.jsonl"), objects.join("\n"));
    shard(&at("whole.tar"), &members(0..6));
    shard(&at("part-08.tar"), &members(0..2));
    shard(&at("part-09.tar"), &members(2..3));
    shard(&at("part-10.tar"), &members(3..6));
    for source in ["list.txt", "captions.txt", "list.jsonl", "whole.tar", "part-*.tar", "part-{08..10}.tar"] {
        assert!(examples(&open(at(source)), &simple(), 6) == expected, "{source}");
    }
    let table = include_bytes!("goldens/list.parquet");
    write(at("list.parquet"), table);
    // Those without a usual caption have a long one only.
    let captions = examples(&open(at("list.parquet")), &simple(), 6);
    for (own, expected) in captions.iter().flatten().zip(expected.iter().flatten()) {
        assert!(own.truth == expected.truth && own.degraded == expected.degraded);
        match expected.caption.as_str() {
            "" => assert!(own.caption.starts_with("long "), "{}", own.caption),
            caption => assert_eq!(own.caption, caption),
        }
    }
    let each: Vec<PathBuf> = names.iter().map(|name| at(name)).collect();
    let pictures = open_with(&each, &config()).0.unwrap();
    assert!(examples(&pictures, &simple(), 6) == expected, "one by one");
    assert!(pictures.name(5).ends_with("5.png"));
    assert_eq!(open(at("whole.tar")).name(5), format!("{}: a/5.png", at("whole.tar").display()));
}

#[test]
fn long_captions_and_none_come_by_their_chances() {
    let root = TempDir::new().unwrap();
    folder(root.path());
    let row = |number: usize| {
        format!(r#"{{"p": "photos/0/{number}.png", "s": "short {number}", "l": "long {number}"}}"#)
    };
    let list = root.path().join("list.jsonl");
    write(list.clone(), (0..3).map(row).collect::<Vec<_>>().join("\n"));
    let mut config = config();
    config.columns.picture = "p".into();
    config.columns.short = vec!["s".into()];
    config.columns.long = vec!["l".into()];
    let pictures = open_with(&[list], &config).0.unwrap();
    assert_eq!(pictures.captions(1), Ok(Some(["short 1", "long 1"].map(String::from))));
    for (long_caption, no_caption, start) in [(0.0, 0.0, "short "), (1.0, 0.0, "long "), (1.0, 1.0, "")] {
        let examples = examples(&pictures, &ExampleConfig { long_caption, no_caption, ..simple() }, 3);
        for Example { caption, .. } in examples.iter().flatten() {
            assert_eq!(caption.trim_end_matches(char::is_numeric), start);
        }
    }
}

#[test]
fn a_picture_that_cannot_be_used_is_told_once_and_replaced() {
    let root = TempDir::new().unwrap();
    let photos = folder(root.path());
    write(photos.join("0/broken.png"), &png(0)[..100]);
    write(photos.join("1/small.png"), encode_rgb((8, 8), vec![9; 192], Format::Png, None).unwrap());
    write(photos.join("1/4.txt"), b"\xff\xfe");
    let (pictures, told) = open_with(std::slice::from_ref(&photos), &config());
    let pictures = pictures.unwrap();
    let expected = ["4.txt: is no text", "broken.png: is damaged", "small.png: has 8 x 8 pixels"];
    let is_told = |told: &[String]| {
        told.len() == 3 && expected.iter().all(|part| told.iter().any(|why| why.contains(part)))
    };
    assert!(is_told(&told), "{told:?}");
    assert_eq!(pictures.len(), 8);
    assert!(pictures.picture(0).is_ok());
    let whole = examples(&pictures, &simple(), 12);
    // The same where it is found out on the way, by however many threads.
    for workers in [1, 5] {
        let large = OpenConfig { memory_bytes: 100_000, ..config() };
        let (pictures, told) =
            open_with(std::slice::from_ref(&photos), &OpenConfig { memory_bytes: 0, ..large });
        assert_eq!(told, Vec::<String>::new());
        let pictures = pictures.unwrap();
        let mut batches = pictures.batches(&simple(), &load(workers), 0).unwrap();
        let mut told = Vec::new();
        for expected in &whole {
            let batch = batches.next(&mut |report| {
                let Report::LeftOut { why } = report else { panic!() };
                told.push(why);
            });
            assert!(batch.unwrap() == *expected);
        }
        assert!(is_told(&told), "{told:?}");
    }
}

#[test]
fn errors_name_what_is_wrong() {
    let root = TempDir::new().unwrap();
    let at = |name: &str| root.path().join(name);
    let shown = |name: &str| at(name).display().to_string();
    let photos = folder(root.path());
    assert_eq!(error(&at("gone")), format!("{}: cannot be read", shown("gone")));
    assert_eq!(error(&at("gone*.tar")), format!("{}: fits no file", shown("gone*.tar")));
    write(at("notes.md"), "");
    assert!(error(&at("notes.md")).contains("notes.md: is no source of pictures"));
    write(at("list.txt"), "photos/0/0.png\n\nphotos/0/9.png\nphotos/0/8.png\n");
    let told = error(&at("list.txt"));
    assert!(
        told.starts_with(&format!("{}, line 3: {}: ", shown("list.txt"), shown("photos/0/9.png"))),
        "{told}"
    );
    write(at("folder.txt"), "photos/0\n");
    assert!(error(&at("folder.txt")).ends_with("photos/0: is no file"));
    write(at("list.jsonl"), "{\"image_path\": \"photos/0/0.png\"}\n{\"file\": 3}\n");
    assert!(error(&at("list.jsonl")).contains("line 2: has no text under \"image_path\""));
    write(at("list.jsonl"), "no json\n");
    assert!(error(&at("list.jsonl")).contains("list.jsonl, line 1: is no JSON"));
    let table = include_bytes!("goldens/list.parquet");
    write(at("list.parquet"), &table[..900]);
    assert!(error(&at("list.parquet")).contains("list.parquet: is damaged or cut off"));
    write(at("list.parquet"), table);
    std::fs::remove_file(photos.join("1/4.png")).unwrap();
    assert!(error(&at("list.parquet")).contains("list.parquet, line 5: "));
    write(photos.join("1/4.png"), png(4));
    let mut columns = config();
    columns.columns.picture = "path".into();
    let told = open_with(&[at("list.parquet")], &columns).0.err().expect("an error").to_string();
    let expected = "has no column \"path\" of pictures, but image_path, width, llava_long, llava_short";
    assert!(told.ends_with(expected), "{told}");
    for empty in ["list.txt", "list.jsonl"] {
        write(at(empty), "\n");
        assert!(error(&at(empty)).contains("no picture of at least 32 x 32 pixels"));
    }

    shard(&at("whole.tar"), &members(0..3));
    let whole = std::fs::read(at("whole.tar")).unwrap();
    for (length, part) in [
        (whole.len() - 1500, "a/2.png is not whole, behind a/2.mask.png"),
        (700, "a/0.txt is not whole, behind its start"),
        (1200, "behind a/0.txt"),
    ] {
        write(at("cut.tar"), &whole[..length]);
        let told = error(&at("cut.tar"));
        assert!(told.contains("cut.tar: is damaged or cut off") && told.contains(part), "{told}");
    }
    let mut damaged = whole.clone();
    // In the header of the second member.
    damaged[1024 + 100..1024 + 120].fill(b'x');
    write(at("damaged.tar"), damaged);
    assert!(error(&at("damaged.tar")).contains("behind a/0.txt"), "{}", error(&at("damaged.tar")));
    shard(&at("texts.tar"), &[("a.txt".into(), b"a".to_vec())]);
    let (pictures, told) = open_with(&[at("texts.tar"), photos.clone()], &config());
    assert!(pictures.is_ok() && told[0].ends_with("texts.tar: /a: has no picture"), "{told:?}");

    let pictures = open(&photos);
    let refused = |config: &ExampleConfig, batch: usize| {
        let load = LoadConfig { batch, ..load(1) };
        pictures.batches(config, &load, 0).err().expect("an error").to_string()
    };
    assert!(refused(&simple(), 7).starts_with("there are 6 pictures for a batch of 7"));
    assert_eq!(refused(&pooled(), 4), "a pool of 6 pairs is no multiple of a batch of 4");

    // Links to nowhere and back.
    #[cfg(unix)]
    {
        let links = at("links");
        write(links.join("a.png"), png(0));
        std::os::unix::fs::symlink(at("gone"), links.join("b.png")).unwrap();
        let (pictures, told) = open_with(std::slice::from_ref(&links), &config());
        assert!(pictures.is_ok_and(|pictures| pictures.len() == 2));
        assert!(told.len() == 1 && told[0].contains("b.png: cannot be read"), "{told:?}");
        std::os::unix::fs::symlink(&links, links.join("again")).unwrap();
        assert_eq!(error(&links), format!("{}: cannot be read", links.join("again").display()));
    }

    // What is found out on the way.
    let broken = at("broken");
    (0..3).for_each(|number| write(broken.join(format!("{number}.png")), b"no picture"));
    let large = OpenConfig { memory_bytes: 0, ..config() };
    let pictures = open_with(&[broken], &large).0.unwrap();
    let mut batches = pictures.batches(&simple(), &load(2), 0).unwrap();
    let told = batches.next(&mut |_| {}).unwrap_err().to_string();
    assert!(told.contains("broken: no picture of at least 32 x 32 pixels can be read"), "{told}");
}

#[test]
fn pictures_of_a_batch_share_choices_and_truths_are_sharpened() {
    let root = TempDir::new().unwrap();
    let photos = folder(root.path());
    let recipe = Recipe::from_toml(
        "[chain]\nsteps = [{ resize = { scale = [0.2, 1], down = 1, filters = [\"area\"] } }]",
    )
    .unwrap();
    let sizes = |by_batch: bool| {
        let config = ExampleConfig { by_batch, ..ExampleConfig::new(recipe.clone()) };
        let batches = examples(&open(&photos), &config, 5);
        batches.iter().filter(|batch| batch[0].degraded.size() == batch[1].degraded.size()).count()
    };
    assert_eq!(sizes(true), 5);
    assert!(sizes(false) < 5);
    let truths = |text: &str| {
        let recipe = Recipe::from_toml(&format!("[chain]\n{text}steps = [\"round\"]")).unwrap();
        let batches = examples(&open(&photos), &ExampleConfig::new(recipe), 1);
        assert_ne!(batches[0][0].truth, batches[0][1].truth);
        batches[0][0].truth.clone()
    };
    assert_ne!(truths("sharpen = true\n"), truths(""));
}

/// A table of paths.
fn table(paths: &[&str], compression: Compression) -> Vec<u8> {
    let schema = parse_message_type("message list { required binary image_path (UTF8); }").unwrap();
    let properties = WriterProperties::builder().set_compression(compression).build();
    let mut writer = SerializedFileWriter::new(Vec::new(), Arc::new(schema), Arc::new(properties)).unwrap();
    let mut rows = writer.next_row_group().unwrap();
    let mut column = rows.next_column().unwrap().unwrap();
    let values: Vec<ByteArray> = paths.iter().map(|path| ByteArray::from(*path)).collect();
    column.typed::<ByteArrayType>().write_batch(&values, None, None).unwrap();
    column.close().unwrap();
    rows.close().unwrap();
    writer.into_inner().unwrap()
}

#[test]
fn tables_are_read_however_they_are_compressed() {
    let root = TempDir::new().unwrap();
    folder(root.path());
    let file = root.path().join("list.parquet");
    let paths = ["photos/0/1.png", "photos/1/4.png", "photos/1/5.png"];
    for compression in [
        Compression::UNCOMPRESSED,
        Compression::SNAPPY,
        Compression::GZIP(Default::default()),
        Compression::BROTLI(Default::default()),
        Compression::ZSTD(Default::default()),
        Compression::LZ4,
        Compression::LZ4_RAW,
    ] {
        write(file.clone(), table(&paths, compression));
        let pictures = open(&file);
        let names: Vec<String> = (0..pictures.len()).map(|index| pictures.name(index)).collect();
        assert!(
            names.len() == 3 && names.iter().zip(paths).all(|(name, path)| name.ends_with(path)),
            "{names:?}"
        );
    }
    // What nothing here reads is not called damaged: the number of LZO in place of Brotli's.
    let mut bytes = table(&paths, Compression::BROTLI(Default::default()));
    let places: Vec<usize> =
        (0..bytes.len() - 2).filter(|&at| bytes[at..at + 3] == [0x15, 0x08, 0x16]).collect();
    assert_eq!(places.len(), 1);
    bytes[places[0] + 1] = 0x06;
    write(file.clone(), bytes);
    let told = error(&file);
    assert!(told.contains("LZO") && told.contains("write it anew, compressed by zstd"), "{told}");
}

#[test]
fn a_source_without_pictures_is_told_beside_one_that_has_some() {
    let root = TempDir::new().unwrap();
    let (photos, empty) = (folder(root.path()), root.path().join("empty"));
    std::fs::create_dir(&empty).unwrap();
    let (pictures, told) = open_with(&[photos, empty.clone()], &config());
    assert_eq!(pictures.unwrap().len(), 6);
    assert_eq!(told, [format!("{}: holds no picture", empty.display())]);
}
