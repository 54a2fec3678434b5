//! Which pixels of an aligned face are face (reference 3.8, step 10).

use super::Manner;
use crate::error::{Error, Stage};
use crate::restore::{to_tensor, values};
use burn::tensor::Device;
use diffbir_imaging::resize::{self, Filter};
use diffbir_imaging::{Raster, mask};
use diffbir_models::parsenet::{PARTS, ParseNet, ParseNetConfig, SIDE_PX};
use diffbir_nn::checkpoint::Checkpoint;
use diffbir_nn::params::{Precision, build_in};
use std::path::Path;

/// The parts that are replaced: all but background, what hangs from ears, neck and what is worn there and below.
const REPLACED: [bool; PARTS] = {
    let mut parts = [true; PARTS];
    parts[0] = false;
    parts[14] = false;
    parts[16] = false;
    parts[17] = false;
    parts[18] = false;
    parts
};

/// The mask is blurred twice, so far and with this deviation.
const BLUR_PX: usize = 50;
const BLUR_DEVIATION_PX: f64 = 11.0;

/// What is left of the background along the edges.
const BORDER_PX: usize = 10;

/// A network that tells the parts of an aligned face apart.
pub struct Parser {
    network: ParseNet,
    device: Device,
}

impl Parser {
    /// ParseNet from its published file, in this precision.
    pub fn open(path: &Path, precision: Precision, device: &Device) -> Result<Self, Error> {
        let mut file = Checkpoint::open(path)?;
        let config = ParseNetConfig::official();
        let network = build_in(precision, &mut file, device, |params| config.build(params))?;
        file.expect_all_used()?;
        Ok(Self { network, device: device.clone() })
    }

    /// How much of each pixel of an aligned face replaces the picture, 0 to 1, `SIDE_PX` wide and high.
    pub fn mask(&self, face: &Raster, manner: Manner) -> Result<Raster, Error> {
        let mut input = face.clone();
        if input.size() != (SIDE_PX, SIDE_PX) {
            input = resize::float(&input, SIDE_PX, SIDE_PX, Filter::Bilinear);
        }
        for pixel in input.data.chunks_exact_mut(3) {
            // The reference feeds blue as red.
            if manner == Manner::Reference {
                pixel.swap(0, 2);
            }
            pixel.iter_mut().for_each(|value| *value = *value * 2.0 - 1.0);
        }
        let logits = values(self.network.forward(to_tensor(&input, &self.device)), Stage::Detect)?;
        Ok(soft(logits.chunks_exact(PARTS).map(|logits| REPLACED[likeliest(logits)])))
    }
}

/// The first of the largest.
fn likeliest(logits: &[f32]) -> usize {
    (1..logits.len()).fold(0, |best, at| if logits[at] > logits[best] { at } else { best })
}

/// A mask of pixels without its hard edges.
fn soft(replaced: impl Iterator<Item = bool>) -> Raster {
    let data = replaced.map(|replaced| f32::from(u8::from(replaced))).collect();
    let hard = Raster { width_px: SIDE_PX, height_px: SIDE_PX, channels: 1, data };
    let blurred = |mask: &Raster| mask::blur(mask, BLUR_PX, BLUR_DEVIATION_PX);
    let mut soft = blurred(&blurred(&hard));
    for (index, value) in soft.data.iter_mut().enumerate() {
        let inner = BORDER_PX..SIDE_PX - BORDER_PX;
        if !inner.contains(&(index % SIDE_PX)) || !inner.contains(&(index / SIDE_PX)) {
            *value = 0.0;
        }
    }
    soft
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_are_soft_and_end_before_the_edge() {
        let mask = soft((0..SIDE_PX * SIDE_PX).map(|index| index % SIDE_PX < 256));
        let at = |x: usize, y: usize| mask.data[y * SIDE_PX + x];
        assert!(at(100, 256) > 0.999 && at(400, 256) < 0.001 && (at(256, 256) - 0.5).abs() < 0.05);
        assert_eq!([at(5, 256), at(100, 9), at(100, 502)], [0.0; 3]);
        assert!(at(10, 256) > 0.9);
        assert_eq!(likeliest(&[1.0, 3.0, 3.0, 2.0]), 1);
    }
}
