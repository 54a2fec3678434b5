//! Diffusion on host floats: schedules, samplers, guidance, random numbers. The denoiser is a closure, so
//! that nothing here knows of tensors or devices, and a sampler does the same arithmetic wherever the
//! network runs.

pub mod schedule;
