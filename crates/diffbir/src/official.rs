//! The official models, put together from the files that their authors publish (reference 3.7, 6).

use crate::catalog::{Network, Set, Store, Task, WeightFile};
use crate::config::{AutoencoderConfig, ModelConfig, SamplingDefaults, Stage2Config};
use crate::full::{CONTROL, STAGE1};
use crate::geometry::Geometry;
use crate::model::{Loading, Parts, Stages};
use crate::{Error, Model, diffusers, faces, published};
use diffbir_diffusion::{Prediction, Terminal};
use diffbir_models::clip::ClipTextConfig;
use diffbir_models::controlnet::ControlNet;
use diffbir_models::kl::KlConfig;
use diffbir_models::parsenet::ParseNetConfig;
use diffbir_models::rrdb::RrdbConfig;
use diffbir_models::scunet::ScuNetConfig;
use diffbir_models::stage1::Stage1Config;
use diffbir_models::swinir::SwinIrConfig;
use diffbir_models::unet::UnetConfig;
use diffbir_nn::WeightError;
use diffbir_nn::checkpoint::Checkpoint;
use diffbir_nn::params::{Keys, keys_of};
use std::path::{Path, PathBuf};

/// Where Stable Diffusion's files keep their networks.
pub(crate) const UNET: &str = "model.diffusion_model";
pub(crate) const AUTOENCODER: &str = "first_stage_model";
pub(crate) const TEXT: &str = "cond_stage_model";

impl Set {
    /// Whether all files for these stages of a task are on this machine.
    pub fn is_here(&self, store: &Store, task: Task, stages: Stages) -> bool {
        self.files_for(task, stages).into_iter().all(|file| store.find(file).is_some())
    }

    /// How often the reference draws 32 bits from the CPU's generator while it builds the networks whose
    /// weights it then loads: its command line seeds before that (reference 3.10).
    pub fn construction_draws(&self, task: Task) -> u64 {
        const LATENT_DIFFUSION: u64 = 2_650_622_507;
        let [stage1, ..] = self.files_of(task);
        LATENT_DIFFUSION
            + match stage1.network {
                Network::Rrdb => 33_231_491,
                Network::ScuNet => 17_934_808,
                _ => 28_198_907,
            }
    }

    /// How its authors sample.
    pub fn sampling(&self) -> SamplingDefaults {
        SamplingDefaults {
            sampler: self.habits.sampler,
            steps: self.habits.steps,
            fidelity: 0.0,
            cfg_scale: self.habits.cfg_scale,
            s_noise: 1.0,
            prompt: self.habits.prompt.into(),
            negative_prompt: self.habits.negative_prompt.into(),
        }
    }

    /// What the model is made of.
    pub fn config(&self, task: Task) -> ModelConfig {
        let [stage1, control, base] = self.files_of(task);
        let (prediction, terminal) = match self.zero_snr {
            true => (Prediction::V, Terminal::ZeroSnr),
            false => (Prediction::Eps, Terminal::Plain),
        };
        let origin = |file: &WeightFile| format!("{}: {}, {}", file.name, file.holds, file.licence);
        ModelConfig {
            name: self.name.into(),
            origin: [stage1, control, base].map(origin).to_vec(),
            stage1: match stage1.network {
                Network::Rrdb => Stage1Config::Rrdb(RrdbConfig::official()),
                Network::ScuNet => Stage1Config::ScuNet(ScuNetConfig::official()),
                _ => Stage1Config::SwinIr(SwinIrConfig::official()),
            },
            stage2: Some(Stage2Config {
                autoencoder: AutoencoderConfig::Kl(KlConfig::official()),
                unet: UnetConfig::official(),
                text: Some(ClipTextConfig::official()),
                prediction,
                terminal,
                sampling: self.sampling(),
            }),
            geometry: Geometry::Reference,
        }
    }
}

/// The text encoder, without the mask that some copies carry and that is computed.
fn text(base: &Checkpoint) -> Checkpoint {
    base.part(TEXT).renamed(|name, shape| (name != "model.attn_mask").then(|| (name.into(), shape.to_vec())))
}

/// An error if a file does not hold what the catalog says, by names and shapes of its tensors.
pub(crate) fn expect(network: Network, path: &Path) -> Result<(), WeightError> {
    match network {
        Network::Detector => faces::expect_detector(path),
        _ => expect_tensors(network, &Checkpoint::open(path)?),
    }
}

/// What is wrong with the networks of a file, by whose names it is known which they should be; nothing if it holds none
/// that is known.
pub fn fault(file: &Checkpoint) -> Option<WeightError> {
    let is_any =
        |places: &[&str]| file.entries().any(|(name, ..)| places.iter().any(|place| name.starts_with(place)));
    if is_any(&["control_model.", "preprocess_model."]) {
        return expect_tensors(Network::Full, file).err();
    }
    if is_any(&["model.diffusion_model.", "first_stage_model.", "cond_stage_model."]) {
        return expect_tensors(Network::Base, file).err();
    }
    // Networks on their own: beginnings of names that no other has.
    type Compare = fn(&Checkpoint) -> Result<(), WeightError>;
    let alone: [(&[&str], Compare); 9] = [
        (&["zero_convs.", "middle_block_out."], |file| expect_tensors(Network::Control, file)),
        (&["output_blocks."], |file| file.expect(&unet_keys()?)),
        (&["decoder.mid.", "encoder.mid."], |file| file.expect(&autoencoder_keys()?)),
        (&["model.transformer.resblocks."], |file| file.expect(&text_keys()?)),
        (&["decoder.mid_block.", "encoder.mid_block."], |file| expect_diffusers(1, file)),
        (&["text_model."], |file| expect_diffusers(2, file)),
        (&["up_blocks.", "down_blocks."], |file| expect_diffusers(0, file)),
        (&["BboxHead.", "LandmarkHead."], faces::expect_retinaface),
        (&["out_mask_conv."], |file| expect_tensors(Network::Parser, file)),
    ];
    alone.into_iter().find(|(places, _)| is_any(places)).and_then(|(_, compare)| compare(file).err())
}

/// What the stage 1 of a file lacks that networks compute for themselves; the file is one of these by its names and
/// shapes, alone or among others.
pub(crate) fn lacking(network: Network, path: &Path) -> Result<Vec<String>, WeightError> {
    let config = match network {
        Network::SwinIr | Network::Full => Stage1Config::SwinIr(SwinIrConfig::official()),
        Network::ScuNet => Stage1Config::ScuNet(ScuNetConfig::official()),
        _ => return Ok(Vec::new()),
    };
    let file = Checkpoint::open(path)?;
    let stage1 = if network == Network::Full { file.part(STAGE1) } else { file };
    Ok(stage1.lacking(&keys_of(|params| config.build(params))?))
}

/// What is wrong with a file of Stable Diffusion in the names of the diffusers library, `place` being that of
/// [`diffusers::files`].
pub fn fault_of_diffusers(place: usize, file: &Checkpoint) -> Option<WeightError> {
    expect_diffusers(place, file).err()
}

fn expect_diffusers(place: usize, file: &Checkpoint) -> Result<(), WeightError> {
    match place {
        0 => diffusers::unet(file).expect(&unet_keys()?),
        1 => diffusers::autoencoder(file).expect(&autoencoder_keys()?),
        _ => diffusers::text(file).expect(&text_keys()?),
    }
}

fn unet_keys() -> Result<Keys, WeightError> {
    keys_of(|params| UnetConfig::official().build(params))
}

fn autoencoder_keys() -> Result<Keys, WeightError> {
    keys_of(|params| KlConfig::official().build(params))
}

fn text_keys() -> Result<Keys, WeightError> {
    keys_of(|params| ClipTextConfig::official().build(params))
}

fn expect_tensors(network: Network, file: &Checkpoint) -> Result<(), WeightError> {
    let stage1 =
        |part: &Checkpoint, config: Stage1Config| part.expect(&keys_of(|params| config.build(params))?);
    let control =
        |part: &Checkpoint| part.expect(&keys_of(|params| ControlNet::new(params, &UnetConfig::official()))?);
    let base = || {
        file.part(UNET).expect(&unet_keys()?)?;
        file.part(AUTOENCODER).expect(&autoencoder_keys()?)?;
        text(file).expect(&text_keys()?)
    };
    match network {
        Network::SwinIr => stage1(file, Stage1Config::SwinIr(SwinIrConfig::official())),
        Network::Rrdb => stage1(file, Stage1Config::Rrdb(RrdbConfig::official())),
        Network::ScuNet => stage1(file, Stage1Config::ScuNet(ScuNetConfig::official())),
        Network::Control => control(file),
        Network::Base => base(),
        Network::Full => {
            stage1(&file.part("preprocess_model"), Stage1Config::SwinIr(SwinIrConfig::official()))?;
            control(&file.part("control_model"))?;
            base()
        }
        Network::Parser => file.expect(&keys_of(|params| ParseNetConfig::official().build(params))?),
        Network::Stage1 => match published::stage1_of(file) {
            Ok(_) => Ok(()),
            Err(closest) => Err(closest.unwrap_or_else(|| WeightError::File {
                file: file.name().into(),
                reason: "holds no stage 1 that is known: is it the right file?".into(),
            })),
        },
        // Of these every hash is known.
        Network::Metric | Network::Detector => Ok(()),
    }
}

/// Names, or beginnings of names up to a dot or underscore.
const BESIDE: [&str; 12] = [
    "betas",
    "alphas_cumprod",
    "sqrt_alphas_cumprod",
    "sqrt_one_minus_alphas_cumprod",
    "log_one_minus_alphas_cumprod",
    "sqrt_recip_alphas_cumprod",
    "sqrt_recipm1_alphas_cumprod",
    "posterior",
    "lvlb_weights",
    "logvar",
    "scale_factor",
    "model_ema",
];

/// Whether a tensor of this name is what files of Stable Diffusion hold beside networks: a schedule, averages.
pub fn is_beside_networks(name: &str) -> bool {
    BESIDE.iter().any(|start| {
        name.strip_prefix(start).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '_']))
    })
}

/// Tensors of a file of several networks that lie in no known place. They are left out; what lies in a place and is not
/// known there is an error.
pub(crate) fn strangers(network: Network, path: &Path) -> Result<Vec<String>, WeightError> {
    let places: &[&str] = match network {
        Network::Base => &[UNET, AUTOENCODER, TEXT],
        Network::Full => &[UNET, AUTOENCODER, TEXT, "preprocess_model", "control_model", "cond_encoder"],
        _ => return Ok(Vec::new()),
    };
    let is_known = |name: &str| {
        places.iter().any(|place| name.strip_prefix(place).is_some_and(|rest| rest.starts_with('.')))
            || is_beside_networks(name)
    };
    let file = Checkpoint::open(path)?;
    Ok(file.entries().map(|(name, ..)| name).filter(|name| !is_known(name)).map(String::from).collect())
}

impl Parts {
    /// The networks of a stage 1, a control branch, and Stable Diffusion: its original file, or a folder in the
    /// layout of the diffusers library.
    pub fn of_files(stage1: &Path, control: &Path, base: &Path) -> Result<Self, Error> {
        let (stage1, control) = (Checkpoint::open(stage1)?, Checkpoint::open(control)?);
        if base.is_dir() {
            let [unet, autoencoder, text] = diffusers::files(base).ok_or_else(|| {
                Error::Option(format!(
                    "{}: is a folder without the files of unet, vae and text_encoder",
                    base.display()
                ))
            })?;
            return Ok(Self {
                stage1,
                autoencoder: diffusers::autoencoder(&Checkpoint::open(&autoencoder)?),
                unet: diffusers::unet(&Checkpoint::open(&unet)?),
                control,
                text: diffusers::text(&Checkpoint::open(&text)?),
            });
        }
        let base = Checkpoint::open(base)?;
        Ok(Self {
            stage1,
            autoencoder: base.part(AUTOENCODER),
            unet: base.part(UNET),
            control,
            text: text(&base),
        })
    }

    /// The networks of a full checkpoint of v1. Its condition encoder is the autoencoder's once more.
    pub fn of_full(file: &Path) -> Result<Self, Error> {
        let full = Checkpoint::open(file)?;
        Ok(Self {
            stage1: full.part(STAGE1),
            autoencoder: full.part(AUTOENCODER),
            unet: full.part(UNET),
            control: full.part(CONTROL),
            text: text(&full),
        })
    }
}

/// Where a file of a set lies.
fn find(set: &Set, file: &'static WeightFile, store: &Store) -> Result<PathBuf, Error> {
    store.find(file).ok_or_else(|| {
        Error::Option(format!(
            "{} of model {} is not here: `diffbir models pull {}` gets it, or put it into {}",
            file.name,
            set.name,
            set.name,
            store.folder().display()
        ))
    })
}

impl Model {
    /// An official model for a task, from files on this machine.
    ///
    /// # Errors
    /// When a file is missing, saying how to get it, or when it is not what it should be.
    pub fn official(set: &Set, task: Task, store: &Store, loading: Loading) -> Result<Self, Error> {
        let find = |file| find(set, file, store);
        let [stage1, control, base] = set.files_of(task);
        let parts = match loading.stages {
            Stages::All => Parts::of_files(&find(stage1)?, &find(control)?, &find(base)?)?,
            Stages::First => Parts { stage1: Checkpoint::open(&find(stage1)?)?, ..Parts::default() },
        };
        Self::assemble(set.config(task), parts, loading)
    }

    /// The model for the faces of a picture beside this one, which is `set` for all around them. Where only stage 1 is
    /// another, the rest is in memory once.
    ///
    /// # Errors
    /// As [`Model::official`].
    pub fn official_faces(&self, set: &Set, store: &Store, loading: Loading) -> Result<Self, Error> {
        let ([stage1, rest @ ..], [_, around @ ..]) = (set.files_of(Task::Face), set.files_of(Task::Sr));
        if rest != around {
            return Self::official(set, Task::Face, store, loading);
        }
        self.with_stage1(set.config(Task::Face), Checkpoint::open(&find(set, stage1, store)?)?, loading)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::TensorData;

    #[test]
    fn networks_are_known_by_what_is_left_of_them() {
        let told = |names: &[&str]| {
            let tensors = names.iter().map(|name| (name.to_string(), TensorData::new(vec![0f32], [1])));
            fault(&Checkpoint::from_tensors(tensors.collect())).map(|fault| fault.to_string())
        };
        for (name, first) in [
            ("first_stage_model.a", "model.diffusion_model.time_embed.0."),
            ("preprocess_model.a", "preprocess_model.conv_first."),
            ("middle_block_out.0.weight", "time_embed.0."),
            ("output_blocks.1.a", "time_embed.0."),
            ("decoder.mid.a", "encoder.conv_in."),
            ("model.transformer.resblocks.0.a", "model."),
            ("up_blocks.0.a", "time_embedding.linear_1."),
            ("encoder.mid_block.a", "encoder.conv_in."),
            ("text_model.a", "text_model."),
            ("BboxHead.0.a", "body."),
            ("out_mask_conv.a", "encoder."),
        ] {
            let told = told(&[name]).unwrap_or_default();
            assert!(told.contains(&format!("lacks the tensor `{first}")), "{name}: {told}");
        }
        assert_eq!(told(&["a"]), None);
    }

    #[test]
    fn tensors_of_no_known_place_are_found() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("sd.ckpt");
        let names = [
            "model.diffusion_model.a",
            "cond_stage_modelx.a",
            "betas",
            "model_ema.decay",
            "foreign.b",
            "logvarx",
        ];
        let tensors = names.map(|name| (name.to_string(), TensorData::new(vec![0f32], [1])));
        let file = Checkpoint::from_tensors(tensors.into());
        std::fs::write(&path, file.to_safetensors(false).unwrap()).unwrap();
        let found = |network| strangers(network, &path).unwrap();
        assert_eq!(found(Network::Base), ["cond_stage_modelx.a", "foreign.b", "logvarx"]);
        assert!(found(Network::Control).is_empty());
    }
}
