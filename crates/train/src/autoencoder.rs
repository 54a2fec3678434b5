//! Training of an autoencoder (arXiv 2112.10752, section 3.1): the picture comes back, the latent stays near the
//! standard normal distribution, and a discriminator of patches may judge.

use crate::config::{AutoencoderLoss, AutoencoderTraining, Config};
use crate::data::{ExampleConfig, LoadConfig, Pictures};
use crate::degrade::{Recipe, generator, normal};
use crate::files::Part;
use crate::held_out::HeldOut;
use crate::losses::{ADVERSARIAL, DISCRIMINATOR, LossTerms, judged, new_discriminator};
use crate::optimizer::total;
use crate::run::{Batch, Loss, Report, Run, TrainError, to_tensor};
use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use diffbir_models::autoencoder::Autoencoder;
use diffbir_models::kl::{KlAutoencoder, KlConfig};
use diffbir_models::patch::PatchDiscriminator;
use diffbir_nn::checkpoint::Checkpoint;
use diffbir_nn::{Params, WeightError, recompute};
use std::cell::RefCell;

/// What learns.
#[derive(Module, Debug)]
struct Trainee {
    autoencoder: KlAutoencoder,
    discriminator: Option<PatchDiscriminator>,
}

/// Its place in a checkpoint.
const AUTOENCODER: &str = "autoencoder";

/// Trains an autoencoder; measures what becomes of held-out pictures.
pub fn train(
    config: &AutoencoderTraining,
    device: &Device,
    report: &mut dyn FnMut(Report),
) -> Result<(), TrainError> {
    config.check_on(device)?;
    let (sizes, crop_px) = (&config.network.sizes, config.data.crop_px);
    let downsampling = 1 << (sizes.multipliers.len() - 1);
    let start = start(config)?;
    let pictures = Pictures::open(&config.data.folders, &config.data.open(), report)?;
    pictures.fill(config.run.batch)?;
    let held_out = HeldOut::open(&config.validation, downsampling, device, report)?;
    let (plain, device) = (device.clone(), device.clone().autodiff());
    let terms = LossTerms::open(&config.loss, config.run.accumulate, &device)?;
    let has_judge = config.latent.discriminator > 0.0;
    let run = Run::start(config, AutoencoderTraining::TRAINER, start, &device, |params| {
        trainee(params, sizes, has_judge)
    })?
    .for_use(AUTOENCODER)
    .apart(DISCRIMINATOR, config.latent.discriminator_start);
    let examples = ExampleConfig { augment: config.data.augment, ..ExampleConfig::new(Recipe::nothing()) };
    let load = LoadConfig { seed: config.run.seed, batch: config.run.batch, workers: None };
    let mut position = run.batches();
    let mut batches = pictures.batches(&examples, &load, position)?;
    let report = RefCell::new(report);
    let tell = |told| (report.borrow_mut())(told);
    run.train(
        pictures.inventory(),
        || {
            let examples = batches.next(&mut { tell })?;
            position += 1;
            let side = crop_px / downsampling;
            let shape = [examples.len(), side, side, sizes.latent_channels];
            let mut random = generator(config.run.seed, &format!("latent/{position}"));
            let noise: Vec<f32> = (0..shape.iter().product()).map(|_| normal(&mut random)).collect();
            Ok(Pictured {
                truth: to_tensor(examples.iter().map(|example| &example.truth), &device),
                noise: Tensor::from_data(TensorData::new(noise, shape), &device),
                judged: (position - 1) / config.run.accumulate >= config.latent.discriminator_start,
            })
        },
        |network, batch| loss(network, batch, &terms, config.latent, sizes.scale),
        |network| {
            Ok(held_out.measure(&plain, |_, truth| {
                let picture = to_tensor([truth], &plain);
                network.autoencoder.decode(network.autoencoder.encode(picture))
            }))
        },
        &mut { tell },
    )?;
    Ok(())
}

fn trainee(params: &Params, sizes: &KlConfig, has_judge: bool) -> Result<Trainee, WeightError> {
    Ok(Trainee {
        autoencoder: sizes.build(&params.at(AUTOENCODER))?,
        discriminator: has_judge.then(|| PatchDiscriminator::new(&params.at(DISCRIMINATOR))).transpose()?,
    })
}

/// The weights of `run.init`, an autoencoder's alone, beside a new discriminator.
fn start(config: &AutoencoderTraining) -> Result<Option<Checkpoint>, TrainError> {
    let Some(init) = &config.run.init else { return Ok(None) };
    let mut start = Checkpoint::default();
    start.insert(AUTOENCODER, Part::Autoencoder.open(init)?);
    if config.latent.discriminator > 0.0 {
        start.insert(DISCRIMINATOR, new_discriminator(config.run.seed)?);
    }
    Ok(Some(start.named(&init.display().to_string())))
}

/// Pictures `[b, h, w, 3]` and the noise of their latents.
struct Pictured {
    truth: Tensor<4>,
    noise: Tensor<4>,
    /// Whether the discriminator is heard.
    judged: bool,
}

impl Batch for Pictured {
    fn tensors(&self) -> Vec<(&'static str, TensorData)> {
        vec![("truth", self.truth.to_data()), ("noise", self.noise.to_data())]
    }
}

fn loss(
    network: &Trainee,
    batch: &Pictured,
    terms: &LossTerms,
    weights: AutoencoderLoss,
    scale: f64,
) -> Loss {
    let moments = recompute::parting(network.autoencoder.moments(batch.truth.clone()));
    // Each way from there has operations of its own.
    let halves = || {
        let moments = moments.clone().chunk(2, 3);
        (moments[0].clone(), moments[1].clone().clamp(-30.0, 20.0))
    };
    let (mean, log_variance) = halves();
    let latent = mean + (log_variance * 0.5).exp() * batch.noise.clone();
    let output = network.autoencoder.decode(latent * scale);
    let Loss { total: between, terms: mut told } = terms.of(output.clone(), batch.truth.clone());
    if told.is_empty() {
        told.push(("picture", between.clone()));
    }
    let values = batch.truth.shape().num_elements() as f64;
    let (mean, log_variance) = halves();
    let divergence = mean.square() + log_variance.clone().exp() - log_variance - 1.0;
    told.push(("kl", total(divergence) * (0.5 * weights.kl / values)));
    if let Some(discriminator) = network.discriminator.as_ref().filter(|_| batch.judged) {
        told.extend(judged(discriminator, weights.discriminator, output, batch.truth.clone()));
    }
    let rest = told.iter().filter(|(name, _)| ["kl", ADVERSARIAL, DISCRIMINATOR].contains(name));
    let total = rest.fold(between, |sum, (_, term)| sum + term.clone());
    Loss { total, terms: told }
}
