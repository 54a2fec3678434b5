//! Image quality in numbers whose conventions are written down.
//!
//! Every metric takes 8-bit sRGB pictures ([`Picture`]) and says which colours, rounding and windows it
//! uses and whose values it gives. Sums are taken in f64 and do not depend on the number of threads.
//!
//! | metric | needs the truth | best |
//! |---|---|---|
//! | [`psnr`] | yes | infinity |
//! | [`ssim`], [`ms_ssim`] | yes | 1 |
//! | [`Lpips`] | yes | 0 |
//! | [`colour_difference`] | yes | 0 |
//! | [`Niqe`] | no | 0 |
//! | [`frechet_distance`] of features (FID) | a set | 0 |
//! | [`global_deviation`], [`local_deviation`] of repeated samples | no | 0 |

mod error;
mod fid;
mod filter;
mod linear;
mod lpips;
mod niqe;
mod npz;
mod picture;
mod pixels;
mod ssim;
mod stability;

pub use error::MetricError;
pub use fid::{Features, frechet_distance};
pub use lpips::{Backbone, Lpips};
pub use niqe::Niqe;
pub use picture::{Channels, Luma, Picture};
pub use pixels::{colour_difference, psnr};
pub use ssim::{ms_ssim, ssim};
pub use stability::{deviations, global_deviation, local_deviation};
