//! Leaving a network between two of its layers, when nobody waits for its end any more: a step of a large network on a
//! processor takes many seconds, a layer a fraction of one.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

type Asked = Box<dyn Fn() -> bool>;

thread_local! {
    static ASKED: RefCell<Option<Asked>> = const { RefCell::new(None) };
}

/// What a network is left by. It unwinds without a word, as no panic does.
struct Left;

/// Runs `network`, unless `asked` says, after any layer of this thread that has a weight of its own, that it is not
/// wanted any more: then there is nothing. Not to be used within itself.
pub fn unless<R>(asked: impl Fn() -> bool + 'static, network: impl FnOnce() -> R) -> Option<R> {
    struct Reset;
    impl Drop for Reset {
        fn drop(&mut self) {
            ASKED.set(None);
        }
    }
    ASKED.set(Some(Box::new(asked)));
    let _reset = Reset;
    // Tensors are values: one that was being made is dropped, and all others are as they were.
    match catch_unwind(AssertUnwindSafe(network)) {
        Ok(result) => Some(result),
        Err(reason) if reason.is::<Left>() => None,
        Err(reason) => resume_unwind(reason),
    }
}

/// Leaves if that is asked for.
pub(crate) fn look() {
    if ASKED.with_borrow(|asked| asked.as_ref().is_some_and(|asked| asked())) {
        resume_unwind(Box::new(Left));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::rc::Rc;

    /// Calls `look` as layers do, and counts what was run.
    fn layers(run: &Cell<usize>) -> &'static str {
        for _ in 0..5 {
            run.set(run.get() + 1);
            look();
        }
        "the end"
    }

    #[test]
    fn a_network_is_left_between_layers_and_only_where_it_is_asked() {
        let run = Rc::new(Cell::new(0));
        let seen = run.clone();
        assert_eq!(unless(move || seen.get() == 3, || layers(&run)), None);
        assert_eq!(run.get(), 3);
        assert_eq!(unless(|| false, || layers(&run)), Some("the end"));
        assert_eq!(layers(&run), "the end", "nobody asks any more");
        let other = catch_unwind(|| unless(|| false, || panic!("of its own")));
        assert!(other.is_err(), "a panic stays one");
    }
}
