//! The small model's weights, and nothing else: a crate of its own, so that packagers can put them
//! elsewhere and that rebuilding code does not touch them.

/// The model as one safetensors file, f16. The environment variable `DIFFBIR_NANO_FILE` points the build
/// to another file.
pub static NANO: &[u8] = include_bytes!(env!("DIFFBIR_NANO_FILE"));
