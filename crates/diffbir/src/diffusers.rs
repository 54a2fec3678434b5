//! Stable Diffusion in the layout of the diffusers library: a folder `unet`, `vae`, `text_encoder`, whose tensors
//! have other names, and in part other shapes, than in the original file (reference 6).

use diffbir_nn::checkpoint::Checkpoint;
use std::path::{Path, PathBuf};

/// Residual blocks a level on the way down; one more on the way up.
const BLOCKS: usize = 2;
/// Levels of the autoencoder, less one: its decoder counts from the other end.
const DEEPEST: usize = 3;
/// The text encoder's projections, in the order in which the original has them in one tensor.
const PROJECTIONS: [&str; 3] = ["q_proj", "k_proj", "v_proj"];

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
    file.renamed(|name, shape| Some((unet_name(name).unwrap_or_else(|| name.into()), shape.to_vec())))
}

/// The autoencoder under its original names; linear maps of its attention become convolutions again.
pub(crate) fn autoencoder(file: &Checkpoint) -> Checkpoint {
    file.renamed(|name, shape| {
        let name = autoencoder_name(name).unwrap_or_else(|| name.into());
        let is_map = name.contains(".attn_1.") && shape.len() == 2;
        let shape = if is_map { [shape, &[1, 1]].concat() } else { shape.to_vec() };
        Some((name, shape))
    })
}

/// The text encoder under its original names, query, key and value in one tensor again.
pub(crate) fn text(file: &Checkpoint) -> Checkpoint {
    let mut parts = file.renamed(|name, shape| {
        // A list of numbers that old versions of the library keep.
        let known = !name.ends_with("embeddings.position_ids");
        known.then(|| (text_name(name).unwrap_or_else(|| name.into()), shape.to_vec()))
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
    parts
}

fn number(text: &str) -> Option<usize> {
    text.parse().ok()
}

fn unet_name(name: &str) -> Option<String> {
    let parts: Vec<&str> = name.split('.').collect();
    let level = 1 + BLOCKS;
    Some(match parts[..] {
        ["time_embedding", "linear_1", kind] => format!("time_embed.0.{kind}"),
        ["time_embedding", "linear_2", kind] => format!("time_embed.2.{kind}"),
        ["conv_in", kind] => format!("input_blocks.0.0.{kind}"),
        ["conv_norm_out", kind] => format!("out.0.{kind}"),
        ["conv_out", kind] => format!("out.2.{kind}"),
        ["down_blocks", i, "downsamplers", "0", "conv", kind] => {
            format!("input_blocks.{}.0.op.{kind}", level * (number(i)? + 1))
        }
        ["down_blocks", i, "resnets", j, ref rest @ ..] => {
            format!("input_blocks.{}.0.{}", level * number(i)? + number(j)? + 1, res_block(rest)?)
        }
        ["down_blocks", i, "attentions", j, ref rest @ ..] => {
            format!("input_blocks.{}.1.{}", level * number(i)? + number(j)? + 1, rest.join("."))
        }
        ["mid_block", "resnets", j, ref rest @ ..] => {
            format!("middle_block.{}.{}", 2 * number(j)?, res_block(rest)?)
        }
        ["mid_block", "attentions", "0", ref rest @ ..] => format!("middle_block.1.{}", rest.join(".")),
        ["up_blocks", i, "resnets", j, ref rest @ ..] => {
            format!("output_blocks.{}.0.{}", level * number(i)? + number(j)?, res_block(rest)?)
        }
        ["up_blocks", i, "attentions", j, ref rest @ ..] => {
            format!("output_blocks.{}.1.{}", level * number(i)? + number(j)?, rest.join("."))
        }
        ["up_blocks", i, "upsamplers", "0", "conv", kind] => {
            // The deepest level has no attention before it.
            let place = if i == "0" { 1 } else { 2 };
            format!("output_blocks.{}.{place}.conv.{kind}", level * number(i)? + BLOCKS)
        }
        _ => return None,
    })
}

fn res_block(parts: &[&str]) -> Option<String> {
    let &[part, kind] = parts else { return None };
    let part = match part {
        "norm1" => "in_layers.0",
        "conv1" => "in_layers.2",
        "time_emb_proj" => "emb_layers.1",
        "norm2" => "out_layers.0",
        "conv2" => "out_layers.3",
        "conv_shortcut" => "skip_connection",
        _ => return None,
    };
    Some(format!("{part}.{kind}"))
}

fn autoencoder_name(name: &str) -> Option<String> {
    let parts: Vec<&str> = name.split('.').collect();
    let block = |part: &str| if part == "conv_shortcut" { "nin_shortcut".to_string() } else { part.into() };
    Some(match parts[..] {
        ["quant_conv" | "post_quant_conv", _] => name.into(),
        [coder, part @ ("conv_in" | "conv_out"), kind] => format!("{coder}.{part}.{kind}"),
        [coder, "conv_norm_out", kind] => format!("{coder}.norm_out.{kind}"),
        [coder, "mid_block", "resnets", j, part, kind] => {
            format!("{coder}.mid.block_{}.{part}.{kind}", number(j)? + 1)
        }
        [coder, "mid_block", "attentions", "0", ref rest @ .., kind] => {
            // In the names of old and new versions of the library.
            let part = match rest {
                ["group_norm"] => "norm",
                ["query"] | ["to_q"] => "q",
                ["key"] | ["to_k"] => "k",
                ["value"] | ["to_v"] => "v",
                ["proj_attn"] | ["to_out", "0"] => "proj_out",
                _ => return None,
            };
            format!("{coder}.mid.attn_1.{part}.{kind}")
        }
        ["encoder", "down_blocks", i, "resnets", j, part, kind] => {
            format!("encoder.down.{i}.block.{j}.{}.{kind}", block(part))
        }
        ["encoder", "down_blocks", i, "downsamplers", "0", "conv", kind] => {
            format!("encoder.down.{i}.downsample.conv.{kind}")
        }
        ["decoder", "up_blocks", i, "resnets", j, part, kind] => {
            format!("decoder.up.{}.block.{j}.{}.{kind}", DEEPEST.checked_sub(number(i)?)?, block(part))
        }
        ["decoder", "up_blocks", i, "upsamplers", "0", "conv", kind] => {
            format!("decoder.up.{}.upsample.conv.{kind}", DEEPEST.checked_sub(number(i)?)?)
        }
        _ => return None,
    })
}

fn text_name(name: &str) -> Option<String> {
    let parts: Vec<&str> = name.strip_prefix("text_model.")?.split('.').collect();
    Some(match parts[..] {
        ["embeddings", "token_embedding", "weight"] => "model.token_embedding.weight".into(),
        ["embeddings", "position_embedding", "weight"] => "model.positional_embedding".into(),
        ["final_layer_norm", kind] => format!("model.ln_final.{kind}"),
        ["encoder", "layers", n, ref rest @ ..] => {
            let part = match rest {
                ["layer_norm1", kind] => format!("ln_1.{kind}"),
                ["layer_norm2", kind] => format!("ln_2.{kind}"),
                ["mlp", "fc1", kind] => format!("mlp.c_fc.{kind}"),
                ["mlp", "fc2", kind] => format!("mlp.c_proj.{kind}"),
                ["self_attn", rest @ ..] => format!("attn.{}", rest.join(".")),
                _ => return None,
            };
            format!("model.transformer.resblocks.{n}.{part}")
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::TensorData;
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
            ("text_model.embeddings.position_ids".to_string(), data),
        ]));
        assert!(unet(&file).contains("add_embedding.weight"));
        assert_eq!(text(&file).entries().count(), 1);
    }
}
