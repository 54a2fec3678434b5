//! Where faces are (reference 1.8, 3.8): the predictions of RetinaFace and YuNet as boxes and landmarks.

use super::{Manner, as_opencv, onnx};
use crate::error::{Error, Stage};
use crate::restore::{self, to_tensor};
use burn::tensor::{Device, Tensor};
use diffbir_imaging::Raster;
use diffbir_imaging::opencv::Kernel;
use diffbir_imaging::resize::{self, Filter};
use diffbir_imaging::similarity::Point;
use diffbir_models::retinaface::{self, ANCHOR_SIDES_PX, ANCHORS, MEAN_BGR, RetinaFace, RetinaFaceConfig};
use diffbir_models::yunet::{self, MULTIPLE_PX, YuNet};
use diffbir_nn::checkpoint::Checkpoint;
use diffbir_nn::params::{Precision, build_in, keys_of};
use diffbir_nn::{Params, WeightError};
use std::path::Path;

/// Faces of which the network is less sure are none.
const LEAST_SCORE: f32 = 0.8;

/// Of boxes that share more than this of what they cover together, the surest stays.
const MOST_SHARED: f32 = 0.4;

/// Scale of the predicted centres and points, and of the logarithms of sizes.
const VARIANCES: [f32; 2] = [0.1, 0.2];

/// The shorter side that pictures are enlarged to before faces are looked for, in pixels: small faces are found better.
const SHORT_SIDE_PX: usize = 640;

/// The longer side that they are reduced to, so that time and memory have a limit.
const LONG_SIDE_PX: usize = 2048;

/// A face that was found, in pixels of the picture.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Face {
    /// Left, top, right, bottom; may reach outside.
    pub bounds: [f32; 4],
    /// How sure the network is, up to 1.
    pub score: f32,
    /// The left eye of the picture, the right one, the nose, the left corner of the mouth, the right one.
    pub landmarks: [[f32; 2]; 5],
}

impl Face {
    /// All of it in other pixels.
    fn scaled(self, factor: f32) -> Self {
        Self {
            bounds: self.bounds.map(|at| at * factor),
            landmarks: self.landmarks.map(|point| point.map(|at| at * factor)),
            ..self
        }
    }

    /// Its landmarks for the geometry of pictures.
    pub(super) fn points(&self) -> [Point; 5] {
        self.landmarks.map(|[x, y]| (f64::from(x), f64::from(y)))
    }

    /// Width and height of its box.
    pub fn size(&self) -> (f32, f32) {
        let [left, top, right, bottom] = self.bounds;
        (right - left, bottom - top)
    }

    /// The middle of its box.
    pub(super) fn centre(&self) -> (f32, f32) {
        let [left, top, right, bottom] = self.bounds;
        ((left + right) / 2.0, (top + bottom) / 2.0)
    }
}

/// A network that finds faces.
pub struct Detector {
    network: Network,
    device: Device,
}

#[allow(clippy::large_enum_variant, reason = "there is one a program")]
enum Network {
    RetinaFace(RetinaFace),
    YuNet(YuNet),
}

impl Detector {
    /// RetinaFace with either backbone, told by the tensors, or YuNet in ONNX, told by the file's name; as they are
    /// published.
    pub fn open(path: &Path, device: &Device) -> Result<Self, Error> {
        // Boxes follow from exponentials of what a network says.
        const PRECISION: Precision = Precision::F32;
        let (mut file, network);
        if is_onnx(path) {
            file = onnx::convolutions(path)?;
            file.expect(&keys_of(YuNet::new)?)?;
            network = Network::YuNet(build_in(PRECISION, &mut file, device, YuNet::new)?);
        } else {
            file = Checkpoint::open(path)?;
            let config = config_of(&file)?;
            let build = |params: &Params| config.build(params);
            network = Network::RetinaFace(build_in(PRECISION, &mut file, device, build)?);
        }
        file.expect_all_used().map_err(Error::from)?;
        Ok(Self { network, device: device.clone() })
    }

    /// The faces of a picture of any size, surest first.
    pub fn find(&self, picture: &Raster, manner: Manner) -> Result<Vec<Face>, Error> {
        let (width, height) = picture.size();
        let mut scale = (SHORT_SIDE_PX as f64 / width.min(height) as f64).max(1.0);
        if manner == Manner::Own {
            scale = scale.min(LONG_SIDE_PX as f64 / width.max(height) as f64);
        }
        if scale == 1.0 {
            return self.find_at_size(picture, manner);
        }
        let side = |px: usize| ((px as f64 * scale) as usize).max(1);
        let size = (side(width), side(height));
        let resized = match manner {
            Manner::Own => resize::float(picture, size.0, size.1, Filter::Bilinear),
            Manner::Reference => as_opencv(picture, size, None, Kernel::Bilinear),
        };
        let faces = self.find_at_size(&resized, manner)?;
        Ok(faces.into_iter().map(|face| face.scaled((1.0 / scale) as f32)).collect())
    }

    /// The same without resizing: as facexlib's `detect_faces` with its defaults.
    pub fn find_at_size(&self, picture: &Raster, manner: Manner) -> Result<Vec<Face>, Error> {
        let mut input = picture.clone();
        for pixel in input.data.chunks_exact_mut(3) {
            // The reference feeds red as blue.
            if manner == Manner::Own {
                pixel.swap(0, 2);
            }
            pixel.iter_mut().for_each(|value| *value *= 255.0);
        }
        let mut faces = Vec::new();
        match &self.network {
            Network::RetinaFace(network) => {
                for pixel in input.data.chunks_exact_mut(3) {
                    pixel.iter_mut().zip(MEAN_BGR).for_each(|(value, mean)| *value -= mean);
                }
                let levels = network.forward(to_tensor(&input, &self.device));
                for (level, predictions) in levels.into_iter().enumerate() {
                    of_retinaface(level, predictions, &mut faces)?;
                }
            }
            Network::YuNet(network) => {
                let levels = network.forward(to_tensor(&input.pad_end(MULTIPLE_PX), &self.device));
                for (level, predictions) in levels.into_iter().enumerate() {
                    of_yunet(level, predictions, &mut faces)?;
                }
            }
        }
        Ok(surest(faces))
    }
}

/// Which RetinaFace a file holds.
fn config_of(file: &Checkpoint) -> Result<RetinaFaceConfig, WeightError> {
    let (mobile, resnet) = (RetinaFaceConfig::mobile(), RetinaFaceConfig::resnet50());
    let is_mobile = file.entries().any(|(name, ..)| name.starts_with("body.stage"));
    let config = if is_mobile { mobile } else { resnet };
    file.expect(&keys_of(|params| config.build(params))?)?;
    Ok(config)
}

fn is_onnx(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("onnx"))
}

/// An error if a file does not hold a network that finds faces.
pub(crate) fn expect(path: &Path) -> Result<(), WeightError> {
    if is_onnx(path) {
        return onnx::convolutions(path)?.expect(&keys_of(YuNet::new)?);
    }
    expect_retinaface(&Checkpoint::open(path)?)
}

/// The same of an open file, which is no ONNX.
pub(crate) fn expect_retinaface(file: &Checkpoint) -> Result<(), WeightError> {
    config_of(file).map(drop)
}

fn values(tensor: Tensor<4>) -> Result<Vec<f32>, Error> {
    restore::values(tensor, Stage::Detect)
}

/// What a level of RetinaFace says, as faces.
fn of_retinaface(
    level: usize,
    predictions: retinaface::Predictions,
    faces: &mut Vec<Face>,
) -> Result<(), Error> {
    let [_, _, columns, _] = predictions.faces.dims();
    let logits = values(predictions.faces)?;
    let (boxes, landmarks) = (values(predictions.boxes)?, values(predictions.landmarks)?);
    let stride = retinaface::STRIDES_PX[level] as f32;
    for (index, logits) in logits.chunks_exact(2).enumerate() {
        let score = 1.0 / (1.0 + (logits[0] - logits[1]).exp());
        if score <= LEAST_SCORE {
            continue;
        }
        let (cell, side) = (index / ANCHORS, ANCHOR_SIDES_PX[level][index % ANCHORS]);
        let centre = [(cell % columns) as f32, (cell / columns) as f32].map(|at| (at + 0.5) * stride);
        let moved = |by: &[f32]| std::array::from_fn(|axis| centre[axis] + by[axis] * VARIANCES[0] * side);
        let shape = &boxes[index * 4..][..4];
        let [x, y]: [f32; 2] = moved(shape);
        let [width, height] = [shape[2], shape[3]].map(|size| side * (size * VARIANCES[1]).exp());
        let (left, top) = (x - width / 2.0, y - height / 2.0);
        let points = &landmarks[index * 10..][..10];
        faces.push(Face {
            bounds: [left, top, left + width, top + height],
            score,
            landmarks: std::array::from_fn(|point| moved(&points[2 * point..])),
        });
    }
    Ok(())
}

/// What a level of YuNet says, as faces.
fn of_yunet(level: usize, predictions: yunet::Predictions, faces: &mut Vec<Face>) -> Result<(), Error> {
    let [_, _, columns, _] = predictions.faces.dims();
    let (logits, objects) = (values(predictions.faces)?, values(predictions.objects)?);
    let (boxes, landmarks) = (values(predictions.boxes)?, values(predictions.landmarks)?);
    let stride = yunet::STRIDES_PX[level] as f32;
    let sigmoid = |logit: f32| 1.0 / (1.0 + (-logit).exp());
    for (cell, (&logit, &object)) in logits.iter().zip(&objects).enumerate() {
        let score = (sigmoid(logit) * sigmoid(object)).sqrt();
        if score <= LEAST_SCORE {
            continue;
        }
        let corner = [(cell % columns) as f32, (cell / columns) as f32];
        let moved = |by: &[f32]| std::array::from_fn(|axis| (corner[axis] + by[axis]) * stride);
        let shape = &boxes[cell * 4..][..4];
        let [x, y]: [f32; 2] = moved(shape);
        let [width, height] = [shape[2], shape[3]].map(|size| size.exp() * stride);
        let (left, top) = (x - width / 2.0, y - height / 2.0);
        let points = &landmarks[cell * 10..][..10];
        faces.push(Face {
            bounds: [left, top, left + width, top + height],
            score,
            landmarks: std::array::from_fn(|point| moved(&points[2 * point..])),
        });
    }
    Ok(())
}

/// Of faces that are the same the surest, in the order of how sure they are.
fn surest(mut faces: Vec<Face>) -> Vec<Face> {
    faces.sort_by(|a, b| b.score.total_cmp(&a.score));
    let mut kept: Vec<Face> = Vec::new();
    for face in faces {
        if kept.iter().all(|other| shared(&face, other) <= MOST_SHARED) {
            kept.push(face);
        }
    }
    kept
}

/// What two boxes share of what they cover together.
fn shared(a: &Face, b: &Face) -> f32 {
    let area = |face: &Face| face.size().0 * face.size().1;
    let [left, top] = [0, 1].map(|side| a.bounds[side].max(b.bounds[side]));
    let [right, bottom] = [2, 3].map(|side| a.bounds[side].min(b.bounds[side]));
    let both = (right - left).max(0.0) * (bottom - top).max(0.0);
    both / (area(a) + area(b) - both)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn face(left: f32, score: f32) -> Face {
        Face { bounds: [left, 0.0, left + 10.0, 10.0], score, landmarks: [[0.0; 2]; 5] }
    }

    #[test]
    fn of_boxes_that_cover_each_other_the_surest_stays() {
        let found = surest(vec![face(1.0, 0.9), face(0.0, 0.95), face(6.0, 0.85), face(50.0, 0.99)]);
        let scores: Vec<f32> = found.iter().map(|face| face.score).collect();
        assert_eq!(scores, [0.99, 0.95, 0.85]);
    }
}
