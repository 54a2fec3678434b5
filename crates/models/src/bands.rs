//! A list of steps over a picture in bands of rows, with the result that the whole gives.
//!
//! Exact is what sees what the whole sees. A norm sees all pixels: it ends what can be done band by band, and its statistics
//! are those of all bands together. Attention sees all pixels, too, and runs whole: it stands at the lowest resolution. What
//! lies in between looks at few rows around a row, which are read from the bands above and below; rows that stand only at the
//! edge of what was read are not kept.
//!
//! What a norm reads has to be somewhere as a whole, or the way up to the norm has to be gone again: with some twenty
//! norms at the higher resolutions of AutoencoderKL, that would double the time to save half of the memory. So it is kept,
//! in bands: a band goes as soon as the next step has used it, so that the most is what one step reads and writes, nothing is
//! in the memory twice, and no pixel is computed twice but for the few rows around a band. From one norm to the next bands flow:
//! a step makes its next band when the step behind it wants rows of it, so that of what lies in between a few rows are held at a
//! time. That is all of TAEF2 but its smallest size, where its norms are. Bands, and not squares, since rows of a picture lie in
//! one piece in the memory: they are read where they are.

use crate::steps::{Activation, Function, KEPT, Step, normed, through};
use burn::tensor::{Device, Tensor};
use diffbir_nn::layers::{GroupNorm, KnownNorm};
use diffbir_nn::on_workers;
use diffbir_nn::ops::{self, Moments};
use std::collections::VecDeque;
use std::ops::{ControlFlow, Range};

/// Takes how many of how many bands are done, and says whether to go on.
pub type BandDone<'a> = dyn FnMut(usize, usize) -> ControlFlow<()> + 'a;

/// Runs all steps on `x[1, h, w, c]` in bands of so many rows of each step's output; nothing if `told` stops it. Where
/// steps halve, heights are even.
///
/// On a CPU the result is that of [`run`](crate::steps::run) to the last bit, up to the order of sums of doubles, if the
/// number of rows divides by 64.
pub fn run_in_bands(steps: &[Step], x: Tensor<4>, rows: usize, told: &mut BandDone) -> Option<Tensor<4>> {
    let parts = parts(steps, x.dims()[1], rows);
    let total = parts.iter().map(|part| part.bands(rows)).sum();
    told(0, total).is_continue().then_some(())?;
    let device = x.device();
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
            Part::Whole(f) => {
                let whole = x.joined();
                x = Bands::from(on_workers(&device, || f(whole)));
                tell()?;
            }
            Part::Leg(first) => {
                let known = first.norm.map(|(norm, after)| (norm.known(&x.moments(norm, &device)), after));
                let mut flow = vec![Flowing::new(first, known, x, &mut kept)];
                while let Some((Part::Leg(leg @ Leg { norm: None, .. }), behind)) = rest.split_first() {
                    flow.push(Flowing::new(leg, None, Bands::default(), &mut kept));
                    rest = behind;
                }
                x = Bands::default();
                while x.height < flow[flow.len() - 1].leg.out_height() {
                    x.push(next(&mut flow, rows, &device, &mut tell)?);
                }
            }
        }
    }
    Some(x.joined())
}

/// A leg on its way down the picture.
struct Flowing<'a> {
    leg: &'a Leg<'a>,
    known: Option<(KnownNorm, Activation)>,
    /// The rows of its input that are there and still wanted.
    input: Bands,
    /// What was kept for its sums, in their order.
    sums: Vec<Bands>,
    /// Rows of its output that are made.
    made: usize,
}

impl<'a> Flowing<'a> {
    fn new(
        leg: &'a Leg<'a>,
        known: Option<(KnownNorm, Activation)>,
        input: Bands,
        kept: &mut Vec<Bands>,
    ) -> Self {
        let mut sums = kept.split_off(kept.len() - leg.sums());
        // What was kept last is added first.
        sums.reverse();
        Self { leg, known, input, sums, made: 0 }
    }
}

/// The next band that the last of some legs makes, one feeding the other; nothing if `tell`, told of each band, stops it.
fn next(
    flow: &mut [Flowing],
    rows: usize,
    device: &Device,
    tell: &mut dyn FnMut() -> Option<()>,
) -> Option<Tensor<4>> {
    let (last, before) = flow.split_last_mut().expect("whose input is whole wants no rows of another");
    let band = last.made..(last.made + rows).min(last.leg.out_height());
    last.made = band.end;
    let way = last.leg.way(band);
    while last.input.height < way[0].end {
        last.input.push(next(before, rows, device, tell)?);
    }
    let out = last.leg.run(&way, last.known.as_ref(), &mut last.input, &mut last.sums, device);
    tell()?;
    Some(out)
}

/// The rows of a picture in bands, those at the top that nobody needs any more left out.
#[derive(Clone, Default)]
struct Bands {
    /// First row and rows of each.
    bands: VecDeque<(usize, Tensor<4>)>,
    height: usize,
}

impl From<Tensor<4>> for Bands {
    fn from(whole: Tensor<4>) -> Self {
        let mut bands = Self::default();
        bands.push(whole);
        bands
    }
}

impl Bands {
    fn push(&mut self, band: Tensor<4>) {
        let start = self.height;
        self.height += band.dims()[1];
        self.bands.push_back((start, band));
    }

    /// These rows, in as many pieces as they lie in; what lies above them goes.
    fn take(&mut self, rows: &Range<usize>) -> Vec<Tensor<4>> {
        while self.bands.front().is_some_and(|(start, band)| start + band.dims()[1] <= rows.start) {
            self.bands.pop_front();
        }
        let reached = self.bands.iter().take_while(|(start, _)| *start < rows.end);
        reached
            .map(|(start, band)| {
                let end = start + band.dims()[1];
                let piece = rows.start.max(*start) - start..rows.end.min(end) - start;
                if piece == (0..end - start) { band.clone() } else { band.clone().slice_dim(1, piece) }
            })
            .collect()
    }

    fn joined(self) -> Tensor<4> {
        joined(self.bands.into_iter().map(|(_, band)| band).collect())
    }

    fn moments(&self, norm: &GroupNorm, device: &Device) -> Moments {
        let of =
            |(_, band): &(usize, Tensor<4>)| on_workers(device, || Moments::of(band.clone(), norm.groups()));
        self.bands.iter().map(of).reduce(Moments::and).expect("a picture has rows")
    }
}

/// Pieces one below the other.
fn joined(mut pieces: Vec<Tensor<4>>) -> Tensor<4> {
    if pieces.len() == 1 { pieces.remove(0) } else { Tensor::cat(pieces, 1) }
}

/// What a list of steps is cut into.
enum Part<'a> {
    Keep,
    Whole(&'a Function<'a>),
    Leg(Leg<'a>),
}

impl Part<'_> {
    /// In how many bands it runs.
    fn bands(&self, rows: usize) -> usize {
        match self {
            Self::Keep => 0,
            Self::Whole(_) => 1,
            Self::Leg(leg) => leg.out_height().div_ceil(rows),
        }
    }
}

/// The parts of a list of steps over a picture of `height` rows.
fn parts<'a>(steps: &'a [Step<'a>], mut height: usize, rows: usize) -> Vec<Part<'a>> {
    // Rows that are computed twice, at most: a sixth of those of a band.
    let most_around = rows / 6;
    let (mut parts, mut rest) = (Vec::new(), steps);
    while let Some((first, behind)) = rest.split_first() {
        match first {
            Step::Keep => {
                parts.push(Part::Keep);
                rest = behind;
                continue;
            }
            Step::Whole(f) => {
                parts.push(Part::Whole(f));
                rest = behind;
                continue;
            }
            _ => {}
        }
        let norm = match first {
            Step::Norm(norm, after) => Some((*norm, *after)),
            _ => None,
        };
        if norm.is_some() {
            rest = behind;
        }
        let (mut around, mut count) = (0, 0);
        for step in rest {
            if matches!(step, Step::Keep | Step::Whole(_) | Step::Norm(..)) {
                break;
            }
            let Sight { above, below, scale } = Sight::of(step);
            // Behind a doubling bands have half of the rows, around which as many would be computed again.
            let again = around > 0 && (scale == Scale::Double || around + above + below > most_around);
            if again {
                break;
            }
            around += above + below;
            count += 1;
        }
        let (steps, behind) = rest.split_at(count);
        let leg = Leg { norm, steps, height };
        height = leg.out_height();
        parts.push(Part::Leg(leg));
        rest = behind;
    }
    parts
}

/// How many rows of its output a step makes of those of its input.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Scale {
    Same,
    Half,
    Double,
}

/// What a step sees of its input.
struct Sight {
    /// Rows above and below those that lie where a row of its output lies.
    above: usize,
    below: usize,
    scale: Scale,
}

impl Sight {
    fn of(step: &Step) -> Self {
        let same = |reach| Self { above: reach, below: reach, scale: Scale::Same };
        let conv = |conv: &diffbir_nn::layers::Conv2d| {
            let (above, below) = conv.reach();
            let scale = match (conv.stride(), conv.doubles()) {
                (1, false) => Scale::Same,
                (1, true) => Scale::Double,
                (2, false) => Scale::Half,
                _ => unreachable!("networks halve and double, no more"),
            };
            Self { above, below, scale }
        };
        match step {
            Step::Near(reach, _) => same(*reach),
            Step::Conv(step) | Step::ConvOntoKept(step, _) => conv(step),
            Step::Map(_) | Step::Keep | Step::AddKept | Step::Norm(..) | Step::Whole(_) => same(0),
        }
    }

    /// The rows of the input, of `height`, that `rows` of the output want.
    fn wanted(&self, rows: &Range<usize>, height: usize) -> Range<usize> {
        let Range { start, end } = match self.scale {
            Scale::Same => rows.clone(),
            Scale::Half => 2 * rows.start..2 * rows.end,
            Scale::Double => rows.start / 2..rows.end.div_ceil(2),
        };
        let (start, end) = (start.saturating_sub(self.above), (end + self.below).min(height));
        match self.scale {
            // Rows are taken in pairs.
            Scale::Half => start / 2 * 2..end.next_multiple_of(2).min(height),
            Scale::Same | Scale::Double => start..end,
        }
    }

    /// From rows of the input, or their number, to those of the output.
    fn scaled(&self, rows: usize) -> usize {
        match self.scale {
            Scale::Same => rows,
            Scale::Half => rows / 2,
            Scale::Double => 2 * rows,
        }
    }
}

/// Steps that are done band by band, behind a norm, if there is one.
struct Leg<'a> {
    norm: Option<(&'a GroupNorm, Activation)>,
    steps: &'a [Step<'a>],
    /// Rows of its input.
    height: usize,
}

impl Leg<'_> {
    /// Heights of the inputs of all steps, and last of the output.
    fn heights(&self) -> Vec<usize> {
        let mut heights = vec![self.height];
        for step in self.steps {
            heights.push(Sight::of(step).scaled(heights[heights.len() - 1]));
        }
        heights
    }

    fn out_height(&self) -> usize {
        *self.heights().last().expect("there is an input")
    }

    /// How many of the steps add what was kept.
    fn sums(&self) -> usize {
        self.steps.iter().filter(|step| matches!(step, Step::AddKept | Step::ConvOntoKept(..))).count()
    }

    /// The rows of the inputs of all steps that a band of the output wants, and last the band.
    fn way(&self, band: Range<usize>) -> Vec<Range<usize>> {
        let mut way = vec![band];
        for (step, height) in self.steps.iter().zip(self.heights()).rev() {
            way.push(Sight::of(step).wanted(&way[way.len() - 1], height));
        }
        way.reverse();
        way
    }

    /// One band.
    fn run(
        &self,
        way: &[Range<usize>],
        norm: Option<&(KnownNorm, Activation)>,
        x: &mut Bands,
        sums: &mut [Bands],
        device: &Device,
    ) -> Tensor<4> {
        let pieces = x.take(&way[0]);
        let mut sums = sums.iter_mut();
        let places = self.steps.iter().zip(&way[1..]);
        let adding = places.filter(|(step, _)| matches!(step, Step::AddKept | Step::ConvOntoKept(..)));
        let kept: Vec<_> = adding.map(|(_, rows)| sums.next().expect(KEPT).take(rows)).collect();
        on_workers(device, || {
            let mut kept = kept.into_iter().map(joined);
            let first = match norm {
                Some((norm, after)) => normed(norm, *after, pieces),
                None => joined(pieces),
            };
            self.steps.iter().zip(way.windows(2)).fold(first, |x, (step, rows)| {
                let start = Sight::of(step).scaled(rows[0].start);
                let wanted = rows[1].start - start..rows[1].end - start;
                match step {
                    Step::Map(f) => f(x),
                    Step::Near(_, f) => f(x).slice_dim(1, wanted),
                    Step::Conv(conv) => conv.forward_rows(x, None, wanted),
                    Step::AddKept => ops::sum(kept.next().expect(KEPT), x),
                    Step::ConvOntoKept(conv, shortcut) => {
                        let kept = through(*shortcut, kept.next().expect(KEPT));
                        conv.forward_rows(x, Some(kept), wanted)
                    }
                    Step::Whole(_) | Step::Norm(..) | Step::Keep => unreachable!("ends a leg"),
                }
            })
        })
    }
}
