//! Classifier-free guidance (reference 2.2; arXiv 2207.12598).

use crate::Latent;

/// Which text the network is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// The prompt.
    Positive,
    /// The negative prompt.
    Negative,
}

/// How far to go from the negative prompt's prediction to the prompt's, and beyond.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Guidance {
    /// 1 is the prompt alone, without a second evaluation.
    pub scale: f64,
    /// Whether the scale rises by a cosine from 1 at the noisy end to `scale + 1` at the clean end.
    pub rescale: bool,
}

impl Guidance {
    /// No guidance.
    pub const NONE: Self = Self { scale: 1.0, rescale: false };

    /// The scale at network time `t`.
    pub fn at(&self, t: f64) -> f64 {
        if self.scale > 1.0 { self.rising(t) } else { self.scale }
    }

    /// The scale at network time `t` as `dpm++_m2` has it, where scales of 1 and less rise too.
    pub(crate) fn rising(&self, t: f64) -> f64 {
        if !self.rescale {
            return self.scale;
        }
        let rise = 1.0 - (std::f64::consts::PI * ((1000.0 - t) / 1000.0).powi(5)).cos();
        1.0 + self.scale * rise / 2.0
    }

    /// `negative + scale · (positive - negative)`.
    pub fn mix(scale: f64, positive: &Latent, negative: &Latent) -> Latent {
        let scale = scale as f32;
        negative.zip(positive, |negative, positive| negative + scale * (positive - negative))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rescaled_scale_has_the_known_values() {
        let guidance = Guidance { scale: 6.0, rescale: true };
        for (t, known) in [(499.0, 1.014_737_1), (199.0, 2.470_711_3), (99.0, 4.871_104_7), (0.0, 7.0)] {
            assert!((guidance.at(t) - known).abs() < 1e-6, "{t}: {}", guidance.at(t));
        }
        assert_eq!(guidance.at(999.0), 1.0);
        assert_eq!(Guidance { scale: 0.5, rescale: true }.at(0.0), 0.5);
    }
}
