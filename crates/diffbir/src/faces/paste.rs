//! Restored faces back into the picture (reference 3.8, steps 9 and 10).

use super::Manner;
use super::align::SIDE_PX;
use diffbir_imaging::warp::{Outside, warp};
use diffbir_imaging::{Raster, Similarity, mask};

/// The feathered edge of a face is this part of its side.
const EDGE_SHARE: usize = 20;

/// How far around a face is worked, in pixels.
const MARGIN_PX: f64 = 3.0;

/// Of two faces that overlap, each pixel belongs to the one whose middle is nearer, measured in halves of its own side; over
/// this difference they fade into each other.
const FADE: f64 = 0.2;

/// Shares above are 1.
const ALMOST_ONE: f32 = 1.0 - 1e-6;

const NOTHING: Outside = Outside::Colour([0.0; 3]);

/// A restored face and where it belongs.
pub(super) struct Placed<'a> {
    /// The restored face, a square.
    pub face: &'a Raster,
    /// From the pixels of the picture to those of an aligned face of [`SIDE_PX`].
    pub to_face: Similarity,
    /// How much of each pixel of the aligned face replaces the picture, if somebody told.
    pub parts: Option<Raster>,
}

/// Lays a face over the picture. `all` are the faces of the picture, of which this is one: what is nearer to another is
/// left to it. In the reference's manner the picture has levels of 0 to 255, which its rounding turns on: what it has a
/// little below a level stays below.
pub(super) fn paste(picture: &mut Raster, placed: &Placed, all: &[Similarity], manner: Manner) {
    let Some(window) = Window::around(placed.to_face, picture.size()) else { return };
    let smooth = manner == Manner::Own;
    let to_face = Similarity::moving(window.x as f64, window.y as f64).then(placed.to_face);
    let side = placed.face.width_px;
    let to_pixels = to_face.then(Similarity::resizing(side as f64 / SIDE_PX as f64));
    let mut face = warp(placed.face, to_pixels, window.size, NOTHING, smooth);
    if manner == Manner::Reference {
        face = Raster::from_u8(window.size.0, window.size.1, 3, &face.to_u8_rounding());
    }
    let square = Raster { width_px: side, height_px: side, channels: 1, data: vec![1.0; side * side] };
    let seen_through = |mask: &Raster, map| {
        let mut seen = warp(mask, map, window.size, NOTHING, smooth);
        // Four ones are one, whatever their weights sum to.
        seen.data.iter_mut().filter(|value| **value > ALMOST_ONE).for_each(|value| *value = 1.0);
        seen
    };
    let covered = mask::erode(&seen_through(&square, to_pixels), 2);
    let mut shares = feathered(&covered, manner);
    if let Some(parts) = &placed.parts {
        let parts = seen_through(parts, to_face);
        shares.data.iter_mut().zip(parts.data).for_each(|(share, part)| *share = share.min(part));
    }
    if manner == Manner::Own {
        leave_to_others(&mut shares, &window, placed.to_face, all);
    }
    for (index, (&share, cover)) in shares.data.iter().zip(covered.data).enumerate() {
        let (x, y) = window.place(index);
        let pixel = &mut picture.data[(y * picture.width_px + x) * 3..][..3];
        for (value, new) in pixel.iter_mut().zip(&face.data[index * 3..]) {
            *value = match manner {
                Manner::Own => share * cover * new + (1.0 - share) * *value,
                Manner::Reference => {
                    let (share, new) = (f64::from(share), f64::from(cover * (new * 255.0).round()));
                    below(share * new + (1.0 - share) * f64::from(*value))
                }
            };
        }
    }
}

/// The nearest number that is not above.
fn below(value: f64) -> f32 {
    let near = value as f32;
    if f64::from(near) > value { near.next_down() } else { near }
}

/// A square without its edges, which fade inwards.
fn feathered(covered: &Raster, manner: Manner) -> Raster {
    let blur = if manner == Manner::Reference { mask::blur_in_f32 } else { mask::blur };
    let area: f64 = covered.data.iter().map(|&value| f64::from(value)).sum();
    match area.sqrt() as usize / EDGE_SHARE {
        // OpenCV takes a square of no side for one of three.
        0 => mask::erode(covered, 3),
        edge => blur(&mask::erode(covered, 2 * edge), edge, mask::deviation_of(edge)),
    }
}

/// Takes from a face's shares what is nearer to another face.
fn leave_to_others(shares: &mut Raster, window: &Window, own: Similarity, all: &[Similarity]) {
    let half = SIDE_PX as f64 / 2.0;
    let distance = |map: Similarity, (x, y): (usize, usize)| {
        let (u, v) = map.apply((x as f64, y as f64));
        (u - half).hypot(v - half) / half
    };
    for &other in all.iter().filter(|&&other| other != own && window.touches(other)) {
        for (index, share) in shares.data.iter_mut().enumerate().filter(|(_, share)| **share > 0.0) {
            let place = window.place(index);
            let (near, far) = (distance(own, place), distance(other, place));
            *share *= ((far - near) / FADE + 0.5).clamp(0.0, 1.0) as f32;
        }
    }
}

/// The part of a picture in which a face lies.
struct Window {
    x: usize,
    y: usize,
    size: (usize, usize),
}

impl Window {
    /// Nothing where the face lies outside.
    fn around(to_face: Similarity, (width, height): (usize, usize)) -> Option<Self> {
        let [left, top, right, bottom] = bounds(to_face);
        let within = |low: f64, high: f64, length: usize| {
            let low = (low - MARGIN_PX).floor().clamp(0.0, length as f64) as usize;
            let high = (high + MARGIN_PX).ceil().clamp(0.0, length as f64) as usize;
            (high > low).then_some((low, high - low))
        };
        let ((x, across), (y, down)) = (within(left, right, width)?, within(top, bottom, height)?);
        Some(Self { x, y, size: (across, down) })
    }

    /// The place in the picture of a pixel of the window.
    fn place(&self, index: usize) -> (usize, usize) {
        (self.x + index % self.size.0, self.y + index / self.size.0)
    }

    /// Whether a face reaches into it.
    fn touches(&self, to_face: Similarity) -> bool {
        let [left, top, right, bottom] = bounds(to_face);
        let (x, y) = (self.x as f64, self.y as f64);
        right > x && bottom > y && left < x + self.size.0 as f64 && top < y + self.size.1 as f64
    }
}

/// Left, top, right and bottom of a face in the picture.
fn bounds(to_face: Similarity) -> [f64; 4] {
    let (back, side) = (to_face.inverse(), SIDE_PX as f64 - 1.0);
    let corners = [(0.0, 0.0), (side, 0.0), (0.0, side), (side, side)].map(|corner| back.apply(corner));
    let of = |pick: fn(f64, f64) -> f64, axis: fn(&(f64, f64)) -> f64| {
        corners.iter().map(axis).reduce(pick).unwrap_or_default()
    };
    [of(f64::min, |p| p.0), of(f64::min, |p| p.1), of(f64::max, |p| p.0), of(f64::max, |p| p.1)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn even(side: usize, value: f32) -> Raster {
        Raster { width_px: side, height_px: side, channels: 3, data: vec![value; side * side * 3] }
    }

    fn at(picture: &Raster, x: usize, y: usize) -> f32 {
        picture.data[(y * picture.width_px + x) * 3]
    }

    /// A face `side` pixels wide whose left upper corner is there.
    fn placed(x: f64, y: f64, side: f64) -> Similarity {
        Similarity::moving(-x, -y).then(Similarity::resizing(SIDE_PX as f64 / side))
    }

    #[test]
    fn a_face_fades_into_the_picture_at_its_edges_and_not_at_those_of_the_picture() {
        let face = even(64, 1.0);
        for manner in [Manner::Own, Manner::Reference] {
            let mut picture = even(200, 0.0);
            let to_face = placed(-40.0, 50.0, 100.0);
            paste(&mut picture, &Placed { face: &face, to_face, parts: None }, &[to_face], manner);
            if manner == Manner::Reference {
                picture.data.iter_mut().for_each(|level| *level /= 255.0);
            }
            assert!(at(&picture, 0, 100) > 0.99, "{manner:?}: the picture ends within the face");
            assert!(
                at(&picture, 20, 100) > 0.99 && at(&picture, 80, 100) == 0.0 && at(&picture, 20, 30) == 0.0
            );
            // 77 pixels a side are seen, so that three on either side of the edge fade.
            let edge = at(&picture, 57, 100);
            assert!(edge > 0.0 && edge < 1.0, "{manner:?}: {edge}");
        }
    }

    #[test]
    fn of_two_faces_each_keeps_what_is_nearer_to_it() {
        let (first, second) = (placed(20.0, 40.0, 100.0), placed(80.0, 40.0, 100.0));
        let mut picture = even(200, 0.0);
        for (to_face, value) in [(first, 1.0), (second, 0.5)] {
            let placed = Placed { face: &even(64, value), to_face, parts: None };
            paste(&mut picture, &placed, &[first, second], Manner::Own);
        }
        assert!((at(&picture, 70, 90) - 1.0).abs() < 0.01 && (at(&picture, 130, 90) - 0.5).abs() < 0.01);
        assert!((at(&picture, 90, 90) - 1.0).abs() < 0.01, "nearer to the first");
    }

    #[test]
    fn parts_that_are_no_face_stay_and_faces_outside_change_nothing() {
        let mut parts =
            Raster { width_px: SIDE_PX, height_px: SIDE_PX, channels: 1, data: vec![0.0; SIDE_PX * SIDE_PX] };
        parts.data[..SIDE_PX * SIDE_PX / 2].fill(1.0);
        let (mut picture, to_face) = (even(200, 0.0), placed(50.0, 50.0, 100.0));
        let face = even(512, 1.0);
        paste(&mut picture, &Placed { face: &face, to_face, parts: Some(parts) }, &[to_face], Manner::Own);
        assert!(at(&picture, 100, 80) > 0.99 && at(&picture, 100, 120) == 0.0);
        let before = picture.clone();
        let outside = placed(500.0, 50.0, 100.0);
        paste(&mut picture, &Placed { face: &face, to_face: outside, parts: None }, &[outside], Manner::Own);
        assert_eq!(picture, before);
    }
}
