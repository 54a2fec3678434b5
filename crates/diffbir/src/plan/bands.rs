//! What an autoencoder holds in bands of rows: the run of `models/src/bands.rs` with sizes in place of tensors.

use super::ledger::Ledger;
use super::steps::Step;
use diffbir_models::flow::{self, Leg, Rows, Scale, Sight};
use std::cell::RefCell;
use std::ops::{ControlFlow, Range};
use std::rc::Rc;

/// The most values that `steps` hold on a picture of `channels` and this height and width, which is held too, in bands of so
/// many rows.
pub(super) fn values(steps: &[Step], (height, width, channels): (usize, usize, usize), rows: usize) -> usize {
    let sizes = Sizes { steps, held: Rc::default() };
    let whole = sizes.made(height, width, channels);
    drop(flow::run(&sizes, whole, rows, &mut |_, _| ControlFlow::Continue(())));
    sizes.held.borrow().most()
}

/// Values that are held as long as anything refers to them.
struct Block {
    size: usize,
    held: Rc<RefCell<Ledger>>,
}

impl Drop for Block {
    fn drop(&mut self) {
        self.held.borrow_mut().free(self.size);
    }
}

/// Rows within a block, all of which stays for them.
#[derive(Clone)]
struct Band {
    rows: usize,
    width: usize,
    channels: usize,
    _block: Rc<Block>,
}

impl Rows for Band {
    fn count(&self) -> usize {
        self.rows
    }

    fn part(&self, rows: Range<usize>) -> Self {
        Self { rows: rows.len(), ..self.clone() }
    }
}

struct Sizes<'a> {
    steps: &'a [Step],
    held: Rc<RefCell<Ledger>>,
}

impl Sizes<'_> {
    fn made(&self, rows: usize, width: usize, channels: usize) -> Band {
        let size = rows * width * channels;
        self.held.borrow_mut().take(size);
        Band { rows, width, channels, _block: Rc::new(Block { size, held: self.held.clone() }) }
    }

    /// What is made of pieces one below the other.
    fn of_all(&self, pieces: &[Band]) -> Band {
        let [width, channels] = [pieces[0].width, pieces[0].channels];
        self.made(pieces.iter().map(|piece| piece.rows).sum(), width, channels)
    }
}

impl flow::Steps for Sizes<'_> {
    type Rows = Band;
    type Known = ();

    fn sights(&self) -> Vec<Sight> {
        self.steps.iter().map(Step::sight).collect()
    }

    fn known<'a>(&self, _: usize, _: impl Iterator<Item = &'a Band>) {}

    fn whole(&self, _: usize, bands: Vec<Band>) -> Band {
        let x = flow::Steps::joined(self, bands);
        // Queries, keys and values, and what attention makes of them.
        self.held.borrow_mut().need(4 * x.rows * x.width * x.channels);
        self.of_all(&[x])
    }

    fn band(
        &self,
        leg: &Leg,
        known: Option<&()>,
        way: &[Range<usize>],
        pieces: Vec<Band>,
        added: Vec<Vec<Band>>,
    ) -> Band {
        let mut added = added.into_iter().map(|pieces| flow::Steps::joined(self, pieces));
        let mut x = match known {
            Some(()) => self.of_all(&pieces),
            None => flow::Steps::joined(self, pieces),
        };
        if let Some(Step::Norm { twice: true }) = leg.norm.map(|norm| &self.steps[norm]) {
            x = self.of_all(&[x]);
        }
        for ((step, sight), rows) in self.steps[leg.first..].iter().zip(&leg.sights).zip(way.windows(2)) {
            let wanted = rows[1].len();
            x = match *step {
                Step::Map { channels, scale, inside, .. } => {
                    let width = sight.scaled(x.width);
                    // Some make rows that are not wanted.
                    let all = inside > 0 || scale == Scale::Double;
                    let y = self.made(if all { sight.scaled(x.rows) } else { wanted }, width, channels);
                    self.held.borrow_mut().need(inside * y.rows * width);
                    y.part(0..wanted)
                }
                Step::AddKept { channels, shortcut, .. } => {
                    let kept = added.next().expect("every addition follows a keep");
                    let _kept = if shortcut { self.made(kept.rows, kept.width, channels) } else { kept };
                    self.made(wanted, x.width, channels)
                }
                Step::Attention | Step::Norm { .. } | Step::Keep => unreachable!("ends a leg"),
            };
        }
        x
    }

    fn joined(&self, mut bands: Vec<Band>) -> Band {
        if bands.len() == 1 { bands.remove(0) } else { self.of_all(&bands) }
    }
}
