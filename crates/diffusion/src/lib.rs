//! Diffusion on host floats: schedules, samplers, guidance, random numbers. The denoiser is a closure (or a
//! [`Denoiser`] that guides as well), so that nothing here knows of tensors or devices, and a sampler does the same arithmetic wherever the
//! network runs.

pub mod ddim;
pub mod dpmpp;
pub mod edm;
pub mod guidance;
pub mod latent;
pub mod noise;
pub mod restoration;
pub mod sampler;
mod scalar;
pub mod schedule;
pub mod spaced;
pub mod start;
pub mod tiled;

pub use guidance::{Condition, Guidance};
pub use latent::Latent;
pub use restoration::Restoration;
pub use sampler::{Denoiser, Parameter, Parameters, SampleError, Sampler, Sampling, Step};
pub use schedule::{Prediction, Schedule, Terminal};
pub use start::StartPoint;
