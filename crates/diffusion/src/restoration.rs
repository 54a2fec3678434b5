//! Restoration guidance: the estimate of the clean picture is pulled towards that of stage 1 in each step (paper 3.3;
//! reference 2.10).

use crate::Latent;

/// What is to become small.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// The mean square of the difference.
    Mse,
    /// The same, weighted down where the picture of stage 1 has edges; for RGB pictures alone.
    WeightedMse,
}

/// Where the difference is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    /// Between latents.
    Latent,
    /// Between pictures: the pull goes backwards through the decoder.
    Rgb,
}

/// How an estimate is pulled.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Restoration {
    /// What is to become small.
    pub loss: Loss,
    /// Where it is measured.
    pub space: Space,
    /// How hard: 0 not at all.
    pub scale: f64,
    /// It acts at timesteps below this, counted from 1.
    pub start: i32,
    /// And above this.
    pub stop: i32,
    /// Pulls a step.
    pub repeat: usize,
}

/// The reference's unit of [`Restoration::scale`].
const UNIT: f64 = 3000.0;

impl Restoration {
    /// Whether it acts at a timestep, 0 to 999.
    pub fn acts_at(&self, t: usize) -> bool {
        let t = t as i32 + 1;
        self.stop < t && t < self.start
    }

    /// The pull on `estimate`: against the gradient of the loss, summed over the batch, times the scale. Both are latents,
    /// or pictures of three channels from -1 to 1.
    ///
    /// # Panics
    /// When they differ in size.
    pub fn pull(&self, estimate: &Latent, target: &Latent) -> Latent {
        let weights = match self.loss {
            Loss::Mse => None,
            Loss::WeightedMse => Some(weights(target)),
        };
        let (plane, count) = (target.height * target.width, target.channels * target.height * target.width);
        let (share, scale) = (1.0 / count as f32, (self.scale * UNIT) as f32);
        let pull = |(index, (&x, &y)): (usize, (&f32, &f32))| {
            let weight =
                weights.as_ref().map_or(1.0, |weights| weights[index / count * plane + index % plane]);
            -(share * weight * 2.0 * (x - y)) * scale
        };
        assert_eq!(estimate.data.len(), target.data.len(), "estimate and target have one size");
        estimate.with(estimate.data.iter().zip(&target.data).enumerate().map(pull).collect())
    }
}

/// One for each pixel of each RGB picture: near 1 where it is flat, near 0 in blocks of 2 x 2 with edges (Sobel's, of the
/// grey picture). What is over at an odd edge is a block of its own.
fn weights(pictures: &Latent) -> Vec<f32> {
    let (height, width) = (pictures.height, pictures.width);
    let plane = height * width;
    let mut weights = Vec::with_capacity(pictures.batch * plane);
    for picture in pictures.data.chunks_exact(3 * plane) {
        let unit = |value: f32| (value + 1.0) / 2.0;
        let grey: Vec<f32> = (0..plane)
            .map(|at| {
                let [r, g, b] = [0, 1, 2].map(|channel| unit(picture[channel * plane + at]));
                0.2989 * r + 0.5870 * g + 0.1140 * b
            })
            .collect();
        // The edge is repeated around the picture.
        let at = |y: usize, x: usize, [dy, dx]: [isize; 2]| {
            let y = y.saturating_add_signed(dy).min(height - 1);
            grey[y * width + x.saturating_add_signed(dx).min(width - 1)]
        };
        let edge = |y: usize, x: usize| {
            let side = |[a, b, c]: [[isize; 2]; 3]| at(y, x, a) + 2.0 * at(y, x, b) + at(y, x, c);
            let across = side([[-1, -1], [0, -1], [1, -1]]) - side([[-1, 1], [0, 1], [1, 1]]);
            let down = side([[-1, -1], [-1, 0], [-1, 1]]) - side([[1, -1], [1, 0], [1, 1]]);
            (across * across + down * down).sqrt()
        };
        let block = |y: usize, x: usize| {
            let rows = (y..height.min(y + 2)).flat_map(|y| (x..width.min(x + 2)).map(move |x| (y, x)));
            1.0 - rows.map(|(y, x)| edge(y, x)).sum::<f32>().tanh()
        };
        let blocks: Vec<Vec<f32>> =
            (0..height).step_by(2).map(|y| (0..width).step_by(2).map(|x| block(y, x)).collect()).collect();
        weights.extend((0..plane).map(|at| blocks[at / width / 2][at % width / 2]));
    }
    weights
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guidance(loss: Loss) -> Restoration {
        Restoration { loss, space: Space::Rgb, scale: 0.5, start: 1001, stop: -1, repeat: 1 }
    }

    fn picture(value: impl Fn(usize, usize) -> f32) -> Latent {
        let (height, width) = (6, 8);
        let plane: Vec<f32> = (0..height * width).map(|at| value(at / width, at % width)).collect();
        Latent { batch: 2, channels: 3, height, width, data: plane.repeat(6) }
    }

    #[test]
    fn it_acts_between_its_bounds() {
        let guidance = Restoration { start: 200, stop: 100, ..guidance(Loss::Mse) };
        assert_eq!([98, 99, 100, 198, 199].map(|t| guidance.acts_at(t)), [false, false, true, true, false]);
        assert!([0, 999].into_iter().all(|t| self::guidance(Loss::Mse).acts_at(t)));
    }

    #[test]
    fn the_pull_is_against_the_gradient() {
        let (x, y) = (picture(|_, _| 0.75), picture(|_, _| 0.25));
        let pull = guidance(Loss::Mse).pull(&x, &y);
        // d/dx of the mean of 144 squares of .5, times 1500.
        assert!(pull.data.iter().all(|value| (value + 1500.0 / 144.0).abs() < 1e-4), "{:?}", &pull.data[..4]);
        // A flat picture has no edges.
        assert_eq!(guidance(Loss::WeightedMse).pull(&x, &y), pull);
    }

    #[test]
    fn edges_are_pulled_less() {
        let target = picture(|_, x| if x < 3 { -1.0 } else { 1.0 });
        let pull = guidance(Loss::WeightedMse).pull(&target.map(|value| value + 0.5), &target);
        let plain = guidance(Loss::Mse).pull(&target.map(|value| value + 0.5), &target);
        let share = |x: usize| pull.data[x] / plain.data[x];
        assert_eq!([0, 1, 4, 7].map(share), [1.0, 1.0, 1.0, 1.0].map(|v: f32| v));
        assert!(share(2) < 1e-3 && share(3) < 1e-3, "{} {}", share(2), share(3));
    }
}
