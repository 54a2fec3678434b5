//! Less memory for training: the activations inside a block are not kept for the way back but computed a second time,
//! from the block's inputs (arXiv 1604.06174).
//!
//! The differentiating graph ends at every block: its output is a new leaf. Going backwards, the last block comes
//! first; its gradients at its inputs are those of the leaves before. So whatever goes into two blocks, or into one and
//! the loss, must come out of one or of [`parting`], or be constant.

use burn::module::Module;
use burn::tensor::{Device, Gradients, Tensor};
use std::cell::RefCell;

thread_local! {
    static BLOCKS: RefCell<Option<Vec<Block>>> = const { RefCell::new(None) };
}

/// The gradient at the output, as a row.
type GradientOf = dyn Fn(&Gradients) -> Option<Tensor<1>>;

/// The sum of the outputs for these inputs, each times its part of a row.
type Again = dyn Fn(&[Tensor<4>], Tensor<1>) -> Tensor<1>;

/// A block that was run. Its output is known by what asks for it, as outputs have any number of dimensions.
struct Block {
    inputs: Vec<Tensor<4>>,
    gradient: Box<GradientOf>,
    again: Box<Again>,
    device: Device,
}

/// Whether blocks are noted.
pub fn is_on() -> bool {
    BLOCKS.with_borrow(Option::is_some)
}

/// Runs `work` as on a thread of its own: a thread of the pool that waits in one step may be given another.
pub(crate) fn apart<R>(work: impl FnOnce() -> R) -> R {
    struct Back(Option<Vec<Block>>);
    impl Drop for Back {
        fn drop(&mut self) {
            BLOCKS.set(self.0.take());
        }
    }
    let _back = Back(BLOCKS.take());
    work()
}

/// What `forward` makes of `inputs`, in a way that keeps them alone for the way back where that is asked for.
pub fn block<N: Module + 'static, const D: usize>(
    network: &N,
    inputs: Vec<Tensor<4>>,
    forward: impl Fn(&N, &[Tensor<4>]) -> Tensor<D> + 'static,
) -> Tensor<D> {
    let devices = if is_on() { network.devices() } else { Vec::new() };
    let Some(device) = devices.into_iter().find(Device::is_autodiff) else {
        return forward(network, &inputs);
    };
    let plain: Vec<Tensor<4>> = inputs.iter().map(|x| x.clone().inner()).collect();
    let output = forward(&network.valid(), &plain);
    let network = network.clone();
    noted(inputs, output, device, move |inputs| forward(&network, inputs))
}

/// `x` where several ways part, some of them through blocks: their gradients are added before they go on.
pub fn parting(x: Tensor<4>) -> Tensor<4> {
    let device = x.device();
    if !is_on() || !device.is_autodiff() {
        return x;
    }
    let output = x.clone().inner();
    noted(vec![x], output, device, |x| x[0].clone())
}

/// The output of a block as a new leaf.
fn noted<const D: usize>(
    inputs: Vec<Tensor<4>>,
    output: Tensor<D>,
    device: Device,
    again: impl Fn(&[Tensor<4>]) -> Tensor<D> + 'static,
) -> Tensor<D> {
    let output = Tensor::from_inner(output).require_grad();
    let leaf = output.clone();
    let noted = Block {
        inputs,
        gradient: Box::new(move |gradients| Some(leaf.grad(gradients)?.reshape([-1]))),
        again: Box::new(move |inputs, row| {
            let row: Tensor<1> = Tensor::from_inner(row);
            (again(inputs).reshape([-1]) * row).sum()
        }),
        device,
    };
    BLOCKS.with_borrow_mut(|blocks| blocks.as_mut().expect("it is on").push(noted));
    output
}

/// The value of `loss` and what `take` gets: gradients in several parts, whose sum over the parts is each parameter's.
pub fn backward(loss: impl FnOnce() -> Tensor<1>, mut take: impl FnMut(&Gradients)) -> Tensor<1> {
    /// Also where `loss` is left in the middle: a network that comes later has nothing to note.
    struct Off;
    impl Drop for Off {
        fn drop(&mut self) {
            BLOCKS.set(None);
        }
    }
    BLOCKS.set(Some(Vec::new()));
    let off = Off;
    let value = loss();
    let mut blocks = BLOCKS.take().unwrap_or_default();
    drop(off);
    let mut waiting: Vec<Option<Tensor<1>>> = blocks.iter().map(|_| None).collect();
    let mut spread = |gradients: Gradients, blocks: &[Block], waiting: &mut [Option<Tensor<1>>]| {
        for (block, waiting) in blocks.iter().zip(waiting) {
            if let Some(gradient) = (block.gradient)(&gradients) {
                *waiting = Some(match waiting.take() {
                    Some(before) => before + gradient,
                    None => gradient,
                });
            }
        }
        take(&gradients);
    };
    spread(value.backward(), &blocks, &mut waiting);
    while let (Some(Block { inputs, again, device, .. }), Some(gradient)) = (blocks.pop(), waiting.pop()) {
        let Some(gradient) = gradient else { continue };
        let leaves: Vec<Tensor<4>> =
            inputs.iter().map(|x| Tensor::from_inner(x.clone().inner()).require_grad()).collect();
        let gradients = again(&leaves, gradient).backward();
        // Something that is surely tracked, where all inputs are constants.
        let mut products = Tensor::<1>::zeros([1], &device).require_grad().sum();
        for (x, leaf) in inputs.into_iter().zip(&leaves) {
            if let Some(gradient) = leaf.grad(&gradients) {
                products = products + (x * Tensor::from_inner(gradient)).sum();
            }
        }
        spread(gradients, &blocks, &mut waiting);
        spread(products.backward(), &blocks, &mut waiting);
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_that_is_left_leaves_nothing_on() {
        let left = std::panic::catch_unwind(|| backward(|| panic!("left"), |_| ()));
        assert!(left.is_err() && !is_on());
    }

    #[test]
    fn a_step_within_another_notes_nothing_for_it() {
        BLOCKS.set(Some(Vec::new()));
        assert!(!apart(is_on) && is_on());
        let left = std::panic::catch_unwind(|| apart(|| backward(|| panic!("left"), |_| ())));
        assert!(left.is_err() && is_on());
        BLOCKS.set(None);
    }
}
