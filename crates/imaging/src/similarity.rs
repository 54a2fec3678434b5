//! Maps of the plane that turn, scale and move.

use std::cmp::Ordering;

/// A point, x to the right and y down, in pixels; whole numbers are centres of pixels.
pub type Point = (f64, f64);

/// `(x, y)` to `(a x - b y + x0, b x + a y + y0)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Similarity {
    /// Scale times cosine.
    pub a: f64,
    /// Scale times sine.
    pub b: f64,
    /// Where the origin goes.
    pub x0: f64,
    /// Where the origin goes.
    pub y0: f64,
}

impl Similarity {
    /// What a picture's resizing by `factor` does to its points: edges stay edges.
    pub fn resizing(factor: f64) -> Self {
        let offset = (factor - 1.0) / 2.0;
        Self { a: factor, b: 0.0, x0: offset, y0: offset }
    }

    /// A move.
    pub fn moving(x0: f64, y0: f64) -> Self {
        Self { a: 1.0, b: 0.0, x0, y0 }
    }

    /// The map that brings `from` to `to` with the least sum of squared distances; nothing where all points of `from`
    /// are one.
    pub fn least_squares(from: &[Point], to: &[Point]) -> Option<Self> {
        let count = from.len().min(to.len()) as f64;
        let centre = |points: &[Point]| {
            let (x, y) = points.iter().fold((0.0, 0.0), |(x, y), point| (x + point.0, y + point.1));
            (x / count, y / count)
        };
        let (centre_from, centre_to) = (centre(from), centre(to));
        let (mut dot, mut cross, mut spread) = (0.0, 0.0, 0.0);
        for (from, to) in from.iter().zip(to) {
            let (x, y) = (from.0 - centre_from.0, from.1 - centre_from.1);
            let (u, v) = (to.0 - centre_to.0, to.1 - centre_to.1);
            dot += x * u + y * v;
            cross += x * v - y * u;
            spread += x * x + y * y;
        }
        if spread <= 0.0 || !spread.is_finite() {
            return None;
        }
        let turned = Self { a: dot / spread, b: cross / spread, x0: 0.0, y0: 0.0 };
        let (x, y) = turned.apply(centre_from);
        Some(Self { x0: centre_to.0 - x, y0: centre_to.1 - y, ..turned })
    }

    /// Least median of squares, then least squares over the points that fit: as OpenCV's `estimateAffinePartial2D` does
    /// by LMEDS with its defaults (reference 3.8), its random pairs of points included.
    pub fn robust(from: &[Point], to: &[Point]) -> Option<Self> {
        // What brings a pair without outliers with probability .99 if 45 % are outliers.
        const PAIRS: usize = 13;
        let count = from.len().min(to.len());
        if count <= 2 {
            return Self::least_squares(from, to);
        }
        let mut draw = Draw(u64::MAX);
        let mut best: Option<(f32, Self)> = None;
        for _ in 0..PAIRS {
            let first = draw.below(count);
            let second = std::iter::repeat_with(|| draw.below(count)).find(|&second| second != first)?;
            let pair = |points: &[Point]| [points[first], points[second]];
            let Some(map) = Self::least_squares(&pair(from), &pair(to)) else { continue };
            let mut squares: Vec<f32> = map.squares(from, to).collect();
            squares.sort_by(|a, b| a.partial_cmp(b).unwrap_or(Ordering::Equal));
            let median = squares[count / 2];
            if best.is_none_or(|(least, _)| median < least) {
                best = Some((median, map));
            }
        }
        let (median, map) = best?;
        let deviation = 1.4826 * (1.0 + 5.0 / (count - 2) as f64) * f64::from(median).sqrt();
        let limit = (2.5 * deviation).max(0.001).powi(2);
        let fit: Vec<bool> = map.squares(from, to).map(|square| f64::from(square) <= limit).collect();
        let kept = |points: &[Point]| -> Vec<Point> {
            points.iter().zip(&fit).filter(|(_, fits)| **fits).map(|(point, _)| *point).collect()
        };
        Self::least_squares(&kept(from), &kept(to))
    }

    /// Squared distances that are left, as OpenCV has them, in single precision.
    fn squares(self, from: &[Point], to: &[Point]) -> impl Iterator<Item = f32> {
        from.iter().zip(to).map(move |(&from, &to)| {
            let (x, y) = self.apply(from);
            ((x - to.0).powi(2) + (y - to.1).powi(2)) as f32
        })
    }

    /// Where a point goes.
    pub fn apply(self, (x, y): Point) -> Point {
        (self.a * x - self.b * y + self.x0, self.b * x + self.a * y + self.y0)
    }

    /// How much longer lengths become.
    pub fn scale(self) -> f64 {
        self.a.hypot(self.b)
    }

    /// First this map, then another.
    pub fn then(self, next: Self) -> Self {
        let (x0, y0) = next.apply((self.x0, self.y0));
        Self { a: next.a * self.a - next.b * self.b, b: next.b * self.a + next.a * self.b, x0, y0 }
    }

    /// The way back.
    ///
    /// # Panics
    /// Never; a map of scale 0 has no way back and gives what is not finite.
    pub fn inverse(self) -> Self {
        let square = self.a * self.a + self.b * self.b;
        let turned = Self { a: self.a / square, b: -self.b / square, x0: 0.0, y0: 0.0 };
        let (x, y) = turned.apply((self.x0, self.y0));
        Self { x0: -x, y0: -y, ..turned }
    }
}

/// OpenCV's generator of random numbers: multiply with carry.
struct Draw(u64);

impl Draw {
    fn below(&mut self, count: usize) -> usize {
        self.0 = u64::from(self.0 as u32) * 4_164_903_690 + (self.0 >> 32);
        self.0 as u32 as usize % count
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn near(a: Point, b: Point) -> bool {
        (a.0 - b.0).hypot(a.1 - b.1) < 1e-6
    }

    prop_compose! {
        fn any_map()(scale in 0.01..20.0f64, angle in -3.2..3.2f64, x0 in -500.0..500.0f64, y0 in -500.0..500.0f64)
            -> Similarity {
            Similarity { a: scale * angle.cos(), b: scale * angle.sin(), x0, y0 }
        }
    }

    proptest! {
        #[test]
        fn the_way_back_leads_back(map in any_map(), x in -1e3..1e3f64, y in -1e3..1e3f64) {
            prop_assert!(near(map.inverse().apply(map.apply((x, y))), (x, y)));
            prop_assert!(near(map.then(map.inverse()).apply((x, y)), (x, y)));
            prop_assert!((map.scale() * map.inverse().scale() - 1.0).abs() < 1e-9);
        }

        #[test]
        fn what_was_mapped_is_found_again(
            map in any_map(),
            points in prop::collection::vec((-200.0..200.0f64, -200.0..200.0f64), 5),
        ) {
            let to: Vec<Point> = points.iter().map(|&point| map.apply(point)).collect();
            for found in [Similarity::least_squares(&points, &to), Similarity::robust(&points, &to)] {
                let found = found.unwrap();
                prop_assert!(points.iter().all(|&point| near(found.apply(point), map.apply(point))));
            }
        }
    }

    #[test]
    fn one_point_astray_is_left_out_by_the_robust_way_alone() {
        let from = [(0.0, 0.0), (100.0, 0.0), (50.0, 50.0), (20.0, 100.0), (80.0, 100.0)];
        let mut to = from.map(|(x, y)| (2.0 * x + 1.0, 2.0 * y - 3.0));
        to[2] = (400.0, -90.0);
        let robust = Similarity::robust(&from, &to).unwrap();
        assert!(near(robust.apply((10.0, 10.0)), (21.0, 17.0)), "{robust:?}");
        let all = Similarity::least_squares(&from, &to).unwrap();
        assert!(!near(all.apply((10.0, 10.0)), (21.0, 17.0)));
    }

    #[test]
    fn one_point_many_times_has_no_map() {
        let from = [(3.0, 4.0); 5];
        assert_eq!(Similarity::least_squares(&from, &from), None);
        assert_eq!(Similarity::robust(&from, &from), None);
    }

    #[test]
    fn resizing_keeps_edges() {
        let map = Similarity::resizing(4.0);
        assert_eq!(map.apply((-0.5, -0.5)), (-0.5, -0.5));
        assert_eq!(map.apply((9.5, 0.0)), (39.5, 1.5));
    }
}
