//! Faces upright and of one size, as the networks for faces know them (reference 3.8).

use super::detect::Face;
use diffbir_imaging::Similarity;
use diffbir_imaging::similarity::Point;

/// Side of an aligned face, in pixels.
pub const SIDE_PX: usize = 512;

/// Where the landmarks of an aligned face lie, in the order of [`Face::landmarks`].
const TEMPLATE: [Point; 5] = [
    (192.98138, 239.94708),
    (318.90277, 240.1936),
    (256.63416, 314.01935),
    (201.26117, 371.41043),
    (313.08905, 371.15118),
];

/// The map from the pixels of the picture to those of the aligned face; nothing where the landmarks are one point.
pub fn alignment(face: &Face) -> Option<Similarity> {
    let map = Similarity::robust(&face.points(), &TEMPLATE)?;
    (map.scale().is_finite() && map.scale() > 0.0).then_some(map)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn landmarks_come_to_lie_on_the_template() {
        let landmarks = TEMPLATE.map(|(x, y)| [(y / 3.0 + 40.0) as f32, (-x / 3.0 + 300.0) as f32]);
        let face = Face { bounds: [0.0; 4], score: 1.0, landmarks };
        let map = alignment(&face).unwrap();
        assert!((map.scale() - 3.0).abs() < 1e-4);
        for ((x, y), (u, v)) in face.points().into_iter().map(|point| map.apply(point)).zip(TEMPLATE) {
            assert!((x - u).abs() < 1e-2 && (y - v).abs() < 1e-2, "{x} {y}");
        }
        assert_eq!(alignment(&Face { landmarks: [[5.0, 6.0]; 5], ..face }), None);
    }
}
