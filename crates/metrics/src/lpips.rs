//! LPIPS 0.1 (Zhang, Isola, Efros, Shechtman, Wang, "The unreasonable effectiveness of deep features as a
//! perceptual metric", arXiv 1801.03924).
//!
//! Two pictures go through the convolutions of AlexNet or VGG-16 (as in torchvision). After each of five
//! layers, the features of every pixel are brought to length 1; the squares of their differences, weighted by
//! channel and averaged over the picture, are a layer's distance, and the five add up. Source of the
//! structure: the authors' `lpips` 0.1.4 (BSD-2-Clause).

use crate::{MetricError, Picture};
use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use diffbir_nn::checkpoint::Checkpoint;
use diffbir_nn::layers::{Conv2d, Conv2dConfig};
use diffbir_nn::params::build;
use diffbir_nn::{Params, WeightError, ops};
use std::path::Path;

/// Mean and deviation of the pictures that the networks were trained on, for values -1..1.
const SHIFT: [f32; 3] = [-0.030, -0.088, -0.188];
const SCALE: [f32; 3] = [0.458, 0.448, 0.450];

/// The network whose features are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backbone {
    /// The authors' choice for measuring, and that of most tables.
    AlexNet,
    /// Nearer to a loss; its values are higher.
    Vgg16,
}

impl Backbone {
    /// The convolutions of each layer by torchvision's numbers.
    fn layers(self) -> [Vec<(usize, Conv2dConfig)>; 5] {
        let three = |(index, input, output)| (index, Conv2dConfig::new(input, output, 3));
        match self {
            Self::AlexNet => [
                vec![(0, Conv2dConfig::new(3, 64, 11).stride(4).padding(2, 2))],
                vec![(3, Conv2dConfig::new(64, 192, 5))],
                vec![three((6, 192, 384))],
                vec![three((8, 384, 256))],
                vec![three((10, 256, 256))],
            ],
            Self::Vgg16 => [
                [(0, 3, 64), (2, 64, 64)].map(three).to_vec(),
                [(5, 64, 128), (7, 128, 128)].map(three).to_vec(),
                [(10, 128, 256), (12, 256, 256), (14, 256, 256)].map(three).to_vec(),
                [(17, 256, 512), (19, 512, 512), (21, 512, 512)].map(three).to_vec(),
                [(24, 512, 512), (26, 512, 512), (28, 512, 512)].map(three).to_vec(),
            ],
        }
    }

    fn channels(self) -> [usize; 5] {
        match self {
            Self::AlexNet => [64, 192, 384, 256, 256],
            Self::Vgg16 => [64, 128, 256, 512, 512],
        }
    }

    /// Width of the windows, two pixels apart, whose largest values go into each layer; 0 for none.
    fn pooled_px(self) -> [usize; 5] {
        match self {
            Self::AlexNet => [0, 3, 3, 0, 0],
            Self::Vgg16 => [0, 2, 2, 2, 2],
        }
    }

    /// Smallest picture that leaves something to pool.
    fn least_px(self) -> usize {
        match self {
            Self::AlexNet => 31,
            Self::Vgg16 => 16,
        }
    }
}

/// The network; see the module.
#[derive(Module, Debug)]
pub struct Lpips {
    layers: Vec<Layer>,
    least_px: usize,
}

#[derive(Module, Debug)]
struct Layer {
    pooled_px: usize,
    features: Vec<Conv2d>,
    /// Weights of the channels.
    linear: Conv2d,
}

impl Lpips {
    /// The network, its tensors at `params`: the backbone's `features.N` and the weights `linN.model.1`.
    pub fn new(params: &Params, backbone: Backbone) -> Result<Self, WeightError> {
        let parts = backbone.layers().into_iter().zip(backbone.channels()).zip(backbone.pooled_px());
        let layers = parts.enumerate().map(|(layer, ((convolutions, channels), pooled_px))| {
            let build =
                |(index, config): (usize, Conv2dConfig)| config.build(&params.at("features").at(index));
            let features = convolutions.into_iter().map(build).collect::<Result<_, _>>()?;
            let linear = Conv2dConfig::new(channels, 1, 1).no_bias();
            let linear = linear.build(&params.at(format!("lin{layer}.model.1")))?;
            Ok(Layer { pooled_px, features, linear })
        });
        Ok(Self { layers: layers.collect::<Result<_, WeightError>>()?, least_px: backbone.least_px() })
    }

    /// From one file with exactly the tensors of [`Lpips::new`], or from torchvision's file of the backbone,
    /// whose classifier is left out, and the authors' file of `linN.model.1`, in any order.
    pub fn open<P: AsRef<Path>>(
        files: &[P],
        backbone: Backbone,
        device: &Device,
    ) -> Result<Self, MetricError> {
        let mut file = Checkpoint::default();
        for path in files {
            let part = Checkpoint::open(path.as_ref())?;
            if files.len() > 1 && part.contains("features.0.weight") {
                file.insert("features", part.part("features"));
            } else {
                let features = file.part("features");
                file = part;
                file.insert("features", features);
            }
        }
        let (network, _) = build(&mut file, device, |params| Self::new(params, backbone))?;
        file.expect_all_used()?;
        Ok(network)
    }

    /// The distance: 0 for equal pictures; by AlexNet about .1 for what is hard to tell apart, .7 for strangers.
    ///
    /// sRGB from 0..255 to -1..1 at the size of the pictures, which are not resized; computed in f32, means
    /// over pixels in f64. Agrees with PyPI's `lpips` 0.1.4 (`net="alex"`, `net="vgg"`) and pyiqa's `lpips`.
    pub fn distance(&self, a: &Picture, b: &Picture) -> Result<f64, MetricError> {
        Ok(self.distances(a, b)?.iter().sum())
    }

    /// The distance of each of the five layers.
    pub fn distances(&self, a: &Picture, b: &Picture) -> Result<Vec<f64>, MetricError> {
        a.same_size(b)?;
        a.at_least(self.least_px, "LPIPS")?;
        let device = self.devices().into_iter().next().expect("it has weights");
        let both = Tensor::cat(vec![input(a, &device), input(b, &device)], 0);
        let mean = |far: Tensor<4>| {
            let far = far.into_data();
            far.iter::<f32>().map(f64::from).sum::<f64>() / far.num_elements() as f64
        };
        Ok(self.far(both).into_iter().map(mean).collect())
    }

    /// The distance of each pair of pictures `[b, h, w, 3]` with values 0..1, as `[b]`: what a loss is made of.
    pub fn between(&self, a: Tensor<4>, b: Tensor<4>) -> Tensor<1> {
        let pairs = a.dims()[0];
        let device = a.device();
        let row = |values: [f32; 3]| Tensor::<1>::from_floats(values, &device).reshape([1, 1, 1, 3]);
        let both = (Tensor::cat(vec![a, b], 0) * 2.0 - 1.0 - row(SHIFT)) / row(SCALE);
        let mean = |far: Tensor<4>| far.mean_dim(1).mean_dim(2).reshape([pairs]);
        let layers = self.far(both).into_iter().map(mean);
        layers.reduce(|sum, layer| sum + layer).expect("five layers")
    }

    /// How far apart the features of each layer lie at each pixel, `[b, h, w, 1]`, of first pictures and, behind
    /// them, second ones.
    fn far(&self, both: Tensor<4>) -> Vec<Tensor<4>> {
        let pairs = both.dims()[0] / 2;
        let mut x = both;
        let mut far = Vec::new();
        for layer in &self.layers {
            if layer.pooled_px > 0 {
                x = ops::max_pool2d(x, layer.pooled_px, 2);
            }
            for convolution in &layer.features {
                x = ops::relu(convolution.forward(x));
            }
            let unit = unit_length(x.clone());
            let difference = unit.clone().slice_dim(0, 0..pairs) - unit.slice_dim(0, pairs..2 * pairs);
            far.push(layer.linear.forward(difference.powi_scalar(2)));
        }
        far
    }
}

/// `[1, height, width, 3]`, as the networks take pictures.
fn input(picture: &Picture, device: &Device) -> Tensor<4> {
    let value = |(level, c): (&u8, usize)| (f32::from(*level) / 127.5 - 1.0 - SHIFT[c]) / SCALE[c];
    let values: Vec<f32> = picture.rgb.iter().zip([0, 1, 2].into_iter().cycle()).map(value).collect();
    Tensor::from_data(TensorData::new(values, [1, picture.height_px, picture.width_px, 3]), device)
}

/// Every pixel's features over their length. Where all are zero the root would have no derivative.
fn unit_length(x: Tensor<4>) -> Tensor<4> {
    let length = (x.clone().powi_scalar(2).sum_dim(3) + 1e-20).sqrt() + 1e-10;
    x / length
}

#[cfg(test)]
mod tests {
    use super::*;
    use diffbir_nn::params::RandomInit;

    fn network(device: &Device) -> Lpips {
        let mut random = RandomInit { seed: 3 };
        build(&mut random, device, |params| Lpips::new(params, Backbone::Vgg16)).unwrap().0
    }

    fn picture(step: u8) -> Picture {
        let rgb = (0..32 * 32 * 3u32).map(|i| (i as u8).wrapping_mul(step)).collect();
        Picture { width_px: 32, height_px: 32, rgb }
    }

    fn tensor(pictures: &[&Picture], device: &Device) -> Tensor<4> {
        let values: Vec<f32> =
            pictures.iter().flat_map(|p| &p.rgb).map(|&level| f32::from(level) / 255.0).collect();
        Tensor::from_data(TensorData::new(values, [pictures.len(), 32, 32, 3]), device)
    }

    #[test]
    fn the_loss_is_the_distance_of_each_pair() {
        let device = Device::flex();
        let network = network(&device);
        let (a, b, c) = (picture(3), picture(5), picture(7));
        let between = network.between(tensor(&[&a, &b], &device), tensor(&[&c, &b], &device));
        let between: Vec<f32> = between.into_data().iter::<f32>().collect();
        let distance = network.distance(&a, &c).unwrap() as f32;
        assert!((between[0] - distance).abs() < 1e-5 * distance.abs(), "{between:?} {distance}");
        assert_eq!(between[1], 0.0);
    }

    /// Where a layer says nothing at a place, its length is zero.
    #[test]
    fn the_loss_has_a_derivative_everywhere() {
        let device = Device::flex().autodiff();
        let network = network(&device);
        let x = (tensor(&[&picture(3)], &device) * 0.0).require_grad();
        let silent =
            Tensor::cat(vec![x.clone().slice_dim(1, 0..16) - 1e6, x.clone().slice_dim(1, 16..32)], 1);
        let gradients = network.between(silent, tensor(&[&picture(5)], &device)).sum().backward();
        let gradient = x.grad(&gradients).unwrap();
        assert!(gradient.into_data().iter::<f32>().all(f32::is_finite));
    }
}
