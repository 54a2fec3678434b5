//! What all autoencoders have in common: pictures to latents and back, whole or in tiles.

use crate::bands::{BandDone, run_in_bands};
use crate::steps::{Step, run};
use crate::tiled::{Statistics, TileDone, run_tiled};
use burn::tensor::Tensor;

/// From RGB pictures to latents of unit size and back.
///
/// Pictures are `[b, h, w, 3]` with values about 0..1; latents `[b, h / f, w / f, c]` with a standard
/// deviation of about 1, as the denoiser sees them.
pub trait Autoencoder: Send + Sync {
    /// Pixels per side of one latent cell, `f`.
    fn downsampling(&self) -> usize;

    /// Channels of the latent, `c`.
    fn latent_channels(&self) -> usize;

    /// From the picture to the latent.
    fn encoder_steps(&self) -> Vec<Step<'_>>;

    /// From the latent to the picture.
    fn decoder_steps(&self) -> Vec<Step<'_>>;

    /// The latent of a picture, deterministic. Height and width are multiples of `f`.
    fn encode(&self, picture: Tensor<4>) -> Tensor<4> {
        run(&self.encoder_steps(), picture)
    }

    /// What training draws the latent of a picture from: its mean and, behind it, its standard deviation
    /// `[b, h / f, w / f, 2 · c]`, or the latent alone where it is always the same.
    fn distribution(&self, picture: Tensor<4>) -> Tensor<4> {
        self.encode(picture)
    }

    /// The picture of a latent, not clamped.
    fn decode(&self, latent: Tensor<4>) -> Tensor<4> {
        run(&self.decoder_steps(), latent)
    }

    /// [`Autoencoder::encode`] of one picture in bands of so many rows at each resolution, or nothing if `told` stops it.
    fn encode_in_bands(&self, picture: Tensor<4>, rows: usize, told: &mut BandDone) -> Option<Tensor<4>> {
        run_in_bands(&self.encoder_steps(), picture, rows, told)
    }

    /// [`Autoencoder::decode`] of one latent in bands of so many rows at each resolution, or nothing if `told` stops it.
    fn decode_in_bands(&self, latent: Tensor<4>, rows: usize, told: &mut BandDone) -> Option<Tensor<4>> {
        run_in_bands(&self.decoder_steps(), latent, rows, told)
    }

    /// About [`Autoencoder::encode`], of tiles that share the statistics of norms.
    fn encode_tiles(&self, statistics: Statistics, tiles: Vec<Tensor<4>>, done: &mut TileDone) {
        run_tiled(&self.encoder_steps(), statistics, tiles, done);
    }

    /// About [`Autoencoder::decode`], of tiles that share the statistics of norms.
    fn decode_tiles(&self, statistics: Statistics, tiles: Vec<Tensor<4>>, done: &mut TileDone) {
        run_tiled(&self.decoder_steps(), statistics, tiles, done);
    }
}
