//! The networks, one file each: configuration, structure and forward pass.
//!
//! All work on `[batch, height, width, channels]`. The official configuration of a network asks for
//! exactly the tensors of the official checkpoint; a smaller one differs in numbers only.

pub mod autoencoder;
pub mod bands;
pub mod clip;
pub mod controlnet;
pub mod flow;
pub mod gfpgan;
pub mod kl;
pub mod parsenet;
pub mod patch;
pub mod retinaface;
pub mod rrdb;
pub mod scunet;
pub mod sizes;
pub mod srvgg;
pub mod stage1;
pub mod steps;
pub mod swinir;
pub mod taef2;
pub mod tiled;
pub mod unet;
mod window;
pub mod yunet;
