//! What follows a convolution: done while the sums are in registers, it costs no pass over the output.

/// What becomes of negative results.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Rectifier {
    /// They stay.
    #[default]
    None,
    /// They become 0.
    Relu,
    /// They are multiplied by this.
    Leaky(f32),
}

/// What follows a convolution, in this order.
#[derive(Clone, Copy, Debug, Default)]
pub struct After<'a> {
    /// Is added; of the output's shape.
    pub rest: Option<&'a [f32]>,
    /// Is applied.
    pub rectifier: Rectifier,
}
