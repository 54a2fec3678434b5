//! Functions of one `f32` rounded correctly from `f64`, the same on every platform and as PyTorch's on a
//! CPU: the Brownian motion's increments depend on the last bit of a sigma.

/// `e^x`.
pub(crate) fn exp(x: f32) -> f32 {
    f64::from(x).exp() as f32
}

/// `e^x - 1`.
pub(crate) fn expm1(x: f32) -> f32 {
    f64::from(x).exp_m1() as f32
}

/// The natural logarithm.
pub(crate) fn ln(x: f32) -> f32 {
    f64::from(x).ln() as f32
}
