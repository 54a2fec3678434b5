//! Stable Diffusion in the layout of the diffusers library: a folder `unet`, `vae`, `text_encoder`, whose tensors
//! have other names, and in part other shapes, than in the original file (reference 6).

use diffbir_nn::checkpoint::Checkpoint;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

/// Residual blocks a level on the way down; one more on the way up.
const BLOCKS: usize = 2;
/// Levels of the UNet and of the autoencoder.
const LEVELS: usize = 4;
/// Layers of the text encoder; copies without the last, which no prompt needs, have one less.
const TEXT_LAYERS: usize = 24;
/// The text encoder's projections, in the order in which the original has them in one tensor.
const PROJECTIONS: [&str; 3] = ["q_proj", "k_proj", "v_proj"];

/// The autoencoder's attention in the library's names and in the original ones.
const ATTENTION: [(&str, &str); 5] =
    [("group_norm", "norm"), ("to_q", "q"), ("to_k", "k"), ("to_v", "v"), ("to_out.0", "proj_out")];
/// What old versions of the library name otherwise.
const OLD_ATTENTION: [(&str, &str); 4] =
    [("query", "q"), ("key", "k"), ("value", "v"), ("proj_attn", "proj_out")];

/// The files of the networks in such a folder: UNet, autoencoder, text encoder.
pub fn files(folder: &Path) -> Option<[PathBuf; 3]> {
    // Whole weights before those in half precision.
    let first = |part: &str, [safetensors, pytorch]: [&str; 2]| {
        let names = [("", "safetensors"), ("", "bin"), (".fp16", "safetensors"), (".fp16", "bin")];
        let path = |(variant, format): (&str, &str)| {
            let stem = if format == "bin" { pytorch } else { safetensors };
            folder.join(part).join(format!("{stem}{variant}.{format}"))
        };
        names.into_iter().map(path).find(|file| file.is_file())
    };
    let network = ["diffusion_pytorch_model"; 2];
    Some([
        first("unet", network)?,
        first("vae", network)?,
        first("text_encoder", ["model", "pytorch_model"])?,
    ])
}

/// The UNet under its original names. A name that is not known stays, so that it is refused as it is.
pub(crate) fn unet(file: &Checkpoint) -> Checkpoint {
    file.renamed(|name, shape| Some((renamed(&UNET, name), shape.to_vec())))
        .missing_as(|name, shape| Some((vec![UNET.library(name)?], shape.to_vec())))
}

/// The autoencoder under its original names; linear maps of its attention become convolutions again.
pub(crate) fn autoencoder(file: &Checkpoint) -> Checkpoint {
    let is_map = |name: &str, dimensions| name.contains(".attn_1.") && dimensions == 2;
    let is_old = OLD_ATTENTION
        .iter()
        .any(|(old, _)| file.entries().any(|(name, ..)| name.contains(&format!(".attentions.0.{old}."))));
    file.renamed(|name, shape| {
        let name = renamed(&AUTOENCODER, name);
        let shape = if is_map(&name, shape.len()) { [shape, &[1, 1]].concat() } else { shape.to_vec() };
        Some((name, shape))
    })
    .missing_as(move |name, shape| {
        let sides = if name.contains(".attn_1.") { shape.len().min(2) } else { shape.len() };
        let library = if is_old { AUTOENCODER.oldest_of_library(name) } else { AUTOENCODER.library(name) };
        Some((vec![library?], shape[..sides].to_vec()))
    })
}

/// The text encoder under its original names, query, key and value in one tensor again.
pub(crate) fn text(file: &Checkpoint) -> Checkpoint {
    let mut parts = file.renamed(|name, shape| {
        // A list of numbers that old versions of the library keep.
        let is_list = name == "text_model.embeddings.position_ids";
        (!is_list).then(|| (renamed(&TEXT, name), shape.to_vec()))
    });
    let first = format!(".{}.", PROJECTIONS[0]);
    let joined: Vec<(String, [String; 3])> = parts
        .entries()
        .filter_map(|(name, ..)| {
            let (place, kind) = name.split_once(&first)?;
            let names = PROJECTIONS.map(|projection| format!("{place}.{projection}.{kind}"));
            Some((format!("{place}.in_proj_{kind}"), names))
        })
        .collect();
    for (name, from) in joined {
        parts.join(name, &from);
    }
    parts.missing_as(|name, shape| {
        let library = TEXT.library(name)?;
        let Some((place, kind)) = library.split_once("in_proj_") else {
            return Some((vec![library], shape.to_vec()));
        };
        let names = PROJECTIONS.map(|projection| format!("{place}{projection}.{kind}"));
        Some((names.to_vec(), [&[shape[0] / names.len()], &shape[1..]].concat()))
    })
}

/// Beginnings of names, each with its dot: the library's, and the original.
struct Names(LazyLock<Vec<(String, String)>>);

static UNET: Names = Names(LazyLock::new(unet_names));
static AUTOENCODER: Names = Names(LazyLock::new(autoencoder_names));
static TEXT: Names = Names(LazyLock::new(text_names));

impl Names {
    fn original(&self, name: &str) -> Option<String> {
        exchanged(name, self.0.iter().map(|(library, original)| (library, original)))
    }

    /// The newest of the library's names.
    fn library(&self, name: &str) -> Option<String> {
        exchanged(name, self.0.iter().map(|(library, original)| (original, library)))
    }

    fn oldest_of_library(&self, name: &str) -> Option<String> {
        exchanged(name, self.0.iter().rev().map(|(library, original)| (original, library)))
    }
}

/// A name with another beginning, the first of the longest that fit.
fn exchanged<'a>(name: &str, names: impl Iterator<Item = (&'a String, &'a String)>) -> Option<String> {
    let fitting = names.filter_map(|(from, to)| Some((from.len(), to, name.strip_prefix(from)?)));
    let longest = fitting.reduce(|best, other| if other.0 > best.0 { other } else { best });
    longest.map(|(_, to, rest)| format!("{to}{rest}"))
}

fn renamed(names: &Names, name: &str) -> String {
    names.original(name).unwrap_or_else(|| name.into())
}

fn unet_names() -> Vec<(String, String)> {
    let mut names = pairs([
        ("time_embedding.linear_1.", "time_embed.0."),
        ("time_embedding.linear_2.", "time_embed.2."),
        ("conv_in.", "input_blocks.0.0."),
        ("conv_norm_out.", "out.0."),
        ("conv_out.", "out.2."),
        ("mid_block.attentions.0.", "middle_block.1."),
    ]);
    let mut block = |library: String, original: String| {
        for (part, originally) in [
            ("norm1", "in_layers.0"),
            ("conv1", "in_layers.2"),
            ("time_emb_proj", "emb_layers.1"),
            ("norm2", "out_layers.0"),
            ("conv2", "out_layers.3"),
            ("conv_shortcut", "skip_connection"),
        ] {
            names.push((format!("{library}.{part}."), format!("{original}.{originally}.")));
        }
    };
    for j in 0..2 {
        block(format!("mid_block.resnets.{j}"), format!("middle_block.{}", 2 * j));
    }
    for level in 0..LEVELS {
        for j in 0..BLOCKS {
            let place = (1 + BLOCKS) * level + j + 1;
            block(format!("down_blocks.{level}.resnets.{j}"), format!("input_blocks.{place}.0"));
        }
        for j in 0..=BLOCKS {
            let place = (1 + BLOCKS) * level + j;
            block(format!("up_blocks.{level}.resnets.{j}"), format!("output_blocks.{place}.0"));
        }
    }
    for level in 0..LEVELS {
        for j in 0..=BLOCKS {
            let [down, up] = [j + 1, j].map(|block| (1 + BLOCKS) * level + block);
            if j < BLOCKS {
                names.push((
                    format!("down_blocks.{level}.attentions.{j}."),
                    format!("input_blocks.{down}.1."),
                ));
            }
            names.push((format!("up_blocks.{level}.attentions.{j}."), format!("output_blocks.{up}.1.")));
        }
        let (down, up) = ((1 + BLOCKS) * (level + 1), (1 + BLOCKS) * level + BLOCKS);
        names.push((
            format!("down_blocks.{level}.downsamplers.0.conv."),
            format!("input_blocks.{down}.0.op."),
        ));
        // The deepest level has no attention before it.
        let place = if level == 0 { 1 } else { 2 };
        names.push((
            format!("up_blocks.{level}.upsamplers.0.conv."),
            format!("output_blocks.{up}.{place}.conv."),
        ));
    }
    names
}

fn autoencoder_names() -> Vec<(String, String)> {
    let mut names = pairs([("quant_conv.", "quant_conv."), ("post_quant_conv.", "post_quant_conv.")]);
    let block = |library: String, original: String| {
        [
            ("norm1", "norm1"),
            ("conv1", "conv1"),
            ("norm2", "norm2"),
            ("conv2", "conv2"),
            ("conv_shortcut", "nin_shortcut"),
        ]
        .map(|(part, originally)| (format!("{library}.{part}."), format!("{original}.{originally}.")))
    };
    for coder in ["encoder", "decoder"] {
        let ends = [("conv_in", "conv_in"), ("conv_out", "conv_out"), ("conv_norm_out", "norm_out")];
        names.extend(ends.map(|(library, end)| (format!("{coder}.{library}."), format!("{coder}.{end}."))));
        for j in 0..2 {
            names.extend(block(
                format!("{coder}.mid_block.resnets.{j}"),
                format!("{coder}.mid.block_{}", j + 1),
            ));
        }
        for (library, part) in ATTENTION.into_iter().chain(OLD_ATTENTION) {
            let library = format!("{coder}.mid_block.attentions.0.{library}.");
            names.push((library, format!("{coder}.mid.attn_1.{part}.")));
        }
    }
    for level in 0..LEVELS {
        // The decoder counts from the other end.
        let up = LEVELS - 1 - level;
        for j in 0..BLOCKS {
            names.extend(block(
                format!("encoder.down_blocks.{level}.resnets.{j}"),
                format!("encoder.down.{level}.block.{j}"),
            ));
        }
        for j in 0..=BLOCKS {
            names.extend(block(
                format!("decoder.up_blocks.{level}.resnets.{j}"),
                format!("decoder.up.{up}.block.{j}"),
            ));
        }
        names.push((
            format!("encoder.down_blocks.{level}.downsamplers.0.conv."),
            format!("encoder.down.{level}.downsample.conv."),
        ));
        names.push((
            format!("decoder.up_blocks.{level}.upsamplers.0.conv."),
            format!("decoder.up.{up}.upsample.conv."),
        ));
    }
    names
}

fn text_names() -> Vec<(String, String)> {
    let mut names = pairs([
        ("text_model.embeddings.token_embedding.", "model.token_embedding."),
        ("text_model.embeddings.position_embedding.weight", "model.positional_embedding"),
        ("text_model.final_layer_norm.", "model.ln_final."),
    ]);
    for layer in 0..TEXT_LAYERS {
        for (library, original) in [
            ("layer_norm1", "ln_1"),
            ("layer_norm2", "ln_2"),
            ("mlp.fc1", "mlp.c_fc"),
            ("mlp.fc2", "mlp.c_proj"),
            ("self_attn", "attn"),
        ] {
            names.push((
                format!("text_model.encoder.layers.{layer}.{library}."),
                format!("model.transformer.resblocks.{layer}.{original}."),
            ));
        }
    }
    names
}

fn pairs<const N: usize>(names: [(&str, &str); N]) -> Vec<(String, String)> {
    names.map(|(library, original)| (library.into(), original.into())).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::TensorData;
    use diffbir_nn::params::{Init, Source, keys_of};
    use std::collections::BTreeMap;

    /// What the reference's converter brings each name to (`tests/goldens/make_diffusers.py`).
    const PAIRS: &str = include_str!("../tests/goldens/diffusers.tsv");

    /// Every tensor holds its number, which shows where it comes out.
    fn check(part: &str, prefix: &str, convert: impl Fn(&Checkpoint) -> Checkpoint) {
        let lines: Vec<Vec<&str>> = PAIRS
            .lines()
            .map(|line| line.split('\t').collect())
            .filter(|line: &Vec<_>| line[0] == part)
            .collect();
        let mut names: Vec<&str> = lines.iter().flat_map(|line| &line[2..]).copied().collect();
        names.sort_unstable();
        let number = |name: &str| names.iter().position(|other| *other == name).expect("listed") as f32;
        let file = Checkpoint::from_tensors(
            names.iter().map(|&name| (name.into(), TensorData::new(vec![number(name)], [1]))).collect(),
        );
        let converted = convert(&file);
        let mut found = BTreeMap::new();
        for (name, ..) in converted.entries() {
            found.insert(name.to_string(), converted.get(name).unwrap().expect("named").1);
        }
        let known: BTreeMap<String, Vec<f32>> = lines
            .iter()
            .map(|line| (format!("{prefix}{}", line[1]), line[2..].iter().map(|name| number(name)).collect()))
            .collect();
        assert!(!known.is_empty());
        assert_eq!(found, known);
    }

    #[test]
    fn weights_in_half_precision_are_taken_where_there_are_no_others() {
        let folder = tempfile::TempDir::new().unwrap();
        let write = |path: &str| {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, b"").unwrap();
            path
        };
        let unet = write("unet/diffusion_pytorch_model.fp16.safetensors");
        let vae = write("vae/diffusion_pytorch_model.fp16.bin");
        assert_eq!(files(folder.path()), None);
        let text = write("text_encoder/pytorch_model.bin");
        assert_eq!(files(folder.path()), Some([unet, vae.clone(), text.clone()]));
        let unet = write("unet/diffusion_pytorch_model.bin");
        assert_eq!(files(folder.path()), Some([unet, vae, text]));
    }

    #[test]
    fn names_are_the_ones_that_the_reference_brings_them_to() {
        check("unet", "", unet);
        check("vae", "", autoencoder);
        check("text", "model.", text);
    }

    #[test]
    fn original_names_lead_back() {
        for line in PAIRS.lines() {
            let line: Vec<&str> = line.split('\t').collect();
            let names = match line[0] {
                "unet" => &UNET,
                "vae" => &AUTOENCODER,
                _ => continue,
            };
            assert_eq!(names.library(line[1]).as_deref(), Some(line[2]));
        }
    }

    #[test]
    fn what_is_missing_is_named_as_the_file_would() {
        let told = |part: &Checkpoint, key: &str, shape: &[usize]| {
            part.clone().values(key, shape, Init::FanIn).unwrap_err().to_string()
        };
        let projections = [("q_proj", 2), ("v_proj", 2)].map(|(name, side)| {
            let name = format!("text_model.encoder.layers.3.self_attn.{name}.weight");
            (name, TensorData::new(vec![0f32; side], [1, side]))
        });
        let text = text(&Checkpoint::from_tensors(projections.into()));
        let key = "model.transformer.resblocks.3.attn.in_proj_weight";
        let unused = keys_of(|params| params.unused(key, &[3, 2])).unwrap();
        let told_unused = text.expect(&unused).unwrap_err().to_string();
        assert!(
            told_unused.contains("lacks the tensor `text_model.encoder.layers.3.self_attn.k_proj.weight`"),
            "{told_unused}"
        );
        Checkpoint::default().expect(&unused).unwrap();
        let told_text = told(&text, "model.transformer.resblocks.3.attn.in_proj_weight", &[3, 2]);
        assert!(
            told_text.contains("`text_model.encoder.layers.3.self_attn.k_proj.weight` of shape [1, 2]"),
            "{told_text}"
        );
        let wrong =
            [("q_proj", vec![1, 2]), ("k_proj", vec![1, 7]), ("v_proj", vec![1, 2])].map(|(name, shape)| {
                let name = format!("text_model.encoder.layers.3.self_attn.{name}.weight");
                (name, TensorData::new(vec![0f32; shape.iter().product()], shape))
            });
        let wrong = super::text(&Checkpoint::from_tensors(wrong.into()));
        let told_wrong = told(&wrong, "model.transformer.resblocks.3.attn.in_proj_weight", &[3, 2]);
        assert!(told_wrong.contains("k_proj.weight` has shape [1, 7] where [1, 2]"), "{told_wrong}");
        let none = Checkpoint::default();
        let told_unet = told(&unet(&none), "output_blocks.2.1.conv.weight", &[1]);
        assert!(told_unet.contains("`up_blocks.0.upsamplers.0.conv.weight`"), "{told_unet}");
        let told_vae = told(&autoencoder(&none), "decoder.mid.attn_1.q.weight", &[4, 4, 1, 1]);
        assert!(
            told_vae.contains("`decoder.mid_block.attentions.0.to_q.weight` of shape [4, 4]"),
            "{told_vae}"
        );
        let old = ["query", "value"].map(|part| {
            let data = TensorData::new(vec![0f32; 8], [2, 4]);
            (format!("decoder.mid_block.attentions.0.{part}.weight"), data)
        });
        let old = autoencoder(&Checkpoint::from_tensors(old.into()));
        let told_old = |part: &str| told(&old, &format!("decoder.mid.attn_1.{part}.weight"), &[4, 4, 1, 1]);
        assert!(
            told_old("k")
                .contains("lacks the tensor `decoder.mid_block.attentions.0.key.weight` of shape [4, 4]"),
            "{}",
            told_old("k")
        );
        assert!(
            told_old("v").contains("attentions.0.value.weight` has shape [2, 4] where [4, 4] is"),
            "{}",
            told_old("v")
        );
    }

    #[test]
    fn what_comes_to_the_place_of_another_is_refused_by_name() {
        let data = TensorData::new(vec![1f32], [1]);
        for (first, second) in [
            ("down_blocks.0.downsamplers.0.conv.weight", "down_blocks.0.resnets.3.conv1.weight"),
            ("down_blocks.1.resnets.0.conv1.weight", "down_blocks.0.resnets.3.conv1.weight"),
            ("down_blocks.0.resnets.0.conv1.weight", "input_blocks.1.0.in_layers.2.weight'"),
            ("up_blocks.0.resnets.0.conv1.weight", "output_blocks.0.0.in_layers.2.weight'"),
            ("time_embedding.linear_1.bias", "time_embed.0.bias'"),
        ] {
            let names = [first, second].map(|name| (name.trim_end_matches('\'').to_string(), data.clone()));
            assert!(unet(&Checkpoint::from_tensors(names.into())).contains(second));
        }
        let both = ["to_q", "query"].map(|part| format!("encoder.mid_block.attentions.0.{part}.bias"));
        let file = Checkpoint::from_tensors(both.iter().map(|name| (name.clone(), data.clone())).collect());
        assert!(autoencoder(&file).contains(&both[0]));
    }

    #[test]
    fn the_autoencoders_attention_is_made_of_convolutions_in_old_and_new_names() {
        for name in ["to_q", "query"] {
            let name = format!("encoder.mid_block.attentions.0.{name}.weight");
            let data = TensorData::new(vec![1f32, 2.0, 3.0, 4.0], [2, 2]);
            let file = Checkpoint::from_tensors(BTreeMap::from([(name, data)]));
            let (shape, values) =
                autoencoder(&file).get("encoder.mid.attn_1.q.weight").unwrap().expect("renamed");
            assert_eq!((shape, values), (vec![2, 2, 1, 1], vec![1.0, 2.0, 3.0, 4.0]));
        }
    }

    #[test]
    fn what_is_not_known_keeps_its_name() {
        let data = TensorData::new(vec![1f32], [1]);
        let file = Checkpoint::from_tensors(BTreeMap::from([
            ("add_embedding.weight".to_string(), data.clone()),
            ("text_model.embeddings.position_ids".to_string(), data.clone()),
            ("other.embeddings.position_ids".to_string(), data),
        ]));
        assert!(unet(&file).contains("add_embedding.weight"));
        assert_eq!(text(&file).entries().count(), 2);
    }
}
