//! Prompts to what the denoiser reads: tokens, then the text encoder (reference 1.4).

use burn::tensor::{Device, Int, Tensor, TensorData};
use diffbir_models::clip::ClipText;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// So many prompts are remembered: a folder has one or two, a service that runs for long has many.
const REMEMBERED: usize = 64;

/// A text encoder that remembers what it has made of each prompt.
pub(crate) struct TextEncoder {
    network: ClipText,
    device: Device,
    known: Mutex<HashMap<String, Tensor<3>>>,
}

impl TextEncoder {
    pub(crate) fn new(network: ClipText, device: &Device) -> Self {
        Self { network, device: device.clone(), known: Mutex::default() }
    }

    /// The context of a prompt, `[1, tokens, width]`.
    pub(crate) fn context(&self, prompt: &str) -> Tensor<3> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() > REMEMBERED {
            known.clear();
        }
        known.entry(prompt.into()).or_insert_with(|| self.encode(prompt)).clone()
    }

    fn encode(&self, prompt: &str) -> Tensor<3> {
        let ids = diffbir_text::tokens(prompt).map(i64::from);
        let ids = TensorData::new(ids.to_vec(), [1, ids.len()]);
        self.network.forward(Tensor::<2, Int>::from_data(ids, &self.device))
    }
}
