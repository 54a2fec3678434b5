//! Degradations and the trainers of every part, on any device that can differentiate.

pub mod data;
pub mod degrade;
pub mod optimizer;
pub mod run;
pub mod stage1;
