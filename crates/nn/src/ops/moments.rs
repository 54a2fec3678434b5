//! Group norms in two steps, statistics and then their use, for pictures that are never in one piece.

use super::flex::RowKernels;
use super::{fuses, gpu};
use burn::backend::Dispatch;
use burn::tensor::{DType, Tensor, activation};
use diffbir_kernels::norm::GroupNorm;

/// Mean and variance of each group of channels over some pixels of one picture.
#[derive(Clone, Debug, PartialEq)]
pub struct Moments {
    pixels: f64,
    /// One a group.
    mean: Vec<f64>,
    /// Over all pixels, divided by their number; one a group.
    variance: Vec<f64>,
}

impl Moments {
    /// Those of `x[1, height, width, channels]`.
    pub fn of(x: Tensor<4>, groups: usize) -> Self {
        let [batch, height, width, channels] = x.dims();
        assert_eq!(batch, 1, "statistics are those of one picture");
        let pixels = height * width;
        let values: Vec<f64> = if fuses(&x.device()) {
            let sizes = GroupNorm { batch, pixels, channels, groups, epsilon: 0.0, silu: false };
            let moments: Tensor<2> =
                Tensor::from_dispatch(<Dispatch as RowKernels>::group_moments(x.into_dispatch(), sizes));
            moments.into_data().iter().collect()
        } else {
            // Columns, then rows, then channels: one long sum of floats would lose digits.
            let mean =
                |x: Tensor<4>| x.mean_dim(2).mean_dim(1).reshape([groups, channels / groups]).mean_dim(1);
            let x = x.cast(DType::F32);
            let means = mean(x.clone());
            let of_channels = means.clone().repeat_dim(1, channels / groups).reshape([1, 1, 1, channels]);
            let variances = mean((x - of_channels).square());
            Tensor::cat(vec![means, variances], 0).into_data().iter().collect()
        };
        let (mean, variance) = values.split_at(groups);
        Self { pixels: pixels as f64, mean: mean.to_vec(), variance: variance.to_vec() }
    }

    /// Those of both parts together, which overlap nowhere (T. F. Chan, G. H. Golub, R. J. LeVeque, Updating formulae,
    /// 1979): means of far apart parts add to the variance, and nothing large is subtracted.
    pub fn and(self, other: Self) -> Self {
        let pixels = self.pixels + other.pixels;
        let [a, b] = [self.pixels / pixels, other.pixels / pixels];
        let means = || self.mean.iter().zip(&other.mean);
        let variances = self.variance.iter().zip(&other.variance).zip(means());
        let variance = variances.map(|((v, w), (m, n))| a * v + b * w + a * b * (m - n).powi(2)).collect();
        let mean = means().map(|(m, n)| m + b * (n - m)).collect();
        Self { pixels, mean, variance }
    }

    /// Whether all are numbers.
    pub fn are_finite(&self) -> bool {
        self.mean.iter().chain(&self.variance).all(|value| value.is_finite())
    }

    /// The mean of each channel and 1 / standard deviation, `epsilon` added to the variance.
    pub(crate) fn of_channels(&self, channels: usize, epsilon: f32) -> Vec<(f32, f32)> {
        let of_group = channels / self.mean.len();
        let groups = self.mean.iter().zip(&self.variance);
        groups
            .flat_map(|(mean, variance)| {
                let rstd = (1.0 / (variance + f64::from(epsilon)).sqrt()) as f32;
                std::iter::repeat_n((*mean as f32, rstd), of_group)
            })
            .collect()
    }
}

/// `pieces` `[1, rows, width, channels]`, one below the other, times `scale[channels]` plus `shift[channels]`, and SiLU
/// if `silu`.
pub(crate) fn scale_and_shift(
    pieces: Vec<Tensor<4>>,
    scale: Tensor<1>,
    shift: Tensor<1>,
    silu: bool,
) -> Tensor<4> {
    // A part of a picture and what is read above and below it.
    const MOST: usize = 3;
    let count = pieces.len();
    if count <= MOST && fuses(&pieces[0].device()) {
        let piece = |index: usize| pieces[index.min(count - 1)].clone().into_dispatch();
        return Tensor::from_dispatch(<Dispatch as RowKernels>::scale_and_shift_rows(
            piece(0),
            piece(1),
            piece(2),
            count,
            scale.into_dispatch(),
            shift.into_dispatch(),
            silu,
        ));
    }
    gpu::in_full(Tensor::cat(pieces, 1), |x| {
        let y = x * scale.unsqueeze() + shift.unsqueeze();
        if silu { activation::silu(y) } else { y }
    })
}
