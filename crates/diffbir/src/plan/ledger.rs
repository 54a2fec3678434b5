//! How much is held at once, counted as things come and go.

/// A count of what is held, in numbers of one kind: values or bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ledger {
    held: usize,
    most: usize,
}

impl Ledger {
    /// Something that is held from here on.
    pub(super) fn take(&mut self, size: usize) {
        self.held += size;
        self.most = self.most.max(self.held);
    }

    /// Something that is held no longer.
    pub(super) fn free(&mut self, size: usize) {
        self.held -= size;
    }

    /// What goes as soon as what is made of it is there.
    pub(super) fn turn(&mut self, from: usize, to: usize) {
        self.take(to);
        self.free(from);
    }

    /// What is held for a while.
    pub(super) fn need(&mut self, size: usize) {
        self.take(size);
        self.free(size);
    }

    /// What is left.
    pub(super) fn held(self) -> usize {
        self.held
    }

    /// The most that was held at once.
    pub(super) fn most(self) -> usize {
        self.most
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_is_what_came_together() {
        let mut held = Ledger::default();
        held.take(3);
        held.turn(3, 4);
        held.need(2);
        assert_eq!((held.held, held.most()), (4, 7));
    }
}
