//! What is foretold of memory, against what is asked of the allocator, with every kind of network made small.

use diffbir::catalog::{self, Task};
use diffbir::config::{AutoencoderConfig, CONFIG_KEY};
use diffbir::harm::Harm;
use diffbir::model::Loading;
use diffbir::plan::{Choices, Job, expected};
use diffbir::restore::Watch;
use diffbir::{Model, ModelConfig, Options, Progress, Stage};
use diffbir_diffusion::noise::{Source as NoiseSource, TorchNoise};
use diffbir_imaging::{Depth, Encoded, Format, Metadata, Outline, Photo, Raster, Samples, decode_bytes};
use diffbir_models::clip::ClipTextConfig;
use diffbir_models::controlnet::ControlNet;
use diffbir_models::gfpgan::GfpganConfig;
use diffbir_models::kl::KlConfig;
use diffbir_models::rrdb::{RrdbConfig, RrdbNames};
use diffbir_models::scunet::ScuNetConfig;
use diffbir_models::stage1::Stage1Config;
use diffbir_models::swinir::SwinIrConfig;
use diffbir_models::unet::UnetConfig;
use diffbir_nn::checkpoint::Checkpoint;
use diffbir_nn::params::{Precision, RandomInit, build, keys_of};
use diffbir_nn::{Device, Module, Params, WeightError};
use std::alloc::{GlobalAlloc, Layout, System};
use std::io::Write;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The system's allocator, counting.
struct Counted;

static HELD: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

fn took(bytes: usize) {
    let held = HELD.fetch_add(bytes, Ordering::Relaxed) + bytes;
    MOST.fetch_max(held, Ordering::Relaxed);
}

// SAFETY: all that is asked for is passed on.
#[allow(unsafe_code, reason = "an allocator")]
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        took(layout.size());
        // SAFETY: as the caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        took(size);
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static COUNTED: Counted = Counted;

/// Notes the most of each stage.
#[derive(Default)]
struct Seen {
    stage: Option<Stage>,
    most: Vec<(Option<Stage>, usize)>,
}

impl Seen {
    fn next(&mut self, stage: Option<Stage>) {
        let most = MOST.swap(HELD.load(Ordering::Relaxed), Ordering::Relaxed);
        match self.most.iter_mut().find(|(seen, _)| *seen == self.stage) {
            Some((_, seen)) => *seen = most.max(*seen),
            None => self.most.push((self.stage, most)),
        }
        self.stage = stage;
    }
}

impl Watch for Seen {
    fn progress(&mut self, progress: Progress) -> ControlFlow<()> {
        if self.stage != Some(progress.stage) {
            self.next(Some(progress.stage));
        }
        ControlFlow::Continue(())
    }
}

fn add<N: Module>(file: &mut Checkpoint, name: &str, network: impl Fn(&Params) -> Result<N, WeightError>) {
    let (network, keys) = build(&mut RandomInit { seed: 3 }, &Device::flex(), network).unwrap();
    file.insert(name, Checkpoint::from_tensors(keys.tensors(&network)));
}

/// A file of a model with random weights.
fn file(config: &ModelConfig) -> tempfile::NamedTempFile {
    let mut file = Checkpoint::default();
    add(&mut file, "stage1", |params| config.stage1.build(params));
    if let Some(stage2) = &config.stage2 {
        match &stage2.autoencoder {
            AutoencoderConfig::Kl(sizes) => add(&mut file, "autoencoder", |params| sizes.build(params)),
            AutoencoderConfig::Taef2(sizes) => add(&mut file, "autoencoder", |params| sizes.build(params)),
        }
        add(&mut file, "unet", |params| stage2.unet.build(params));
        add(&mut file, "control", |params| ControlNet::new(params, &stage2.unet));
        if let Some(text) = &stage2.text {
            add(&mut file, "text", |params| text.build(params));
        }
    }
    file.metadata.insert(CONFIG_KEY.into(), serde_json::to_string(config).unwrap());
    let written = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(written.path(), file.to_safetensors(false).unwrap()).unwrap();
    written
}

/// An official model, its networks narrower.
fn narrow(set: &str, task: Task) -> ModelConfig {
    let mut config = catalog::set(set).unwrap().config(task);
    config.stage1 = match config.stage1 {
        Stage1Config::SwinIr(official) => {
            Stage1Config::SwinIr(SwinIrConfig { depths: vec![2], heads: vec![6], ..official })
        }
        Stage1Config::Rrdb(official) => Stage1Config::Rrdb(RrdbConfig { blocks: 1, ..official }),
        Stage1Config::ScuNet(official) => Stage1Config::ScuNet(ScuNetConfig { blocks: 1, ..official }),
        other => other,
    };
    let stage2 = config.stage2.as_mut().unwrap();
    stage2.autoencoder = AutoencoderConfig::Kl(KlConfig { channels: 32, ..KlConfig::official() });
    stage2.unet =
        UnetConfig { model_channels: 32, context_channels: 32, head_channels: 32, ..UnetConfig::official() };
    stage2.text = Some(ClipTextConfig { width: 32, heads: 4, blocks: 1, ..ClipTextConfig::official() });
    config
}

/// A network without a stage 2.
fn engine(name: &str, stage1: Stage1Config) -> ModelConfig {
    ModelConfig {
        name: name.into(),
        origin: Vec::new(),
        stage1,
        stage2: None,
        geometry: diffbir::geometry::Geometry::Free,
    }
}

fn photo(width: usize, height: usize) -> Photo {
    let data = (0..width * height * 3).map(|i| (i * i / 7 % 256) as f32 / 255.0).collect();
    Photo::of_raster(&Raster { width_px: width, height_px: height, channels: 3, data })
}

/// Foretells, restores, and compares; what is wrong in words.
fn check(model: &mut Model, (width, height): (usize, usize), upscale: f64, choices: Choices) -> Vec<String> {
    let mut options = Options { upscale, steps: 4, image_size_px: Some(192), ..Options::of(model) };
    options.cfg_scale = if model.has_text() { 2.0 } else { options.cfg_scale };
    let device = Device::flex();
    let stage2 = model.has_stage2();
    let before = HELD.load(Ordering::Relaxed);
    let config = model.config.clone();
    let job = Job {
        config: &config,
        stage2,
        options: &options,
        photo: Outline::rgb(width, height),
        mask: None,
        samples: 1,
        device: &device,
        before: before as u64,
        file: 0,
        undoes: false,
        together: None,
    };
    let expected = expected(&job, &choices).unwrap();
    MOST.store(HELD.load(Ordering::Relaxed), Ordering::Relaxed);
    model.hold(choices.precision, choices.networks_apart).unwrap();
    let mut seen = Seen::default();
    let photo = photo(width, height);
    let options = choices.applied(&options);
    let prepared = model.prepare(&photo, &options, stage2, &mut seen).unwrap();
    let mut noise = TorchNoise::new(NoiseSource::TorchCpu, 1);
    let results = model.detail(&prepared, 1, &options, &mut noise, &mut seen).unwrap();
    seen.next(None);
    drop(results);
    let mut wrong = Vec::new();
    for expected in &expected {
        let (_, most) = seen.most.iter().find(|(stage, _)| *stage == expected.stage).unwrap();
        let (told, most) = (expected.most as f64 - before as f64, *most as f64 - before as f64);
        let line = format!(
            "{} {width}x{height}x{upscale} {:?}: {} told {:.2} MB, held {:.2} MB, {:+.1} %",
            config.name,
            (choices.networks_apart, choices.guidance_apart, choices.most_px),
            expected.stage.map_or("load".into(), |stage| stage.to_string()),
            told / 1e6,
            most / 1e6,
            100.0 * (told / most - 1.0)
        );
        println!("{line}");
        // Threads have their scratch, networks their odds and ends.
        if !(most * 0.92 - 1e6..most * 1.12 + 1e6).contains(&told) {
            wrong.push(line);
        }
    }
    wrong
}

/// A file of a picture of 8 or 16 bits, grey or of colours, with opacity and another space than sRGB or without.
fn photograph((width, height): (usize, usize), deep: bool, grey: bool, alpha: bool, own: bool) -> Vec<u8> {
    let (channels, pixels) = (if grey { 1 } else { 3 }, width * height);
    let values = |count: usize| {
        let values = (0..count).map(|i| (i * i / 7 % 65536) as u16);
        if deep {
            Samples::U16(values.collect())
        } else {
            Samples::U8(values.map(|v| (v >> 8) as u8).collect())
        }
    };
    let samples = values(channels * pixels);
    let alpha = alpha.then(|| values(pixels));
    let icc = own.then(|| moxcms::ColorProfile::new_display_p3().encode().unwrap());
    let metadata = Metadata { icc, ..Metadata::default() };
    let picture = Encoded {
        width_px: width,
        height_px: height,
        channels,
        samples: &samples,
        alpha: alpha.as_ref(),
        metadata: &metadata,
    };
    picture.to_bytes(Format::Png, None).unwrap()
}

/// A photograph from its file to that of its result, for which it may be much reduced: what is wrong in words.
fn check_photograph(model: &mut Model, file: &[u8], upscale: f64, stage2: bool) -> Vec<String> {
    let options = Options { upscale, steps: 1, stage1: !stage2, ..Options::of(model) };
    let device = Device::flex();
    let before = HELD.load(Ordering::Relaxed);
    let config = model.config.clone();
    let outline = Outline::of(file, "test").unwrap();
    let job = Job {
        config: &config,
        stage2,
        options: &options,
        photo: outline,
        mask: None,
        samples: 1,
        device: &device,
        before: before as u64,
        file: 0,
        undoes: true,
        together: None,
    };
    let expected = expected(&job, &LEAST).unwrap().into_iter().map(|expected| expected.most).max().unwrap();
    MOST.store(HELD.load(Ordering::Relaxed), Ordering::Relaxed);
    model.hold(LEAST.precision, true).unwrap();
    let photo = decode_bytes(file, "test").unwrap();
    let options = LEAST.applied(&options);
    let mut seen = Seen::default();
    let prepared = model.prepare(&photo, &options, stage2, &mut seen).unwrap();
    let mut noise = TorchNoise::new(NoiseSource::TorchCpu, 1);
    for mut result in model.detail(&prepared, 1, &options, &mut noise, &mut seen).unwrap() {
        if stage2 {
            let clean = prepared.clean();
            result = Harm::of(&result, &clean, &photo).undone(&result, &clean);
        }
        let depth = if photo.is_deep() { Depth::Sixteen } else { Depth::Eight };
        let alpha = prepared.alpha.as_ref().map(|alpha| match depth {
            Depth::Sixteen => Samples::U16(alpha.to_u16_rounding()),
            _ => Samples::U8(alpha.to_u8_rounding()),
        });
        let samples = photo.to_own_colours(&result, depth);
        let encoded = Encoded {
            width_px: result.width_px,
            height_px: result.height_px,
            channels: photo.channels,
            samples: &samples,
            alpha: alpha.as_ref(),
            metadata: &photo.metadata,
        };
        encoded.to_bytes(Format::Png, None).unwrap();
    }
    seen.next(None);
    let most = seen.most.iter().map(|(_, most)| *most).max().unwrap();
    let (told, most) = (expected as f64 - before as f64, most as f64 - before as f64);
    let line = format!(
        "{outline:?} {upscale} {stage2}: told {:.2} MB, held {:.2} MB, {:+.1} %",
        told / 1e6,
        most / 1e6,
        100.0 * (told / most - 1.0)
    );
    println!("{line}");
    if (most * 0.9 - 1e6..most * 1.15 + 1e6).contains(&told) { Vec::new() } else { vec![line] }
}

const PLAIN: Choices =
    Choices { precision: Precision::F32, guidance_apart: false, networks_apart: false, most_px: None };
const LEAST: Choices = Choices { guidance_apart: true, networks_apart: true, most_px: Some(128), ..PLAIN };

/// One test, for the count is of the whole process.
#[test]
fn what_is_foretold_is_what_is_held() {
    let device = Device::flex();
    let apart = Loading { apart: true, ..Loading::on(&device) };
    let mut wrong = Vec::new();
    for choices in [PLAIN, Choices { precision: Precision::Bf16, ..LEAST }] {
        for (size, upscale) in [((96, 64), 4.0), ((200, 150), 1.0)] {
            wrong.extend(check(&mut Model::nano(apart).unwrap(), size, upscale, choices));
        }
    }
    for (deep, grey, alpha, own) in [
        (false, false, false, false),
        (false, true, true, false),
        (false, false, false, true),
        (true, false, false, false),
        (true, true, false, false),
        (true, false, true, true),
    ] {
        for (size, upscale, stage2) in [((2400, 1800), 0.1, true), ((120, 90), 4.0, false)] {
            let file = photograph(size, deep, grey, alpha, own);
            wrong.extend(check_photograph(&mut Model::nano(apart).unwrap(), &file, upscale, stage2));
        }
    }
    let sizes = RrdbConfig {
        features: 64,
        growth: 32,
        blocks: 1,
        upscale: 2,
        plain: false,
        names: RrdbNames::BasicSr,
    };
    let faces = GfpganConfig { side_px: 128, features: 128, style: 64, mapping: 1 };
    for (config, size) in [
        (narrow("v2.1", Task::Sr), (130, 128)),
        (narrow("v2", Task::Sr), (128, 128)),
        (narrow("v2", Task::Denoise), (128, 128)),
        (narrow("v1", Task::Sr), (128, 128)),
        (engine("x2", Stage1Config::Rrdb(sizes)), (200, 160)),
        (engine("faces", Stage1Config::Gfpgan(faces)), (128, 128)),
    ] {
        let file = file(&config);
        let tiled = matches!(config.name.as_str(), "v2.1" | "x2").then_some(LEAST);
        for choices in std::iter::once(PLAIN).chain(tiled) {
            let mut model = Model::open(file.path(), apart).unwrap();
            wrong.extend(check(&mut model, size, 2.0, choices));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A file of a network of official size, in 16 bits and all zeros: a hole on most disks. What it restores is grey; what that takes
/// is what the true one takes. Its name says which: a set of official files, `v2-denoise`, or `gfpgan`.
#[test]
#[ignore = "writes the file that DIFFBIR_WRITE names"]
fn a_model_of_official_size_is_written() {
    let path = std::env::var("DIFFBIR_WRITE").expect("the name of the file");
    let name = Path::new(&path).file_stem().unwrap().to_str().unwrap();
    let config = match name {
        "gfpgan" => engine(name, Stage1Config::Gfpgan(GfpganConfig::official())),
        "v2-denoise" => catalog::set("v2").unwrap().config(Task::Denoise),
        set => catalog::set(set).expect("a set, v2-denoise or gfpgan").config(Task::Sr),
    };
    let mut parts = vec![("stage1", keys_of(|params| config.stage1.build(params)))];
    if let Some(stage2) = &config.stage2 {
        let AutoencoderConfig::Kl(autoencoder) = &stage2.autoencoder else { unreachable!("official models") };
        let text = stage2.text.as_ref().unwrap();
        parts.extend([
            ("autoencoder", keys_of(|params| autoencoder.build(params))),
            ("unet", keys_of(|params| stage2.unet.build(params))),
            ("control", keys_of(|params| ControlNet::new(params, &stage2.unet))),
            ("text", keys_of(|params| text.build(params))),
        ]);
    }
    let (mut index, mut at) = (serde_json::Map::new(), 0);
    let config = serde_json::to_string(&config).unwrap();
    index.insert("__metadata__".into(), serde_json::json!({ CONFIG_KEY: config }));
    for (place, keys) in parts {
        for (_, key, shape) in keys.unwrap().parameters() {
            let end = at + 2 * shape.iter().product::<usize>();
            let entry = serde_json::json!({"dtype": "F16", "shape": shape, "data_offsets": [at, end]});
            index.insert(format!("{place}.{key}"), entry);
            at = end;
        }
    }
    let index = serde_json::to_vec(&index).unwrap();
    let mut file = std::fs::File::create(&path).unwrap();
    file.write_all(&(index.len() as u64).to_le_bytes()).unwrap();
    file.write_all(&index).unwrap();
    file.set_len((8 + index.len() + at) as u64).unwrap();
}
