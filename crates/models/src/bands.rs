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

use crate::flow::{self, Leg, Rows, Scale, Sight, Steps};
use crate::steps::{KEPT, Step, normed, through};
use burn::tensor::{Device, Tensor};
use diffbir_nn::layers::{Conv2d, KnownNorm};
use diffbir_nn::on_workers;
use diffbir_nn::ops::{self, Moments};
use std::ops::Range;

pub use crate::flow::BandDone;

/// Runs all steps on `x[1, h, w, c]` in bands of so many rows of each step's output; nothing if `told` stops it. Where
/// steps halve, heights are even.
///
/// On a CPU the result is that of [`run`](crate::steps::run) to the last bit, up to the order of sums of doubles, if the
/// number of rows divides by 64.
pub fn run_in_bands(steps: &[Step], x: Tensor<4>, rows: usize, told: &mut BandDone) -> Option<Tensor<4>> {
    let device = x.device();
    flow::run(&OnDevice { steps, device }, x, rows, told)
}

impl Rows for Tensor<4> {
    fn count(&self) -> usize {
        self.dims()[1]
    }

    fn part(&self, rows: Range<usize>) -> Self {
        self.clone().slice_dim(1, rows)
    }
}

/// What a step sees of its input.
pub fn sight(step: &Step) -> Sight {
    let same = |reach, adds| Sight::Rows { above: reach, below: reach, scale: Scale::Same, adds };
    let of = |conv: &Conv2d, adds| {
        let (above, below) = conv.reach();
        let scale = match (conv.stride(), conv.doubles()) {
            (1, false) => Scale::Same,
            (1, true) => Scale::Double,
            (2, false) => Scale::Half,
            _ => unreachable!("networks halve and double, no more"),
        };
        Sight::Rows { above, below, scale, adds }
    };
    match step {
        Step::Map(_) => same(0, false),
        Step::Near(reach, _) => same(*reach, false),
        Step::Conv(conv) => of(conv, false),
        Step::ConvOntoKept(conv, _) => of(conv, true),
        Step::AddKept => same(0, true),
        Step::Keep => Sight::Keep,
        Step::Norm(..) => Sight::Norm,
        Step::Whole(_) => Sight::Whole,
    }
}

/// Steps over tensors of a device.
struct OnDevice<'a> {
    steps: &'a [Step<'a>],
    device: Device,
}

impl Steps for OnDevice<'_> {
    type Rows = Tensor<4>;
    type Known = KnownNorm;

    fn sights(&self) -> Vec<Sight> {
        self.steps.iter().map(sight).collect()
    }

    fn known<'a>(&self, step: usize, bands: impl Iterator<Item = &'a Tensor<4>>) -> KnownNorm {
        let Step::Norm(norm, _) = &self.steps[step] else { unreachable!("legs stand behind norms") };
        let of = |band: &Tensor<4>| on_workers(&self.device, || Moments::of(band.clone(), norm.groups()));
        norm.known(&bands.map(of).reduce(Moments::and).expect("a picture has rows"))
    }

    fn whole(&self, step: usize, bands: Vec<Tensor<4>>) -> Tensor<4> {
        let Step::Whole(f) = &self.steps[step] else { unreachable!("what sees all is a function") };
        let whole = joined(bands);
        on_workers(&self.device, || f(whole))
    }

    fn band(
        &self,
        leg: &Leg,
        known: Option<&KnownNorm>,
        way: &[Range<usize>],
        pieces: Vec<Tensor<4>>,
        added: Vec<Vec<Tensor<4>>>,
    ) -> Tensor<4> {
        let after = leg.norm.map(|norm| &self.steps[norm]);
        on_workers(&self.device, || {
            let mut kept = added.into_iter().map(joined);
            let first = match (known, after) {
                (Some(norm), Some(Step::Norm(_, after))) => normed(norm, *after, pieces),
                _ => joined(pieces),
            };
            let steps = self.steps[leg.first..].iter().zip(&leg.sights);
            steps.zip(way.windows(2)).fold(first, |x, ((step, sight), rows)| {
                let start = sight.scaled(rows[0].start);
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

    fn joined(&self, bands: Vec<Tensor<4>>) -> Tensor<4> {
        joined(bands)
    }
}

/// Pieces one below the other.
fn joined(mut pieces: Vec<Tensor<4>>) -> Tensor<4> {
    if pieces.len() == 1 { pieces.remove(0) } else { Tensor::cat(pieces, 1) }
}
