//! In which order bands of rows flow through a list of steps, and which rows of what came before each band wants, whatever rows
//! are made of: tensors ([`bands`](crate::bands)), or their sizes alone where memory is foretold.

use std::collections::VecDeque;
use std::ops::{ControlFlow, Range};

/// Takes how many of how many bands are done, and says whether to go on.
pub type BandDone<'a> = dyn FnMut(usize, usize) -> ControlFlow<()> + 'a;

/// What of its input a step sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sight {
    /// Statistics of all pixels, and each pixel.
    Norm,
    /// All pixels.
    Whole,
    /// It remembers its input.
    Keep,
    /// Few rows around a row.
    Rows {
        /// Rows above those that lie where a row of its output lies.
        above: usize,
        /// Rows below them.
        below: usize,
        /// How many rows it makes.
        scale: Scale,
        /// Whether what was remembered last is added.
        adds: bool,
    },
}

/// How many rows of its output a step makes of those of its input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// As many.
    Same,
    /// One of two.
    Half,
    /// Two of one.
    Double,
}

impl Sight {
    fn scale(self) -> Scale {
        if let Self::Rows { scale, .. } = self { scale } else { Scale::Same }
    }

    fn adds(self) -> bool {
        matches!(self, Self::Rows { adds: true, .. })
    }

    /// The rows of the input, of `height`, that `rows` of the output want.
    fn wanted(self, rows: &Range<usize>, height: usize) -> Range<usize> {
        let Self::Rows { above, below, scale, .. } = self else { return rows.clone() };
        let Range { start, end } = match scale {
            Scale::Same => rows.clone(),
            Scale::Half => 2 * rows.start..2 * rows.end,
            Scale::Double => rows.start / 2..rows.end.div_ceil(2),
        };
        let (start, end) = (start.saturating_sub(above), (end + below).min(height));
        match scale {
            // Rows are taken in pairs.
            Scale::Half => start / 2 * 2..end.next_multiple_of(2).min(height),
            Scale::Same | Scale::Double => start..end,
        }
    }

    /// From rows of the input, or their number, to those of the output.
    pub fn scaled(self, rows: usize) -> usize {
        match self.scale() {
            Scale::Same => rows,
            Scale::Half => rows / 2,
            Scale::Double => 2 * rows,
        }
    }
}

/// Rows of a picture.
pub trait Rows: Clone {
    /// How many.
    fn count(&self) -> usize;

    /// These of them.
    fn part(&self, rows: Range<usize>) -> Self;
}

/// A list of steps over rows.
pub trait Steps {
    /// What they go over.
    type Rows: Rows;
    /// What a norm has to know of all rows.
    type Known;

    /// What each step sees.
    fn sights(&self) -> Vec<Sight>;

    /// What the norm that is this step has to know.
    fn known<'a>(&self, step: usize, bands: impl Iterator<Item = &'a Self::Rows>) -> Self::Known
    where
        Self::Rows: 'a;

    /// A step that sees everything.
    fn whole(&self, step: usize, bands: Vec<Self::Rows>) -> Self::Rows;

    /// A band through the steps of a leg: of its input come the rows that it wants, and of what each addition adds.
    fn band(
        &self,
        leg: &Leg,
        known: Option<&Self::Known>,
        way: &[Range<usize>],
        pieces: Vec<Self::Rows>,
        added: Vec<Vec<Self::Rows>>,
    ) -> Self::Rows;

    /// One below the other.
    fn joined(&self, bands: Vec<Self::Rows>) -> Self::Rows;
}

/// Runs all steps on `x` in bands of so many rows of each step's output; nothing if `told` stops it. Where steps halve, heights
/// are even.
pub fn run<S: Steps>(steps: &S, x: S::Rows, rows: usize, told: &mut BandDone) -> Option<S::Rows> {
    let parts = parts(&steps.sights(), x.count(), rows);
    let total = parts.iter().map(Part::bands).sum();
    told(0, total).is_continue().then_some(())?;
    let (mut x, mut kept, mut done) = (Bands::from(x), Vec::new(), 0);
    let mut tell = || {
        done += 1;
        told(done, total).is_continue().then_some(())
    };
    let mut rest = &parts[..];
    while let Some((part, behind)) = rest.split_first() {
        rest = behind;
        match part {
            Part::Keep => kept.push(x.clone()),
            Part::Whole(step) => {
                x = Bands::from(steps.whole(*step, x.into_pieces()));
                tell()?;
            }
            Part::Leg(first) => {
                let known = first.norm.map(|norm| steps.known(norm, x.pieces()));
                let mut flow = vec![Flowing::new(first, known, x, &mut kept)];
                while let Some((Part::Leg(leg @ Leg { norm: None, .. }), behind)) = rest.split_first() {
                    flow.push(Flowing::new(leg, None, Bands::default(), &mut kept));
                    rest = behind;
                }
                x = Bands::default();
                while x.height < flow[flow.len() - 1].leg.out_height() {
                    x.push(next(steps, &mut flow, &mut tell)?);
                }
            }
        }
    }
    Some(steps.joined(x.into_pieces()))
}

/// A leg on its way down the picture.
struct Flowing<'a, S: Steps> {
    leg: &'a Leg,
    known: Option<S::Known>,
    /// The rows of its input that are there and still wanted.
    input: Bands<S::Rows>,
    /// What was kept for its sums, in their order.
    sums: Vec<Bands<S::Rows>>,
    /// Rows of its output that are made.
    made: usize,
}

impl<'a, S: Steps> Flowing<'a, S> {
    fn new(
        leg: &'a Leg,
        known: Option<S::Known>,
        input: Bands<S::Rows>,
        kept: &mut Vec<Bands<S::Rows>>,
    ) -> Self {
        let mut sums = kept.split_off(kept.len() - leg.sums().count());
        // What was kept last is added first.
        sums.reverse();
        Self { leg, known, input, sums, made: 0 }
    }
}

/// The next band that the last of some legs makes, one feeding the other; nothing if `tell`, told of each band, stops it.
fn next<S: Steps>(
    steps: &S,
    flow: &mut [Flowing<S>],
    tell: &mut dyn FnMut() -> Option<()>,
) -> Option<S::Rows> {
    let (last, before) = flow.split_last_mut().expect("whose input is whole wants no rows of another");
    let band = last.made..(last.made + last.leg.rows).min(last.leg.out_height());
    last.made = band.end;
    let way = last.leg.way(band);
    while last.input.height < way[0].end {
        last.input.push(next(steps, before, tell)?);
    }
    let pieces = last.input.take(&way[0]);
    let added = last.leg.sums().zip(&mut last.sums).map(|(step, kept)| kept.take(&way[step + 1])).collect();
    let out = steps.band(last.leg, last.known.as_ref(), &way, pieces, added);
    tell()?;
    Some(out)
}

/// The rows of a picture in bands, those at the top that nobody needs any more left out.
#[derive(Clone)]
struct Bands<R> {
    /// First row and rows of each.
    bands: VecDeque<(usize, R)>,
    height: usize,
}

impl<R> Default for Bands<R> {
    fn default() -> Self {
        Self { bands: VecDeque::new(), height: 0 }
    }
}

impl<R: Rows> From<R> for Bands<R> {
    fn from(whole: R) -> Self {
        let mut bands = Self::default();
        bands.push(whole);
        bands
    }
}

impl<R: Rows> Bands<R> {
    fn push(&mut self, band: R) {
        let start = self.height;
        self.height += band.count();
        self.bands.push_back((start, band));
    }

    /// These rows, in as many pieces as they lie in; what lies above them goes.
    fn take(&mut self, rows: &Range<usize>) -> Vec<R> {
        while self.bands.front().is_some_and(|(start, band)| start + band.count() <= rows.start) {
            self.bands.pop_front();
        }
        let reached = self.bands.iter().take_while(|(start, _)| *start < rows.end);
        reached
            .map(|(start, band)| {
                let end = start + band.count();
                let piece = rows.start.max(*start) - start..rows.end.min(end) - start;
                if piece == (0..end - start) { band.clone() } else { band.part(piece) }
            })
            .collect()
    }

    fn pieces(&self) -> impl Iterator<Item = &R> {
        self.bands.iter().map(|(_, band)| band)
    }

    fn into_pieces(self) -> Vec<R> {
        self.bands.into_iter().map(|(_, band)| band).collect()
    }
}

/// What a list of steps is cut into.
enum Part {
    Keep,
    Whole(usize),
    Leg(Leg),
}

impl Part {
    /// In how many bands it runs.
    fn bands(&self) -> usize {
        match self {
            Self::Keep => 0,
            Self::Whole(_) => 1,
            Self::Leg(leg) => leg.out_height().div_ceil(leg.rows),
        }
    }
}

/// The parts of a list of steps over a picture of `height` rows.
fn parts(sights: &[Sight], mut height: usize, rows: usize) -> Vec<Part> {
    // Rows that are computed twice, at most: a sixth of those of a band.
    let most_around = rows / 6;
    let (mut parts, mut at) = (Vec::new(), 0);
    while let Some(first) = sights.get(at) {
        match first {
            Sight::Keep => parts.push(Part::Keep),
            Sight::Whole => parts.push(Part::Whole(at)),
            Sight::Norm | Sight::Rows { .. } => {
                let norm = (*first == Sight::Norm).then_some(at);
                at += usize::from(norm.is_some());
                let (mut around, mut end, mut halves) = (0, at, false);
                while let Some(Sight::Rows { above, below, scale, .. }) = sights.get(end) {
                    // Behind a doubling bands have half of the rows, around which as many would be computed again; behind a
                    // halving those before it would have twice as many.
                    if halves
                        || around > 0 && (*scale == Scale::Double || around + above + below > most_around)
                    {
                        break;
                    }
                    halves = *scale == Scale::Half;
                    around += above + below;
                    end += 1;
                }
                // What is halved has as many rows as other bands, if norms can still sum up rows by 64.
                let rows = if halves && rows > 64 { (rows / 2).next_multiple_of(64) } else { rows };
                let leg = Leg { norm, first: at, sights: sights[at..end].to_vec(), height, rows };
                height = leg.out_height();
                parts.push(Part::Leg(leg));
                at = end;
                continue;
            }
        }
        at += 1;
    }
    parts
}

/// Steps that are done band by band, behind a norm, if there is one.
pub struct Leg {
    /// Which step the norm is.
    pub norm: Option<usize>,
    /// The first of the others.
    pub first: usize,
    /// What these see.
    pub sights: Vec<Sight>,
    /// Rows of its input.
    height: usize,
    /// Rows of a band of its output.
    rows: usize,
}

impl Leg {
    /// Heights of the inputs of all steps, and last of the output.
    fn heights(&self) -> Vec<usize> {
        let mut heights = vec![self.height];
        for sight in &self.sights {
            heights.push(sight.scaled(heights[heights.len() - 1]));
        }
        heights
    }

    fn out_height(&self) -> usize {
        *self.heights().last().expect("there is an input")
    }

    /// Which of the steps add what was kept, counted from the first.
    fn sums(&self) -> impl Iterator<Item = usize> {
        self.sights.iter().enumerate().filter(|(_, sight)| sight.adds()).map(|(step, _)| step)
    }

    /// The rows of the inputs of all steps that a band of the output wants, and last the band.
    fn way(&self, band: Range<usize>) -> Vec<Range<usize>> {
        let mut way = vec![band];
        for (sight, height) in self.sights.iter().zip(self.heights()).rev() {
            way.push(sight.wanted(&way[way.len() - 1], height));
        }
        way.reverse();
        way
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEAR: Sight = Sight::Rows { above: 1, below: 1, scale: Scale::Same, adds: false };
    const HALF: Sight = Sight::Rows { above: 0, below: 1, scale: Scale::Half, adds: false };

    /// First step, steps and rows of a band of each leg.
    fn legs(sights: &[Sight], rows: usize) -> Vec<(usize, usize, usize)> {
        let legs = parts(sights, 1024, rows).into_iter().filter_map(|part| match part {
            Part::Leg(leg) => Some((leg.first, leg.sights.len(), leg.rows)),
            Part::Keep | Part::Whole(_) => None,
        });
        legs.collect()
    }

    #[test]
    fn a_leg_ends_behind_a_halving_whose_bands_are_as_large_as_others() {
        assert_eq!(legs(&[NEAR, HALF, NEAR], 128), [(0, 2, 64), (2, 1, 128)]);
        assert_eq!(legs(&[NEAR, HALF, NEAR], 192), [(0, 2, 128), (2, 1, 192)]);
        assert_eq!(legs(&[NEAR, HALF, Sight::Norm, NEAR], 64), [(0, 2, 64), (3, 1, 64)]);
    }

    #[test]
    fn few_rows_are_computed_twice() {
        assert_eq!(legs(&[NEAR; 7], 24), [(0, 2, 24), (2, 2, 24), (4, 2, 24), (6, 1, 24)]);
    }
}
