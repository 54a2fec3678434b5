//! What a training run made, as a model.

use anyhow::{Context, Result, bail};
use diffbir::ModelConfig;
use diffbir::catalog::{self, Set};
use diffbir::config::{AutoencoderConfig, SamplingDefaults, Stage2Config};
use diffbir::geometry::Geometry;
use diffbir::model::Parts;
use diffbir_diffusion::schedule::LAST_T;
use diffbir_nn::checkpoint::Checkpoint;
use diffbir_train::config::{self, AutoencoderSizes, Config, Stage1Training, Stage2Training};
use diffbir_train::files::{Part, weights_of_run};
use diffbir_train::parts;
use std::path::{Path, PathBuf};

/// Whether a path is the folder of a training run.
pub fn is_run(path: &Path) -> bool {
    path.join("config.toml").is_file()
}

/// The model of a run of stage 1, or of stage 2 with all that it was trained with: the weights with the best validation,
/// where there was any, and otherwise the newest. Other files are found where the run's configuration says.
pub fn model(run: &Path) -> Result<(ModelConfig, Parts)> {
    let name = run.file_name().map_or_else(|| "custom".into(), |name| name.to_string_lossy().into_owned());
    let origin = |what: &str, file: &Path| format!("{what}: trained by `diffbir train`, {}", file.display());
    if let Some(file) = weights_of_run(run, "stage1") {
        let config: Stage1Training = settled(run)?;
        let model = ModelConfig {
            name,
            origin: vec![origin("stage 1", &file)],
            stage1: config.network.sizes,
            stage2: None,
            geometry: Geometry::Free,
        };
        return Ok((model, Parts { stage1: Checkpoint::open(&file)?, ..Parts::default() }));
    }
    let (both, branch) = (weights_of_run(run, "stage2"), weights_of_run(run, "control"));
    let Some(file) = both.as_ref().or(branch.as_ref()) else {
        bail!("{}: is no run of stage 1 or stage 2 with weights: a model needs one of these", run.display());
    };
    let config: Stage2Training = settled(run)?;
    let trained = Checkpoint::open(file)?;
    let decoder_learned = both.is_some() && config.one_step.decoder;
    let autoencoder = match decoder_learned {
        true => trained.part("autoencoder"),
        false => parts::autoencoder_file(&config.autoencoder)?,
    };
    let (unet, control) = match both {
        Some(_) => (trained.part("unet"), trained.part("control")),
        None => (Part::Unet.open(&config.control.unet)?, trained),
    };
    let text = config.text.encoder.as_ref();
    let model = ModelConfig {
        name,
        origin: vec![
            origin("UNet and control branch", file),
            format!("stage 1: {}", config.stage1.path.display()),
            match decoder_learned {
                true => origin("the autoencoder's decoder", file),
                false => format!("autoencoder: {}", config.autoencoder.path.display()),
            },
        ],
        stage1: config.stage1.network.sizes.clone(),
        stage2: Some(Stage2Config {
            autoencoder: match config.autoencoder.network.sizes.clone() {
                AutoencoderSizes::Taef2(sizes) => AutoencoderConfig::Taef2(sizes),
                AutoencoderSizes::Kl(sizes) => AutoencoderConfig::Kl(sizes),
            },
            unet: config.network.sizes.clone(),
            text: text.map(|_| config.text.network.sizes.clone()),
            prediction: config.diffusion.prediction,
            terminal: config.diffusion.terminal,
            sampling: sampling(&config)?,
        }),
        geometry: Geometry::Free,
    };
    let parts = Parts {
        stage1: Part::Stage1.open(&config.stage1.path)?,
        autoencoder,
        unet,
        control,
        text: text.map(|file| parts::text_file(file)).transpose()?.unwrap_or_default(),
    };
    Ok((model, parts))
}

/// Runs on the UNets of runs are followed so far back.
const MOST_RUNS: usize = 16;

/// How the model of a run of stage 2 samples: as the model whose UNet it began with, else as models of these sizes do.
fn sampling(config: &Stage2Training) -> Result<SamplingDefaults> {
    let mut first = config.clone();
    for _ in 0..MOST_RUNS {
        let unet = &first.control.unet;
        if !is_run(unet) || weights_of_run(unet, "unet").is_some() {
            break;
        }
        first = settled(unet)?;
    }
    let of_model = |config: ModelConfig| config.stage2.map(|stage2| stage2.sampling);
    let unet = Part::Unet.whole(&first.control.unet)?;
    let begun_with = ModelConfig::of(&unet, "the UNet").ok().and_then(of_model);
    let of_sizes = || match config.network.base.as_str() {
        "nano" => of_model(ModelConfig::nano()),
        _ => catalog::set("v2.1").map(Set::sampling),
    };
    let habits = begun_with.or_else(of_sizes).unwrap_or_default();
    let habits = match config.one_step.timestep {
        0 => habits,
        // From where it was learned, and as it was: without guidance.
        timestep => SamplingDefaults {
            steps: 1,
            fidelity: habits.fidelity.max(1.0 - timestep as f64 / LAST_T as f64),
            cfg_scale: 1.0,
            s_noise: 1.0,
            ..habits
        },
    };
    if config.text.encoder.is_none() {
        return Ok(SamplingDefaults { prompt: String::new(), negative_prompt: String::new(), ..habits });
    }
    let prompt = Some(config.text.prompt.clone()).filter(|prompt| !prompt.is_empty());
    Ok(SamplingDefaults { prompt: prompt.unwrap_or(habits.prompt), ..habits })
}

/// The files beside the folder of a run whose networks its model has.
pub fn others(run: &Path) -> Result<Vec<PathBuf>> {
    if weights_of_run(run, "stage1").is_some() {
        return Ok(Vec::new());
    }
    let config: Stage2Training = settled(run)?;
    let parts = [
        (Part::Stage1, Some(config.stage1.path)),
        (Part::Autoencoder, Some(config.autoencoder.path)),
        (Part::Unet, Some(config.control.unet)),
        (Part::Text, config.text.encoder),
    ];
    let files = parts.into_iter().filter_map(|(part, path)| Some(part.file(&path?)));
    // What is built in changes with the program.
    Ok(files.filter(|file| file.exists()).collect())
}

fn settled<C: Config>(run: &Path) -> Result<C> {
    let file = run.join("config.toml");
    let layer = config::read(&file)?;
    let config: C = config::resolve(&file.display().to_string(), vec![layer])
        .with_context(|| format!("{}: the run was made by another trainer or version", run.display()))?;
    config.check_sizes().with_context(|| file.display().to_string())?;
    Ok(config)
}
