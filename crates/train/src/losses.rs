//! Losses between pictures.

use crate::config::PictureLoss;
use crate::optimizer::total;
use crate::run::{Loss, TrainError};
use burn::module::Module;
use burn::tensor::{Device, Tensor};
use diffbir_metrics::Lpips;
use diffbir_models::patch::PatchDiscriminator;
use diffbir_nn::checkpoint::Checkpoint;
use diffbir_nn::params::{RandomInit, build};
use diffbir_nn::{WeightError, ops};

/// The terms of a loss, ready for use.
pub struct LossTerms {
    weights: PictureLoss,
    lpips: Option<Lpips>,
    /// Backward passes whose gradients are averaged: a sum over a batch is one over all of them.
    passes: f64,
}

impl LossTerms {
    /// Opens what the terms need, for pictures on `device`; weights are constants where it differentiates.
    pub fn open(weights: &PictureLoss, passes: u64, device: &Device) -> Result<Self, TrainError> {
        let lpips = (weights.lpips > 0.0)
            .then(|| Lpips::open_any(&weights.lpips_files, device))
            .transpose()?
            .map(Module::no_grad);
        Ok(Self { weights: weights.clone(), lpips, passes: passes as f64 })
    }

    /// The loss of `output` where `truth` is wanted, both `[b, h, w, c]`.
    pub fn of(&self, output: Tensor<4>, truth: Tensor<4>) -> Loss {
        let difference = output.clone() - truth.clone();
        let mut terms = Vec::new();
        let mut add = |name: &'static str, weight: f64, value: &dyn Fn() -> Tensor<1>| {
            if weight > 0.0 {
                terms.push((name, value() * weight));
            }
        };
        add("sse", self.weights.sse * self.passes, &|| total(difference.clone().square()));
        add("mse_log", self.weights.mse_log, &|| log_squared_error(difference.clone()));
        add("l1", self.weights.l1, &|| {
            total(difference.clone().abs()) / difference.shape().num_elements() as f64
        });
        if let Some(lpips) = &self.lpips {
            add("lpips", self.weights.lpips, &|| lpips.between(output.clone(), truth.clone()).mean());
        }
        let sum = terms.iter().map(|(_, value)| value.clone()).reduce(|a, b| a + b);
        let total = sum.expect("the configuration has a term");
        Loss { total, terms: if terms.len() > 1 { terms } else { Vec::new() } }
    }
}

/// The term by which a picture's maker learns from a discriminator.
pub(crate) const ADVERSARIAL: &str = "adversarial";

/// The term by which a discriminator learns, and its place in a checkpoint.
pub(crate) const DISCRIMINATOR: &str = "discriminator";

/// What a discriminator says of made pictures and learns from true ones, both `[b, h, w, 3]` with values 0..1, by hinges
/// (arXiv 2012.09841); the first term has this weight.
pub(crate) fn judged(
    discriminator: &PatchDiscriminator,
    weight: f64,
    made: Tensor<4>,
    truth: Tensor<4>,
) -> [(&'static str, Tensor<1>); 2] {
    // The picture's maker learns from a judge that stands still, and the judge from a picture that does.
    let still = discriminator.clone().no_grad();
    let adversarial = still.forward(made.clone()).mean() * -weight;
    let real = ops::relu(discriminator.forward(truth) * -1.0 + 1.0).mean();
    let made = ops::relu(discriminator.forward(made.detach()) + 1.0).mean();
    [(ADVERSARIAL, adversarial), (DISCRIMINATOR, (real + made) * 0.5)]
}

/// The tensors of a discriminator that has learned nothing.
pub(crate) fn new_discriminator(seed: u64) -> Result<Checkpoint, WeightError> {
    let (network, keys) = build(&mut RandomInit { seed }, &Device::flex(), PatchDiscriminator::new)?;
    Ok(Checkpoint::from_tensors(keys.tensors(&network)))
}

fn log_squared_error(difference: Tensor<4>) -> Tensor<1> {
    let [batch, ..] = difference.dims();
    let errors = difference.square().reshape([batch as i32, -1]).mean_dim(1);
    (errors + 1e-6).log().mean()
}
