//! CPU kernels on plain slices, channels last, with their backward passes.
//!
//! Nothing here knows of tensors or devices: every function takes slices in `[batch, height, width,
//! channels]` order and returns a new vector, so that a kernel can be tested by itself. Work is split
//! over pixels, images or channels and reductions run over fixed chunks in a fixed order, so a result
//! does not depend on the number of threads.

#![allow(unsafe_code, reason = "vector instructions, and results that are not zeroed first")]

pub mod activation;
pub mod adamw;
pub mod attention;
mod bf16;
pub mod channels;
pub mod conv;
#[cfg(test)]
mod every_isa_tests;
#[cfg(all(test, target_os = "linux"))]
mod guarded;
mod layer_norm;
mod math;
pub mod norm;
mod pack;
mod products;
mod share;
mod simd;
mod tile;

pub use bf16::bf16_is_fast;
pub use layer_norm::{layer_norm, layer_norm_backward};
pub use products::Products;
pub use share::on_workers;
pub use simd::instruction_set;
