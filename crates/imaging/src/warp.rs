//! A picture seen through a [`Similarity`].

use crate::Raster;
use crate::similarity::Similarity;
use rayon::prelude::*;

/// What lies around a picture.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Outside {
    /// One colour, as many values as the picture has channels; the rest are not looked at.
    Colour([f32; 3]),
    /// The edge, repeated.
    Edge,
}

/// Points a side that a pixel of a reduced picture is the mean of, at most.
const MOST_POINTS: usize = 8;

/// The picture of `size` whose pixel at p is the source's at `to_source` of p, bilinear. Where it is smaller than the
/// source and `smooth`, a pixel is the mean of what it covers.
pub fn warp(
    source: &Raster,
    to_source: Similarity,
    (width_px, height_px): (usize, usize),
    outside: Outside,
    smooth: bool,
) -> Raster {
    let channels = source.channels;
    let points = if smooth { (to_source.scale().ceil() as usize).clamp(1, MOST_POINTS) } else { 1 };
    let mut out = Raster::new(width_px, height_px, channels);
    if out.data.is_empty() {
        return out;
    }
    let part = |point: usize| (point as f64 + 0.5) / points as f64 - 0.5;
    let share = 1.0 / (points * points) as f32;
    out.data.par_chunks_mut(width_px * channels).enumerate().for_each(|(y, row)| {
        for (x, pixel) in row.chunks_exact_mut(channels).enumerate() {
            for point in 0..points * points {
                let place = (x as f64 + part(point % points), y as f64 + part(point / points));
                add(pixel, source, to_source.apply(place), outside, share);
            }
        }
    });
    out
}

/// Adds `share` of the source between its four pixels around a place.
fn add(pixel: &mut [f32], source: &Raster, (x, y): (f64, f64), outside: Outside, share: f32) {
    let (left, top) = (x.floor(), y.floor());
    let (right, below) = ((x - left) as f32, (y - top) as f32);
    for (row, weight_y) in [(top, 1.0 - below), (top + 1.0, below)] {
        for (column, weight_x) in [(left, 1.0 - right), (left + 1.0, right)] {
            let weight = weight_x * weight_y * share;
            if weight == 0.0 {
                continue;
            }
            let (last_x, last_y) = ((source.width_px - 1) as f64, (source.height_px - 1) as f64);
            let (near_x, near_y) = (column.clamp(0.0, last_x), row.clamp(0.0, last_y));
            let inside = near_x == column && near_y == row;
            let at = (near_y as usize * source.width_px + near_x as usize) * source.channels;
            let held = &source.data[at..at + source.channels];
            match outside {
                Outside::Colour(colour) if !inside => {
                    pixel.iter_mut().zip(colour).for_each(|(value, colour)| *value += weight * colour);
                }
                _ => pixel.iter_mut().zip(held).for_each(|(value, held)| *value += weight * held),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn waves(width_px: usize, height_px: usize) -> Raster {
        let mut picture = Raster::new(width_px, height_px, 3);
        for (index, pixel) in picture.data.chunks_exact_mut(3).enumerate() {
            let (x, y) = ((index % width_px) as f32, (index / width_px) as f32);
            pixel.copy_from_slice(&[
                0.5 + 0.4 * (x / 9.0).sin(),
                0.5 + 0.4 * (y / 7.0).cos(),
                (x + y) / 200.0,
            ]);
        }
        picture
    }

    #[test]
    fn nothing_changes_where_nothing_moves() {
        let picture = waves(31, 17);
        assert_eq!(warp(&picture, Similarity::resizing(1.0), (31, 17), Outside::Edge, true), picture);
    }

    #[test]
    fn around_the_picture_is_its_edge_or_a_colour() {
        let picture = Raster { width_px: 2, height_px: 1, channels: 1, data: vec![1.0, 3.0] };
        let moved = Similarity::moving(-1.5, 0.0);
        let of = |outside| warp(&picture, moved, (5, 1), outside, false).data;
        assert_eq!(of(Outside::Edge), [1.0, 1.0, 2.0, 3.0, 3.0]);
        assert_eq!(of(Outside::Colour([0.0; 3])), [0.0, 0.5, 2.0, 1.5, 0.0]);
    }

    #[test]
    fn a_reduced_picture_is_the_mean_of_what_it_covers() {
        let chequered = Raster {
            width_px: 8,
            height_px: 8,
            channels: 1,
            data: (0..64).map(|i| ((i + i / 8) % 2) as f32).collect(),
        };
        let half = |smooth| warp(&chequered, Similarity::resizing(4.0), (2, 2), Outside::Edge, smooth).data;
        assert!(half(true).iter().all(|value| (value - 0.5).abs() < 0.01), "{:?}", half(true));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn there_and_back_is_the_same_picture(angle in -3.0..3.0f64, scale in 1.5..3.0f64) {
            let picture = waves(60, 60);
            let turn = Similarity { a: scale * angle.cos(), b: scale * angle.sin(), x0: 0.0, y0: 0.0 };
            // The middle stays the middle.
            let (x, y) = turn.apply((29.5, 29.5));
            let map = turn.then(Similarity::moving(150.0 - x, 150.0 - y));
            let there = warp(&picture, map.inverse(), (300, 300), Outside::Edge, true);
            let back = warp(&there, map, (60, 60), Outside::Edge, false);
            for (a, b) in picture.data.iter().zip(&back.data) {
                prop_assert!((a - b).abs() < 0.03, "{a} {b}");
            }
        }
    }
}
