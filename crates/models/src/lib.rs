//! The networks, one file each: configuration, structure and forward pass.
//!
//! All work on `[batch, height, width, channels]`. The official configuration of a network asks for
//! exactly the tensors of the official checkpoint; a smaller one differs in numbers only.

pub mod srvgg;
pub mod swinir;
