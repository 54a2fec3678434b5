//! The whole pipeline with every official kind of network, made small and filled with random numbers.

use diffbir::config::{AutoencoderConfig, CONFIG_KEY, SamplingDefaults, Stage2Config};
use diffbir::geometry::Geometry;
use diffbir::model::Loading;
use diffbir::restore::{ColourFix, Value, Watch};
use diffbir::tiling::{Cut, Sliding, Tiling};
use diffbir::{Error, Model, ModelConfig, Options, Progress, Stage};
use diffbir_diffusion::noise::{Source as NoiseSource, Stacked, TorchNoise};
use diffbir_diffusion::restoration::{Loss, Space};
use diffbir_diffusion::{Parameters, Prediction, Restoration, Sampler, StartPoint, Terminal};
use diffbir_imaging::{Encoded, Format, Metadata, Photo, Raster, Samples, decode_bytes};
use diffbir_models::clip::ClipTextConfig;
use diffbir_models::controlnet::ControlNet;
use diffbir_models::kl::KlConfig;
use diffbir_models::srvgg::SrvggConfig;
use diffbir_models::stage1::Stage1Config;
use diffbir_models::swinir::SwinIrConfig;
use diffbir_models::unet::UnetConfig;
use diffbir_nn::checkpoint::Checkpoint;
use diffbir_nn::params::{Init, Precision, RandomInit, Source, build};
use diffbir_nn::{Device, Module, Params, WeightError};
use std::ops::ControlFlow;
use std::sync::Arc;

/// Random numbers also where training starts at zero: a zero convolution would hide what is behind it.
struct Lively(f32);

impl Source for Lively {
    fn values(&mut self, key: &str, shape: &[usize], init: Init) -> Result<Vec<f32>, WeightError> {
        let init = if init == Init::Constant(0.0) { Init::Normal(0.1) } else { init };
        let values = RandomInit { seed: 3 }.values(key, shape, init)?;
        Ok(values.into_iter().map(|value| value * self.0).collect())
    }
}

fn swinir() -> SwinIrConfig {
    SwinIrConfig {
        unshuffle: 4,
        embed: 12,
        depths: vec![2],
        heads: vec![2],
        window: 4,
        mlp_ratio: 2,
        upsampling_features: 8,
        nominal_grid: 16,
        global_skip: true,
    }
}

fn stage2() -> Stage2Config {
    Stage2Config {
        autoencoder: AutoencoderConfig::Kl(kl()),
        unet: unet(),
        text: None,
        prediction: Prediction::V,
        terminal: Terminal::ZeroSnr,
        sampling: SamplingDefaults::default(),
    }
}

fn kl() -> KlConfig {
    KlConfig { channels: 8, multipliers: vec![1, 1, 2, 2], norm_groups: 4, ..KlConfig::official() }
}

fn unet() -> UnetConfig {
    UnetConfig {
        latent_channels: 4,
        model_channels: 8,
        multipliers: vec![1, 2],
        blocks: 1,
        attention: vec![false, true],
        head_channels: 4,
        norm_groups: 4,
        context_channels: 6,
        learned_context: true,
    }
}

fn add<N: Module>(
    file: &mut Checkpoint,
    name: &str,
    mut source: Lively,
    network: impl Fn(&Params) -> Result<N, WeightError>,
) {
    let (network, keys) = build(&mut source, &Device::flex(), network).unwrap();
    file.insert(name, Checkpoint::from_tensors(keys.tensors(&network)));
}

fn open(file: Checkpoint, stage1: Stage1Config, stage2: Option<Stage2Config>) -> Model {
    load(file, stage1, stage2).unwrap()
}

fn load(file: Checkpoint, stage1: Stage1Config, stage2: Option<Stage2Config>) -> Result<Model, Error> {
    let (path, _folder) = written(file, stage1, stage2);
    Model::open(&path, Loading::on(&Device::flex()))
}

/// A model file, and the folder that it is in.
fn written(
    mut file: Checkpoint,
    stage1: Stage1Config,
    stage2: Option<Stage2Config>,
) -> (std::path::PathBuf, tempfile::TempDir) {
    let config =
        ModelConfig { name: "small".into(), origin: Vec::new(), stage1, stage2, geometry: Geometry::Free };
    file.metadata.insert(CONFIG_KEY.into(), serde_json::to_string(&config).unwrap());
    let folder = tempfile::TempDir::new().unwrap();
    let path = folder.path().join("small.safetensors");
    std::fs::write(&path, file.to_safetensors(false).unwrap()).unwrap();
    (path, folder)
}

/// A model file; `scale` is on the control branch's weights.
fn model(scale: f32) -> Model {
    let mut file = Checkpoint::default();
    add(&mut file, "stage1", Lively(1.0), |params| swinir().build(params));
    add(&mut file, "autoencoder", Lively(1.0), |params| kl().build(params));
    add(&mut file, "unet", Lively(1.0), |params| unet().build(params));
    add(&mut file, "control", Lively(scale), |params| ControlNet::new(params, &unet()));
    open(file, Stage1Config::SwinIr(swinir()), Some(stage2()))
}

fn photo(width: usize, height: usize) -> Photo {
    let samples: Vec<u8> = (0..width * height * 3).map(|i| (i * i / 7) as u8).collect();
    let encoded = Encoded {
        width_px: width,
        height_px: height,
        channels: 3,
        samples: &Samples::U8(samples),
        alpha: None,
        metadata: &Metadata::default(),
    };
    decode_bytes(&encoded.to_bytes(Format::Png, None).unwrap(), "test").unwrap()
}

fn options() -> Options {
    Options {
        image_size_px: None,
        regions: None,
        keep_size: true,
        upscale: 2.0,
        stage1: true,
        tiling: Tiling::default(),
        sampler: Sampler::DEFAULT,
        parameters: Parameters::default(),
        start: StartPoint::Noise,
        fidelity: 0.0,
        better_start: false,
        steps: 3,
        cfg_scale: 1.0,
        guidance_apart: false,
        rescale_cfg: false,
        prompt: String::new(),
        negative_prompt: String::new(),
        strength: 1.0,
        noise_aug: 0,
        restoration: None,
        colour_fix: ColourFix::Wavelet,
    }
}

/// Both stages, one result.
fn restore(
    model: &Model,
    photo: &Photo,
    options: &Options,
    seed: u64,
    watch: &mut dyn Watch,
) -> Result<Raster, Error> {
    let prepared = model.prepare(photo, options, true, watch)?;
    let mut noise = TorchNoise::new(NoiseSource::TorchCpu, seed);
    Ok(model.detail(&prepared, 1, options, &mut noise, watch)?.remove(0))
}

/// A watch that lets everything go on.
fn on(_: Progress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn run(model: &Model, photo: &Photo, options: &Options) -> Vec<f32> {
    let restored = restore(model, photo, options, 231, &mut on).unwrap();
    assert_eq!((restored.width_px, restored.height_px), (photo.width_px * 2, photo.height_px * 2));
    restored.data
}

#[test]
fn every_option_acts_and_nothing_else_does() {
    let model = model(1.0);
    let (small, other) = (photo(21, 17), photo(16, 16));
    let first = run(&model, &small, &options());
    run(&model, &other, &options());
    assert_eq!(first, run(&model, &small, &options()), "what was restored before must not matter");
    let differs = |options: Options| assert_ne!(first, run(&model, &small, &options), "{options:?}");
    assert_ne!(first, restore(&model, &small, &options(), 232, &mut on).unwrap().data);
    differs(Options { steps: 4, ..options() });
    differs(Options { sampler: Sampler::Spaced, ..options() });
    differs(Options { parameters: Parameters { eta: 0.5, ..Parameters::default() }, ..options() });
    differs(Options { cfg_scale: 2.0, rescale_cfg: true, ..options() });
    differs(Options { strength: 0.5, ..options() });
    differs(Options { cfg_scale: 2.0, ..options() });
    differs(Options { noise_aug: 100, ..options() });
    differs(Options { colour_fix: ColourFix::Adain, ..options() });
    differs(Options { colour_fix: ColourFix::None, ..options() });
    differs(Options { stage1: false, ..options() });
    assert_ne!(first, model.prepare(&small, &options(), false, &mut on).unwrap().clean().data);
}

/// Keeps the latent of stage 1 and that of the result.
#[derive(Default)]
struct Ends(Vec<f32>, Vec<f32>);

impl Watch for Ends {
    fn progress(&mut self, _: Progress) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    fn value(&mut self, value: Value) {
        match value {
            Value::Condition(latent) => self.0 = latent.data.clone(),
            Value::Sampled(latent) => self.1 = latent.data.clone(),
            _ => {}
        }
    }
}

/// Whatever is compared, the stronger the pull, the nearer to stage 1; and none is none.
#[test]
fn restoration_guidance_pulls_towards_stage_1() {
    let (model, photo) = (model(1.0), photo(16, 16));
    for (loss, space, scale) in [
        (Loss::Mse, Space::Latent, 2e-3),
        (Loss::Mse, Space::Rgb, 1e-3),
        (Loss::WeightedMse, Space::Rgb, 1e-3),
    ] {
        let distance = |scale: f64, stop| {
            let how = Restoration { loss, space, scale, start: 1001, stop, repeat: 1 };
            let (sampler, colour_fix) = (Sampler::Spaced, ColourFix::None);
            let options = Options { sampler, colour_fix, restoration: Some(how), ..options() };
            let mut ends = Ends::default();
            let prepared = model.prepare(&photo, &options, true, &mut ends).unwrap();
            let mut noise = TorchNoise::new(NoiseSource::TorchCpu, 231);
            let result = model.detail(&prepared, 1, &options, &mut noise, &mut ends).unwrap().remove(0);
            let (of_stage1, of_result) = match space {
                Space::Latent => (ends.0, ends.1),
                Space::Rgb => (prepared.clean().data, result.data),
            };
            of_result.into_iter().zip(of_stage1).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>()
        };
        let [none, never, weak, strong] = [(0.0, -1), (scale, 1001), (scale, -1), (4.0 * scale, -1)]
            .map(|(scale, stop)| distance(scale, stop));
        // The noise that stage 1 gives here is all edges, which are hardly pulled.
        let nearer = if loss == Loss::Mse { strong < weak && weak < none } else { strong != none };
        assert!(nearer, "{loss:?}, {space:?}: {strong}, {weak}, {none}");
        if space == Space::Rgb {
            assert_eq!(never, none);
        }
    }
    let how =
        Restoration { loss: Loss::Mse, space: Space::Rgb, scale: 1.0, start: 1001, stop: -1, repeat: 1 };
    let refused = model.check(&Options { restoration: Some(how), ..options() }).unwrap_err().to_string();
    assert!(refused.contains("spaced"), "{refused}");
}

#[test]
fn regions_have_their_own_fidelity() {
    let (model, photo) = (model(1.0), photo(24, 16));
    let mask = |fidelity: fn(usize) -> f32| {
        let data = (0..24 * 16).map(|at| fidelity(at % 24)).collect();
        Some(Arc::new(Raster { width_px: 24, height_px: 16, channels: 1, data }))
    };
    for sampler in [Sampler::Spaced, Sampler::DEFAULT] {
        let options = Options { sampler, steps: 4, fidelity: 0.5, ..options() };
        // A mask of one value is that fidelity; what is wholly faithful is stage 1 itself.
        let even = Options { regions: mask(|_| 0.5), fidelity: 0.0, ..options.clone() };
        assert_eq!(run(&model, &photo, &even), run(&model, &photo, &options), "{sampler}");
        let prepared = model.prepare(&photo, &options, true, &mut on).unwrap();
        let clean = prepared.clean().data;
        // As with a fidelity of 1, `spaced` has too few steps left.
        if sampler != Sampler::Spaced {
            assert_eq!(run(&model, &photo, &Options { regions: mask(|_| 1.0), ..options.clone() }), clean);
        }
        let half = Options { regions: mask(|x| if x < 12 { 1.0 } else { 0.0 }), ..options.clone() };
        let found = run(&model, &photo, &half);
        let row = 3 * 48;
        for (y, (found, clean)) in found.chunks(row).zip(clean.chunks(row)).enumerate() {
            assert_eq!(found[..3 * 20], clean[..3 * 20], "{sampler}, row {y}");
            assert_ne!(found[3 * 28..], clean[3 * 28..], "{sampler}, row {y}");
        }
    }
    let ddim = Options { regions: mask(|_| 0.5), sampler: Sampler::Ddim, ..options() };
    assert!(model.check(&ddim).unwrap_err().to_string().contains("spaced and edm_*, not with ddim"));
}

#[test]
fn prompts_act_in_a_model_with_text_and_batches_and_reading_change_nothing() {
    let text = ClipTextConfig { width: 6, heads: 2, blocks: 2, ..ClipTextConfig::official() };
    let unet = UnetConfig { learned_context: false, ..unet() };
    let mut file = Checkpoint::default();
    add(&mut file, "stage1", Lively(1.0), |params| swinir().build(params));
    add(&mut file, "autoencoder", Lively(1.0), |params| kl().build(params));
    add(&mut file, "unet", Lively(1.0), |params| unet.build(params));
    add(&mut file, "control", Lively(1.0), |params| ControlNet::new(params, &unet));
    add(&mut file, "text", Lively(1.0), |params| text.build(params));
    let config = Stage2Config {
        unet: unet.clone(),
        text: Some(text),
        prediction: Prediction::Eps,
        terminal: Terminal::Plain,
        ..stage2()
    };
    let (path, _folder) = written(file, Stage1Config::SwinIr(swinir()), Some(config));
    let device = Device::flex();
    let model = Model::open(&path, Loading::on(&device)).unwrap();
    assert!(model.has_text());
    let photo = photo(21, 17);
    let options = Options { cfg_scale: 2.0, prompt: "a city".into(), ..options() };
    let first = run(&model, &photo, &options);
    assert_ne!(first, run(&model, &photo, &Options { prompt: "a dog".into(), ..options.clone() }));
    assert_ne!(first, run(&model, &photo, &Options { negative_prompt: "blurry".into(), ..options.clone() }));
    assert_eq!(first, run(&model, &photo, &options));
    // Neither does reading networks for each use, or a step's predictions one after the other.
    let mut at_rest = Model::open(&path, Loading { apart: true, ..Loading::on(&device) }).unwrap();
    let apart = Options { guidance_apart: true, ..options.clone() };
    assert_eq!(first, run(&at_rest, &photo, &apart));
    at_rest.hold(Precision::F32, false).unwrap();
    assert_eq!(first, run(&at_rest, &photo, &options));
    // With a plain schedule something of the picture is left at the last timestep.
    let from_picture = run(&model, &photo, &Options { start: StartPoint::Cond, ..options.clone() });
    assert_ne!(first, from_picture);
    let from_smooth = run(&model, &photo, &Options { better_start: true, ..options.clone() });
    assert!(first != from_smooth && from_picture != from_smooth);
    // The less of the way, the nearer to what the latent of stage 1 decodes to.
    let near = run(&model, &photo, &Options { fidelity: 0.999, ..options.clone() });
    let far = |other: &[f32]| near.iter().zip(other).map(|(a, b)| (a - b).abs()).sum::<f32>();
    let halfway = run(&model, &photo, &Options { fidelity: 0.98, ..options.clone() });
    assert!(far(&halfway) > 0.0 && far(&halfway) < far(&first), "{} and {}", far(&halfway), far(&first));

    let prepared = model.prepare(&photo, &options, true, &mut on).unwrap();
    let new = |seed| TorchNoise::new(NoiseSource::TorchCpu, seed);
    let mut noise = Stacked(vec![new(230), new(231)]);
    let both = model.detail(&prepared, 2, &options, &mut noise, &mut on).unwrap();
    let error = both[1].data.iter().zip(&first).fold(0f32, |most, (a, b)| most.max((a - b).abs()));
    assert!(error < 1e-4, "a result depends on its batch: {error}");
    assert_ne!(both[0].data, both[1].data);
}

#[test]
fn tiles_that_do_not_fit_the_networks_are_refused_before_any_work() {
    let model = model(1.0);
    let tiles = |tile_px| Cut::Tiles(Sliding { tile_px, stride_px: 8 });
    let check = |tiling| model.check(&Options { tiling, ..options() }).map_err(|error| error.to_string());
    assert_eq!(check(Tiling { cleaner: tiles(32), denoiser: tiles(32), ..Tiling::default() }), Ok(()));
    let refused = check(Tiling { cleaner: tiles(30), ..Tiling::default() }).unwrap_err();
    assert!(refused.contains("stage 1") && refused.contains("30"), "{refused}");
    assert!(check(Tiling { denoiser: tiles(24), ..Tiling::default() }).unwrap_err().contains("16"));
}

/// It sees few pixels around a pixel, and so does a tile.
#[test]
fn a_convolutional_stage_1_in_tiles_is_the_whole() {
    let config = SrvggConfig { features: 4, convolutions: 2, upscale: 2 };
    let mut file = Checkpoint::default();
    add(&mut file, "stage1", Lively(1.0), |params| config.build(params));
    let model = open(file, Stage1Config::Srvgg(config), None);
    let photo = photo(1100, 530);
    let clean = |cleaner| {
        let options = Options { tiling: Tiling { cleaner, ..Tiling::WHOLE }, ..options() };
        let mut tiles = 0;
        let mut count = |progress: Progress| {
            tiles = progress.total;
            ControlFlow::Continue(())
        };
        let clean = model.prepare(&photo, &options, false, &mut count).unwrap().clean().clone();
        (clean.data, tiles)
    };
    let ((tiled, tiles), (whole, one)) = (clean(Cut::Auto), clean(Cut::Whole));
    assert!(tiles > one && tiled == whole, "{tiles} of {one}");
}

#[test]
fn guided_steps_count_once() {
    let mut counts = Vec::new();
    let options = Options { cfg_scale: 2.0, ..options() };
    restore(&model(1.0), &photo(16, 16), &options, 231, &mut |progress: Progress| {
        if progress.stage == Stage::Sample {
            counts.push(progress.done);
        }
        ControlFlow::Continue(())
    })
    .unwrap();
    assert!(counts.is_sorted(), "{counts:?}");
    assert_eq!(counts.iter().filter(|&&done| done == 3).count(), 1, "{counts:?}");
    assert!((0..3).all(|done| counts.contains(&done)), "{counts:?}");
}

#[test]
fn large_pictures_run_in_tiles() {
    let mut stages = Vec::new();
    let model = model(1.0);
    let options = Options { steps: 2, ..options() };
    let restored = restore(&model, &photo(560, 300), &options, 231, &mut |progress: Progress| {
        stages.push((progress.stage, progress.total));
        ControlFlow::Continue(())
    })
    .unwrap();
    assert_eq!((restored.width_px, restored.height_px), (1120, 600));
    assert!(restored.is_finite());
    for stage in [Stage::Stage1, Stage::Encode, Stage::Decode] {
        assert!(stages.iter().any(|&(s, total)| s == stage && total > 1), "{stage} ran whole");
    }
}

#[test]
fn tiles_of_a_convolutional_stage_1_leave_no_seam() {
    let sizes = SrvggConfig { features: 4, convolutions: 1, upscale: 2 };
    let mut file = Checkpoint::default();
    add(&mut file, "stage1", Lively(1.0), |params| sizes.build(params));
    let model = open(file, Stage1Config::Srvgg(sizes), None);
    let restore = |photo: &Photo| restore(&model, photo, &options(), 231, &mut on).unwrap();
    let large = photo(1100, 520);
    let Samples::U8(samples) = &large.samples else { unreachable!("eight bits") };
    // The columns around the first seam by themselves, which fit into one tile.
    let (from, width) = (450, 120);
    let part: Vec<u8> =
        samples.chunks_exact(1100 * 3).flat_map(|row| &row[from * 3..(from + width) * 3]).copied().collect();
    let mut alone = large.clone();
    (alone.width_px, alone.samples) = (width, Samples::U8(part));
    let whole = restore(&large).crop((from + 10) * 2, 0, 200, 1040);
    let alone = restore(&alone).crop(20, 0, 200, 1040);
    let error = whole.data.iter().zip(&alone.data).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
    assert!(error < 1e-5, "the seam shows: {error}");
}

#[test]
fn values_that_are_no_numbers_name_their_stage() {
    let broken = model(1e30);
    let error = restore(&broken, &photo(16, 16), &options(), 231, &mut on).err();
    assert!(matches!(error, Some(Error::NotFinite(Stage::Sample))), "{error:?}");
}

#[test]
fn a_run_stops_when_it_is_asked_to() {
    let model = model(1.0);
    let error = restore(&model, &photo(16, 16), &options(), 231, &mut |progress: Progress| {
        if progress.stage == Stage::Sample && progress.done == 1 {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    });
    assert!(matches!(error.err(), Some(Error::Stopped)));
}

#[test]
fn a_convolutional_stage_1_tells_of_its_layers_and_stops_between_them() {
    let sizes = SrvggConfig { features: 4, convolutions: 3, upscale: 2 };
    let mut file = Checkpoint::default();
    add(&mut file, "stage1", Lively(1.0), |params| sizes.build(params));
    let model = open(file, Stage1Config::Srvgg(sizes), None);
    let mut told = Vec::new();
    let error = restore(&model, &photo(16, 16), &options(), 231, &mut |progress: Progress| {
        told.push((progress.done, progress.total));
        if progress.done == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert!(matches!(error.err(), Some(Error::Stopped)));
    // Before the network is read nobody knows how many layers it has.
    assert_eq!(told, [(0, 1), (0, 5), (1, 5), (2, 5)]);
}

#[test]
fn a_file_that_is_no_model_says_so() {
    let folder = tempfile::TempDir::new().unwrap();
    let path = folder.path().join("other.safetensors");
    std::fs::write(&path, Checkpoint::default().to_safetensors(false).unwrap()).unwrap();
    let error = Model::open(&path, Loading::on(&Device::flex())).err().expect("refused").to_string();
    assert!(error.contains("other.safetensors") && error.contains("is no model"), "{error}");
}

#[test]
fn a_tensor_of_no_network_is_named() {
    let sizes = SrvggConfig { features: 4, convolutions: 3, upscale: 2 };
    for name in ["ema", "unet"] {
        let mut file = Checkpoint::default();
        for place in ["stage1", name] {
            add(&mut file, place, Lively(1.0), |params| sizes.build(params));
        }
        let error = load(file, Stage1Config::Srvgg(sizes.clone()), None).err().expect("refused").to_string();
        assert!(error.contains(&format!("{name}.body.0.bias")), "{error}");
    }
}
