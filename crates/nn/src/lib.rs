//! What every network is made of: layers, the operations under them, and where weights come from.
//!
//! Two rules hold everywhere. Activations are channels last: `[batch, height, width, channels]`, so
//! that tokens `[batch, height · width, channels]` are a free reshape. Networks are built only from the
//! [`layers`] and [`ops`] of this crate, which pick the fastest form of an operation for the device.

pub mod checkpoint;
pub mod layers;
pub mod observe;
pub mod ops;
pub mod params;
pub mod recompute;
pub mod stop;
mod weight;

pub use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
pub use burn::tensor::{Device, Tensor, TensorData};
pub use diffbir_kernels::Products;
pub use diffbir_kernels::conv::Rectifier;
pub use params::{Params, Precision, WeightError};
pub use weight::Weight;

/// Whether networks on this device run on the processor.
pub fn runs_on_cpu(device: &Device) -> bool {
    ops::on_cpu(device)
}

/// Does a network's work where it goes fastest: for the CPU on one of the threads that kernels share their work among, for
/// other devices here. Within [`stop::unless`] it is left there as it would be here.
pub fn on_workers<R: Send>(device: &Device, work: impl FnOnce() -> R + Send) -> R {
    if !ops::on_cpu(device) || observe::is_on() || recompute::is_on() {
        return work();
    }
    let asked = stop::asked();
    diffbir_kernels::on_workers(|| recompute::apart(|| stop::with(asked, work)))
}
