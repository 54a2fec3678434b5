//! v1's full checkpoint, with which its training starts and its page is run: all networks in one file (reference 5.2,
//! 6).

use crate::model::Parts;
use crate::official::{AUTOENCODER, TEXT, UNET};
use burn::tensor::TensorData;
use diffbir_diffusion::{Schedule, Terminal};
use diffbir_models::clip::ClipTextConfig;
use diffbir_models::controlnet::ControlNet;
use diffbir_models::kl::KlConfig;
use diffbir_models::swinir::SwinIrConfig;
use diffbir_models::unet::UnetConfig;
use diffbir_nn::WeightError;
use diffbir_nn::checkpoint::Checkpoint;
use diffbir_nn::params::keys_of;
use std::collections::BTreeMap;

/// Where v1 keeps its own networks.
pub(crate) const STAGE1: &str = "preprocess_model";
pub(crate) const CONTROL: &str = "control_model";
const CONDITION: &str = "cond_encoder";

impl Parts {
    /// An error if these are not the networks of v1, whole and at their official sizes.
    pub fn expect_v1(&self) -> Result<(), WeightError> {
        let unet = UnetConfig::official();
        self.stage1.expect_parameters(&keys_of(|params| SwinIrConfig::official().build(params))?)?;
        self.autoencoder.expect_parameters(&keys_of(|params| KlConfig::official().build(params))?)?;
        self.unet.expect_parameters(&keys_of(|params| unet.build(params))?)?;
        self.control.expect_parameters(&keys_of(|params| ControlNet::new(params, &unet))?)?;
        self.text.expect_parameters(&keys_of(|params| ClipTextConfig::official().build(params))?)
    }

    /// The full checkpoint of v1. Its condition encoder is the autoencoder's once more.
    pub fn into_full(self) -> Checkpoint {
        let Self { stage1, autoencoder, unet, control, text } = self;
        let mut full = Checkpoint::from_tensors(schedule_buffers());
        for half in ["encoder", "quant_conv"] {
            full.insert(&format!("{CONDITION}.{half}"), autoencoder.part(half));
        }
        let places = [STAGE1, AUTOENCODER, UNET, CONTROL, TEXT];
        for (place, part) in places.into_iter().zip([stage1, autoencoder, unet, control, text]) {
            full.insert(place, part);
        }
        full
    }
}

/// What the diffusion model of v1 keeps of its schedule, each for 1000 timesteps.
fn schedule_buffers() -> BTreeMap<String, TensorData> {
    let bar = Schedule::new(Terminal::Plain).alpha_bar;
    let before = |t: usize| if t == 0 { 1.0 } else { bar[t - 1] };
    let beta = |t: usize| 1.0 - bar[t] / before(t);
    let variance = |t: usize| beta(t) * (1.0 - before(t)) / (1.0 - bar[t]);
    let each: [(&str, &dyn Fn(usize) -> f64); 13] = [
        ("betas", &beta),
        ("alphas_cumprod", &|t| bar[t]),
        ("alphas_cumprod_prev", &before),
        ("sqrt_alphas_cumprod", &|t| bar[t].sqrt()),
        ("sqrt_one_minus_alphas_cumprod", &|t| (1.0 - bar[t]).sqrt()),
        ("log_one_minus_alphas_cumprod", &|t| (1.0 - bar[t]).ln()),
        ("sqrt_recip_alphas_cumprod", &|t| (1.0 / bar[t]).sqrt()),
        ("sqrt_recipm1_alphas_cumprod", &|t| (1.0 / bar[t] - 1.0).sqrt()),
        ("posterior_variance", &variance),
        ("posterior_log_variance_clipped", &|t| variance(t).max(1e-20).ln()),
        ("posterior_mean_coef1", &|t| beta(t) * before(t).sqrt() / (1.0 - bar[t])),
        ("posterior_mean_coef2", &|t| (1.0 - before(t)) * (1.0 - beta(t)).sqrt() / (1.0 - bar[t])),
        ("logvar", &|_| 0.0),
    ];
    let values = |f: &dyn Fn(usize) -> f64| {
        TensorData::new((0..bar.len()).map(|t| f(t) as f32).collect::<Vec<_>>(), [bar.len()])
    };
    each.map(|(name, f)| (name.to_string(), values(f))).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_those_of_the_linear_schedule() {
        let buffers = schedule_buffers();
        let at = |name: &str, t: usize| buffers[name].iter::<f32>().nth(t).unwrap();
        assert_eq!(buffers.len(), 13);
        // Stable Diffusion's own file.
        assert_eq!(at("betas", 0), 0.00085);
        assert!((at("betas", 999) - 0.012).abs() < 1e-9);
        assert_eq!(at("posterior_variance", 0), 0.0);
        assert!((at("posterior_log_variance_clipped", 0) + 46.051_7).abs() < 1e-4);
        assert_eq!((at("posterior_mean_coef1", 0), at("posterior_mean_coef2", 0)), (1.0, 0.0));
        assert!((at("alphas_cumprod", 999) - 0.004_660_1).abs() < 1e-7);
    }

    #[test]
    fn only_networks_of_v1_go_into_it() {
        let none = Parts::default().expect_v1().unwrap_err().to_string();
        assert!(none.contains("lacks the tensor"), "{none}");
        let keys = keys_of(|params| SwinIrConfig::official().build(params)).unwrap();
        let entries = keys.parameters().map(|(_, name, shape)| {
            let count = shape.iter().product::<usize>();
            (name.to_string(), TensorData::new(vec![0.0f32; count], shape.to_vec()))
        });
        let stage1 = Checkpoint::from_tensors(entries.collect()).named("swinir");
        let parts = Parts { stage1, ..Parts::default() };
        let rest = parts.expect_v1().unwrap_err().to_string();
        assert!(!rest.contains("swinir"), "stage 1 is whole, so another part is told of: {rest}");
    }

    #[test]
    fn its_parts_are_found_again() {
        let part = |name: &str, value: f32| {
            Checkpoint::from_tensors(BTreeMap::from([(name.into(), TensorData::new(vec![value], [1]))]))
        };
        let mut autoencoder = part("encoder.conv_in.bias", 2.0);
        autoencoder.insert("quant_conv", part("bias", 3.0));
        autoencoder.insert("decoder", part("conv_in.bias", 4.0));
        let parts = Parts {
            stage1: part("conv_first.bias", 1.0),
            autoencoder,
            unet: part("out.2.bias", 5.0),
            control: part("zero_convs.0.0.bias", 6.0),
            text: part("model.ln_final.bias", 7.0),
        };
        let folder = tempfile::TempDir::new().unwrap();
        let file = folder.path().join("full.ckpt");
        let mut bytes = Vec::new();
        parts.into_full().write_pytorch(Some("state_dict"), &mut bytes).unwrap();
        std::fs::write(&file, bytes).unwrap();
        let whole = Checkpoint::open(&file).unwrap();
        let value = |whole: &Checkpoint, name: &str| whole.get(name).unwrap().unwrap().1[0];
        assert_eq!(value(&whole, "cond_encoder.encoder.conv_in.bias"), 2.0);
        assert_eq!(value(&whole, "cond_encoder.quant_conv.bias"), 3.0);
        assert!(!whole.contains("cond_encoder.decoder.conv_in.bias"));
        let again = Parts::of_full(&file).unwrap();
        assert_eq!(value(&again.stage1, "conv_first.bias"), 1.0);
        assert_eq!(value(&again.autoencoder, "decoder.conv_in.bias"), 4.0);
        assert_eq!(value(&again.unet, "out.2.bias"), 5.0);
        assert_eq!(value(&again.control, "zero_convs.0.0.bias"), 6.0);
        assert_eq!(value(&again.text, "model.ln_final.bias"), 7.0);
    }
}
