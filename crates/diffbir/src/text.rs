//! Prompts to what the denoiser reads: tokens, then the text encoder (reference 1.4).

use crate::resident::{Lent, Resident};
use burn::tensor::{Device, Int, Tensor, TensorData};
use diffbir_models::clip::ClipText;
use diffbir_nn::WeightError;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// So many prompts are remembered: a folder has one or two, a service that runs for long has many.
const REMEMBERED: usize = 64;

/// A text encoder that remembers what it has made of each prompt.
pub(crate) struct TextEncoder {
    pub(crate) network: Resident<ClipText>,
    device: Device,
    known: Mutex<HashMap<String, Tensor<3>>>,
}

impl TextEncoder {
    pub(crate) fn new(network: Resident<ClipText>, device: &Device) -> Self {
        Self { network, device: device.clone(), known: Mutex::default() }
    }

    /// The contexts of prompts, `[1, tokens, width]` each.
    pub(crate) fn contexts(&self, prompts: [&str; 2]) -> Result<[Tensor<3>; 2], WeightError> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() > REMEMBERED {
            known.clear();
        }
        let mut network: Option<Lent<ClipText>> = None;
        for prompt in prompts {
            if !known.contains_key(prompt) {
                let network = match &mut network {
                    Some(network) => network,
                    none => none.insert(self.network.lend()?),
                };
                known.insert(prompt.into(), self.encode(network, prompt));
            }
        }
        Ok(prompts.map(|prompt| known[prompt].clone()))
    }

    fn encode(&self, network: &ClipText, prompt: &str) -> Tensor<3> {
        let ids = diffbir_text::tokens(prompt).map(i64::from);
        let ids = TensorData::new(ids.to_vec(), [1, ids.len()]);
        network.forward(Tensor::<2, Int>::from_data(ids, &self.device))
    }
}
