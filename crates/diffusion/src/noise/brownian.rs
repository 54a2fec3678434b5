//! The noise of the SDE samplers: torchsde's BrownianTree. An increment between two sigmas is the same
//! however many steps lie between them, because it follows from a tree of halvings.

use super::{Noise, SeedSequence, Source};
use rayon::prelude::*;
use std::cell::Cell;
use std::collections::HashMap;
use std::rc::Rc;

/// Words of the seed pool that torchsde uses for a tree.
const POOL: usize = 24;

/// Fewest values of a task.
const SPAN: usize = 1 << 14;

/// A place in the tree: its index among those of its depth, and the depth.
type Place = (u64, u32);

/// A Brownian motion over an interval of sigma, of `count` values.
#[derive(Clone)]
pub struct BrownianTree {
    source: Source,
    entropy: u64,
    count: usize,
    start: f64,
    end: f64,
    root: Rc<Field>,
    /// Increments of the nodes on the way to the lower end of the last query, which is the next one's upper end.
    cache: HashMap<Place, Rc<Field>>,
    meter: Rc<Meter>,
}

/// How many fields are held.
#[derive(Debug, Default)]
struct Meter {
    now: Cell<usize>,
    most: Cell<usize>,
}

/// Values of a node, counted as long as they are held.
struct Field {
    values: Vec<f32>,
    meter: Rc<Meter>,
}

impl Field {
    fn new(values: Vec<f32>, meter: &Rc<Meter>) -> Self {
        meter.now.set(meter.now.get() + 1);
        meter.most.set(meter.most.get().max(meter.now.get()));
        Self { values, meter: meter.clone() }
    }
}

impl Drop for Field {
    fn drop(&mut self) {
        self.meter.now.set(self.meter.now.get() - 1);
    }
}

/// A node: the interval, and its increment.
struct Node {
    place: Place,
    start: f64,
    end: f64,
    increment: Rc<Field>,
}

impl BrownianTree {
    /// Over `start..end`, of fields from a device.
    pub fn new(source: Source, entropy: u64, count: usize, start: f64, end: f64) -> Self {
        let seed = SeedSequence::new(entropy, &[], POOL).state(3)[0];
        let scale = (end - start).sqrt() as f32;
        let root = source.field(u64::from(seed), count).into_iter().map(|n| n * scale).collect();
        let (start, end) = (rounded(start), rounded(end));
        let meter = Rc::default();
        let root = Rc::new(Field::new(root, &meter));
        Self { source, entropy, count, start, end, root, cache: HashMap::new(), meter }
    }

    /// `(W(sigma_next) - W(sigma)) / sqrt(sigma - sigma_next)`, standard normal values.
    pub fn normalised(&mut self, sigma: f32, sigma_next: f32) -> Vec<f32> {
        let root = (sigma - sigma_next).sqrt();
        let within = |sigma: f32| rounded(f64::from(sigma)).clamp(self.start, self.end);
        let (low, high) = (within(sigma_next), within(sigma));
        self.increment(low, high).into_iter().map(|value| -value / root).collect()
    }

    /// `W(high) - W(low)`.
    fn increment(&mut self, low: f64, high: f64) -> Vec<f32> {
        let mut before = std::mem::take(&mut self.cache);
        let root = Node { place: (0, 0), start: self.start, end: self.end, increment: self.root.clone() };
        let mut total = Field::new(vec![0.0; self.count], &self.meter);
        self.add(root, low, high, &mut before, &mut total.values);
        std::mem::take(&mut total.values)
    }

    /// Adds the parts of `low..high` in this node, from left to right.
    fn add(
        &mut self,
        node: Node,
        low: f64,
        high: f64,
        before: &mut HashMap<Place, Rc<Field>>,
        total: &mut [f32],
    ) {
        if low >= high {
            return;
        }
        if low == node.start && high == node.end {
            let parts = total.par_iter_mut().zip(&node.increment.values).with_min_len(SPAN);
            parts.for_each(|(total, value)| *total += value);
            return;
        }
        let middle = rounded(0.5 * (node.start + node.end));
        let left = self.left(&node, middle, before);
        let (index, depth) = left.place;
        if low > node.start {
            self.cache.insert(left.place, left.increment.clone());
        }
        // The right is what is left over. Paths are long: nothing is held that is not asked for.
        let right = (high > middle).then(|| {
            let right = of_both(&node.increment.values, &left.increment.values, |whole, left| whole - left);
            Node {
                place: (index + 1, depth),
                start: middle,
                end: node.end,
                increment: Rc::new(Field::new(right, &self.meter)),
            }
        });
        drop(node);
        if low < middle {
            self.add(left, low, high.min(middle), before, total);
        } else {
            drop(left);
        }
        if let Some(right) = right {
            self.add(right, low.max(middle), high, before, total);
        }
    }

    /// The left half of a node, drawn as a Brownian bridge.
    fn left(&self, node: &Node, middle: f64, before: &mut HashMap<Place, Rc<Field>>) -> Node {
        let (index, depth) = node.place;
        let place = (2 * index, depth + 1);
        let increment =
            before.remove(&place).or_else(|| self.cache.get(&place).cloned()).unwrap_or_else(|| {
                let (l, r) = (middle - node.start, node.end - middle);
                let inverse = 1.0 / (node.end - node.start);
                let seed = SeedSequence::new(self.entropy, &[index, u64::from(depth)], POOL).state(4)[0];
                let noise = Field::new(self.source.field(u64::from(seed), self.count), &self.meter);
                let (share, inverse, spread) = (l as f32, inverse as f32, (l * r * inverse).sqrt() as f32);
                let bridge = of_both(&node.increment.values, &noise.values, |whole, noise| {
                    share * whole * inverse + spread * noise
                });
                Rc::new(Field::new(bridge, &self.meter))
            });
        Node { place, start: node.start, end: middle, increment }
    }
}

/// A function of the values of two fields, place by place.
fn of_both(first: &[f32], second: &[f32], function: impl Fn(f32, f32) -> f32 + Sync) -> Vec<f32> {
    let pairs = first.par_iter().zip(second).with_min_len(SPAN);
    pairs.map(|(first, second)| function(*first, *second)).collect()
}

/// Noise of no values to speak of, which counts the fields that a Brownian motion would hold for what is asked of it: they follow
/// from the sigmas alone.
#[derive(Default)]
pub(crate) struct Counting {
    tree: Option<BrownianTree>,
    /// The most while an increment is drawn.
    pub drawn: usize,
    /// The most from one increment to the next.
    pub kept: usize,
}

impl Noise for Counting {
    fn normal(&mut self, count: usize) -> Vec<f32> {
        vec![0.0; count]
    }

    fn start_interval(&mut self, count: usize, sigma_min: f32, sigma_max: f32) {
        let (start, end) = (f64::from(sigma_min), f64::from(sigma_max));
        self.tree = Some(BrownianTree::new(Source::TorchCpu, 0, count, start, end));
    }

    fn interval(&mut self, sigma: f32, sigma_next: f32) -> Vec<f32> {
        let tree = self.tree.as_mut().expect("started before it is asked");
        let values = tree.normalised(sigma, sigma_next);
        self.drawn = tree.meter.most.get();
        self.kept = self.kept.max(tree.meter.now.get());
        values
    }
}

/// To six decimals, correctly rounded in decimal.
fn rounded(sigma: f64) -> f64 {
    format!("{sigma:.6}").parse().expect("a number that was just printed")
}

#[cfg(test)]
#[allow(clippy::excessive_precision, reason = "known values stand as they are published")]
mod tests {
    use super::*;
    use crate::edm::Sigmas;
    use crate::schedule::{LAST_T, Prediction, Schedule, Terminal};

    const ENTROPY: u64 = 5_192_648_547_598_042_289;
    const SIGMAS: [f32; 3] = [10_000.0, 18.130_049, 7.410_702_7];

    #[test]
    fn increments_are_those_of_torchsde() {
        let mut tree = BrownianTree::new(Source::TorchCpu, ENTROPY, 16, f64::from(0.354_989_02f32), 10_000.0);
        let first = tree.normalised(SIGMAS[0], SIGMAS[1]);
        for (got, known) in first.iter().zip([-0.01772, -0.49759, 1.37852, -1.43064]) {
            assert!((got - known).abs() < 5e-5, "{got} is not {known}");
        }
        let second = tree.normalised(SIGMAS[1], SIGMAS[2]);
        for (got, known) in second.iter().zip([0.08382, -0.89084, 1.11793, -1.03865]) {
            assert!((got - known).abs() < 5e-5, "{got} is not {known}");
        }
    }

    #[test]
    fn the_tree_is_as_deep_as_torchsdes() {
        let sigmas = Sigmas::new(&Schedule::new(Terminal::ZeroSnr), Prediction::V, LAST_T, 10).sigmas;
        for (&sigma, known) in sigmas.iter().zip([0, 33, 33, 32, 32, 33, 31, 34, 33, 0]) {
            let mut tree = BrownianTree::new(Source::TorchCpu, ENTROPY, 1, f64::from(sigmas[9]), 10_000.0);
            let (low, end) = (rounded(f64::from(sigma)), tree.end);
            tree.increment(low, end);
            let depth = tree.cache.keys().map(|place| place.1).max().unwrap_or(0);
            assert_eq!(depth, known, "sigma {sigma}");
        }
    }

    #[test]
    fn fields_are_counted_as_they_come_and_go() {
        let (mut tree, mut counting) =
            (BrownianTree::new(Source::TorchCpu, ENTROPY, 16, 0.35, 10_000.0), Counting::default());
        counting.start_interval(1, 0.35, 10_000.0);
        for sigmas in SIGMAS.windows(2) {
            tree.normalised(sigmas[0], sigmas[1]);
            counting.interval(sigmas[0], sigmas[1]);
        }
        assert_eq!((tree.meter.now.get(), tree.meter.most.get()), (tree.cache.len() + 1, counting.drawn));
        assert!(counting.kept > 30 && counting.drawn > counting.kept, "{} {}", counting.kept, counting.drawn);
    }

    #[test]
    fn an_increment_does_not_depend_on_what_was_asked_before() {
        let new = || BrownianTree::new(Source::TorchCpu, ENTROPY, 16, 0.35, 10_000.0);
        let mut warm = new();
        warm.normalised(SIGMAS[0], SIGMAS[1]);
        assert_eq!(warm.normalised(SIGMAS[1], SIGMAS[2]), new().normalised(SIGMAS[1], SIGMAS[2]));
    }
}
