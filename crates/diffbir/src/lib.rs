//! DiffBIR as a library: load a [`Model`], give it a photograph, get it back restored.
//!
//! The way of a picture: resize, stage 1 (removes the degradation), encode to a latent, sample from noise
//! with the UNet steered by the control branch, decode, fix the colours.

mod article;
pub mod catalog;
pub mod config;
pub mod device;
pub mod diffusers;
mod error;
pub mod faces;
mod full;
pub mod geometry;
mod guidance;
pub mod harm;
pub mod model;
mod official;
pub mod plan;
mod published;
mod regions;
mod resident;
pub mod restore;
mod stage1;
mod stage2;
mod text;
pub mod tiling;
pub mod yaml;

pub use config::ModelConfig;
/// The built-in model file, as safetensors.
pub use diffbir_nano::NANO;
pub use error::{Error, Stage};
pub use model::Model;
pub use restore::{Options, Prepared, Progress};
