//! Do no harm: a result, reduced to so few pixels that blur and noise of the photograph matter little, must not be further from
//! it than the picture of stage 1 is, part by part. What stage 2 invents may be finer and sharper, but not contradict.

use diffbir_imaging::resize::{self, Filter};
use diffbir_imaging::{Photo, Raster};

/// Pixels of the photograph that become one, down and across.
const REDUCED: usize = 4;
/// Side of a part in those.
const PART_PX: usize = 4;
/// A result may be this much further away than stage 1: a share of its root mean square distance, and levels of 255.
const SHARE: f64 = 1.25;
const LEVELS: f64 = 3.0;

/// The size at which a photograph of this one is compared.
pub(crate) fn reduced((width, height): (usize, usize)) -> (usize, usize) {
    ((width / REDUCED).max(1), (height / REDUCED).max(1))
}

/// Parts of a picture, row by row.
pub struct Harm {
    columns: usize,
    rows: usize,
    harmed: Vec<bool>,
}

impl Harm {
    /// Where `result` is further from `photo` than `clean`, stage 1's picture, is. Both are of the size of the output.
    pub fn of(result: &Raster, clean: &Raster, photo: &Photo) -> Self {
        let size = reduced((photo.width_px, photo.height_px));
        let [result, clean] =
            [result, clean].map(|picture| resize::float(picture, size.0, size.1, Filter::Bicubic));
        let photo = photo.resized(size.0, size.1, Filter::Bicubic);
        let [columns, rows] = [size.0, size.1].map(|side| (side / PART_PX).max(1));
        let part = |index: usize| {
            let bounds = |at: usize, count: usize, side: usize| at * side / count..(at + 1) * side / count;
            let (xs, ys) = (bounds(index % columns, columns, size.0), bounds(index / columns, rows, size.1));
            let distance = |picture: &Raster| {
                let squares = ys.clone().flat_map(|y| {
                    let row = |raster: &Raster| {
                        let at = |x: usize| (y * size.0 + x) * raster.channels;
                        raster.data[at(xs.start)..at(xs.end)].to_vec()
                    };
                    row(picture).into_iter().zip(row(&photo)).map(|(a, b)| f64::from(a - b).powi(2))
                });
                let (sum, count) = squares.fold((0.0, 0), |(sum, count), square| (sum + square, count + 1));
                255.0 * (sum / f64::from(count)).sqrt()
            };
            distance(&result) > SHARE * distance(&clean) + LEVELS
        };
        Self { columns, rows, harmed: (0..columns * rows).map(part).collect() }
    }

    /// How many parts there are.
    pub fn parts(&self) -> usize {
        self.harmed.len()
    }

    /// How many of them were harmed.
    pub fn harmed(&self) -> usize {
        self.harmed.iter().filter(|harmed| **harmed).count()
    }

    /// The result with stage 1 where it was harmed; it fades into the parts around.
    pub fn undone(&self, result: &Raster, clean: &Raster) -> Raster {
        let data = self.harmed.iter().map(|harmed| f32::from(u8::from(*harmed))).collect();
        let parts = Raster { width_px: self.columns, height_px: self.rows, channels: 1, data };
        let shares = resize::float(&parts, result.width_px, result.height_px, Filter::Bilinear);
        let mut undone = result.clone();
        let pixels = undone.data.chunks_exact_mut(result.channels);
        for ((pixel, clean), share) in pixels.zip(clean.data.chunks_exact(clean.channels)).zip(&shares.data) {
            // Wholly within a harmed part, less from its edge to the middle of the next.
            let share = (2.0 * share).min(1.0);
            pixel.iter_mut().zip(clean).for_each(|(own, clean)| *own = (1.0 - share) * *own + share * clean);
        }
        undone
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_contradicts_the_photograph_is_found_and_undone() {
        let side = 64;
        let value = |x: usize, y: usize| 0.5 + 0.3 * ((x as f32) / 9.0).sin() * ((y as f32) / 7.0).cos();
        let picture = |side: usize, scale: usize, change: &dyn Fn(usize, usize) -> f32| {
            let data = (0..side * side)
                .flat_map(|at| {
                    let (x, y) = (at % side, at / side);
                    [value(x / scale, y / scale) + change(x, y); 3]
                })
                .collect();
            Raster { width_px: side, height_px: side, channels: 3, data }
        };
        let photo = picture(side, 1, &|_, _| 0.0);
        let clean = picture(4 * side, 4, &|_, _| 0.0);
        // Fine detail whose mean is nothing is no harm, a patch of another brightness is.
        let detailed = picture(4 * side, 4, &|x, y| if (x + y) % 2 == 0 { 0.1 } else { -0.1 });
        let photo = Photo::of_raster(&photo);
        let none = Harm::of(&detailed, &clean, &photo);
        assert_eq!((none.harmed(), none.parts()), (0, 16));
        assert_eq!(none.undone(&detailed, &clean).data, detailed.data);
        let patched = picture(4 * side, 4, &|x, y| if x < 64 && y < 64 { 0.2 } else { 0.0 });
        let one = Harm::of(&patched, &clean, &photo);
        assert_eq!(one.harmed(), 1);
        let undone = one.undone(&patched, &clean);
        assert_eq!(Harm::of(&undone, &clean, &photo).harmed(), 0);
        assert_eq!(undone.data[..3], clean.data[..3]);
        assert_eq!(undone.data[undone.data.len() - 3..], patched.data[patched.data.len() - 3..]);
    }

    #[test]
    fn small_pictures_have_one_part() {
        let picture = Raster::new(3, 2, 3);
        let harm = Harm::of(&picture, &picture, &Photo::of_raster(&picture));
        assert_eq!((harm.parts(), harm.harmed()), (1, 0));
    }
}
