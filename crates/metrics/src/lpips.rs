//! LPIPS 0.1 (Zhang, Isola, Efros, Shechtman, Wang, "The unreasonable effectiveness of deep features as a
//! perceptual metric", arXiv 1801.03924).
//!
//! Two pictures go through the convolutions of AlexNet or VGG-16 (as in torchvision). After each of five
//! layers, the features of every pixel are brought to length 1; the squares of their differences, weighted by
//! channel and averaged over the picture, are a layer's distance, and the five add up. Source of the
//! structure: the authors' `lpips` 0.1.4 (BSD-2-Clause).

use crate::{MetricError, Picture};
use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor, TensorData};
use diffbir_nn::checkpoint::Checkpoint;
use diffbir_nn::layers::{Conv2d, Conv2dConfig};
use diffbir_nn::params::{Init, Precision, build_in};
use diffbir_nn::{Params, WeightError, ops};
use rayon::prelude::*;
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

    /// That of a file's features, by the size of their first kernel.
    fn of(file: &Checkpoint) -> Self {
        let first = file.entries().find(|(name, ..)| *name == "features.0.weight");
        if first.is_some_and(|(_, shape, _)| shape.last() == Some(&11)) { Self::AlexNet } else { Self::Vgg16 }
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
    /// Weights of the channels, `[1, channels, 1, 1]`.
    linear: Param<Tensor<4>>,
}

impl Lpips {
    /// The network, its tensors at `params`: the backbone's `features.N` and the weights `linN.model.1`.
    pub fn new(params: &Params, backbone: Backbone) -> Result<Self, WeightError> {
        let parts = backbone.layers().into_iter().zip(backbone.channels()).zip(backbone.pooled_px());
        let layers = parts.enumerate().map(|(layer, ((convolutions, channels), pooled_px))| {
            let build =
                |(index, config): (usize, Conv2dConfig)| config.build(&params.at("features").at(index));
            let features = convolutions.into_iter().map(build).collect::<Result<_, _>>()?;
            let linear = params.at(format!("lin{layer}.model.1"));
            let linear = linear.tensor("weight", [1, channels, 1, 1], Init::FanIn)?;
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
        Self::built(read(files)?, backbone, device)
    }

    /// [`Lpips::open`] with the backbone that the files are of.
    pub fn open_any<P: AsRef<Path>>(files: &[P], device: &Device) -> Result<Self, MetricError> {
        let file = read(files)?;
        let backbone = Backbone::of(&file);
        Self::built(file, backbone, device)
    }

    fn built(mut file: Checkpoint, backbone: Backbone, device: &Device) -> Result<Self, MetricError> {
        let network = build_in(Precision::F32, &mut file, device, |params| Self::new(params, backbone))?;
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
        let mut x =
            Features { shape: [2, a.height_px, a.width_px, 3], values: [input(a), input(b)].concat() };
        let mut distances = Vec::new();
        for Layer { pooled_px, features, linear } in &self.layers {
            if *pooled_px > 0 {
                x = x.pooled(*pooled_px);
            }
            let from = Tensor::from_data(TensorData::new(x.values, x.shape), &device);
            let to = features.iter().fold(from, |x, convolution| ops::relu(convolution.forward(x)));
            x = Features::from(to);
            distances.push(x.distance(&Features::from(linear.val()).values));
        }
        Ok(distances)
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
            let channels = x.dims()[3];
            let weights = layer.linear.val().reshape([1, 1, 1, channels]);
            far.push((difference.powi_scalar(2) * weights).sum_dim(3));
        }
        far
    }
}

/// `[height, width, 3]`, as the networks take pictures.
fn input(picture: &Picture) -> Vec<f32> {
    let value = |level: u8, c: usize| (f32::from(level) / 127.5 - 1.0 - SHIFT[c]) / SCALE[c];
    let values: [[f32; 256]; 3] = [0, 1, 2].map(|c| std::array::from_fn(|level| value(level as u8, c)));
    let mut out = vec![0.0; picture.rgb.len()];
    let row = 3 * picture.width_px;
    out.par_chunks_mut(row).zip(picture.rgb.par_chunks(row)).for_each(|(out, levels)| {
        for (out, levels) in out.chunks_exact_mut(3).zip(levels.chunks_exact(3)) {
            out[0] = values[0][usize::from(levels[0])];
            out[1] = values[1][usize::from(levels[1])];
            out[2] = values[2][usize::from(levels[2])];
        }
    });
    out
}

/// What a layer makes of two pictures, `[2, height, width, channels]`, on the host: burn's own operations would go
/// over all of it on one thread, once for each term.
struct Features {
    shape: [usize; 4],
    values: Vec<f32>,
}

impl From<Tensor<4>> for Features {
    fn from(x: Tensor<4>) -> Self {
        let shape = x.dims();
        Self { shape, values: x.into_data().try_into_vec().expect("networks compute in f32") }
    }
}

impl Features {
    /// The largest value of each channel in windows of `side` x `side` pixels that lie wholly inside, two pixels
    /// apart.
    fn pooled(&self, side: usize) -> Self {
        let [pictures, height, width, channels] = self.shape;
        let [new_height, new_width] = [height, width].map(|length| (length - side) / 2 + 1);
        let mut values = vec![f32::NEG_INFINITY; pictures * new_height * new_width * channels];
        values.par_chunks_exact_mut(new_width * channels).enumerate().for_each(|(row, largest)| {
            let top = row / new_height * height + row % new_height * 2;
            for line in (top..top + side).map(|y| &self.values[y * width * channels..][..width * channels]) {
                for (x, largest) in largest.chunks_exact_mut(channels).enumerate() {
                    for pixel in line[2 * x * channels..].chunks_exact(channels).take(side) {
                        largest.iter_mut().zip(pixel).for_each(|(most, value)| *most = most.max(*value));
                    }
                }
            }
        });
        Self { shape: [pictures, new_height, new_width, channels], values }
    }

    /// The mean over pixels of the squares, with their weights, of how far the two pictures' channels lie apart,
    /// each pixel brought to length 1.
    fn distance(&self, weights: &[f32]) -> f64 {
        let [_, height, width, channels] = self.shape;
        let (a, b) = self.values.split_at(self.values.len() / 2);
        let row = width * channels;
        let of_row = |(a, b): (&[f32], &[f32])| -> f64 {
            let pixels = a.chunks_exact(channels).zip(b.chunks_exact(channels));
            pixels.map(|(a, b)| f64::from(apart(a, b, weights))).sum()
        };
        let rows: Vec<f64> = a.par_chunks(row).zip(b.par_chunks(row)).map(of_row).collect();
        rows.iter().sum::<f64>() / (height * width) as f64
    }
}

/// Of one pixel.
fn apart(a: &[f32], b: &[f32], weights: &[f32]) -> f32 {
    let scale = |pixel: &[f32]| 1.0 / (sum(pixel.len(), |i| pixel[i] * pixel[i]).sqrt() + 1e-10);
    let (scale_a, scale_b) = (scale(a), scale(b));
    let count = a.len().min(b.len()).min(weights.len());
    let (a, b, weights) = (&a[..count], &b[..count], &weights[..count]);
    sum(count, |i| weights[i] * (a[i] * scale_a - b[i] * scale_b).powi(2))
}

/// The sum of as many terms, in an order that fills the processor's registers.
#[inline(always)]
fn sum(count: usize, term: impl Fn(usize) -> f32) -> f32 {
    const LANES: usize = 16;
    let mut sums = [0.0; LANES];
    for start in (0..count / LANES * LANES).step_by(LANES) {
        for (lane, sum) in sums.iter_mut().enumerate() {
            *sum += term(start + lane);
        }
    }
    sums.iter().sum::<f32>() + (count / LANES * LANES..count).map(term).sum::<f32>()
}

/// Every pixel's features over their length. Where all are zero the root would have no derivative.
fn unit_length(x: Tensor<4>) -> Tensor<4> {
    let length = (x.clone().powi_scalar(2).sum_dim(3) + 1e-20).sqrt() + 1e-10;
    x / length
}

/// The tensors of one file or two.
fn read<P: AsRef<Path>>(files: &[P]) -> Result<Checkpoint, MetricError> {
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
    let names: Vec<String> = files.iter().map(|path| path.as_ref().display().to_string()).collect();
    Ok(file.named(&names.join(" and ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use diffbir_nn::params::{RandomInit, build};

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

    #[test]
    fn windows_that_reach_out_do_not_count() {
        // Rows of 10, 11, .. and 20, 21, .., two channels, the second negative; windows at 0 and 2.
        let row = |start: i32| (0..6).flat_map(move |x| [(start + x) as f32, -(start + x) as f32]);
        let values = [10, 20, 30, 40, 50, 60].into_iter().flat_map(row).collect();
        let found = Features { shape: [2, 3, 6, 2], values }.pooled(3);
        assert_eq!(found.shape, [2, 1, 2, 2]);
        assert_eq!(found.values, [32.0, -10.0, 34.0, -12.0, 62.0, -40.0, 64.0, -42.0]);
    }

    #[test]
    fn distances_are_of_directions() {
        // 19 channels, more than one run of the sum: pixels along the first, the last, and half of each.
        let pixel = |first: f32, last: f32| [vec![first], vec![0.0; 17], vec![last]].concat();
        let a = [pixel(3.0, 0.0), pixel(0.0, 0.0)].concat();
        let b = [pixel(0.6, 0.8), pixel(0.0, 0.0)].concat();
        let features = Features { shape: [2, 1, 2, 19], values: [a, b].concat() };
        let mut weights = vec![1.0; 19];
        weights[18] = 2.0;
        // (.4² + 2 x .8²) over two pixels.
        assert!((features.distance(&weights) - 0.72).abs() < 1e-6);
    }
}
