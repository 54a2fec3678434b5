//! A step of AdamW (arXiv 1711.05101) in one pass over memory, which is what it costs, and the norm of gradients.

use crate::share::filled;
use rayon::prelude::*;
use std::mem::MaybeUninit;

/// Elements of one task.
const PIECE: usize = 1 << 15;

/// The numbers of a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    /// Decay of the mean of gradients.
    pub beta1: f32,
    /// Decay of the mean of their squares.
    pub beta2: f32,
    /// `1 - beta1^t` and `1 - beta2^t`, after this step.
    pub corrections: [f32; 2],
    /// Added to the root of the second moment.
    pub epsilon: f32,
    /// Learning rate.
    pub rate: f32,
    /// Decoupled decay.
    pub weight_decay: f32,
    /// By which gradients are multiplied first.
    pub scale: f32,
    /// Decay of the average of the values, if one is kept.
    pub average_decay: Option<f32>,
}

/// What a step goes on from, all of one length.
#[derive(Clone, Copy)]
pub struct Moments<'a> {
    /// Of the parameter.
    pub value: &'a [f32],
    /// Mean of gradients.
    pub mean: &'a [f32],
    /// Mean of their squares.
    pub square: &'a [f32],
    /// Average of values; read only if one is kept.
    pub average: &'a [f32],
}

impl AdamW {
    /// How many vectors [`AdamW::step`] gives.
    pub fn rows(&self) -> usize {
        if self.average_decay.is_some() { 4 } else { 3 }
    }

    /// The new value, mean, square and, if it is kept, average, one after the other.
    pub fn step(&self, before: Moments, gradient: &[f32]) -> Vec<f32> {
        let Moments { value, mean, square, average } = before;
        let length = gradient.len();
        assert!([value, mean, square].iter().all(|part| part.len() == length), "parts of one length");
        let average = match self.average_decay {
            Some(_) => average,
            None => value,
        };
        assert_eq!(average.len(), length, "parts of one length");
        let write = |out: &mut [MaybeUninit<f32>]| {
            let (new_value, rest) = out.split_at_mut(length);
            let (new_mean, rest) = rest.split_at_mut(length);
            let (new_square, new_average) = rest.split_at_mut(length);
            let read = gradient.par_chunks(PIECE).zip(value.par_chunks(PIECE));
            let read = read.zip(mean.par_chunks(PIECE)).zip(square.par_chunks(PIECE));
            let written = new_value.par_chunks_mut(PIECE).zip(new_mean.par_chunks_mut(PIECE));
            let written = written.zip(new_square.par_chunks_mut(PIECE));
            let pieces = read.zip(written);
            match self.average_decay {
                None => pieces.for_each(|(read, written)| self.piece(read, written)),
                Some(decay) => {
                    let averages = average.par_chunks(PIECE).zip(new_average.par_chunks_mut(PIECE));
                    pieces.zip(averages).for_each(|((read, (written, square)), (average, new_average))| {
                        let (value, mean) = written;
                        self.piece(read, ((&mut *value, mean), square));
                        for ((old, new), value) in average.iter().zip(new_average).zip(value) {
                            // SAFETY: `piece` has written every value.
                            let value = unsafe { value.assume_init() };
                            new.write(old * decay + value * (1.0 - decay));
                        }
                    });
                }
            }
        };
        // SAFETY: all parts are of one length, and every element of each is written.
        unsafe { filled(self.rows() * length, write) }
    }

    #[allow(clippy::type_complexity, reason = "what zipped pieces are")]
    fn piece(
        &self,
        (((gradient, value), mean), square): (((&[f32], &[f32]), &[f32]), &[f32]),
        ((new_value, new_mean), new_square): (
            (&mut [MaybeUninit<f32>], &mut [MaybeUninit<f32>]),
            &mut [MaybeUninit<f32>],
        ),
    ) {
        let keep = 1.0 - self.rate * self.weight_decay;
        let (rate, correct) = (self.rate / self.corrections[0], 1.0 / self.corrections[1]);
        let read = gradient.iter().zip(value).zip(mean).zip(square);
        let written = new_value.iter_mut().zip(new_mean).zip(new_square);
        for ((((gradient, value), mean), square), ((new_value, new_mean), new_square)) in read.zip(written) {
            let gradient = gradient * self.scale;
            let mean = mean * self.beta1 + gradient * (1.0 - self.beta1);
            let square = square * self.beta2 + gradient * gradient * (1.0 - self.beta2);
            new_value.write(value * keep - mean / ((square * correct).sqrt() + self.epsilon) * rate);
            new_mean.write(mean);
            new_square.write(square);
        }
    }
}

/// The sum of squares, over fixed pieces in their order, so that threads change nothing.
pub fn sum_of_squares(x: &[f32]) -> f64 {
    const LANES: usize = 16;
    let piece = |x: &[f32]| {
        let (lanes, rest) = x.as_chunks::<LANES>();
        let mut sums = [0.0f32; LANES];
        for lane in lanes {
            for (sum, x) in sums.iter_mut().zip(lane) {
                *sum += x * x;
            }
        }
        let rest: f32 = rest.iter().map(|x| x * x).sum();
        sums.iter().map(|sum| f64::from(*sum)).sum::<f64>() + f64::from(rest)
    };
    // 4096 values a piece: no lane adds more than 256 squares before it goes on in f64.
    let sums: Vec<f64> = x.par_chunks(4096).with_min_len(8).map(piece).collect();
    sums.iter().sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wave(count: usize, step: f32) -> Vec<f32> {
        (0..count).map(|i| (i as f32 * step).sin()).collect()
    }

    /// The formulas of PyTorch's documentation in f64.
    #[test]
    fn a_step_is_that_of_the_formulas() {
        for count in [1, 77, PIECE + 5] {
            let [value, mean, average, gradient] = [0.3, 0.7, 1.1, 0.2].map(|step| wave(count, step));
            let square: Vec<f32> = wave(count, 0.9).iter().map(|x| x * x).collect();
            let mut step = AdamW {
                beta1: 0.9,
                beta2: 0.999,
                corrections: [0.271, 0.003],
                epsilon: 1e-3,
                rate: 1e-2,
                weight_decay: 0.1,
                scale: 0.5,
                average_decay: Some(0.9),
            };
            let before = Moments { value: &value, mean: &mean, square: &square, average: &average };
            let new = step.step(before, &gradient);
            assert_eq!(new.len(), 4 * count);
            for i in 0..count {
                let at = |x: &[f32]| f64::from(x[i]);
                let g = at(&gradient) * 0.5;
                let m = at(&mean) * 0.9 + g * 0.1;
                let v = at(&square) * 0.999 + g * g * 0.001;
                let decayed = at(&value) * (1.0 - 1e-2 * 0.1);
                let p = decayed - 1e-2 * (m / 0.271) / ((v / 0.003).sqrt() + 1e-3);
                let a = at(&average) * 0.9 + p * 0.1;
                for (row, want) in [p, m, v, a].into_iter().enumerate() {
                    let got = f64::from(new[row * count + i]);
                    assert!(
                        (got - want).abs() < 1e-6 * want.abs().max(1.0),
                        "{row}, {i}: {got} is not {want}"
                    );
                }
            }
            step.average_decay = None;
            let without = step.step(Moments { average: &[], ..before }, &gradient);
            assert_eq!(without, new[..3 * count]);
        }
    }

    #[test]
    fn squares_are_summed() {
        let x = wave(100_003, 0.37);
        let want: f64 = x.iter().map(|x| f64::from(*x).powi(2)).sum();
        assert!((sum_of_squares(&x) - want).abs() < 1e-6 * want);
        assert_eq!(sum_of_squares(&[]), 0.0);
        assert_eq!(sum_of_squares(&[3.0, -4.0]), 25.0);
    }
}
