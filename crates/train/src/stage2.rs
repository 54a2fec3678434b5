//! Training of stage 2: the prior (an unconditional latent diffusion model) and, on it, the control
//! branch (paper section 3.2; reference 5.3), on the latents of any autoencoder.

use crate::degrade::generator;
use crate::latents::{Latent, LatentBatch, batch};
use crate::run::{Report, Run, RunConfig, TrainError};
use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use diffbir_diffusion::schedule::{Prediction, Schedule};
use diffbir_models::controlnet::ControlNet;
use diffbir_models::unet::{Unet, UnetConfig};
use diffbir_nn::checkpoint::Checkpoint;
use diffbir_nn::params::build;
use rand::Rng;

/// What both trainers have.
pub struct Stage2Config {
    /// The network.
    pub unet: UnetConfig,
    /// Its schedule.
    pub schedule: Schedule,
    /// What it predicts.
    pub prediction: Prediction,
    /// Side of a latent crop, cells.
    pub side: usize,
}

/// Latents of pictures, and for each degradation those of their stage-1 pictures.
pub struct Pairs {
    /// Of the true pictures.
    pub truths: Vec<Latent>,
    /// Of the same pictures in the same order, once for each degradation.
    pub conditions: Vec<Vec<Latent>>,
}

/// What a run trains on and what it is only measured on. Trainers ask for them last, since to make them takes long
/// and everything else may be wrong.
pub struct Sets {
    /// To train on.
    pub train: Pairs,
    /// To measure on.
    pub held_out: Pairs,
}

/// Makes the latents.
pub type MakeSets<'a> = &'a dyn Fn(&mut dyn FnMut(Report)) -> Result<Sets, TrainError>;

/// Trains the UNet alone.
pub fn train_prior(
    config: &Stage2Config,
    run: &RunConfig,
    sets: MakeSets,
    device: &Device,
    report: &mut dyn FnMut(Report),
) -> Result<(), TrainError> {
    let device = device.clone().autodiff();
    let trainee = Run::start(run, "unet", &device, |params| config.unet.build(params))?;
    let Sets { train, held_out } = sets(report)?;
    let mut step = trainee.steps();
    let loss = |unet: &Unet, batch: LatentBatch| {
        let (x, t, target) = noisy(config, &batch, &batch.truth.device());
        (unet.forward(x, t, None, None) - target).square().mean()
    };
    trainee.train(
        || {
            step += 1;
            let random = generator(run.seed, &step.to_string());
            Ok(batch(&train.truths, &[], config.side, run.batch, random, &device))
        },
        loss,
        |unet| validate(&held_out, config, &device.clone().inner(), |batch| loss(unet, batch)),
        report,
    )?;
    Ok(())
}

/// Trains the control branch on a frozen UNet, whose weights are given. A new branch starts as the UNet's copy.
pub fn train_control(
    config: &Stage2Config,
    run: &RunConfig,
    mut weights: Checkpoint,
    sets: MakeSets,
    device: &Device,
    report: &mut dyn FnMut(Report),
) -> Result<(), TrainError> {
    let device = device.clone().autodiff();
    let (unet, _) = build(&mut weights, &device.clone().inner(), |params| config.unet.build(params))?;
    // A frozen network on the differentiating device: its parameters are constants there.
    let unet = Module::no_grad(Module::train(unet));
    let mut run = run.clone();
    if run.init.is_none() {
        run.init = Some(control_start(&weights, config)?);
    }
    let trainee = Run::start(&run, "control", &device, |params| ControlNet::new(params, &config.unet))?;
    let Sets { train, held_out } = sets(report)?;
    let mut step = trainee.steps();
    let loss = |control: &ControlNet, unet: &Unet, batch: LatentBatch| {
        let (x, t, target) = noisy(config, &batch, &batch.truth.device());
        let condition = batch.condition.expect("control is trained on pairs");
        let context = unet.context(None, x.dims()[0]);
        let control = control.forward(x.clone(), condition, t.clone(), context, 1.0);
        (unet.forward(x, t, None, Some(control)) - target).square().mean()
    };
    let plain = Module::valid(&unet);
    trainee.train(
        || {
            step += 1;
            let random = generator(run.seed, &step.to_string());
            Ok(batch(&train.truths, &train.conditions, config.side, run.batch, random, &device))
        },
        |control, batch| loss(control, &unet, batch),
        |control| {
            let device = device.clone().inner();
            validate(&held_out, config, &device, |batch| loss(control, &plain, batch))
        },
        report,
    )?;
    Ok(())
}

/// UNet and control branch as one network, so that both learn.
#[derive(Module, Debug)]
struct Both {
    unet: Unet,
    control: ControlNet,
}

/// Share of the examples that the UNet sees without its branch: what guidance compares with.
const WITHOUT_CONTROL: f64 = 0.1;

/// Goes on with a trained UNet and branch, both learning: for a model whose prior is too small to be
/// steered while frozen.
pub fn train_both(
    config: &Stage2Config,
    run: &RunConfig,
    (unet, control): (Checkpoint, Checkpoint),
    sets: MakeSets,
    device: &Device,
    report: &mut dyn FnMut(Report),
) -> Result<(), TrainError> {
    let device = device.clone().autodiff();
    let mut run = run.clone();
    if run.init.is_none() {
        let mut start = Checkpoint::default();
        start.insert("unet", unet);
        start.insert("control", control);
        run.init = Some(start.named("UNet and branch"));
    }
    let trainee = Run::start(&run, "stage2", &device, |params| {
        let unet = config.unet.build(&params.at("unet"))?;
        Ok(Both { unet, control: ControlNet::new(&params.at("control"), &config.unet)? })
    })?;
    let Sets { train, held_out } = sets(report)?;
    let mut step = trainee.steps();
    let loss = |both: &Both, batch: LatentBatch, present: Option<Tensor<4>>| {
        let (x, t, target) = noisy(config, &batch, &batch.truth.device());
        let condition = batch.condition.expect("trained on pairs");
        let context = both.unet.context(None, x.dims()[0]);
        let mut control = both.control.forward(x.clone(), condition, t.clone(), context, 1.0);
        if let Some(present) = present {
            control.0 = control.0.into_iter().map(|part| part * present.clone()).collect();
        }
        (both.unet.forward(x, t, None, Some(control)) - target).square().mean()
    };
    trainee.train(
        || {
            step += 1;
            let mut random = generator(run.seed, &step.to_string());
            let present: Vec<f32> =
                (0..run.batch).map(|_| f32::from(!random.random_bool(WITHOUT_CONTROL))).collect();
            let present = Tensor::from_data(TensorData::new(present, [run.batch, 1, 1, 1]), &device);
            let pairs = batch(&train.truths, &train.conditions, config.side, run.batch, random, &device);
            Ok((pairs, present))
        },
        |both, (batch, present)| loss(both, batch, Some(present)),
        |both| {
            let device = device.clone().inner();
            validate(&held_out, config, &device, |batch| loss(both, batch, None))
        },
        report,
    )?;
    Ok(())
}

/// The control branch's first weights: the UNet's where the name is the same, the first convolution
/// with zeros for the hint, zeros for what only the branch has (reference 1.2).
fn control_start(unet: &Checkpoint, config: &Stage2Config) -> Result<Checkpoint, TrainError> {
    let keys = diffbir_nn::params::keys_of(|params| ControlNet::new(params, &config.unet))?;
    let mut tensors = std::collections::BTreeMap::new();
    for entry in keys.entries() {
        let count: usize = entry.shape.iter().product();
        let values = match unet.get(&entry.key)? {
            Some((shape, values)) if shape == entry.shape => values,
            Some((shape, values)) => {
                let inner: usize = shape[1..].iter().product();
                let mut extended = Vec::with_capacity(count);
                for row in values.chunks_exact(inner) {
                    extended.extend_from_slice(row);
                    extended.resize(extended.len() + count / entry.shape[0] - inner, 0.0);
                }
                extended
            }
            None => vec![0.0; count],
        };
        tensors.insert(entry.key.clone(), TensorData::new(values, entry.shape.clone()));
    }
    Ok(Checkpoint::from_tensors(tensors))
}

/// Noisy latents, times and what the network should say of them.
fn noisy(config: &Stage2Config, batch: &LatentBatch, device: &Device) -> (Tensor<4>, Tensor<1>, Tensor<4>) {
    let count = batch.timesteps.len();
    let (signal, spread): (Vec<f32>, Vec<f32>) =
        batch.timesteps.iter().map(|&t| config.schedule.shares(t)).unzip();
    let column = |values: Vec<f32>| -> Tensor<4> {
        Tensor::from_data(TensorData::new(values, [count, 1, 1, 1]), device)
    };
    let (signal, spread) = (column(signal), column(spread));
    let (truth, noise) = (batch.truth.clone(), batch.noise.clone());
    let x = truth.clone() * signal.clone() + noise.clone() * spread.clone();
    let target = match config.prediction {
        Prediction::Eps => noise,
        Prediction::V => noise * signal - truth * spread,
    };
    let times: Vec<f32> = batch.timesteps.iter().map(|&t| t as f32).collect();
    (x, Tensor::from_floats(times.as_slice(), device), target)
}

/// The loss on pictures that are not trained on, with the same crops, times and noise each time.
fn validate(
    Pairs { truths, conditions }: &Pairs,
    config: &Stage2Config,
    device: &Device,
    loss: impl Fn(LatentBatch) -> Tensor<1>,
) -> String {
    if truths.is_empty() {
        return "no validation pictures".into();
    }
    const BATCHES: usize = 4;
    let total: f32 = (0..BATCHES)
        .map(|index| {
            let random = generator(index as u64, "validation");
            loss(batch(truths, conditions, config.side, 16, random, device)).into_scalar::<f32>()
        })
        .sum();
    format!("loss {:.4}", total / BATCHES as f32)
}
