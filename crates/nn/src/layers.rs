//! The layers that networks are built from. Each is made by asking [`Params`] for its tensors under the
//! names that PyTorch's module of the same kind has.

use crate::observe::told;
use crate::ops::{self, Following};
use crate::params::{Init, Params, WeightError};
use crate::weight::Weight;
use burn::module::{Module, Param};
use burn::tensor::{DType, Int, Tensor};
use diffbir_kernels::Products;
use diffbir_kernels::conv::Rectifier;
use std::ops::Range;

/// A convolution over `[batch, height, width, channels]`.
#[derive(Module, Debug)]
pub struct Conv2d {
    weight: Weight<4>,
    /// `[out]`.
    bias: Option<Param<Tensor<1>>>,
    #[module(skip)]
    stride: usize,
    #[module(skip)]
    padding: (usize, usize),
    #[module(skip)]
    doubled: bool,
}

/// The shape of a [`Conv2d`].
#[derive(Clone, Copy, Debug)]
pub struct Conv2dConfig {
    input: usize,
    output: usize,
    kernel: usize,
    stride: usize,
    padding: (usize, usize),
    doubled: bool,
    bias: bool,
    init: Init,
}

impl Conv2dConfig {
    /// Step 1, a bias, and the padding that keeps height and width for an odd kernel.
    pub fn new(input: usize, output: usize, kernel: usize) -> Self {
        let half = kernel / 2;
        let (padding, init) = ((half, half), Init::FanIn);
        Self { input, output, kernel, stride: 1, padding, doubled: false, bias: true, init }
    }

    /// With this step between output pixels.
    pub fn stride(self, stride: usize) -> Self {
        Self { stride, ..self }
    }

    /// With zeros `before` the first and `after` the last row and column.
    pub fn padding(self, before: usize, after: usize) -> Self {
        Self { padding: (before, after), ..self }
    }

    /// 3 x 3 behind nearest upsampling: height and width are doubled by repeating pixels first.
    pub fn doubling(input: usize, output: usize) -> Self {
        Self { doubled: true, ..Self::new(input, output, 3) }
    }

    /// Without a bias.
    pub fn no_bias(self) -> Self {
        Self { bias: false, ..self }
    }

    /// Zero weights and bias at the start of training.
    pub fn zero(self) -> Self {
        Self { init: Init::Constant(0.0), ..self }
    }

    /// The layer, its tensors at `params`.
    pub fn build(self, params: &Params) -> Result<Conv2d, WeightError> {
        let fan_in = self.input * self.kernel * self.kernel;
        let bias_init = if self.init == Init::FanIn { Init::BiasOf(fan_in) } else { self.init };
        Ok(Conv2d {
            weight: params.convolution(
                "weight",
                [self.output, self.kernel, self.input],
                self.init,
                self.doubled,
            )?,
            bias: self.bias.then(|| params.tensor("bias", [self.output], bias_init)).transpose()?,
            stride: self.stride,
            padding: self.padding,
            doubled: self.doubled,
        })
    }
}

impl Conv2d {
    /// In which numbers it multiplies on the CPU; an attention on its results does the same.
    pub fn products(&self) -> Products {
        self.weight.products()
    }

    /// Pixels between the places that it looks at, 1 or more.
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// Whether height and width are doubled.
    pub fn doubles(&self) -> bool {
        self.doubled
    }

    /// How many rows of its input it sees, at most, above and below those that lie where a row of its output lies.
    pub fn reach(&self) -> (usize, usize) {
        self.padding
    }

    /// `[batch, height, width, in]` to `[batch, height', width', out]`.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let bias = self.bias.as_ref().map(Param::val);
        if self.doubled {
            return self.weight.convolve_doubled(x, bias);
        }
        self.weight.convolve(x, bias, self.stride, self.padding)
    }

    /// [`Conv2d::forward`], to which `rest` is added, if there is one, and then `rectifier` applied.
    pub fn forward_then(&self, x: Tensor<4>, rest: Option<Tensor<4>>, rectifier: Rectifier) -> Tensor<4> {
        let bias = self.bias.as_ref().map(Param::val);
        let following = Following { rest, rectifier, rows: None };
        let (x, Following { rest, .. }) =
            match self.weight.convolve_then(x, bias, self.stride, self.padding, following) {
                Ok(y) => return y,
                Err(given) => given,
            };
        let y = match rest {
            Some(rest) => self.onto(x, rest),
            None => self.forward(x),
        };
        match rectifier {
            Rectifier::None => y,
            Rectifier::Relu => ops::relu(y),
            Rectifier::Leaky(slope) => ops::leaky_relu(y, f64::from(slope)),
        }
    }

    /// [`Conv2d::forward`] added to `rest`.
    pub fn forward_onto(&self, x: Tensor<4>, rest: Tensor<4>) -> Tensor<4> {
        self.forward_then(x, Some(rest), Rectifier::None)
    }

    /// These rows of [`Conv2d::forward`], to which `rest` is added, if there is one: no others are computed where that is one
    /// operation.
    pub fn forward_rows(&self, x: Tensor<4>, rest: Option<Tensor<4>>, rows: Range<usize>) -> Tensor<4> {
        let cut = |y: Tensor<4>| {
            if rows == (0..y.dims()[1]) { y } else { y.slice_dim(1, rows.clone()) }
        };
        let (x, rest) = if self.doubled {
            (x, rest)
        } else {
            let following = Following { rest, rows: Some(rows.clone()), ..Following::NOTHING };
            let bias = self.bias.as_ref().map(Param::val);
            match self.weight.convolve_then(x, bias, self.stride, self.padding, following) {
                Ok(y) => return y,
                Err((x, following)) => (x, following.rest),
            }
        };
        let y = cut(self.forward(x));
        rest.into_iter().fold(y, ops::sum)
    }

    /// The same where it is not one operation.
    fn onto(&self, x: Tensor<4>, rest: Tensor<4>) -> Tensor<4> {
        if self.doubled || ops::on_cpu(&x.device()) {
            return ops::sum(self.forward(x), rest);
        }
        let y = self.weight.convolve(x, None, self.stride, self.padding);
        ops::add(y, self.bias.as_ref().map(Param::val), rest)
    }
}

/// A transposed convolution without overlap: its step is as long as its kernel. No bias.
#[derive(Module, Debug)]
pub struct ConvTranspose2d {
    /// `[in, out, kernel, kernel]`.
    weight: Param<Tensor<4>>,
}

impl ConvTranspose2d {
    /// From `input` to `output` channels and `kernel` times the size.
    pub fn new(params: &Params, input: usize, output: usize, kernel: usize) -> Result<Self, WeightError> {
        Ok(Self { weight: params.tensor("weight", [input, output, kernel, kernel], Init::FanIn)? })
    }

    /// `[batch, height, width, in]` to `[batch, height·kernel, width·kernel, out]`.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        told(&self.weight, ops::conv_transpose_disjoint(x, self.weight.val()))
    }
}

/// A 3x3 convolution of each channel by itself, zeros around the picture. No bias.
#[derive(Module, Debug)]
pub struct DepthwiseConv2d {
    /// `[channels, 1, 3, 3]`.
    weight: Param<Tensor<4>>,
    #[module(skip)]
    stride: usize,
}

impl DepthwiseConv2d {
    /// Of `channels` channels, with this step between output pixels.
    pub fn new(params: &Params, channels: usize, stride: usize) -> Result<Self, WeightError> {
        Ok(Self { weight: params.tensor("weight", [channels, 1, 3, 3], Init::FanIn)?, stride })
    }

    /// `[batch, height, width, channels]` to `[batch, height', width', channels]`.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        told(&self.weight, ops::conv2d_depthwise(x, self.weight.val(), self.stride))
    }
}

/// A linear map of the last dimension.
#[derive(Module, Debug)]
pub struct Linear {
    weight: Weight<2>,
    /// `[out]`.
    bias: Option<Param<Tensor<1>>>,
}

impl Linear {
    /// A map from `input` to `output` features with a bias.
    pub fn new(params: &Params, input: usize, output: usize) -> Result<Self, WeightError> {
        let bias = Some(params.tensor("bias", [output], Init::BiasOf(input))?);
        Ok(Self { bias, ..Self::without_bias(params, input, output)? })
    }

    /// A map without a bias.
    pub fn without_bias(params: &Params, input: usize, output: usize) -> Result<Self, WeightError> {
        Ok(Self { weight: params.linear("weight", [output, input], Init::FanIn)?, bias: None })
    }

    /// As [`Conv2d::products`].
    pub fn products(&self) -> Products {
        self.weight.products()
    }

    /// `[.., in]` to `[.., out]`.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        self.weight.multiply(x, self.bias.as_ref().map(Param::val))
    }

    /// [`Linear::forward`] and then [`ops::geglu`]: `[.., in]` to `[.., out / 2]`.
    pub fn forward_gated<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        self.weight
            .multiply_gated(x, self.bias.as_ref().map(Param::val))
            .unwrap_or_else(|x| ops::geglu(self.forward(x)))
    }

    /// [`Linear::forward`] added to `rest`.
    pub fn forward_onto<const D: usize>(&self, x: Tensor<D>, rest: Tensor<D>) -> Tensor<D> {
        let (x, rest) = match self.weight.multiply_onto(x, self.bias.as_ref().map(Param::val), rest) {
            Ok(y) => return y,
            Err(given) => given,
        };
        if ops::on_cpu(&x.device()) {
            return ops::sum(self.forward(x), rest);
        }
        ops::add(self.weight.multiply(x, None), self.bias.as_ref().map(Param::val), rest)
    }
}

/// A table of vectors, looked up by row.
#[derive(Module, Debug)]
pub struct Embedding {
    /// `[rows, width]`.
    weight: Param<Tensor<2>>,
}

impl Embedding {
    /// `rows` vectors of `width`, standard normal at the start of training as in PyTorch.
    pub fn new(params: &Params, rows: usize, width: usize) -> Result<Self, WeightError> {
        Ok(Self { weight: params.tensor("weight", [rows, width], Init::Normal(1.0))? })
    }

    /// Row numbers `[batch, n]` to `[batch, n, width]`.
    pub fn forward(&self, rows: Tensor<2, Int>) -> Tensor<3> {
        // Activations are f32, whatever the table is held in.
        burn::tensor::module::embedding(self.weight.val(), rows).cast(DType::F32)
    }
}

/// Normalisation over groups of channels and all pixels of an image.
#[derive(Module, Debug)]
pub struct GroupNorm {
    weight: Param<Tensor<1>>,
    bias: Param<Tensor<1>>,
    #[module(skip)]
    groups: usize,
    #[module(skip)]
    epsilon: f32,
}

impl GroupNorm {
    /// Over `groups` groups of `channels` channels, `epsilon` added to the variance.
    pub fn new(params: &Params, groups: usize, channels: usize, epsilon: f32) -> Result<Self, WeightError> {
        Ok(Self {
            weight: params.tensor("weight", [channels], Init::Constant(1.0))?,
            bias: params.tensor("bias", [channels], Init::Constant(0.0))?,
            groups,
            epsilon,
        })
    }

    /// Number of groups.
    pub fn groups(&self) -> usize {
        self.groups
    }

    /// What is added to the variance.
    pub fn epsilon(&self) -> f32 {
        self.epsilon
    }

    /// The affine part alone, for activations that are already normalised.
    pub fn scale_and_shift(&self, x: Tensor<4>) -> Tensor<4> {
        x * self.weight.val().unsqueeze() + self.bias.val().unsqueeze()
    }

    /// The norm with statistics that are known.
    pub fn known(&self, moments: &ops::Moments) -> KnownNorm {
        let (weight, bias) = (self.weight.val(), self.bias.val());
        let device = weight.device();
        let values = |values: Tensor<1>| values.into_data().iter::<f32>().collect::<Vec<_>>();
        let (weight, bias) = (values(weight), values(bias));
        let channels = moments.of_channels(weight.len(), self.epsilon);
        let scale: Vec<f32> = channels.iter().zip(&weight).map(|((_, rstd), weight)| rstd * weight).collect();
        let shift: Vec<f32> = channels
            .iter()
            .zip(&scale)
            .zip(&bias)
            .map(|(((mean, _), scale), bias)| bias - mean * scale)
            .collect();
        let tensor = |values: Vec<f32>| Tensor::from_floats(values.as_slice(), &device);
        KnownNorm { scale: tensor(scale), shift: tensor(shift) }
    }

    /// `[batch, height, width, channels]`, normalised.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        self.normed(x, false)
    }

    /// The same, followed by SiLU.
    pub fn forward_silu(&self, x: Tensor<4>) -> Tensor<4> {
        self.normed(x, true)
    }

    fn normed(&self, x: Tensor<4>, silu: bool) -> Tensor<4> {
        let (weight, bias) = (self.weight.val(), self.bias.val());
        told(&self.weight, ops::group_norm(x, weight, bias, self.groups, self.epsilon, silu))
    }
}

/// A [`GroupNorm`] whose statistics are known. It has no gradients.
#[derive(Clone, Debug)]
pub struct KnownNorm {
    /// `[channels]`, in f32.
    scale: Tensor<1>,
    /// `[channels]`, in f32.
    shift: Tensor<1>,
}

impl KnownNorm {
    /// The `pieces` `[1, rows, width, channels]` of a picture, one below the other, normalised, and followed by SiLU if `silu`.
    pub fn forward(&self, pieces: Vec<Tensor<4>>, silu: bool) -> Tensor<4> {
        ops::scale_and_shift(pieces, self.scale.clone(), self.shift.clone(), silu)
    }
}

/// Normalisation of each channel by the statistics that training gathered: for networks that are used and not trained.
#[derive(Module, Debug)]
pub struct BatchNorm2d {
    weight: Param<Tensor<1>>,
    bias: Param<Tensor<1>>,
    running_mean: Param<Tensor<1>>,
    running_var: Param<Tensor<1>>,
}

impl BatchNorm2d {
    /// PyTorch's default, which every network here uses.
    const EPSILON: f32 = 1e-5;

    /// Of `channels` channels.
    pub fn new(params: &Params, channels: usize) -> Result<Self, WeightError> {
        let tensor = |name: &str, value| params.tensor(name, [channels], Init::Constant(value));
        let layer = Self {
            weight: tensor("weight", 1.0)?,
            bias: tensor("bias", 0.0)?,
            running_mean: tensor("running_mean", 0.0)?,
            running_var: tensor("running_var", 1.0)?,
        };
        params.unused("num_batches_tracked", &[])?;
        Ok(layer)
    }

    /// `[batch, height, width, channels]`, normalised.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let scale = self.weight.val() / (self.running_var.val() + Self::EPSILON).sqrt();
        let shift = self.bias.val() - self.running_mean.val() * scale.clone();
        let [scale, shift] = [scale, shift].map(|values| ops::as_activations(values, &x).unsqueeze());
        told(&self.weight, x * scale + shift)
    }
}

/// Normalisation of the last dimension.
#[derive(Module, Debug)]
pub struct LayerNorm {
    weight: Param<Tensor<1>>,
    bias: Param<Tensor<1>>,
}

impl LayerNorm {
    /// PyTorch's default, which every network here uses.
    const EPSILON: f64 = 1e-5;

    /// Over `features` features.
    pub fn new(params: &Params, features: usize) -> Result<Self, WeightError> {
        Ok(Self {
            weight: params.tensor("weight", [features], Init::Constant(1.0))?,
            bias: params.tensor("bias", [features], Init::Constant(0.0))?,
        })
    }

    /// `[.., features]`, normalised.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        told(&self.weight, ops::layer_norm(x, self.weight.val(), self.bias.val(), Self::EPSILON))
    }
}

/// A leaky ReLU with one learned slope a channel, in the last dimension.
#[derive(Module, Debug)]
pub struct PRelu {
    /// `[channels]`.
    weight: Param<Tensor<1>>,
}

impl PRelu {
    /// Slopes for `channels` channels, .25 at the start of training as in PyTorch.
    pub fn new(params: &Params, channels: usize) -> Result<Self, WeightError> {
        Ok(Self { weight: params.tensor("weight", [channels], Init::Constant(0.25))? })
    }

    /// `x` where positive, else `slope · x`.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        told(&self.weight, ops::prelu(x, self.weight.val()))
    }
}
