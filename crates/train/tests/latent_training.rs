//! The trainers of stage 2 on pictures made here, with small networks of every kind: they learn, and a run that was
//! stopped goes on bit for bit.

mod pictures;

use diffbir_diffusion::schedule::{Prediction, Terminal};
use diffbir_models::clip::ClipTextConfig;
use diffbir_models::kl::KlConfig;
use diffbir_models::srvgg::SrvggConfig;
use diffbir_models::stage1::Stage1Config;
use diffbir_models::swinir::SwinIrConfig;
use diffbir_models::taef2::Taef2Config;
use diffbir_models::unet::UnetConfig;
use diffbir_nn::checkpoint::Checkpoint;
use diffbir_nn::params::{RandomInit, build};
use diffbir_nn::{Device, Module, Params, WeightError};
use diffbir_train::config::*;
use diffbir_train::data::{Augment, Crop};
use diffbir_train::run::{Report, TrainError};
use diffbir_train::stage2;
use pictures::{pictures, tensors};
use std::path::{Path, PathBuf};

/// A file of random weights.
fn save<N: Module>(file: &Path, seed: u64, network: impl Fn(&Params) -> Result<N, WeightError>) -> PathBuf {
    let mut random = RandomInit { seed };
    let (network, keys) = build(&mut random, &Device::flex(), network).unwrap();
    let weights = Checkpoint::from_tensors(keys.tensors(&network));
    std::fs::write(file, weights.to_safetensors(false).unwrap()).unwrap();
    file.to_path_buf()
}

fn kl() -> Network<AutoencoderSizes> {
    let sizes = KlConfig {
        channels: 8,
        multipliers: vec![1, 1, 2],
        blocks: 1,
        latent_channels: 4,
        norm_groups: 4,
        scale: 0.5,
    };
    Network { base: "kl-f8".into(), sizes: AutoencoderSizes::Kl(sizes) }
}

fn unet() -> Network<UnetConfig> {
    let sizes = UnetConfig {
        latent_channels: 4,
        model_channels: 16,
        multipliers: vec![1, 2],
        blocks: 1,
        attention: vec![false, true],
        head_channels: 8,
        norm_groups: 4,
        context_channels: 8,
        learned_context: false,
    };
    Network { base: "nano".into(), sizes }
}

/// A prior that reads, on an autoencoder whose latents are drawn.
fn prior(folder: &Path) -> PriorTraining {
    let data = folder.join("data");
    if !data.exists() {
        pictures(&data);
        std::fs::write(data.join("1.txt"), "a photograph\n").unwrap();
        // Latents are made of whatever pictures can come from.
        std::fs::write(folder.join("list.txt"), "data/0.png\ndata/1.png\tits words\ndata/2.png\n").unwrap();
    }
    let AutoencoderSizes::Kl(kl_sizes) = kl().sizes else { unreachable!() };
    let clip = ClipTextConfig { width: 8, heads: 2, blocks: 2, ..ClipTextConfig::official() };
    let start = PriorTraining::default();
    PriorTraining {
        network: unet(),
        diffusion: DiffusionConfig {
            prediction: Prediction::Eps,
            terminal: Terminal::Plain,
            timesteps: Timesteps::Stratified,
        },
        autoencoder: Trained {
            path: save(&folder.join("kl.safetensors"), 9, |params| kl_sizes.build(params)),
            network: kl(),
        },
        text: TextConfig {
            encoder: Some(save(&folder.join("clip.safetensors"), 9, |params| clip.build(params))),
            network: Network { base: "sd2.1".into(), sizes: clip },
            prompt: "a picture".into(),
            long_captions: 0.0,
            dropout: 0.3,
        },
        data: LatentData {
            folders: vec![folder.join("list.txt")],
            latents: folder.join("latents"),
            side_cells: 8,
            ..start.data
        },
        validation: LatentValidation { folders: vec![data], ..LatentValidation::default() },
        optimizer: OptimizerConfig { rate: 2e-3, ..start.optimizer },
        schedule: ScheduleConfig { shape: Shape::Constant, warm_up: 2 },
        run: RunConfig {
            output: folder.join("prior"),
            steps: 60,
            batch: 4,
            checkpoint_every: 20,
            log_every: 20,
            ..start.run
        },
    }
}

/// Losses of the validations.
fn validations(
    trainer: impl FnOnce(&mut dyn FnMut(Report)) -> Result<(), TrainError>,
) -> Result<Vec<f64>, TrainError> {
    let mut losses = Vec::new();
    trainer(&mut |report| {
        if let Report::Validation { measured, .. } = report {
            losses.push(measured.rank.expect("there are validation pictures"));
        }
    })?;
    Ok(losses)
}

fn stage2(folder: &Path, prior: &PriorTraining) -> Stage2Training {
    let cleaner = Stage1Config::Srvgg(SrvggConfig { features: 4, convolutions: 1, upscale: 4 });
    let start = Stage2Training::default();
    Stage2Training {
        network: prior.network.clone(),
        diffusion: prior.diffusion,
        control: ControlConfig {
            unet: prior.run.output.join("unet.safetensors"),
            draws: 1,
            recipe: "codeformer".into(),
            noise_aug_timestep: 200,
            ..start.control
        },
        autoencoder: prior.autoencoder.clone(),
        stage1: Trained {
            path: save(&folder.join("stage1.safetensors"), 9, |params| cleaner.build(params)),
            network: Network { base: "srvgg".into(), sizes: cleaner },
        },
        text: prior.text.clone(),
        data: prior.data.clone(),
        validation: prior.validation.clone(),
        optimizer: prior.optimizer,
        schedule: prior.schedule,
        run: RunConfig { output: folder.join("control"), ..prior.run.clone() },
        ..start
    }
}

#[test]
fn prior_and_branch_learn_and_go_on() {
    let folder = tempfile::TempDir::new().unwrap();
    let folder = folder.path();
    let device = Device::flex();
    let prior = prior(folder);
    let losses = validations(|report| stage2::train_prior(&prior, &device, report)).unwrap();
    assert!(losses[3] < losses[0] - 0.02, "{losses:?}");

    let branch = stage2(folder, &prior);
    let whole = validations(|report| stage2::train_control(&branch, &device, report)).unwrap();
    assert!(whole[3] < whole[0] - 0.001, "{whole:?}");
    // The branch begins with no effect.
    assert!((whole[0] - losses[3]).abs() < 0.02, "{losses:?} {whole:?}");

    // What it draws is shown, by the prior alone without a condition.
    let shown = |run: &Path| {
        let file = std::fs::read_dir(run.join("events")).unwrap().next().unwrap().unwrap().path();
        let events = String::from_utf8_lossy(&std::fs::read(file).unwrap()).into_owned();
        let tags =
            ["samples", "gt", "prompt", "lq", "condition", "condition_decoded", "condition_aug_decoded"];
        // Behind a tag follows what it tags: a picture, or a text's tensor.
        tags.map(|tag| {
            events.matches(&format!("image/{tag}\"")).count()
                + events.matches(&format!("image/{tag}B")).count()
        })
    };
    assert_eq!(shown(&prior.run.output), [4, 4, 4, 0, 0, 0, 0]);
    assert_eq!(shown(&branch.run.output), [4; 7]);

    let mut parts = branch.clone();
    parts.run.output = folder.join("parts");
    let stopped = std::panic::catch_unwind(|| {
        let _ = stage2::train_control(&parts, &Device::flex(), &mut |report| {
            assert!(!matches!(report, Report::Validation { step: 40, .. }), "stop here");
        });
    });
    assert!(stopped.is_err());
    let rest = validations(|report| stage2::train_control(&parts, &device, report)).unwrap();
    assert_eq!(rest, [whole[3]]);
    for name in ["control.safetensors", "checkpoints/0000060.safetensors"] {
        assert_eq!(tensors(&branch.run.output.join(name)), tensors(&parts.run.output.join(name)), "{name}");
    }

    // Latents that another stage 1 made are not taken for this one's.
    let mut other = branch.clone();
    other.run.output = folder.join("other");
    other.stage1.path = folder.join("other.safetensors");
    let Stage1Config::Srvgg(sizes) = &other.stage1.network.sizes else { unreachable!() };
    save(&other.stage1.path, 8, |params| sizes.build(params));
    let error = stage2::train_control(&other, &device, &mut |_| {}).unwrap_err().to_string();
    assert!(error.contains("made by other networks"), "{error}");

    // Both together go on from there.
    let mut both = branch.clone();
    both.run.output = folder.join("both");
    (both.run.steps, both.run.recompute) = (20, true);
    both.control.together_with = Some(branch.run.output.join("control.safetensors"));
    let together = validations(|report| stage2::train_control(&both, &device, report)).unwrap();
    assert!((together[0] - whole[3]).abs() < 1e-6, "{whole:?} {together:?}");
    let weights = tensors(&both.run.output.join("stage2.safetensors"));
    for prefix in ["unet.", "control."] {
        assert!(weights.keys().any(|name| name.starts_with(prefix)));
    }
}

/// UNet and branch learn to do with one step, before a discriminator that is heard from the tenth on.
#[test]
fn one_step_is_learned_by_its_picture_and_goes_on() {
    let folder = tempfile::TempDir::new().unwrap();
    let folder = folder.path();
    let device = Device::flex();
    let mut prior = prior(folder);
    (prior.run.steps, prior.run.checkpoint_every, prior.validation.shown) = (10, 10, 0);
    validations(|report| stage2::train_prior(&prior, &device, report)).unwrap();
    let branch = stage2(folder, &prior);
    validations(|report| stage2::train_control(&branch, &device, report)).unwrap();
    let mut one = branch.clone();
    one.run = RunConfig { output: folder.join("one"), steps: 30, log_every: 5, ..branch.run.clone() };
    one.control.together_with = Some(branch.run.output.join("control.safetensors"));
    one.loss = PictureLoss { l1: 1.0, ..PictureLoss::default() };
    one.one_step = OneStepConfig {
        timestep: 700,
        latent: 0.1,
        decoder: false,
        discriminator: 0.01,
        discriminator_start: 10,
    };
    let train = |run: &Stage2Training| {
        let (mut losses, mut terms) = (Vec::new(), Vec::new());
        stage2::train_control(run, &device, &mut |report| match report {
            Report::Validation { measured, .. } => losses.extend(measured.rank),
            Report::Steps(steps) => {
                terms.push(steps.terms.iter().map(|(name, _)| *name).collect::<Vec<_>>());
            }
            _ => {}
        })
        .map(|()| (losses, terms))
    };
    let (losses, terms) = train(&one).unwrap();
    assert!(losses[3] < losses[0] - 0.01, "{losses:?}");
    assert_eq!(terms[1], ["picture", "latent"]);
    assert_eq!(terms[2], ["picture", "latent", "adversarial", "discriminator"]);
    // For use are those that restore, without the discriminator.
    let weights = tensors(&one.run.output.join("stage2.safetensors"));
    assert!(weights.keys().all(|name| name.starts_with("unet.") || name.starts_with("control.")));

    // The decoder learns with them, and its encoder stays.
    let mut whole = one.clone();
    (whole.one_step.decoder, whole.run.output) = (true, folder.join("whole"));
    let (learned, _) = train(&whole).unwrap();
    assert!(learned[0] == losses[0] && learned[3] < losses[3], "{losses:?} {learned:?}");
    let before = tensors(&one.autoencoder.path);
    let after = tensors(&whole.run.output.join("stage2.safetensors"));
    for (name, values) in &before {
        let same = after[&format!("autoencoder.{name}")] == *values;
        let decodes = ["decoder.", "post_quant_conv."].iter().any(|place| name.starts_with(place));
        assert_eq!(same, !decodes, "{name}");
    }

    let mut parts = whole.clone();
    parts.run.output = folder.join("parts");
    let stopped = std::panic::catch_unwind(|| {
        let _ = stage2::train_control(&parts, &Device::flex(), &mut |report| {
            assert!(!matches!(report, Report::Validation { step: 20, .. }), "stop here");
        });
    });
    assert!(stopped.is_err());
    train(&parts).unwrap();
    let state = |run: &Stage2Training| tensors(&run.run.output.join("checkpoints/0000030.safetensors"));
    assert_eq!(state(&whole), state(&parts));

    for (change, field) in [
        ((|run| run.control.together_with = None) as fn(&mut Stage2Training), "control.together_with"),
        (|run| run.loss.l1 = 0.0, "loss"),
        (|run| run.one_step.timestep = 1000, "one_step.timestep"),
        (|run| run.one_step.timestep = 0, "one_step.timestep"),
        (|run| run.one_step.discriminator = -1.0, "one_step.discriminator"),
    ] {
        let mut wrong = one.clone();
        change(&mut wrong);
        let error = train(&wrong).unwrap_err().to_string();
        assert!(error.contains(field), "{error}");
    }
}

#[test]
fn denoisers_learn_in_bf16_as_in_f32_and_go_on() {
    let folder = tempfile::TempDir::new().unwrap();
    let folder = folder.path();
    let device = Device::flex();
    let mut first = prior(folder);
    (first.run.steps, first.run.checkpoint_every) = (20, 10);
    let mut losses = Vec::new();
    for precision in [Precision::F32, Precision::Bf16] {
        let of = |name: &str| folder.join(format!("{name} {precision:?}"));
        let mut prior = first.clone();
        (prior.run.precision, prior.run.output) = (precision, of("prior"));
        let mut told = validations(|report| stage2::train_prior(&prior, &device, report)).unwrap();
        let mut branch = stage2(folder, &prior);
        branch.run.output = of("branch");
        told.extend(validations(|report| stage2::train_control(&branch, &device, report)).unwrap());
        let mut both = branch.clone();
        (both.run.output, both.run.recompute) = (of("both"), true);
        both.control.together_with = Some(branch.run.output.join("control.safetensors"));
        told.extend(validations(|report| stage2::train_control(&both, &device, report)).unwrap());
        losses.push(told);
        if precision == Precision::F32 {
            continue;
        }
        let mut parts = both.clone();
        parts.run.output = of("parts");
        let stopped = std::panic::catch_unwind(|| {
            let _ = stage2::train_control(&parts, &Device::flex(), &mut |report| {
                assert!(!matches!(report, Report::Validation { step: 10, .. }), "stop here");
            });
        });
        assert!(stopped.is_err());
        validations(|report| stage2::train_control(&parts, &device, report)).unwrap();
        let state = |run: &Stage2Training| tensors(&run.run.output.join("checkpoints/0000020.safetensors"));
        assert_eq!(state(&both), state(&parts));
    }
    let [exact, rounded] = &losses[..] else { unreachable!() };
    assert!(exact != rounded && exact[2] < exact[0] && rounded[2] < rounded[0], "{losses:?}");
    for (exact, rounded) in exact.iter().zip(rounded) {
        assert!((exact - rounded).abs() < 0.01, "{losses:?}");
    }
}

/// As the reference trains: crops are degraded, cleaned and encoded in the step that they are for.
#[test]
fn latents_that_are_made_anew_are_the_same_in_a_run_that_goes_on() {
    let folder = tempfile::TempDir::new().unwrap();
    let folder = folder.path();
    let device = Device::flex();
    let mut prior = prior(folder);
    prior.data = LatentData {
        latents: PathBuf::new(),
        crop: Crop::Center,
        augment: Augment { mirror: true, ..Augment::default() },
        ..prior.data
    };
    prior.diffusion.timesteps = Timesteps::Independent;
    prior.text.long_captions = 0.2;
    (prior.run.batch, prior.run.steps) = (2, 40);
    let losses = validations(|report| stage2::train_prior(&prior, &device, report)).unwrap();
    assert!(losses[2] < losses[0] - 0.02, "{losses:?}");

    let mut whole = stage2(folder, &prior);
    whole.run.steps = 8;
    whole.run.checkpoint_every = 4;
    // Its windows are larger than a crop.
    let sizes = SwinIrConfig {
        embed: 12,
        depths: vec![2],
        heads: vec![2],
        upsampling_features: 8,
        ..SwinIrConfig::official()
    };
    whole.stage1 = Trained {
        path: save(&folder.join("swinir.safetensors"), 9, |params| sizes.build(params)),
        network: Network { base: "swinir-official".into(), sizes: Stage1Config::SwinIr(sizes) },
    };
    whole.control = ControlConfig { recipe: "realesrgan".into(), by_batch: true, pool: 4, ..whole.control };
    let mut parts = whole.clone();
    validations(|report| stage2::train_control(&whole, &device, report)).unwrap();
    parts.run.output = folder.join("parts");
    let stopped = std::panic::catch_unwind(|| {
        let _ = stage2::train_control(&parts, &Device::flex(), &mut |report| {
            assert!(!matches!(report, Report::Validation { step: 4, .. }), "stop here");
        });
    });
    assert!(stopped.is_err());
    validations(|report| stage2::train_control(&parts, &device, report)).unwrap();
    let state = |run: &Stage2Training| tensors(&run.run.output.join("checkpoints/0000008.safetensors"));
    assert_eq!(state(&whole), state(&parts));
    // Only those of held-out pictures are kept.
    let kept = std::fs::read_dir(whole.run.output.join("latents")).unwrap();
    assert_eq!(kept.map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>(), ["valid"]);

    parts.run.output = folder.join("none");
    let refused = |config: &Stage2Training| {
        let error = stage2::train_control(config, &device, &mut |_| {}).unwrap_err().to_string();
        assert!(!config.run.output.exists());
        error
    };
    parts.run.batch = 3;
    assert!(refused(&parts).contains("control.pool: it must be a multiple of run.batch"));
    parts.run.batch = 4;
    assert!(refused(&parts).contains("there are 3 pictures for a batch of 4"));
    parts.run.batch = 2;
    parts.data.latents = folder.join("latents");
    assert!(refused(&parts).contains("data.crop and data.augment are for latents that are made anew"));
    (parts.data.crop, parts.data.augment) = (Crop::Inside, Augment::default());
    assert!(refused(&parts).contains("control.by_batch and control.pool are for latents that are made anew"));
}

/// The mean of a latent is cached with its deviation, and prompts are read anew.
#[test]
fn what_does_not_fit_is_refused_before_the_first_step() {
    let folder = tempfile::TempDir::new().unwrap();
    let folder = folder.path();
    let refused = |change: &dyn Fn(&mut PriorTraining), why: &str| {
        let mut config = prior(folder);
        change(&mut config);
        let error = stage2::train_prior(&config, &Device::flex(), &mut |_| {}).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    };
    refused(&|config| config.text.encoder = None, "text.encoder: a network without a learned token");
    refused(&|config| config.text.dropout = 1.5, "text.dropout");
    diffbir_nn::ops::without_kernels(|| {
        refused(
            &|config| config.run.precision = Precision::Bf16,
            "run.precision: only the CPU trains in bf16",
        );
    });
    refused(&|config| config.data.side_cells = 7, "data.side_cells: it must be a multiple of 2");
    refused(&|config| config.data.side_cells = 100, "no picture of at least");
    refused(
        &|config| {
            let taef2 = Taef2Config { latent_channels: 5, ..Taef2Config::published() };
            config.autoencoder.network.sizes = AutoencoderSizes::Taef2(taef2);
        },
        "network.latent_channels: the autoencoder's latents have 5 channels",
    );
}
