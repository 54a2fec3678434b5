//! Degradations and the trainers of every part, on any device that can differentiate.

pub mod data;
pub mod degrade;
pub mod latents;
pub mod optimizer;
pub mod run;
pub mod stage1;
pub mod stage2;
pub mod tensorboard;
