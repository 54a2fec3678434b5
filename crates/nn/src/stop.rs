//! Leaving a network between two of its layers, when nobody waits for its end any more: a step of a large network on a
//! processor takes many seconds, a layer a fraction of one.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

/// Says whether a network is not wanted any more.
pub(crate) type Asked = Arc<dyn Fn() -> bool + Send + Sync>;

thread_local! {
    static ASKED: RefCell<Option<Asked>> = const { RefCell::new(None) };
}

/// What a network is left by. It unwinds without a word, as no panic does.
struct Left;

/// Runs `network`, unless `asked` says, after any layer of this thread that has a weight of its own, that it is not
/// wanted any more: then there is nothing. Not to be used within itself.
pub fn unless<R>(asked: impl Fn() -> bool + Send + Sync + 'static, network: impl FnOnce() -> R) -> Option<R> {
    // Tensors are values: one that was being made is dropped, and all others are as they were.
    match catch_unwind(AssertUnwindSafe(|| with(Some(Arc::new(asked)), network))) {
        Ok(result) => Some(result),
        Err(reason) if reason.is::<Left>() => None,
        Err(reason) => resume_unwind(reason),
    }
}

/// What is asked on this thread.
pub(crate) fn asked() -> Option<Asked> {
    ASKED.with_borrow(Clone::clone)
}

/// Runs `network` so that its layers ask.
pub(crate) fn with<R>(asked: Option<Asked>, network: impl FnOnce() -> R) -> R {
    struct Reset(Option<Asked>);
    impl Drop for Reset {
        fn drop(&mut self) {
            ASKED.set(self.0.take());
        }
    }
    let _reset = Reset(ASKED.replace(asked));
    network()
}

/// Leaves if that is asked for.
pub(crate) fn look() {
    if asked().is_some_and(|asked| asked()) {
        resume_unwind(Box::new(Left));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Calls `look` as layers do, and counts what was run.
    fn layers(run: &AtomicUsize) -> &'static str {
        for _ in 0..5 {
            run.fetch_add(1, Ordering::SeqCst);
            look();
        }
        "the end"
    }

    #[test]
    fn a_network_is_left_between_layers_and_only_where_it_is_asked() {
        for device in [None, Some(crate::Device::flex())] {
            let run = Arc::new(AtomicUsize::new(0));
            let seen = run.clone();
            // On another thread it is left, too.
            let network = || match &device {
                Some(device) => crate::on_workers(device, || layers(&run)),
                None => layers(&run),
            };
            assert_eq!(unless(move || seen.load(Ordering::SeqCst) == 3, network), None);
            assert_eq!(run.load(Ordering::SeqCst), 3);
            assert_eq!(unless(|| false, network), Some("the end"));
            assert_eq!(layers(&run), "the end", "nobody asks any more");
        }
        let other = catch_unwind(|| unless(|| false, || panic!("of its own")));
        assert!(other.is_err(), "a panic stays one");
    }
}
