//! Whole pipelines of v1, v2 and v2.1 against the reference's own, with reduced networks (goldens and what
//! they are: `goldens/README.md`). Each case is a command line of the reference.

#[path = "support/faces.rs"]
mod faces;
#[path = "../../models/tests/parity/support.rs"]
mod support;

use diffbir::catalog::{self, Task};
use diffbir::config::AutoencoderConfig;
use diffbir::faces::{Detector, Finder, Manner, Parser, Rules, Scene, Which};
use diffbir::geometry::Geometry;
use diffbir::model::{Loading, Parts};
use diffbir::restore::{ColourFix, Value, Watch};
use diffbir::tiling::{Cut, Joining, Sliding, Tiling};
use diffbir::{Model, ModelConfig, Options, Progress};
use diffbir_diffusion::noise::{Source, TorchNoise};
use diffbir_diffusion::restoration::{Loss, Space};
use diffbir_diffusion::{Latent, Parameters, Restoration, StartPoint};
use diffbir_imaging::{Encoded, Format, Metadata, Photo, Raster, Samples, decode_bytes};
use diffbir_models::clip::ClipTextConfig;
use diffbir_models::controlnet::ControlNet;
use diffbir_models::kl::KlConfig;
use diffbir_models::rrdb::RrdbConfig;
use diffbir_models::scunet::ScuNetConfig;
use diffbir_models::stage1::Stage1Config;
use diffbir_models::swinir::SwinIrConfig;
use diffbir_models::unet::UnetConfig;
use diffbir_nn::{Device, Precision};
use std::collections::HashMap;
use std::ops::ControlFlow;
use support::{Golden, filler, weights};

/// The official model with networks of the goldens' sizes.
fn reduced(mut config: ModelConfig) -> ModelConfig {
    config.stage1 = match config.stage1 {
        Stage1Config::SwinIr(official) => Stage1Config::SwinIr(SwinIrConfig { embed: 12, ..official }),
        Stage1Config::Rrdb(official) => Stage1Config::Rrdb(RrdbConfig { features: 8, growth: 4, ..official }),
        Stage1Config::ScuNet(official) => {
            Stage1Config::ScuNet(ScuNetConfig { features: 16, head_features: 8, blocks: 2, ..official })
        }
        other => other,
    };
    let stage2 = config.stage2.as_mut().expect("official models have both stages");
    stage2.autoencoder = AutoencoderConfig::Kl(KlConfig { channels: 32, ..KlConfig::official() });
    stage2.unet =
        UnetConfig { model_channels: 32, context_channels: 32, head_channels: 32, ..UnetConfig::official() };
    stage2.text = Some(ClipTextConfig { width: 32, heads: 4, ..ClipTextConfig::official() });
    config
}

fn model(config: ModelConfig, precision: Precision) -> Model {
    let stage2 = config.stage2.clone().expect("official models have both stages");
    let AutoencoderConfig::Kl(autoencoder) = stage2.autoencoder else { unreachable!("official models") };
    let parts = Parts {
        stage1: weights(0, |params| config.stage1.build(params)),
        autoencoder: weights(0, |params| autoencoder.build(params)),
        unet: weights(0, |params| stage2.unet.build(params)),
        control: weights(1, |params| ControlNet::new(params, &stage2.unet)),
        text: weights(0, |params| stage2.text.as_ref().expect("set").build(params)),
    };
    Model::assemble(config, parts, Loading { precision, ..Loading::on(&Device::flex()) })
        .expect("all names are right")
}

/// The photograph of a case, by the formula.
fn photo(height: usize, width: usize) -> Photo {
    let values = filler(0, &format!("in/photo_{height}x{width}"), height * width * 3);
    let samples = values.iter().map(|u| ((f64::from(*u) + 1.0) * 128.0) as u8).collect();
    let encoded = Encoded {
        width_px: width,
        height_px: height,
        channels: 3,
        samples: &Samples::U8(samples),
        alpha: None,
        metadata: &Metadata::default(),
    };
    decode_bytes(&encoded.to_bytes(Format::Png, None).expect("a picture"), "photo").expect("a picture")
}

/// What a command line of the reference asks for, where it is not the default.
struct Command(HashMap<String, String>);

impl Command {
    fn new(line: &str) -> Self {
        let mut flags = HashMap::new();
        if !line.starts_with("--") {
            // The inputs of the article's demo, which always samples so.
            flags.insert("sampler".into(), "spaced".into());
            for (name, value) in line.split('\x1f').filter_map(|input| input.split_once('=')) {
                let name = match name {
                    "sr_scale" => "upscale",
                    "positive_prompt" => "pos_prompt",
                    "negative_prompt" => "neg_prompt",
                    "num_samples" => "n_samples",
                    other => other,
                };
                flags.insert(name.into(), value.into());
            }
            return Self(flags);
        }
        let mut words = line.split('\x1f').peekable();
        while let Some(flag) = words.next() {
            let value = words.next_if(|word| !word.starts_with("--")).unwrap_or_default();
            flags.insert(flag.trim_start_matches("--").to_string(), value.to_string());
        }
        Self(flags)
    }

    fn get<T: std::str::FromStr>(&self, flag: &str, default: T) -> T {
        match self.0.get(flag) {
            Some(value) => value.parse().ok().unwrap_or_else(|| panic!("--{flag} {value}")),
            None => default,
        }
    }

    fn has(&self, flag: &str) -> bool {
        self.0.contains_key(flag)
    }

    fn sliding(&self, part: &str) -> Cut<Sliding> {
        let tile_px = self.get(&format!("{part}_tile_size"), 512);
        let stride_px = self.get(&format!("{part}_tile_stride"), 256);
        if self.has(&format!("{part}_tiled")) {
            Cut::Tiles(Sliding { tile_px, stride_px })
        } else {
            Cut::Whole
        }
    }

    fn square(&self, part: &str) -> Cut<usize> {
        let tile_px = self.get(&format!("{part}_tile_size"), 256);
        if self.has(&format!("{part}_tiled")) { Cut::Tiles(tile_px) } else { Cut::Whole }
    }

    fn task(&self) -> Task {
        match self.get("task", "sr".to_string()).as_str() {
            "sr" => Task::Sr,
            "denoise" => Task::Denoise,
            "face" => Task::Face,
            // Of the background.
            "unaligned_face" => Task::Sr,
            other => panic!("--task {other}"),
        }
    }

    fn options(&self) -> Options {
        Options {
            upscale: self.get("upscale", 4.0),
            regions: None,
            image_size_px: None,
            keep_size: true,
            stage1: self.get("disable_preprocess_model", "False".to_string()) == "False",
            tiling: Tiling {
                cleaner: self.sliding("cleaner"),
                encoder: self.square("vae_encoder"),
                decoder: self.square("vae_decoder"),
                joining: Joining::Pooled,
                denoiser: match self.get("tiled", "False".to_string()).as_str() {
                    "True" => Cut::Tiles(Sliding {
                        tile_px: self.get("tile_size", 512),
                        stride_px: self.get("tile_stride", 256),
                    }),
                    _ => self.sliding("cldm"),
                },
            },
            sampler: self.get("sampler", diffbir_diffusion::Sampler::DEFAULT),
            parameters: Parameters::default(),
            start: self.get("start_point_type", StartPoint::Noise),
            fidelity: 0.0,
            better_start: false,
            steps: self.get("steps", 10),
            cfg_scale: self.get("cfg_scale", 6.0),
            guidance_apart: false,
            rescale_cfg: self.has("rescale_cfg"),
            prompt: self.get("pos_prompt", catalog::PROMPT_V21.to_string()),
            negative_prompt: self.get("neg_prompt", catalog::NEGATIVE_V21.to_string()),
            strength: self.get("strength", 1.0),
            noise_aug: self.get("noise_aug", 0),
            restoration: self.has("guidance").then(|| Restoration {
                loss: match self.get("g_loss", "w_mse".to_string()).as_str() {
                    "mse" => Loss::Mse,
                    _ => Loss::WeightedMse,
                },
                space: match self.get("g_space", "latent".to_string()).as_str() {
                    "rgb" => Space::Rgb,
                    _ => Space::Latent,
                },
                scale: self.get("g_scale", 0.0),
                start: self.get("g_start", 1001),
                stop: self.get("g_stop", -1),
                repeat: self.get("g_repeat", 1),
            }),
            colour_fix: match self.get("use_color_fix", "True".to_string()).as_str() {
                "True" => ColourFix::Wavelet,
                _ => ColourFix::None,
            },
        }
    }
}

/// Compares what comes about on the way with the golden.
struct Check<'a> {
    golden: &'a Golden,
    /// `@1` for the second batch and so on.
    batch: String,
    items: Vec<Latent>,
    decoded: Vec<f32>,
}

/// Tolerances as shares of the largest value: a picture of stage 1, its latent, and, after the sampler's steps,
/// a latent and what is decoded of it.
const STAGE1: f64 = 5e-5;
const CONDITION: f64 = 2e-4;
const SAMPLED: f64 = 2e-4;

impl Watch for Check<'_> {
    fn progress(&mut self, _: Progress) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    fn value(&mut self, value: Value) {
        match value {
            // Not taken down where there is none.
            Value::Stage1(_) if !self.golden.has("stage1") => {}
            Value::Stage1(picture) => {
                self.golden.compare_item(&format!("stage1{}", self.batch), picture, STAGE1);
            }
            // Not that of the whole picture where tiles have their own.
            Value::Condition(_) if !self.golden.has("z") => {}
            Value::Condition(latent) => {
                self.golden.compare_latent(&format!("c_img{}", self.batch), latent, CONDITION);
            }
            Value::Step { .. } => {}
            Value::Sampled(latent) => self.items.push(latent.clone()),
            Value::Decoded(picture) => self.decoded.extend(planes(picture)),
        }
    }
}

/// `[h, w, c]` to `[c, h, w]`.
fn planes(picture: &Raster) -> Vec<f32> {
    (0..picture.channels)
        .flat_map(|c| picture.data.iter().skip(c).step_by(picture.channels))
        .copied()
        .collect()
}

impl Golden {
    /// The first item of a batch whose items are all the same.
    fn compare_item(&self, name: &str, picture: &Raster, tolerance: f64) {
        let values = planes(picture);
        let shape = self.shape(name);
        assert_eq!(shape[1..], [picture.channels, picture.height_px, picture.width_px], "{name}");
        self.compare_within(name, &shape, &values.repeat(shape[0]), tolerance);
    }

    fn compare_latent(&self, name: &str, latent: &Latent, tolerance: f64) {
        let batch = self.shape(name)[0];
        let latent = latent.repeat(batch / latent.batch);
        let shape = [latent.batch, latent.channels, latent.height, latent.width];
        self.compare_within(name, &shape, &latent.data, tolerance);
    }
}

fn check(name: &str) {
    let golden = Golden::open(name);
    let is_demo = name.starts_with("v1_demo");
    let command = Command::new(golden.fact(if is_demo { "arguments" } else { "command" }));
    let version = if is_demo { "v1".to_string() } else { command.get("version", "v2.1".to_string()) };
    let mut config = reduced(catalog::set(&version).expect("an official version").config(command.task()));
    if is_demo {
        config.geometry = Geometry::Article;
    }
    let model = model(config, Precision::F32);
    let options = command.options();
    model.check(&options).expect("the reference takes them");

    let mut watch = Check { golden: &golden, batch: String::new(), items: Vec::new(), decoded: Vec::new() };
    let mut noise = TorchNoise::new(Source::TorchCpu, command.get("seed", 231));
    for size in golden.fact("photo").split(';').next().expect("sizes").split(' ') {
        let (height, width) = size.split_once('x').expect("HxW");
        let photo = photo(height.parse().expect("a number"), width.parse().expect("a number"));
        check_photo(&model, &photo, &command, &mut watch, &mut noise);
    }
}

/// All samples of a photograph, batch after batch.
fn check_photo(
    model: &Model,
    photo: &Photo,
    command: &Command,
    watch: &mut Check<'_>,
    noise: &mut TorchNoise,
) {
    let (golden, options) = (watch.golden, command.options());
    let prepared = model.prepare(photo, &options, true, watch).expect("a picture");
    let (samples, batch_size) = (command.get("n_samples", 1), command.get("batch_size", 1));
    let mut done = 0;
    while done < samples {
        let count = batch_size.min(samples - done);
        let pictures = model.detail(&prepared, count, &options, noise, watch).expect("pictures");
        let at = |name: &str| format!("{name}{}", watch.batch);
        if golden.has("z") {
            golden.compare_latent(&at("z"), &Latent::stack(&watch.items), SAMPLED);
            let decoded: Vec<f32> = watch.decoded.iter().map(|value| 2.0 * value - 1.0).collect();
            golden.compare_within(&at("decoded"), &golden.shape(&at("decoded")), &decoded, SAMPLED);
        }
        let bytes = pictures.iter().flat_map(|picture| {
            let Samples::U8(samples) = photo.to_own_colours(picture, model.config.geometry.depth()) else {
                unreachable!("8 bits")
            };
            planes(&Raster::from_u8(picture.width_px, picture.height_px, 3, &samples))
        });
        let bytes: Vec<f32> = bytes.map(|value| (value * 255.0).round()).collect();
        golden.compare_levels(&at("final"), &bytes);
        done += count;
        (watch.items, watch.decoded) = (Vec::new(), Vec::new());
        watch.batch = format!("@{}", watch.batch.trim_start_matches('@').parse().unwrap_or(0) + 1);
    }
}

/// An 8-bit picture of the reference's, or the one here, cut off.
fn compare_picture(golden: &Golden, name: &str, picture: &Raster) {
    let bytes = picture.to_u8_truncating();
    let picture = Raster::from_u8(picture.width_px, picture.height_px, 3, &bytes);
    let levels: Vec<f32> = planes(&picture).iter().map(|value| (value * 255.0).round()).collect();
    golden.compare_levels_but(name, &levels, faces::share_off(name));
}

/// What finds faces in the goldens `unaligned_*`.
fn finder(golden: &Golden) -> Finder {
    let folder = tempfile::TempDir::new().expect("a folder");
    let (detector, parser) = faces::files(folder.path(), golden.fact("least").parse().expect("a number"));
    let device = Device::flex();
    Finder {
        detector: Detector::open(&detector, &device).expect("a detector"),
        parser: Some(Parser::open(&parser, Precision::F32, &device).expect("a parser")),
    }
}

fn compare_landmarks(golden: &Golden, scene: &Scene) {
    let points: Vec<f32> = scene.faces().flat_map(|face| face.landmarks).flatten().collect();
    golden.compare_within("landmarks", &[scene.count(), 5, 2], &points, 1e-6);
}

/// Two samples of each face in one batch, by another network than that of the background; the command line's way through
/// the binary: `reference_pictures`.
#[test]
fn unaligned_v2() {
    let golden = Golden::open("unaligned_v2");
    let command = Command::new(golden.fact("command"));
    let set = catalog::set("v2").expect("an official version");
    let [background, of_faces] =
        [Task::Sr, Task::Face].map(|task| model(reduced(set.config(task)), Precision::F32));
    let (finder, photo, options) = (finder(&golden), photo(150, 204), command.options());
    let rules = Rules { manner: Manner::Reference, ..Rules::default() };
    let mut watch = |_: Progress| ControlFlow::Continue(());
    let geometry = background.config.geometry;
    let scene = finder.look(&photo, geometry, options.upscale, rules, &mut watch).expect("faces");
    compare_landmarks(&golden, &scene);

    let mut noise = TorchNoise::new(Source::TorchCpu, 231);
    let samples = command.get("n_samples", 1);
    let mut restored = Vec::new();
    for index in 0..scene.count() {
        let (cut, upscale) = scene.cut(index, &of_faces.config);
        // The reference names it after the last sample.
        let name = format!("cropped_faces/photo_face_{index}_{}", samples - 1);
        compare_picture(&golden, &name, &cut.to_raster());
        let options = Options { upscale, ..options.clone() };
        let prepared = of_faces.prepare(&cut, &options, true, &mut watch).expect("a face");
        let faces = of_faces.detail(&prepared, samples, &options, &mut noise, &mut watch).expect("faces");
        for (sample, face) in faces.iter().enumerate() {
            compare_picture(&golden, &format!("restored_faces/photo_face_{index}_{sample}"), face);
        }
        restored.push(faces);
    }
    let prepared = background.prepare(&photo, &options, true, &mut watch).expect("a picture");
    let pictures = background.detail(&prepared, samples, &options, &mut noise, &mut watch).expect("pictures");
    for (sample, picture) in pictures.into_iter().enumerate() {
        compare_picture(&golden, &format!("restored_backgrounds/photo_{sample}"), &picture);
        let faces: Vec<&Raster> = restored.iter().map(|faces| &faces[sample]).collect();
        let pasted = scene.paste(picture, &faces, finder.parser.as_ref()).expect("a picture");
        compare_picture(&golden, &format!("photo_{sample}"), &pasted);
    }
}

/// v1's `inference_face.py`: the face in the middle of a picture with filled edges, laid back before that comes to its size.
#[test]
fn unaligned_v1() {
    let golden = Golden::open("unaligned_v1");
    let mut config = reduced(catalog::set("v1").expect("an official version").config(Task::Sr));
    config.geometry = Geometry::Article;
    let model = model(config, Precision::F32);
    let (finder, photo) = (finder(&golden), photo(130, 201));
    let options = Options {
        upscale: 2.0,
        keep_size: false,
        tiling: Tiling::WHOLE,
        sampler: diffbir_diffusion::Sampler::Spaced,
        steps: 3,
        cfg_scale: 1.0,
        prompt: String::new(),
        negative_prompt: String::new(),
        ..Options::of(&model)
    };
    let rules = Rules { which: Which::Centre, manner: Manner::Reference, ..Rules::default() };
    let mut watch = |_: Progress| ControlFlow::Continue(());
    let scene = finder.look(&photo, Geometry::Article, options.upscale, rules, &mut watch).expect("faces");
    assert!(scene.found > 1);
    compare_landmarks(&golden, &scene);
    let mut noise = TorchNoise::new(Source::TorchCpu, 231);
    let mut restored = |photo: &Photo, upscale: f64| {
        let options = Options { upscale, ..options.clone() };
        let prepared = model.prepare(photo, &options, true, &mut watch).expect("a picture");
        model.detail(&prepared, 1, &options, &mut noise, &mut watch).expect("a picture").remove(0)
    };
    let (cut, upscale) = scene.cut(0, &model.config);
    compare_picture(&golden, "cropped_faces/photo_00", &cut.to_raster());
    let face = restored(&cut, upscale);
    compare_picture(&golden, "restored_faces/photo_00", &face);
    let background = restored(&photo, options.upscale);
    compare_picture(&golden, "background", &background);
    let pasted = scene.paste(background, &[&face], finder.parser.as_ref()).expect("a picture");
    compare_picture(&golden, "restored_imgs/photo", &pasted);
}

/// Keeps the final latent.
struct Sampled(Option<Latent>);

impl Watch for Sampled {
    fn progress(&mut self, _: Progress) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    fn value(&mut self, value: Value) {
        if let Value::Sampled(latent) = value {
            self.0 = Some(latent.clone());
        }
    }
}

/// Weights in 16 bits against the reference in 32: a share of the largest value, and 1 - cosine.
#[test]
fn weights_in_16_bits_end_near_the_references() {
    let golden = Golden::open("v21_no_guidance");
    let command = Command::new(golden.fact("command"));
    for (precision, share, cosine) in [(Precision::F16, 1e-2, 1e-4), (Precision::Bf16, 1e-2, 1e-4)] {
        let model = model(reduced(catalog::set("v2.1").expect("official").config(Task::Sr)), precision);
        let (photo, options) = (photo(128, 128), command.options());
        let mut watch = Sampled(None);
        let prepared = model.prepare(&photo, &options, true, &mut watch).expect("a picture");
        let mut noise = TorchNoise::new(Source::TorchCpu, 231);
        model.detail(&prepared, 1, &options, &mut noise, &mut watch).expect("a picture");
        let latent = watch.0.expect("sampled");
        golden.compare_latent("z", &latent, share);
        let far = golden.cosine_distance("z", &latent.data);
        println!("1 - cosine: {far:.1e}");
        assert!(far > 0.0 && far < cosine, "{precision:?}: {far}");
    }
}

macro_rules! cases {
    ($($name:ident)*) => { $(#[test] fn $name() { check(stringify!($name)); })* };
}

cases! {
    v21_sr_x4 v21_sr_odd v21_sr_x2_spaced v21_tiled v21_tiled_small v21_denoise_noise_aug v21_face
    v21_start_cond v21_no_guidance v21_dpm v21_folder v2_sr_x4 v2_sr_x2 v2_sr_tiled v2_denoise v2_denoise_tiled
    v2_face v2_guidance_latent v2_guidance_rgb v1_sr v1_demo v1_demo_options v1_demo_tiled
}

/// The controls "Image size" and "Keep original size" of the demo of v1 at commit 30355a1.
#[test]
fn an_image_size_is_the_shorter_side_that_networks_see_and_results_may_keep_it() {
    for geometry in [Geometry::Article, Geometry::Reference] {
        let mut config = reduced(catalog::set("v1").expect("an official version").config(Task::Sr));
        config.geometry = geometry;
        let model = model(config, Precision::F32);
        let size = |image_size_px, keep_size| {
            let options = Options { upscale: 1.0, image_size_px, keep_size, ..Options::of(&model) };
            let prepared = model.prepare(&photo(48, 60), &options, false, &mut |_| ControlFlow::Continue(()));
            prepared.expect("a picture").clean().size()
        };
        assert_eq!(size(Some(128), true), (60, 48));
        assert_eq!(size(Some(128), false), (160, 128), "{geometry:?}");
        assert_eq!(size(Some(32), false), (60, 48), "nothing is made smaller");
    }
}
