//! How much repeated samples of one picture differ: Sun et al., "Improving the stability and efficiency of
//! diffusion models for content consistent super-resolution", arXiv 2401.00877.

use crate::{MetricError, Picture};

/// G-STD of one picture: the standard deviation (over n, not n - 1) of a metric over the samples. A data set's is
/// the mean over its pictures.
pub fn global_deviation(values: &[f64]) -> f64 {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    (values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count).sqrt()
}

/// L-STD of one picture: the standard deviation (over n) of each channel of each pixel over the samples, values
/// 0..1, and of these the mean. The authors cut 4 pixels off at each side first.
///
/// # Errors
/// When the samples differ in size, or when there is none.
pub fn local_deviation(samples: &[&Picture]) -> Result<f64, MetricError> {
    let Some(first) = samples.first() else { return Ok(0.0) };
    let total: f64 = scaled_deviations(samples)?.sum();
    Ok(total / (samples.len() as f64 * first.rgb.len() as f64 * 255.0))
}

/// Where samples differ: of each pixel the mean of its channels' deviations (over n), values 0..1. Their mean is
/// [`local_deviation`].
///
/// # Errors
/// As there.
pub fn deviations(samples: &[&Picture]) -> Result<Vec<f64>, MetricError> {
    let each: Vec<f64> = scaled_deviations(samples)?.collect();
    let scale = samples.len() as f64 * 3.0 * 255.0;
    Ok(each.chunks_exact(3).map(|pixel| pixel.iter().sum::<f64>() / scale).collect())
}

/// The deviation of each channel of each pixel times the number of samples, in levels.
fn scaled_deviations(samples: &[&Picture]) -> Result<impl Iterator<Item = f64>, MetricError> {
    if let Some(first) = samples.first() {
        first.at_least(1, "L-STD")?;
        samples.iter().try_for_each(|sample| first.same_size(sample))?;
    }
    let count = samples.len() as i64;
    // n² times the variance is n Σx² - (Σx)², exactly.
    let deviation = move |i: usize| {
        let values = samples.iter().map(|sample| i64::from(sample.rgb[i]));
        let (sum, squares) = values.fold((0, 0), |(sum, squares), x| (sum + x, squares + x * x));
        ((count * squares - sum * sum) as f64).sqrt()
    };
    Ok((0..samples.first().map_or(0, |first| first.rgb.len())).map(deviation))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deviations_are_over_the_number_of_samples() {
        assert_eq!(global_deviation(&[1.0, 3.0]), 1.0);
        assert_eq!(global_deviation(&[2.0, 2.0, 2.0]), 0.0);
        let picture = |rgb: [u8; 3]| Picture { width_px: 1, height_px: 1, rgb: rgb.to_vec() };
        let (a, b) = (picture([10, 0, 7]), picture([20, 51, 7]));
        // Deviations of 5, 25.5 and 0 levels.
        let found = local_deviation(&[&a, &b]).unwrap();
        assert!((found - 30.5 / 3.0 / 255.0).abs() < 1e-15, "{found}");
        let map = deviations(&[&a, &b]).unwrap();
        assert!(map.len() == 1 && (map[0] - found).abs() < 1e-15, "{map:?}");
        assert_eq!(local_deviation(&[&a, &a, &a]).unwrap(), 0.0);
        let other = Picture { width_px: 2, height_px: 1, rgb: vec![0; 6] };
        assert!(local_deviation(&[&a, &other]).is_err());
    }
}
