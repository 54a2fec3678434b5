//! Restoration guidance with networks: what a sampler's estimates are pulled towards, and the way back through the decoder
//! (paper 3.3; reference 2.10).

use crate::config::{AutoencoderConfig, Stage2Config};
use crate::error::{Error, Stage};
use crate::model::Model;
use crate::restore::to_tensor;
use crate::stage2::{latent_tensor, to_latent};
use diffbir_diffusion::noise::Noise;
use diffbir_diffusion::restoration::Space;
use diffbir_diffusion::{Latent, Restoration};
use diffbir_imaging::Raster;
use diffbir_models::autoencoder::Autoencoder;
use diffbir_nn::params::build;
use diffbir_nn::{Device, Module, Tensor, WeightError, recompute};

/// What pulls at the estimates of a batch.
pub(crate) struct Pull {
    how: Restoration,
    towards: Towards,
}

enum Towards {
    /// A latent with these means and deviations, drawn anew for each pull.
    Latent { mean: Latent, deviation: Option<Latent> },
    /// A picture from -1 to 1, and the decoder in a form that can be differentiated.
    Picture { picture: Latent, decoder: Box<dyn Autoencoder>, device: Device },
}

impl Pull {
    /// Towards `clean`, the picture of stage 1 as it was encoded, for so many results. `tiled` if its parts are worked on
    /// one after the other; then `condition`, its latent, is what latents are pulled to.
    pub fn new(
        model: &Model,
        how: Restoration,
        clean: &Raster,
        (condition, tiled): (&Latent, bool),
        samples: usize,
    ) -> Result<Self, Error> {
        let networks = model.networks();
        let towards = match how.space {
            Space::Latent if tiled => Towards::Latent { mean: condition.repeat(samples), deviation: None },
            Space::Latent => {
                let drawn = networks.autoencoder.lend()?.distribution(to_tensor(clean, &model.device));
                let channels = networks.latent_channels;
                let part = |from: usize| {
                    let part = drawn.clone().slice_dim(3, from..from + channels);
                    Ok::<_, Error>(to_latent(part, Stage::Encode)?.repeat(samples))
                };
                let has_deviation = drawn.dims()[3] > channels;
                Towards::Latent {
                    mean: part(0)?,
                    deviation: has_deviation.then(|| part(channels)).transpose()?,
                }
            }
            Space::Rgb if tiled => {
                return Err(Error::Option(
                    "restoration guidance between pictures does not work in tiles, in which pictures above 1024 pixels \
                     are restored: guide between latents"
                        .into(),
                ));
            }
            Space::Rgb => {
                let device = model.device.clone().autodiff();
                let config =
                    model.config.stage2.as_ref().expect("a latent is only made where there is a stage 2");
                Towards::Picture {
                    picture: to_latent(to_tensor(clean, &Device::flex()), Stage::Decode)?
                        .map(|value| value * 2.0 - 1.0)
                        .repeat(samples),
                    decoder: differentiable(config, networks.autoencoder_weights.clone(), &device)?,
                    device,
                }
            }
        };
        Ok(Self { how, towards })
    }

    /// The estimate at timestep `t`, pulled; see [`diffbir_diffusion::Denoiser::guide`].
    pub fn on(&self, estimate: Latent, t: usize, share: f32, noise: &mut dyn Noise) -> Result<Latent, Error> {
        if !self.how.acts_at(t) {
            return Ok(estimate);
        }
        let mut estimate = estimate;
        for _ in 0..self.how.repeat {
            let pull = match &self.towards {
                Towards::Latent { mean, deviation: None } => self.how.pull(&estimate, mean),
                Towards::Latent { mean, deviation: Some(deviation) } => {
                    let drawn = mean.with(noise.normal(mean.data.len()));
                    let target =
                        mean.zip(&deviation.zip(&drawn, |deviation, drawn| deviation * drawn), |a, b| a + b);
                    self.how.pull(&estimate, &target)
                }
                Towards::Picture { picture, decoder, device } => {
                    let pulls: Result<Vec<Latent>, Error> = estimate
                        .items()
                        .zip(picture.items())
                        .map(|(estimate, picture)| {
                            self.through(decoder.as_ref(), &estimate, &picture, device)
                        })
                        .collect();
                    Latent::stack(&pulls?)
                }
            };
            estimate = estimate.add_scaled(&pull, 1.0 / share);
        }
        Ok(estimate)
    }

    /// The pull on a latent that follows from that on its picture.
    fn through(
        &self,
        decoder: &dyn Autoencoder,
        estimate: &Latent,
        picture: &Latent,
        device: &Device,
    ) -> Result<Latent, Error> {
        let latent = latent_tensor(estimate, device).require_grad();
        let (mut pull, mut failure) = (None::<Tensor<4>>, None);
        let product = || {
            let decoded = decoder.decode(latent.clone()) * 2.0 - 1.0;
            let pulled = to_latent(decoded.clone().inner(), Stage::Decode)
                .map(|decoded| self.how.pull(&decoded, picture));
            match pulled {
                Ok(pulled) => (decoded * latent_tensor(&pulled, device)).sum(),
                Err(error) => {
                    failure = Some(error);
                    decoded.sum()
                }
            }
        };
        // Of its blocks the decoder keeps the inputs alone: at 512 pixels all it makes would be gigabytes.
        recompute::backward(product, |gradients| {
            if let Some(part) = latent.grad(gradients) {
                pull = Some(match pull.take() {
                    Some(before) => before + part,
                    None => part,
                });
            }
        });
        match (failure, pull) {
            (Some(error), _) => Err(error),
            (None, Some(pull)) => to_latent(pull, Stage::Decode),
            (None, None) => unreachable!("a decoder depends on its latent"),
        }
    }
}

/// The autoencoder with plain weights in 32 bits, which themselves stay as they are.
fn differentiable(
    config: &Stage2Config,
    mut weights: diffbir_nn::checkpoint::Checkpoint,
    device: &Device,
) -> Result<Box<dyn Autoencoder>, WeightError> {
    Ok(match &config.autoencoder {
        AutoencoderConfig::Kl(sizes) => {
            Box::new(build(&mut weights, device, |params| sizes.build(params))?.0.no_grad())
        }
        AutoencoderConfig::Taef2(sizes) => {
            Box::new(build(&mut weights, device, |params| sizes.build(params))?.0.no_grad())
        }
    })
}
