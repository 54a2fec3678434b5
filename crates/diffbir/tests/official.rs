//! Whole pipelines of v1, v2 and v2.1 against the reference's own, with reduced networks (goldens and what
//! they are: `goldens/README.md`). Each case is a command line of the reference.

#[path = "support/pipelines.rs"]
mod pipelines;
#[path = "../../models/tests/parity/support.rs"]
mod support;

use diffbir::catalog::{self, Task};
use diffbir::geometry::Geometry;
use diffbir::restore::{Value, Watch};
use diffbir::{Model, Options, Progress};
use diffbir_diffusion::Latent;
use diffbir_diffusion::noise::{Source, TorchNoise};
use diffbir_imaging::{Photo, Raster, Samples};
use diffbir_nn::Precision;
use pipelines::{Command, model, photo, planes, reduced};
use std::ops::ControlFlow;
use support::Golden;

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
/// Share of the values of a picture that may be rounded to the next level. What is decoded is right to 2e-5 of the largest
/// value, which is up to .005 levels: of a thousand values up to five lie nearer than that to where rounding changes.
const ROUNDED: f64 = 0.002;

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
        golden.compare_levels_but(&at("final"), &bytes, ROUNDED);
        done += count;
        (watch.items, watch.decoded) = (Vec::new(), Vec::new());
        watch.batch = format!("@{}", watch.batch.trim_start_matches('@').parse().unwrap_or(0) + 1);
    }
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
