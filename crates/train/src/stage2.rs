//! Training of stage 2: the prior (a latent diffusion model) and, on it, the control branch (paper section 3.2;
//! reference 5.2), on the latents of any autoencoder.

use crate::config::{Config, DiffusionConfig, PriorTraining, Stage2Training, Timesteps};
use crate::degrade::generator;
use crate::files::{self, Part};
use crate::latents::{Drawing, LatentBatch, batch};
use crate::one_step;
use crate::optimizer::total;
use crate::parts::{self, Cleaner, Encoder, Opened, Pairs, Sets, Texts};
use crate::run::{Batch, Measured, Report, Run, TrainError};
use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use diffbir_diffusion::schedule::{Prediction, Schedule};
use diffbir_models::controlnet::ControlNet;
use diffbir_models::unet::{Control, Unet, UnetConfig};
use diffbir_nn::checkpoint::Checkpoint;
use diffbir_nn::params::build_to_train;
use diffbir_nn::{Params, WeightError};
use rand::Rng;
use std::cell::RefCell;
use std::path::PathBuf;

/// What a denoiser is trained to say.
pub struct Objective {
    /// Its noise schedule.
    pub schedule: Schedule,
    /// What it predicts.
    pub prediction: Prediction,
}

impl Objective {
    /// As a configuration has it.
    pub fn new(config: &DiffusionConfig) -> Self {
        Self { schedule: Schedule::new(config.terminal), prediction: config.prediction }
    }

    /// The mean squared error of what `predict` says of noisy latents and their times `[b]`.
    pub fn loss(
        &self,
        batch: &LatentBatch,
        predict: impl FnOnce(Tensor<4>, Tensor<1>) -> Tensor<4>,
    ) -> Tensor<1> {
        let device = batch.truth.device();
        let times: Vec<f32> = batch.timesteps.iter().map(|&t| t as f32).collect();
        let times = Tensor::from_floats(times.as_slice(), &device);
        let (signal, spread) = self.shares(&batch.timesteps, &device);
        let (truth, noise) = (batch.truth.clone(), batch.noise.clone());
        let x = truth.clone() * signal.clone() + noise.clone() * spread.clone();
        let target = match self.prediction {
            Prediction::Eps => noise,
            Prediction::V => noise * signal - truth * spread,
        };
        let difference = predict(x, times) - target;
        let count = difference.shape().num_elements() as f64;
        total(difference.square()) / count
    }

    /// The clean latent that a prediction at noisy latents and their times says there is.
    pub(crate) fn clean(&self, x: Tensor<4>, predicted: Tensor<4>, times: &[usize]) -> Tensor<4> {
        let (signal, spread) = self.shares(times, &x.device());
        match self.prediction {
            Prediction::Eps => (x - predicted * spread) / signal,
            Prediction::V => x * signal - predicted * spread,
        }
    }

    /// The condition of a batch, with its noise where it gets any.
    pub(crate) fn condition(&self, batch: &LatentBatch) -> Tensor<4> {
        let condition = batch.condition.clone().expect("a control branch is trained on pairs");
        match &batch.augmentation {
            Some((noise, times)) => self.noised(condition, noise, times),
            None => condition,
        }
    }

    /// Latents under the noise of one timestep each.
    pub(crate) fn noised(&self, latents: Tensor<4>, noise: &Tensor<4>, times: &[usize]) -> Tensor<4> {
        let (signal, spread) = self.shares(times, &latents.device());
        latents * signal + noise.clone() * spread
    }

    /// The shares of picture and noise at these times, `[b, 1, 1, 1]`.
    fn shares(&self, times: &[usize], device: &Device) -> (Tensor<4>, Tensor<4>) {
        let (signal, spread): (Vec<f32>, Vec<f32>) = times.iter().map(|&t| self.schedule.shares(t)).unzip();
        let column = |values: Vec<f32>| -> Tensor<4> {
            Tensor::from_data(TensorData::new(values, [times.len(), 1, 1, 1]), device)
        };
        (column(signal), column(spread))
    }
}

/// The loss of a control branch on a UNet, which reads `context[b, tokens, width]`, else its own token. Where
/// `present` is given, `[b, 1, 1, 1]`, what the branch adds is multiplied by it.
pub fn control_loss(
    objective: &Objective,
    unet: &Unet,
    control: &ControlNet,
    context: Option<Tensor<3>>,
    batch: &LatentBatch,
    present: Option<Tensor<4>>,
) -> Tensor<1> {
    objective.loss(batch, |x, t| steered((unet, control), x, objective.condition(batch), t, context, present))
}

/// What a UNet with its branch says.
pub(crate) fn steered(
    (unet, control): (&Unet, &ControlNet),
    x: Tensor<4>,
    condition: Tensor<4>,
    t: Tensor<1>,
    context: Option<Tensor<3>>,
    present: Option<Tensor<4>>,
) -> Tensor<4> {
    let context = unet.context(context, x.dims()[0]);
    let mut added = control.forward(x.clone(), condition, t.clone(), context.clone(), 1.0);
    if let Some(present) = present {
        added = Control(added.0.into_iter().map(|part| part * present.clone()).collect());
    }
    unet.forward(x, t, Some(context), Some(added))
}

/// Trains the UNet alone.
pub fn train_prior(
    config: &PriorTraining,
    device: &Device,
    report: &mut dyn FnMut(Report),
) -> Result<(), TrainError> {
    config.check_on(device)?;
    let start = config.run.init.as_deref().map(|path| Part::Unet.open(path)).transpose()?;
    let plain = device.clone();
    let device = device.clone().autodiff();
    let sizes = &config.network.sizes;
    let encoder = Encoder {
        data: &config.data,
        held_out: &config.validation,
        text: &config.text,
        run: &config.run,
        autoencoder: parts::autoencoder(&config.autoencoder, &plain)?,
        mark: files::mark(Part::Autoencoder, &config.autoencoder.path)?,
        cleaner: None,
        device: plain.clone(),
    };
    let texts = Texts::open(&config.text, &plain)?;
    let objective = Objective::new(&config.diffusion);
    let opened = encoder.open(report)?;
    let pictures = opened.inventory();
    let run = Run::start(config, PriorTraining::TRAINER, start, &device, |params| sizes.build(params))?;
    let sets = encoder.sets(opened, &objective, run.batches(), report);
    let Sets { mut train, held_out, shown } = sets.inspect_err(|_| run.abandon())?;
    let drawing = Drawing {
        side: config.data.side_cells,
        count: config.run.batch,
        channels: sizes.latent_channels,
        noise_aug_timestep: 0,
        timesteps: config.diffusion.timesteps,
        text: &config.text,
    };
    // Both the loop and the loader tell of what happens.
    let report = RefCell::new(report);
    let tell = |told| (report.borrow_mut())(told);
    let mut position = run.batches();
    let loss = |unet: &Unet, batch: &LatentBatch| {
        let context = texts.context(&batch.prompts, &batch.truth.device());
        objective.loss(batch, |x, t| unet.forward(x, t, context, None))
    };
    run.train(
        pictures,
        || {
            position += 1;
            let random = generator(config.run.seed, &position.to_string());
            train.next(&drawing, random, &device, &mut { tell })
        },
        |unet, batch| loss(unet, batch).into(),
        |unet| {
            let measured = validate(&held_out, &drawing, &plain, |batch| loss(unet, batch));
            let Some(shown) = &shown else { return Ok(measured) };
            let networks = (&*encoder.autoencoder, &texts);
            Ok(shown.draw(measured, &objective, networks, &plain, |x, _, t, context| {
                unet.forward(x, t, context, None)
            }))
        },
        &mut { tell },
    )?;
    Ok(())
}

/// Trains the control branch on a frozen UNet, or on a UNet that learns too.
pub fn train_control(
    config: &Stage2Training,
    device: &Device,
    report: &mut dyn FnMut(Report),
) -> Result<(), TrainError> {
    config.check_on(device)?;
    // Files that are not there are noticed before any work.
    let init = |path: &PathBuf| match &config.control.together_with {
        Some(_) => Checkpoint::open(path),
        None => Part::Control.open(path),
    };
    let init = config.run.init.as_ref().map(init).transpose()?;
    let mut unet = Part::Unet.open(&config.control.unet)?;
    let branch = config.control.together_with.as_deref().map(|path| Part::Control.open(path)).transpose()?;
    let plain = device.clone();
    let device = device.clone().autodiff();
    let sizes = &config.network.sizes;
    let task = Task {
        config,
        objective: Objective::new(&config.diffusion),
        texts: Texts::open(&config.text, &plain)?,
        encoder: Encoder {
            data: &config.data,
            held_out: &config.validation,
            text: &config.text,
            run: &config.run,
            autoencoder: parts::autoencoder(&config.autoencoder, &plain)?,
            mark: files::mark(Part::Autoencoder, &config.autoencoder.path)?,
            cleaner: Some((Cleaner::open(&config.stage1, &plain)?, &config.control)),
            device: plain.clone(),
        },
        plain,
        device,
    };
    let opened = task.encoder.open(report)?;
    match branch {
        None => {
            let start = init.map_or_else(|| control_start(&unet, sizes), Ok)?;
            let products = config.run.precision.products();
            let (frozen, _) = build_to_train(products, &mut unet, &task.plain, |params| sizes.build(params))?;
            unet.expect_all_used()?;
            // A frozen network on the differentiating device: its parameters are constants there.
            let differentiating = Module::no_grad(Module::train(frozen.clone()));
            let run = Run::start(config, Stage2Training::TRAINER, Some(start), &task.device, |params| {
                ControlNet::new(params, sizes)
            })?;
            let unets = Some([&differentiating, &frozen]);
            task.train(
                run,
                opened,
                (0.0, unets, |control, unet| (unet.expect("it is given"), control)),
                report,
            )
        }
        Some(branch) => {
            let mut start = Checkpoint::default();
            start.insert("unet", unet);
            start.insert("control", branch);
            let start = init.unwrap_or(start.named("UNet and branch"));
            if config.one_step.timestep > 0 {
                return one_step::train(&task, start, opened, report);
            }
            let run =
                Run::start(config, "stage2", Some(start), &task.device, |params| Both::new(params, sizes))?;
            task.train(
                run,
                opened,
                (WITHOUT_CONTROL, None, |Both { unet, control }, _| (unet, control)),
                report,
            )
        }
    }
}

/// UNet and control branch as one network, so that both learn: for a model whose prior is too small to be steered
/// while frozen.
#[derive(Module, Debug)]
pub(crate) struct Both {
    pub(crate) unet: Unet,
    pub(crate) control: ControlNet,
}

impl Both {
    pub(crate) fn new(params: &Params, sizes: &UnetConfig) -> Result<Self, WeightError> {
        let unet = sizes.build(&params.at("unet"))?;
        Ok(Self { unet, control: ControlNet::new(&params.at("control"), sizes)? })
    }
}

/// Share of the examples that a UNet that learns too sees without its branch: what guidance compares with.
const WITHOUT_CONTROL: f64 = 0.1;

/// Picks what predicts, of what learns and a UNet that does not.
type Networks<N> = for<'n> fn(&'n N, Option<&'n Unet>) -> (&'n Unet, &'n ControlNet);

/// What stage 2 is trained on and with.
pub(crate) struct Task<'a> {
    pub(crate) config: &'a Stage2Training,
    pub(crate) objective: Objective,
    pub(crate) texts: Texts,
    pub(crate) encoder: Encoder<'a>,
    pub(crate) plain: Device,
    /// It differentiates.
    pub(crate) device: Device,
}

/// A batch, and whether the branch is present for each of its examples, `[b, 1, 1, 1]`.
type Present = (LatentBatch, Option<Tensor<4>>);

impl Batch for Present {
    fn tensors(&self) -> Vec<(&'static str, TensorData)> {
        let mut tensors = self.0.tensors();
        tensors.extend(self.1.iter().map(|present| ("present", present.to_data())));
        tensors
    }
}

impl Task<'_> {
    /// How a batch is drawn.
    pub(crate) fn drawing(&self) -> Drawing<'_> {
        let config = self.config;
        Drawing {
            side: config.data.side_cells,
            count: config.run.batch,
            channels: config.network.sizes.latent_channels,
            noise_aug_timestep: config.control.noise_aug_timestep,
            timesteps: config.diffusion.timesteps,
            text: &config.text,
        }
    }

    /// `without` is the share of examples that do without the branch; `frozen` are UNets for steps and for validations
    /// that do not learn; `networks` picks those that predict.
    fn train<N: Module + Sync>(
        &self,
        run: Run<N>,
        opened: Opened,
        (without, frozen, networks): (f64, Option<[&Unet; 2]>, Networks<N>),
        report: &mut dyn FnMut(Report),
    ) -> Result<(), TrainError> {
        let objective = &self.objective;
        let pictures = opened.inventory();
        let sets = self.encoder.sets(opened, objective, run.batches(), report);
        let Sets { mut train, held_out, shown } = sets.inspect_err(|_| run.abandon())?;
        let drawing = self.drawing();
        let report = RefCell::new(report);
        let tell = |told| (report.borrow_mut())(told);
        let loss = |(unet, control): (&Unet, &ControlNet), batch: &LatentBatch, present| {
            let context = self.texts.context(&batch.prompts, &batch.truth.device());
            control_loss(objective, unet, control, context, batch, present)
        };
        let mut position = run.batches();
        run.train(
            pictures,
            || {
                position += 1;
                let mut random = generator(self.config.run.seed, &position.to_string());
                let present = (without > 0.0).then(|| {
                    let count = drawing.count;
                    let present = (0..count).map(|_| f32::from(!random.random_bool(without))).collect();
                    Tensor::from_data(TensorData::new::<f32, _>(present, [count, 1, 1, 1]), &self.device)
                });
                Ok((train.next(&drawing, random, &self.device, &mut { tell })?, present))
            },
            |network, (batch, present): &Present| {
                loss(networks(network, frozen.map(|[unet, _]| unet)), batch, present.clone()).into()
            },
            |network| {
                let networks = networks(network, frozen.map(|[_, unet]| unet));
                let measured =
                    validate(&held_out, &drawing, &self.plain, |batch| loss(networks, batch, None));
                let Some(shown) = &shown else { return Ok(measured) };
                let beside = (&*self.encoder.autoencoder, &self.texts);
                Ok(shown.draw(measured, objective, beside, &self.plain, |x, condition, t, context| {
                    let condition = condition.expect("a branch has conditions");
                    steered(networks, x, condition, t, context, None)
                }))
            },
            &mut { tell },
        )?;
        Ok(())
    }
}

/// The control branch's first weights: the UNet's where the name is the same, the first convolution
/// with zeros for the hint, zeros for what only the branch has (reference 1.2).
pub fn control_start(unet: &Checkpoint, sizes: &UnetConfig) -> Result<Checkpoint, TrainError> {
    let keys = diffbir_nn::params::keys_of(|params| ControlNet::new(params, sizes))?;
    let mut tensors = std::collections::BTreeMap::new();
    for entry in keys.entries() {
        let values = match unet.get(&entry.key)? {
            // What fits in no way is refused by the branch that asks for it.
            Some((shape, values)) if !is_narrower(&shape, &entry.shape) => {
                tensors.insert(entry.key.clone(), TensorData::new(values, shape));
                continue;
            }
            Some((shape, values)) => {
                let (inner, outer) = (count_of(&shape[1..]), count_of(&entry.shape[1..]));
                let mut extended = Vec::with_capacity(count_of(&entry.shape));
                for row in values.chunks_exact(inner) {
                    extended.extend_from_slice(row);
                    extended.resize(extended.len() + outer - inner, 0.0);
                }
                extended
            }
            None => vec![0.0; count_of(&entry.shape)],
        };
        tensors.insert(entry.key.clone(), TensorData::new(values, entry.shape.clone()));
    }
    Ok(Checkpoint::from_tensors(tensors))
}

fn count_of(shape: &[usize]) -> usize {
    shape.iter().product()
}

/// Whether a weight only has fewer inputs than another.
fn is_narrower(a: &[usize], b: &[usize]) -> bool {
    a.len() == b.len() && a.len() > 1 && a[1] < b[1] && a[0] == b[0] && a[2..] == b[2..]
}

/// The loss on pictures that are not trained on, with the same crops, times and noise each time.
pub(crate) fn validate(
    Pairs { truths, conditions }: &Pairs,
    drawing: &Drawing,
    device: &Device,
    loss: impl Fn(&LatentBatch) -> Tensor<1>,
) -> Measured {
    if truths.is_empty() {
        return Measured { text: "no validation pictures".into(), ..Measured::default() };
    }
    const BATCHES: usize = 4;
    // Timesteps of equal spans, so that one validation compares with another.
    let drawing = Drawing { count: 16, timesteps: Timesteps::Stratified, ..*drawing };
    let total: f32 = (0..BATCHES)
        .map(|index| {
            let random = generator(index as u64, "validation");
            loss(&batch(truths, conditions, &drawing, random, device)).into_scalar::<f32>()
        })
        .sum();
    let mean = f64::from(total) / BATCHES as f64;
    Measured {
        text: format!("loss {mean:.4}"),
        scalars: vec![("val/loss", mean)],
        rank: Some(mean),
        ..Measured::default()
    }
}
