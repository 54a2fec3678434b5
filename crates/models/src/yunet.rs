//! YuNet (Wu and others, Machine Intelligence Research 2023), a network of 54 thousand parameters that finds faces and five
//! landmarks of each.
//!
//! Pairs of convolutions, across channels and of each channel by itself, on features of 1/8, 1/16 and 1/32 of the size,
//! which are joined from coarse to fine; four heads on each. Source of the structure: the graph of `yunet_n_dynamic.onnx` of
//! libfacedetection (BSD-3-Clause). Tensors are named by the number of their convolution in the order of that graph.

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use diffbir_nn::layers::{Conv2d, Conv2dConfig, DepthwiseConv2d};
use diffbir_nn::params::Init;
use diffbir_nn::{Params, WeightError, ops};

/// Pixels of a cell of each level.
pub const STRIDES_PX: [usize; 3] = [8, 16, 32];

/// Sides of the input are multiples of this.
pub const MULTIPLE_PX: usize = 32;

/// Width of all features but the first ones.
const FEATURES: usize = 64;
const FIRST_FEATURES: usize = 16;

/// The network; see the module.
#[derive(Module, Debug)]
pub struct YuNet {
    first: Conv2d,
    /// The second half of stage 0, then two pairs for each stage.
    backbone: Vec<Pair>,
    /// From coarse to fine.
    laterals: Vec<Pair>,
    /// From fine to coarse, as all below.
    shared: Vec<Pair>,
    faces: Vec<Pair>,
    boxes: Vec<Pair>,
    objects: Vec<Pair>,
    landmarks: Vec<Pair>,
}

/// What one level of the network says, `[b, h, w, values]`.
pub struct Predictions {
    /// Logit of a face.
    pub faces: Tensor<4>,
    /// Logit of anything at all.
    pub objects: Tensor<4>,
    /// Centre and logarithm of the size, in cells.
    pub boxes: Tensor<4>,
    /// Five points, in cells.
    pub landmarks: Tensor<4>,
}

impl YuNet {
    /// The published network, its tensors at `params`.
    pub fn new(params: &Params) -> Result<Self, WeightError> {
        let mut next = 1;
        let mut pair = |input: usize, output: usize| {
            let pair = Pair::new(&params.at(next), &params.at(next + 1), input, output);
            next += 2;
            pair
        };
        let mut backbone = vec![
            pair(FIRST_FEATURES, FIRST_FEATURES)?,
            pair(FIRST_FEATURES, FIRST_FEATURES)?,
            pair(FIRST_FEATURES, FEATURES)?,
        ];
        for _ in 0..8 {
            backbone.push(pair(FEATURES, FEATURES)?);
        }
        let mut levels = |output: usize| -> Result<Vec<Pair>, WeightError> {
            STRIDES_PX.iter().map(|_| pair(FEATURES, output)).collect()
        };
        Ok(Self {
            first: Conv2dConfig::new(3, FIRST_FEATURES, 3).stride(2).padding(1, 1).build(&params.at(0))?,
            backbone,
            laterals: levels(FEATURES)?,
            shared: levels(FEATURES)?,
            faces: levels(1)?,
            boxes: levels(4)?,
            objects: levels(1)?,
            landmarks: levels(10)?,
        })
    }

    /// BGR in 0..255, `[b, h, w, 3]`, sides multiples of [`MULTIPLE_PX`], to predictions of each level, whose cells are the
    /// size over [`STRIDES_PX`].
    pub fn forward(&self, x: Tensor<4>) -> Vec<Predictions> {
        let halved = |x: Tensor<4>| ops::max_pool2d(x, 2, 2);
        let mut x = halved(self.backbone[0].forward_relu(ops::relu(self.first.forward(x))));
        let mut features = Vec::with_capacity(STRIDES_PX.len());
        for (stage, pairs) in self.backbone[1..].chunks(2).enumerate() {
            x = pairs.iter().fold(x, |x, pair| pair.forward_relu(x));
            // Stages 1 and 2 have one size.
            if stage >= 2 {
                features.push(x.clone());
            }
            if (1..4).contains(&stage) {
                x = halved(x);
            }
        }
        for (step, lateral) in self.laterals.iter().enumerate() {
            let level = features.len() - 1 - step;
            if step > 0 {
                let coarse = ops::upsample_nearest2x(features[level + 1].clone());
                features[level] = features[level].clone() + coarse;
            }
            features[level] = lateral.forward_relu(features[level].clone());
        }
        let predict = |(level, x): (usize, Tensor<4>)| {
            let x = self.shared[level].forward_relu(x);
            Predictions {
                faces: self.faces[level].forward(x.clone()),
                objects: self.objects[level].forward(x.clone()),
                boxes: self.boxes[level].forward(x.clone()),
                landmarks: self.landmarks[level].forward(x),
            }
        };
        features.into_iter().enumerate().map(predict).collect()
    }
}

/// A convolution across channels, then one of each channel by itself.
#[derive(Module, Debug)]
struct Pair {
    pointwise: Conv2d,
    depthwise: DepthwiseConv2d,
    bias: Param<Tensor<1>>,
}

impl Pair {
    fn new(first: &Params, second: &Params, input: usize, output: usize) -> Result<Self, WeightError> {
        Ok(Self {
            pointwise: Conv2dConfig::new(input, output, 1).build(first)?,
            depthwise: DepthwiseConv2d::new(second, output, 1)?,
            bias: second.tensor("bias", [output], Init::Constant(0.0))?,
        })
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        self.depthwise.forward(self.pointwise.forward(x)) + self.bias.val().unsqueeze()
    }

    fn forward_relu(&self, x: Tensor<4>) -> Tensor<4> {
        ops::relu(self.forward(x))
    }
}
