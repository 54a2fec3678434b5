//! Losses between pictures.

use crate::config::PictureLoss;
use crate::optimizer::total;
use crate::run::{Loss, TrainError};
use burn::module::Module;
use burn::tensor::{Device, Tensor};
use diffbir_metrics::{Backbone, Lpips};

/// The terms of a loss, ready for use.
pub struct LossTerms {
    weights: PictureLoss,
    lpips: Option<Lpips>,
    /// Backward passes whose gradients are averaged: a sum over a batch is one over all of them.
    passes: f64,
}

impl LossTerms {
    /// Opens what the terms need; `device` is the plain one.
    pub fn open(weights: &PictureLoss, passes: u64, device: &Device) -> Result<Self, TrainError> {
        // On the differentiating device, its weights being constants there.
        let device = device.clone().autodiff();
        let lpips = (weights.lpips > 0.0)
            .then(|| Lpips::open(&weights.lpips_files, Backbone::Vgg16, &device))
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

fn log_squared_error(difference: Tensor<4>) -> Tensor<1> {
    let [batch, ..] = difference.dims();
    let errors = difference.square().reshape([batch as i32, -1]).mean_dim(1);
    (errors + 1e-6).log().mean()
}
