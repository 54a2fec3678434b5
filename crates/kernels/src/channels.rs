//! Sums and joins of whole pictures, channels last, on all threads.

use crate::share::filled;
use rayon::prelude::*;
use std::mem::MaybeUninit;

/// About how many elements a task has.
const PIECE: usize = 1 << 15;

/// `a + b`, of one length.
pub fn sum(a: &[f32], b: &[f32]) -> Vec<f32> {
    assert_eq!(a.len(), b.len(), "both of one length");
    let write = |y: &mut [MaybeUninit<f32>]| {
        let pieces = a.par_chunks(PIECE).zip(b.par_chunks(PIECE)).zip(y.par_chunks_mut(PIECE));
        pieces.for_each(|((a, b), y)| {
            for ((a, b), y) in a.iter().zip(b).zip(y) {
                y.write(a + b);
            }
        });
    };
    // SAFETY: the pieces of all three are of one length, and each element is written.
    unsafe { filled(a.len(), write) }
}

/// `x[batch, .., channels]` with one value a channel of each image added, `values[batch, channels]`.
pub fn add_to_images(x: &[f32], values: &[f32], channels: usize) -> Vec<f32> {
    let batch = values.len() / channels;
    let image = x.len() / batch;
    assert!(values.len() == batch * channels && x.len() == batch * image, "images");
    assert!(image.is_multiple_of(channels), "pixels");
    let piece = PIECE.next_multiple_of(channels);
    let write = |y: &mut [MaybeUninit<f32>]| {
        let images = x.chunks_exact(image).zip(y.chunks_exact_mut(image));
        for ((x, y), values) in images.zip(values.chunks_exact(channels)) {
            x.par_chunks(piece).zip(y.par_chunks_mut(piece)).for_each(|(x, y)| {
                for (x, y) in x.chunks_exact(channels).zip(y.chunks_exact_mut(channels)) {
                    for ((x, value), y) in x.iter().zip(values).zip(y) {
                        y.write(x + value);
                    }
                }
            });
        }
    };
    // SAFETY: images, pieces and pixels divide without rest, by the assertions.
    unsafe { filled(x.len(), write) }
}

/// The channels of `a` and then those of `b`, each `[pixels, channels]`; `added`, like `b`, is added to it.
pub fn join(a: &[f32], b: &[f32], added: Option<&[f32]>, [of_a, of_b]: [usize; 2]) -> Vec<f32> {
    let pixels = a.len() / of_a;
    assert!(a.len() == pixels * of_a && b.len() == pixels * of_b, "pixels");
    assert!(added.is_none_or(|added| added.len() == b.len()), "added");
    let piece = (PIECE / (of_a + of_b)).max(1);
    let write = |y: &mut [MaybeUninit<f32>]| {
        y.par_chunks_mut(piece * (of_a + of_b)).enumerate().for_each(|(index, y)| {
            for (y, pixel) in y.chunks_exact_mut(of_a + of_b).zip(index * piece..) {
                let (first, second) = y.split_at_mut(of_a);
                first.write_copy_of_slice(&a[pixel * of_a..][..of_a]);
                let b = &b[pixel * of_b..][..of_b];
                match added {
                    Some(added) => {
                        for ((b, added), y) in b.iter().zip(&added[pixel * of_b..][..of_b]).zip(second) {
                            y.write(b + added);
                        }
                    }
                    None => _ = second.write_copy_of_slice(b),
                }
            }
        });
    };
    // SAFETY: every pixel of every piece is written whole.
    unsafe { filled(a.len() + b.len(), write) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(length: usize, from: f32) -> Vec<f32> {
        (0..length).map(|index| from + index as f32).collect()
    }

    #[test]
    fn sums_are_those_of_each_element_and_image() {
        let (a, b) = (count(PIECE + 3, 0.0), count(PIECE + 3, 9.0));
        assert!(sum(&a, &b).iter().enumerate().all(|(i, y)| *y == 9.0 + 2.0 * i as f32));
        let x = count(2 * 5 * (PIECE / 3), 0.0);
        let y = add_to_images(&x, &[1.0, 2.0, 3.0, 4.0, 5.0, 10.0, 20.0, 30.0, 40.0, 50.0], 5);
        for (index, (x, y)) in x.iter().zip(y).enumerate() {
            let factor = if index < 5 * (PIECE / 3) { 1.0 } else { 10.0 };
            assert_eq!(y, x + factor * (index % 5 + 1) as f32, "{index}");
        }
    }

    #[test]
    fn channels_stand_side_by_side() {
        let (pixels, of_a, of_b) = (PIECE / 4 + 1, 3, 2);
        let (a, b) = (count(pixels * of_a, 0.0), count(pixels * of_b, -7.0));
        for added in [None, Some(b.as_slice())] {
            let y = join(&a, &b, added, [of_a, of_b]);
            let factor = if added.is_some() { 2.0 } else { 1.0 };
            for (pixel, y) in y.chunks_exact(of_a + of_b).enumerate() {
                assert_eq!(y[..of_a], a[pixel * of_a..][..of_a]);
                for (y, b) in y[of_a..].iter().zip(&b[pixel * of_b..]) {
                    assert_eq!(*y, factor * b, "{pixel}");
                }
            }
        }
    }
}
