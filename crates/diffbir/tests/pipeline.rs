//! The whole pipeline with every official kind of network, made small and filled with random numbers.

use diffbir::model::{AutoencoderConfig, CONFIG_KEY, SamplingDefaults, Stage2Config};
use diffbir::restore::ColourFix;
use diffbir::{Error, Model, ModelConfig, Options, Stage};
use diffbir_diffusion::{Parameters, Prediction, Sampler, StartPoint, Terminal};
use diffbir_imaging::{Encoded, Format, Metadata, Photo, Samples, decode_bytes};
use diffbir_models::controlnet::ControlNet;
use diffbir_models::kl::KlConfig;
use diffbir_models::srvgg::SrvggConfig;
use diffbir_models::stage1::Stage1Config;
use diffbir_models::swinir::SwinIrConfig;
use diffbir_models::unet::UnetConfig;
use diffbir_nn::checkpoint::Checkpoint;
use diffbir_nn::params::{Init, RandomInit, Source, build};
use diffbir_nn::{Device, Module, Params, Precision, WeightError};
use std::ops::ControlFlow;

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

fn open(mut file: Checkpoint, stage1: Stage1Config, stage2: Option<Stage2Config>) -> Model {
    let config = ModelConfig { name: "small".into(), origin: Vec::new(), stage1, stage2 };
    file.metadata.insert(CONFIG_KEY.into(), serde_json::to_string(&config).unwrap());
    let folder = tempfile::TempDir::new().unwrap();
    let path = folder.path().join("small.safetensors");
    std::fs::write(&path, file.to_safetensors(false).unwrap()).unwrap();
    Model::open(&path, &Device::flex(), Precision::F32).unwrap()
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
        upscale: 2.0,
        stage1: true,
        stage2: true,
        sampler: Sampler::DEFAULT,
        parameters: Parameters::default(),
        start: StartPoint::Noise,
        steps: 3,
        cfg_scale: None,
        rescale_cfg: false,
        strength: 1.0,
        noise_aug: 0,
        seed: 231,
        colour_fix: ColourFix::Wavelet,
    }
}

fn run(model: &Model, photo: &Photo, options: &Options) -> Vec<f32> {
    let restored = model.restore(photo, options, &mut |_| ControlFlow::Continue(())).unwrap();
    let size = (restored.picture.width_px, restored.picture.height_px);
    assert_eq!(size, (photo.width_px * 2, photo.height_px * 2));
    restored.picture.data
}

#[test]
fn every_option_acts_and_nothing_else_does() {
    let model = model(1.0);
    let (small, other) = (photo(21, 17), photo(16, 16));
    let first = run(&model, &small, &options());
    run(&model, &other, &options());
    assert_eq!(first, run(&model, &small, &options()), "what was restored before must not matter");
    let differs = |options: Options| assert_ne!(first, run(&model, &small, &options), "{options:?}");
    differs(Options { seed: 232, ..options() });
    differs(Options { steps: 4, ..options() });
    differs(Options { sampler: Sampler::Spaced, ..options() });
    differs(Options { parameters: Parameters { eta: 0.5, ..Parameters::default() }, ..options() });
    differs(Options { cfg_scale: Some(2.0), rescale_cfg: true, ..options() });
    differs(Options { strength: 0.5, ..options() });
    differs(Options { cfg_scale: Some(2.0), ..options() });
    differs(Options { noise_aug: 100, ..options() });
    differs(Options { colour_fix: ColourFix::Adain, ..options() });
    differs(Options { colour_fix: ColourFix::None, ..options() });
    differs(Options { stage1: false, ..options() });
    differs(Options { stage2: false, ..options() });
}

#[test]
fn guided_steps_count_once() {
    let mut counts = Vec::new();
    let options = Options { cfg_scale: Some(2.0), ..options() };
    model(1.0)
        .restore(&photo(16, 16), &options, &mut |progress| {
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
    let restored = model
        .restore(&photo(560, 300), &options, &mut |progress| {
            stages.push((progress.stage, progress.total));
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!((restored.picture.width_px, restored.picture.height_px), (1120, 600));
    assert!(restored.picture.is_finite());
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
    let restore =
        |photo: &Photo| model.restore(photo, &options(), &mut |_| ControlFlow::Continue(())).unwrap().picture;
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
    let broken = model(f32::INFINITY);
    let error = broken.restore(&photo(16, 16), &options(), &mut |_| ControlFlow::Continue(())).err();
    assert!(matches!(error, Some(Error::NotFinite(Stage::Sample))), "{error:?}");
}

#[test]
fn a_run_stops_when_it_is_asked_to() {
    let model = model(1.0);
    let error = model.restore(&photo(16, 16), &options(), &mut |progress| {
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
    let error = model.restore(&photo(16, 16), &options(), &mut |progress| {
        told.push((progress.done, progress.total));
        if progress.done == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert!(matches!(error.err(), Some(Error::Stopped)));
    assert_eq!(told, [(0, 5), (1, 5), (2, 5)]);
}

#[test]
fn a_file_that_is_no_model_says_so() {
    let folder = tempfile::TempDir::new().unwrap();
    let path = folder.path().join("other.safetensors");
    std::fs::write(&path, Checkpoint::default().to_safetensors(false).unwrap()).unwrap();
    let error = Model::open(&path, &Device::flex(), Precision::F32).err().expect("refused").to_string();
    assert!(error.contains("other.safetensors") && error.contains("no diffbir model"), "{error}");
}
