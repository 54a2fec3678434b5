//! The solvers without noise that use the estimates of earlier steps.

use super::ancestral::exponential;
use super::{Run, Stride};
use crate::Latent;
use crate::scalar::{exp, ln};

/// The highest order of linear multistep: up to it [`lms_coefficients`] is exact.
pub(super) const MOST_LMS: usize = 8;

/// Linear multistep: the polynomial through the last slopes, integrated over the step.
pub(super) fn lms<E>(run: &mut Run<E>, stride: Stride, x: &Latent, estimate: &Latent) -> Latent {
    run.keep(x.zip(estimate, |x, d| (x - d) / stride.sigma), run.settings.parameters.order);
    let sigmas = &run.sigmas.sigmas[..stride.index + 2];
    let coefficients = lms_coefficients(sigmas, run.history.len());
    let mut sum = x.map(|_| 0.0);
    for (slope, coefficient) in run.history.iter().zip(coefficients) {
        sum = sum.add_scaled(slope, coefficient as f32);
    }
    x.zip(&sum, |x, sum| x + sum)
}

/// The integrals of the Lagrange polynomials on the last `order` sigmas before the last one, over the step
/// to the last one; the newest first. By Gauss-Legendre quadrature on four points, exact to degree 7.
fn lms_coefficients(sigmas: &[f32], order: usize) -> Vec<f64> {
    const POINTS: [(f64, f64); 4] = [
        (-0.861_136_311_594_052_6, 0.347_854_845_137_453_85),
        (-0.339_981_043_584_856_3, 0.652_145_154_862_546_1),
        (0.339_981_043_584_856_3, 0.652_145_154_862_546_1),
        (0.861_136_311_594_052_6, 0.347_854_845_137_453_85),
    ];
    let mut newest_first = sigmas.iter().rev().map(|&sigma| f64::from(sigma));
    let end = newest_first.next().expect("the step has an end");
    let nodes: Vec<f64> = newest_first.take(order).collect();
    let (centre, half) = ((end + nodes[0]) / 2.0, (end - nodes[0]) / 2.0);
    let lagrange = |j: usize, tau: f64| -> f64 {
        let others = nodes.iter().enumerate().filter(|&(k, _)| k != j);
        others.map(|(_, node)| (tau - node) / (nodes[j] - node)).product()
    };
    (0..order)
        .map(|j| {
            let sum: f64 = POINTS.iter().map(|(at, weight)| weight * lagrange(j, centre + half * at)).sum();
            half * sum
        })
        .collect()
}

/// DPM-Solver++(2M), in time `-ln sigma`.
pub(super) fn dpmpp_2m<E>(run: &mut Run<E>, stride: Stride, x: &Latent, estimate: &Latent) -> Latent {
    let (t, t_next) = (-ln(stride.sigma), -ln(stride.next));
    let h = t_next - t;
    let extrapolated = run.history.first().filter(|_| stride.next > 0.0).map(|earlier| {
        let r = (t + ln(run.sigmas.sigmas[stride.index - 1])) / h;
        let half = 1.0 / (2.0 * r);
        estimate.zip(earlier, |now, earlier| (1.0 + half) * now - half * earlier)
    });
    run.keep(estimate.clone(), 1);
    exponential(x, extrapolated.as_ref().unwrap_or(estimate), exp(-t_next) / exp(-t), -h)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coefficients_of_multistep_are_exact() {
        // On even steps these are those of Adams and Bashforth.
        let even = [4.0, 3.0, 2.0, 1.0, 0.0];
        for known in [&[-1.0][..], &[-1.5, 0.5], &[-55.0 / 24.0, 59.0 / 24.0, -37.0 / 24.0, 9.0 / 24.0]] {
            let got = lms_coefficients(&even, known.len());
            assert!(got.iter().zip(known).all(|(got, known)| (got - known).abs() < 1e-12), "{got:?}");
        }
        // Order 8 integrates a polynomial of degree 7.
        let uneven = [20.0, 15.0, 11.0, 8.0, 6.0, 4.0, 3.0, 2.0, 1.0f32];
        let terms = lms_coefficients(&uneven, 8).into_iter().zip(uneven[..8].iter().rev());
        let sum: f64 = terms.map(|(coefficient, &node)| coefficient * f64::from(node).powi(7)).sum();
        let exact = (1.0 - 256.0) / 8.0;
        assert!((sum - exact).abs() < 1e-6, "{sum} is not {exact}");
    }
}
