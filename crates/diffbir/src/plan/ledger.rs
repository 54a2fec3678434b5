//! How much is held at once, counted as things come and go.

/// A count of what is held, in numbers of one kind: values or bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ledger {
    held: usize,
    most: usize,
    /// The most since pieces have their size.
    recent: usize,
    /// What lies in smaller pieces where larger ones find no room.
    lost: usize,
    /// Whether that counts.
    on_heap: bool,
}

impl Ledger {
    /// A count that is of the heap's room, or, if not `on_heap`, of what is asked of it.
    pub(super) fn new(on_heap: bool) -> Self {
        Self { on_heap, ..Self::default() }
    }

    /// Something that is held from here on.
    pub(super) fn take(&mut self, size: usize) {
        self.held += size;
        self.recent = self.recent.max(self.held);
        self.most = self.most.max(self.held + self.lost);
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

    /// From here on pieces are as large as this: where all that was held before is smaller, nothing of it is of use.
    pub(super) fn outgrow(&mut self, piece: usize) {
        if self.on_heap && self.recent < piece {
            self.lost = self.lost.max(self.recent);
        }
        self.recent = self.held;
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
        let mut held = Ledger::new(true);
        held.take(3);
        held.turn(3, 4);
        held.need(2);
        assert_eq!((held.held, held.most()), (4, 7));
        // Seven lie in the way of a piece of ten; for one of six there was room.
        let mut larger = held;
        larger.outgrow(10);
        larger.turn(4, 10);
        assert_eq!(larger.most(), 21);
        held.outgrow(6);
        held.turn(4, 6);
        assert_eq!(held.most(), 10);
    }
}
