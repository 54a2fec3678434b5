//! Listening to the layers of a network while it runs, to compare them one by one with another
//! implementation's. Without a listener a layer only looks whether there is one.

use burn::module::{Param, ParamId};
use burn::tensor::{Tensor, TensorData};
use std::cell::RefCell;

type Listener = Box<dyn FnMut(ParamId, TensorData)>;

thread_local! {
    static LISTENER: RefCell<Option<Listener>> = const { RefCell::new(None) };
}

/// Runs `network`, calling `listener` with the output of every layer of this thread that has a weight of its
/// own, in the order in which they run: the weight's id, of which [`crate::params::Keys::name`] knows the
/// name, and the values, channels last. A norm that is fused with its activation gives the output of both.
pub fn layers<R>(listener: impl FnMut(ParamId, TensorData) + 'static, network: impl FnOnce() -> R) -> R {
    struct Reset;
    impl Drop for Reset {
        fn drop(&mut self) {
            LISTENER.set(None);
        }
    }
    LISTENER.set(Some(Box::new(listener)));
    let _reset = Reset;
    network()
}

/// Tells a layer's output to whoever listens.
pub(crate) fn told<const W: usize, const D: usize>(
    weight: &Param<Tensor<W>>,
    output: Tensor<D>,
) -> Tensor<D> {
    LISTENER.with_borrow_mut(|listener| {
        if let Some(listener) = listener {
            listener(weight.id, output.to_data());
        }
    });
    output
}
