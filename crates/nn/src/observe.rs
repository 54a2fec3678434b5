//! Listening to the layers of a network while it runs, to compare them one by one with another
//! implementation's. Without a listener a layer only looks whether there is one.

use crate::stop;
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

/// Whether anybody listens: layers then do one thing at a time.
pub(crate) fn is_on() -> bool {
    LISTENER.with_borrow(Option::is_some)
}

/// A layer is done: tells its output to whoever listens, and leaves the network where that is asked for.
pub(crate) fn told<const W: usize, const D: usize>(
    weight: &Param<Tensor<W>>,
    output: Tensor<D>,
) -> Tensor<D> {
    stop::look();
    LISTENER.with_borrow_mut(|listener| {
        if let Some(listener) = listener {
            listener(weight.id, output.to_data());
        }
    });
    output
}
