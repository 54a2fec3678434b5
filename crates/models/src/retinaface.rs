//! RetinaFace (arXiv 1905.00641), which finds faces and five landmarks of each (reference 1.8).
//!
//! A backbone gives features at 1/8, 1/16 and 1/32 of the size, which are joined from coarse to fine; on each, branches
//! of growing reach and three heads predict, for two squares a cell, whether it is a face, where its box and where its
//! landmarks are. Source of the structure: facexlib 0.3.0 (MIT), `detection/retinaface_net.py`; of the ResNet
//! torchvision's `resnet50` (BSD-3-Clause).

use burn::module::Module;
use burn::tensor::Tensor;
use diffbir_nn::layers::{BatchNorm2d, Conv2d, Conv2dConfig, DepthwiseConv2d};
use diffbir_nn::{Params, WeightError, ops};

/// Squares that each cell of the features predicts for.
pub const ANCHORS: usize = 2;

/// Pixels of a cell of each level.
pub const STRIDES_PX: [usize; 3] = [8, 16, 32];

/// Sides of the squares of a cell of each level, in pixels.
pub const ANCHOR_SIDES_PX: [[f32; ANCHORS]; 3] = [[16.0, 32.0], [64.0, 128.0], [256.0, 512.0]];

/// What is subtracted from blue, green and red in 0..255.
pub const MEAN_BGR: [f32; 3] = [104.0, 117.0, 123.0];

/// The network that gives the features.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backbone {
    /// MobileNetV1 a quarter as wide: 426,608 parameters with the heads.
    MobileNet,
    /// ResNet-50: 27,293,600 parameters with the heads, as the reference has it.
    ResNet50,
}

/// The sizes of a [`RetinaFace`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetinaFaceConfig {
    /// What gives the features.
    pub backbone: Backbone,
    /// Width of the narrowest layers of the backbone.
    pub width: usize,
    /// Width of the joined features.
    pub features: usize,
}

impl RetinaFaceConfig {
    /// `mobile0.25`.
    pub fn mobile() -> Self {
        Self { backbone: Backbone::MobileNet, width: 8, features: 64 }
    }

    /// `resnet50`, the reference's.
    pub fn resnet50() -> Self {
        Self { backbone: Backbone::ResNet50, width: 64, features: 256 }
    }

    /// The network, its tensors at `params`.
    pub fn build(&self, params: &Params) -> Result<RetinaFace, WeightError> {
        let (body, features) = (params.at("body"), self.features);
        let body = match self.backbone {
            Backbone::MobileNet => Body::MobileNet(MobileNet::new(&body, self.width)?),
            Backbone::ResNet50 => Body::ResNet(ResNet::new(&body, self.width)?),
        };
        // Narrow features keep a little of what is negative.
        let slope = if features <= 64 { 0.1 } else { 0.0 };
        let fpn = params.at("fpn");
        let block = |params: Params, input, output, kernel| {
            Block::new(&params, input, output, kernel, 1, Some(slope))
        };
        let level = |index: usize| {
            let ssh = params.at(format_args!("ssh{}", index + 1));
            let quarter = features / 4;
            let plain = |name: &str, input, output| Block::new(&ssh.at(name), input, output, 3, 1, None);
            let head = |name: &str, values: usize| {
                let params = params.at(name).at(index).at("conv1x1");
                Conv2dConfig::new(features, ANCHORS * values, 1).build(&params)
            };
            Ok::<_, WeightError>(Level {
                lateral: block(
                    fpn.at(format_args!("output{}", index + 1)),
                    (8 << index) * self.width,
                    features,
                    1,
                )?,
                near: plain("conv3X3", features, features / 2)?,
                first: block(ssh.at("conv5X5_1"), features, quarter, 3)?,
                middle: plain("conv5X5_2", quarter, quarter)?,
                second: block(ssh.at("conv7X7_2"), quarter, quarter, 3)?,
                far: plain("conv7x7_3", quarter, quarter)?,
                faces: head("ClassHead", 2)?,
                boxes: head("BboxHead", 4)?,
                landmarks: head("LandmarkHead", 10)?,
            })
        };
        Ok(RetinaFace {
            body,
            levels: (0..STRIDES_PX.len()).map(level).collect::<Result<_, _>>()?,
            merges: (1..=2)
                .map(|index| block(fpn.at(format_args!("merge{index}")), features, features, 3))
                .collect::<Result<_, _>>()?,
        })
    }
}

/// The network; see the module.
#[derive(Module, Debug)]
pub struct RetinaFace {
    body: Body,
    levels: Vec<Level>,
    /// After the coarser features were added to those of level 0 and 1.
    merges: Vec<Block>,
}

/// What one level of the network says, `[b, h, w, ANCHORS · values]`.
pub struct Predictions {
    /// Logits of no face and face.
    pub faces: Tensor<4>,
    /// Centre and size of the box, relative to the square.
    pub boxes: Tensor<4>,
    /// Five points, relative to the square.
    pub landmarks: Tensor<4>,
}

impl RetinaFace {
    /// BGR in 0..255 less [`MEAN_BGR`], `[b, h, w, 3]`, to predictions of each level, whose cells are the size over
    /// [`STRIDES_PX`], rounded up.
    pub fn forward(&self, x: Tensor<4>) -> Vec<Predictions> {
        let features = match &self.body {
            Body::MobileNet(body) => body.forward(x),
            Body::ResNet(body) => body.forward(x),
        };
        let mut features: Vec<Tensor<4>> =
            self.levels.iter().zip(features).map(|(level, x)| level.lateral.forward(x)).collect();
        for (index, merge) in self.merges.iter().enumerate().rev() {
            let fine = features[index].clone();
            let [_, height, width, _] = fine.dims();
            let coarse = ops::upsample_nearest2x(features[index + 1].clone());
            let coarse = coarse.slice_dim(1, 0..height).slice_dim(2, 0..width);
            features[index] = merge.forward(fine + coarse);
        }
        self.levels.iter().zip(features).map(|(level, x)| level.predict(x)).collect()
    }
}

/// One of the three sizes of features: how it is joined, widened and read.
#[derive(Module, Debug)]
struct Level {
    lateral: Block,
    near: Block,
    first: Block,
    middle: Block,
    second: Block,
    far: Block,
    faces: Conv2d,
    boxes: Conv2d,
    landmarks: Conv2d,
}

impl Level {
    fn predict(&self, x: Tensor<4>) -> Predictions {
        let first = self.first.forward(x.clone());
        let far = self.far.forward(self.second.forward(first.clone()));
        let x = Tensor::cat(vec![self.near.forward(x), self.middle.forward(first), far], 3);
        let x = ops::relu(x);
        Predictions {
            faces: self.faces.forward(x.clone()),
            boxes: self.boxes.forward(x.clone()),
            landmarks: self.landmarks.forward(x),
        }
    }
}

#[derive(Module, Debug)]
#[allow(clippy::large_enum_variant, reason = "there is one a network")]
enum Body {
    MobileNet(MobileNet),
    ResNet(ResNet),
}

/// A convolution, its norm, and a leaky ReLU where there is a slope.
#[derive(Module, Debug)]
struct Block {
    conv: Conv2d,
    norm: BatchNorm2d,
    #[module(skip)]
    slope: Option<f64>,
}

impl Block {
    /// Its tensors at `0` and `1` of `params`.
    fn new(
        params: &Params,
        input: usize,
        output: usize,
        kernel: usize,
        stride: usize,
        slope: Option<f64>,
    ) -> Result<Self, WeightError> {
        Self::named([params.at(0), params.at(1)], input, output, kernel, stride, slope)
    }

    fn named(
        [conv, norm]: [Params; 2],
        input: usize,
        output: usize,
        kernel: usize,
        stride: usize,
        slope: Option<f64>,
    ) -> Result<Self, WeightError> {
        Ok(Self {
            conv: Conv2dConfig::new(input, output, kernel).stride(stride).no_bias().build(&conv)?,
            norm: BatchNorm2d::new(&norm, output)?,
            slope,
        })
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        activate(self.norm.forward(self.conv.forward(x)), self.slope)
    }
}

fn activate(x: Tensor<4>, slope: Option<f64>) -> Tensor<4> {
    match slope {
        None => x,
        Some(0.0) => ops::relu(x),
        Some(slope) => ops::leaky_relu(x, slope),
    }
}

/// MobileNetV1 (arXiv 1704.04861): convolutions of each channel by itself, then across channels.
#[derive(Module, Debug)]
struct MobileNet {
    first: Block,
    stages: Vec<Vec<Separable>>,
}

impl MobileNet {
    fn new(params: &Params, width: usize) -> Result<Self, WeightError> {
        let stage = |name: &str, first: usize, layers: &[(usize, usize, usize)]| {
            let params = params.at(name);
            let layer = |(index, &(input, output, stride)): (usize, &(usize, usize, usize))| {
                Separable::new(&params.at(first + index), input * width, output * width, stride)
            };
            layers.iter().enumerate().map(layer).collect::<Result<Vec<_>, _>>()
        };
        let wide = (16, 16, 1);
        Ok(Self {
            first: Block::new(&params.at("stage1.0"), 3, width, 3, 2, Some(Separable::SLOPE))?,
            stages: vec![
                stage("stage1", 1, &[(1, 2, 1), (2, 4, 2), (4, 4, 1), (4, 8, 2), (8, 8, 1)])?,
                stage("stage2", 0, &[(8, 16, 2), wide, wide, wide, wide, wide])?,
                stage("stage3", 0, &[(16, 32, 2), (32, 32, 1)])?,
            ],
        })
    }

    fn forward(&self, x: Tensor<4>) -> Vec<Tensor<4>> {
        let mut x = self.first.forward(x);
        let mut features = Vec::with_capacity(self.stages.len());
        for stage in &self.stages {
            x = stage.iter().fold(x, |x, layer| layer.forward(x));
            features.push(x.clone());
        }
        features
    }
}

#[derive(Module, Debug)]
struct Separable {
    depthwise: DepthwiseConv2d,
    norm: BatchNorm2d,
    pointwise: Block,
}

impl Separable {
    const SLOPE: f64 = 0.1;

    fn new(params: &Params, input: usize, output: usize, stride: usize) -> Result<Self, WeightError> {
        Ok(Self {
            depthwise: DepthwiseConv2d::new(&params.at(0), input, stride)?,
            norm: BatchNorm2d::new(&params.at(1), input)?,
            pointwise: Block::named([params.at(3), params.at(4)], input, output, 1, 1, Some(Self::SLOPE))?,
        })
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let x = activate(self.norm.forward(self.depthwise.forward(x)), Some(Self::SLOPE));
        self.pointwise.forward(x)
    }
}

/// ResNet-50 (arXiv 1512.03385) without its classifier.
#[derive(Module, Debug)]
struct ResNet {
    first: Block,
    layers: Vec<Vec<Bottleneck>>,
}

impl ResNet {
    /// Blocks of the four layers.
    const DEPTHS: [usize; 4] = [3, 4, 6, 3];
    /// Output over inner width of a block.
    const EXPANSION: usize = 4;

    fn new(params: &Params, width: usize) -> Result<Self, WeightError> {
        let relu = Some(0.0);
        let mut layers = Vec::with_capacity(Self::DEPTHS.len());
        let mut input = width;
        for (index, depth) in Self::DEPTHS.into_iter().enumerate() {
            let (params, inner) = (params.at(format_args!("layer{}", index + 1)), width << index);
            let mut layer = Vec::with_capacity(depth);
            for block in 0..depth {
                let stride = if block == 0 && index > 0 { 2 } else { 1 };
                layer.push(Bottleneck::new(&params.at(block), input, inner, stride)?);
                input = inner * Self::EXPANSION;
            }
            layers.push(layer);
        }
        Ok(Self {
            first: Block::named([params.at("conv1"), params.at("bn1")], 3, width, 7, 2, relu)?,
            layers,
        })
    }

    /// Features of all layers but the first.
    fn forward(&self, x: Tensor<4>) -> Vec<Tensor<4>> {
        // Nothing is negative, so that zeros around never are the largest.
        let mut x = ops::max_pool2d(ops::pad_zero(self.first.forward(x), (1, 1), (1, 1)), 3, 2);
        let mut features = Vec::with_capacity(self.layers.len());
        for layer in &self.layers {
            x = layer.iter().fold(x, |x, block| block.forward(x));
            features.push(x.clone());
        }
        features.split_off(1)
    }
}

#[derive(Module, Debug)]
struct Bottleneck {
    narrow: Block,
    middle: Block,
    wide: Block,
    /// Where the size changes.
    shortcut: Option<Block>,
}

impl Bottleneck {
    fn new(params: &Params, input: usize, inner: usize, stride: usize) -> Result<Self, WeightError> {
        let output = inner * ResNet::EXPANSION;
        let named =
            |index: usize| [params.at(format_args!("conv{index}")), params.at(format_args!("bn{index}"))];
        let shortcut =
            (input != output).then(|| Block::new(&params.at("downsample"), input, output, 1, stride, None));
        Ok(Self {
            narrow: Block::named(named(1), input, inner, 1, 1, Some(0.0))?,
            middle: Block::named(named(2), inner, inner, 3, stride, Some(0.0))?,
            wide: Block::named(named(3), inner, output, 1, 1, None)?,
            shortcut: shortcut.transpose()?,
        })
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let y = self.wide.forward(self.middle.forward(self.narrow.forward(x.clone())));
        let x = match &self.shortcut {
            Some(shortcut) => shortcut.forward(x),
            None => x,
        };
        ops::relu(x + y)
    }
}
