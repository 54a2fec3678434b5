//! LPIPS 0.1 with AlexNet (Zhang, Isola, Efros, Shechtman, Wang, "The unreasonable effectiveness of deep
//! features as a perceptual metric", arXiv 1801.03924).
//!
//! Two pictures go through the convolutions of AlexNet (as in torchvision). After each of the five, the
//! features of every pixel are brought to length 1; the squares of their differences, weighted by channel
//! and averaged over the picture, are a layer's distance, and the five add up. Source of the structure: the
//! authors' `lpips` 0.1.4 (BSD-2-Clause).

use crate::{MetricError, Picture};
use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use diffbir_nn::checkpoint::Checkpoint;
use diffbir_nn::layers::{Conv2d, Conv2dConfig};
use diffbir_nn::params::build;
use diffbir_nn::{Params, WeightError, ops};
use std::path::Path;

/// Smallest picture that leaves AlexNet something to pool.
const LEAST_PX: usize = 31;
/// Mean and deviation of the pictures that AlexNet was trained on, for values -1..1.
const SHIFT: [f32; 3] = [-0.030, -0.088, -0.188];
const SCALE: [f32; 3] = [0.458, 0.448, 0.450];

/// The network; see the module.
#[derive(Module, Debug)]
pub struct Lpips {
    features: Vec<Conv2d>,
    /// Weights of each layer's channels.
    linear: Vec<Conv2d>,
}

impl Lpips {
    /// The network, its tensors at `params`: AlexNet's `features.N` and the weights `linN.model.1`.
    pub fn new(params: &Params) -> Result<Self, WeightError> {
        let convolution = |index: usize, config: Conv2dConfig| config.build(&params.at("features").at(index));
        let features = vec![
            convolution(0, Conv2dConfig::new(3, 64, 11).stride(4).padding(2, 2))?,
            convolution(3, Conv2dConfig::new(64, 192, 5))?,
            convolution(6, Conv2dConfig::new(192, 384, 3))?,
            convolution(8, Conv2dConfig::new(384, 256, 3))?,
            convolution(10, Conv2dConfig::new(256, 256, 3))?,
        ];
        let linear = [64, 192, 384, 256, 256].into_iter().enumerate().map(|(layer, channels)| {
            Conv2dConfig::new(channels, 1, 1).no_bias().build(&params.at(format!("lin{layer}.model.1")))
        });
        Ok(Self { features, linear: linear.collect::<Result<_, _>>()? })
    }

    /// From a file with exactly the tensors of [`Lpips::new`].
    pub fn open(path: &Path, device: &Device) -> Result<Self, MetricError> {
        let mut file = Checkpoint::open(path)?;
        let (network, _) = build(&mut file, device, Self::new)?;
        file.expect_all_used()?;
        Ok(network)
    }

    /// The distance: 0 for equal pictures, about .1 for what is hard to tell apart, .7 for strangers.
    ///
    /// sRGB from 0..255 to -1..1 at the size of the pictures, which are not resized; computed in f32, means
    /// over pixels in f64. Agrees with PyPI's `lpips` 0.1.4 (`net="alex"`) and pyiqa's `lpips`.
    pub fn distance(&self, a: &Picture, b: &Picture) -> Result<f64, MetricError> {
        Ok(self.distances(a, b)?.iter().sum())
    }

    /// The distance of each of the five layers.
    pub fn distances(&self, a: &Picture, b: &Picture) -> Result<Vec<f64>, MetricError> {
        a.same_size(b)?;
        a.at_least(LEAST_PX, "LPIPS")?;
        let device = self.devices().into_iter().next().expect("it has weights");
        let mut x = Tensor::cat(vec![input(a, &device), input(b, &device)], 0);
        let mut distances = Vec::new();
        for (layer, (convolution, linear)) in self.features.iter().zip(&self.linear).enumerate() {
            if layer == 1 || layer == 2 {
                x = ops::max_pool2d(x, 3, 2);
            }
            x = ops::relu(convolution.forward(x));
            let unit = unit_length(x.clone());
            let difference = unit.clone().slice_dim(0, 0..1) - unit.slice_dim(0, 1..2);
            let far = linear.forward(difference.powi_scalar(2)).into_data();
            let pixels = far.num_elements() as f64;
            distances.push(far.iter::<f32>().map(f64::from).sum::<f64>() / pixels);
        }
        Ok(distances)
    }
}

/// `[1, height, width, 3]`, as AlexNet takes pictures.
fn input(picture: &Picture, device: &Device) -> Tensor<4> {
    let value = |(level, c): (&u8, usize)| (f32::from(*level) / 127.5 - 1.0 - SHIFT[c]) / SCALE[c];
    let values: Vec<f32> = picture.rgb.iter().zip([0, 1, 2].into_iter().cycle()).map(value).collect();
    Tensor::from_data(TensorData::new(values, [1, picture.height_px, picture.width_px, 3]), device)
}

/// Every pixel's features over their length.
fn unit_length(x: Tensor<4>) -> Tensor<4> {
    let length = x.clone().powi_scalar(2).sum_dim(3).sqrt() + 1e-10;
    x / length
}
