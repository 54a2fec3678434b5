//! Stage 2 in one step: UNet and branch learn to go from the condition's latent, under the noise of any timestep, to a
//! latent whose picture is judged beside the true one (as OSEDiff does for Stable Diffusion, arXiv 2406.08177). The decoder
//! may learn with them.

use crate::config::{AutoencoderSizes, Stage2Training};
use crate::degrade::generator;
use crate::latents::LatentBatch;
use crate::losses::{ADVERSARIAL, DISCRIMINATOR, LossTerms, judged, new_discriminator};
use crate::optimizer::total;
use crate::parts::{Opened, Sets, autoencoder_file, autoencoder_in};
use crate::run::{Batch, Loss, Report, Run, TrainError};
use crate::stage2::{Both, Task, steered, validate};
use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData, s};
use diffbir_diffusion::schedule::LAST_T;
use diffbir_models::autoencoder::Autoencoder;
use diffbir_models::kl::KlAutoencoder;
use diffbir_models::patch::PatchDiscriminator;
use diffbir_models::taef2::Taef2;
use diffbir_nn::checkpoint::Checkpoint;
use diffbir_nn::{Params, WeightError};
use rand::Rng;
use std::cell::RefCell;

/// What learns.
#[derive(Module, Debug)]
struct Trainee {
    networks: Networks,
    discriminator: Option<PatchDiscriminator>,
}

/// What restores.
#[derive(Module, Debug)]
struct Networks {
    both: Both,
    /// Where its decoder learns; its encoder has no gradients, and stays.
    autoencoder: Option<Learner>,
}

/// An autoencoder that learns.
#[derive(Module, Debug)]
#[allow(clippy::large_enum_variant, reason = "there is one, and it is not moved about")]
enum Learner {
    Taef2(Taef2),
    Kl(KlAutoencoder),
}

/// The place of what restores in a checkpoint, and in that the autoencoder's.
const NETWORKS: &str = "networks";
const AUTOENCODER: &str = "autoencoder";

impl Networks {
    fn new(params: &Params, config: &Stage2Training) -> Result<Self, WeightError> {
        let place = params.at(AUTOENCODER);
        let autoencoder = match &config.autoencoder.network.sizes {
            _ if !config.one_step.decoder => None,
            AutoencoderSizes::Taef2(sizes) => Some(Learner::Taef2(sizes.build(&place)?)),
            AutoencoderSizes::Kl(sizes) => Some(Learner::Kl(sizes.build(&place)?)),
        };
        Ok(Self { both: Both::new(params, &config.network.sizes)?, autoencoder })
    }
}

impl Learner {
    fn decode(&self, latent: Tensor<4>) -> Tensor<4> {
        match self {
            Self::Taef2(network) => network.decode(latent),
            Self::Kl(network) => network.decode(latent),
        }
    }
}

/// What judges a latent's picture, on one device.
struct Judge {
    /// As it was before, which true latents go through.
    decoder: Box<dyn Autoencoder>,
    terms: LossTerms,
}

impl Judge {
    fn open(config: &Stage2Training, device: &Device) -> Result<Self, TrainError> {
        let products = config.run.precision.products();
        Ok(Self {
            decoder: autoencoder_in(products, &config.autoencoder, device)?,
            terms: LossTerms::open(&config.loss, config.run.accumulate, device)?,
        })
    }
}

/// A batch, and how its pictures are judged.
struct Judged {
    batch: LatentBatch,
    /// Whether the discriminator is heard.
    heard: bool,
    /// Rows and columns that are left out at the top and at the left.
    left_out: [usize; 2],
}

/// Below which what is left out is drawn. What judges looks in steps of some pixels and does not see a pattern that repeats in
/// them, so that a network would learn to weave one: it may not know where the steps are.
const MOST_LEFT_OUT_PX: usize = 8;

impl Batch for Judged {
    fn tensors(&self) -> Vec<(&'static str, TensorData)> {
        self.batch.tensors()
    }
}

/// Trains UNet and branch together, from `start`, which has both, and the decoder where that is to learn.
pub(crate) fn train(
    task: &Task,
    start: Checkpoint,
    opened: Opened,
    report: &mut dyn FnMut(Report),
) -> Result<(), TrainError> {
    let config = task.config;
    let weights = config.one_step;
    let has_judge = weights.discriminator > 0.0;
    let mut all = Checkpoint::default();
    all.insert(NETWORKS, start);
    if weights.decoder {
        all.insert(&format!("{NETWORKS}.{AUTOENCODER}"), autoencoder_file(&config.autoencoder)?);
    }
    if has_judge {
        all.insert(DISCRIMINATOR, new_discriminator(config.run.seed)?);
    }
    let judge = Judge::open(config, &task.device)?;
    let plain_judge = Judge::open(config, &task.plain)?;
    let run = Run::start(config, "stage2", Some(all.named("UNet and branch")), &task.device, |params| {
        let discriminator = || PatchDiscriminator::new(&params.at(DISCRIMINATOR));
        Ok(Trainee {
            networks: Networks::new(&params.at(NETWORKS), config)?,
            discriminator: has_judge.then(discriminator).transpose()?,
        })
    })?
    .for_use(NETWORKS)
    .apart(DISCRIMINATOR, weights.discriminator_start);
    let pictures = opened.inventory();
    let sets = task.encoder.sets(opened, &task.objective, run.batches(), report);
    let Sets { mut train, held_out, .. } = sets.inspect_err(|_| run.abandon())?;
    let drawing = task.drawing();
    let report = RefCell::new(report);
    let tell = |told| (report.borrow_mut())(told);
    let mut position = run.batches();
    run.train(
        pictures,
        || {
            position += 1;
            let random = generator(config.run.seed, &position.to_string());
            let batch = train.next(&drawing, random, &task.device, &mut { tell })?;
            let mut random = generator(config.run.seed, &format!("{position} left out"));
            Ok(Judged {
                batch,
                heard: has_judge && (position - 1) / config.run.accumulate >= weights.discriminator_start,
                left_out: [(); 2].map(|()| random.random_range(0..MOST_LEFT_OUT_PX)),
            })
        },
        |trainee, Judged { batch, heard, left_out }| {
            let discriminator = trainee.discriminator.as_ref().filter(|_| *heard);
            loss(task, &judge, &trainee.networks, discriminator, batch, *left_out)
        },
        |trainee| {
            Ok(validate(&held_out, &drawing, &task.plain, |batch| {
                loss(task, &plain_judge, &trainee.networks, None, batch, [0; 2]).total
            }))
        },
        &mut { tell },
    )?;
    Ok(())
}

fn loss(
    task: &Task,
    judge: &Judge,
    Networks { both: Both { unet, control }, autoencoder }: &Networks,
    discriminator: Option<&PatchDiscriminator>,
    batch: &LatentBatch,
    [top, left]: [usize; 2],
) -> Loss {
    let (objective, weights) = (&task.objective, task.config.one_step);
    let device = batch.truth.device();
    // Timesteps were drawn from all there are.
    let times: Vec<usize> =
        batch.timesteps.iter().map(|&t| (t * weights.timestep).div_ceil(LAST_T).max(1)).collect();
    let t: Vec<f32> = times.iter().map(|&t| t as f32).collect();
    let t = Tensor::from_floats(t.as_slice(), &device);
    let context = task.texts.context(&batch.prompts, &device);
    let condition = objective.condition(batch);
    let start = batch.condition.clone().expect("a branch is trained on pairs");
    let x = objective.noised(start, &batch.noise, &times);
    let predicted = steered((unet, control), x.clone(), condition, t, context, None);
    let latent = objective.clean(x, predicted, &times);
    let picture = match autoencoder {
        Some(learner) => learner.decode(latent.clone()),
        None => judge.decoder.decode(latent.clone()),
    };
    // A decoder that stays cannot give more than it makes of the true latent.
    let truth = match (&batch.pictures, autoencoder) {
        (Some(pictures), Some(_)) => Tensor::from_data(pictures.clone(), &device),
        _ => judge.decoder.decode(batch.truth.clone()),
    };
    let [picture, truth] = [picture, truth].map(|picture| picture.slice(s![.., top.., left.., ..]));
    let Loss { total: between, terms: mut told } = judge.terms.of(picture.clone(), truth.clone());
    if told.is_empty() {
        told.push(("picture", between.clone()));
    }
    let far = latent - batch.truth.clone();
    let count = far.shape().num_elements() as f64;
    told.push(("latent", total(far.square()) * (weights.latent / count)));
    if let Some(discriminator) = discriminator {
        told.extend(judged(discriminator, weights.discriminator, picture, truth));
    }
    let rest = told.iter().filter(|(name, _)| ["latent", ADVERSARIAL, DISCRIMINATOR].contains(name));
    let total = rest.fold(between, |sum, (_, term)| sum + term.clone());
    Loss { total, terms: told }
}
