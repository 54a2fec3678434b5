//! Degradations and the trainers of every part, on any device that can differentiate.

mod anew;
pub mod autoencoder;
pub mod config;
pub mod data;
pub mod degrade;
mod error;
pub mod files;
pub mod folder;
mod held_out;
pub mod latents;
pub mod losses;
mod one_step;
pub mod optimizer;
pub mod parts;
mod report;
pub mod run;
mod shown;
pub mod stage1;
pub mod stage2;
pub mod tensorboard;
