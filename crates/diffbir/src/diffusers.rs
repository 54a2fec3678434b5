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
    let first = |part: &str, names: [&str; 2]| {
        names.into_iter().map(|name| folder.join(part).join(name)).find(|file| file.is_file())
    };
    let network = ["diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin"];
    Some([
        first("unet", network)?,
        first("vae", network)?,
        first("text_encoder", ["model.safetensors", "pytorch_model.bin"])?,
    ])
}

/// The UNet under its original names. A name that is not known stays, so that it is refused as it is.
pub fn unet(file: &Checkpoint) -> Checkpoint {
    file.renamed(|name, shape| Some((unet_name(name).unwrap_or_else(|| name.into()), shape.to_vec())))
}

/// The autoencoder under its original names; linear maps of its attention become convolutions again.
pub fn autoencoder(file: &Checkpoint) -> Checkpoint {
    file.renamed(|name, shape| {
        let name = autoencoder_name(name).unwrap_or_else(|| name.into());
        let is_map = name.contains(".attn_1.") && shape.len() == 2;
        let shape = if is_map { [shape, &[1, 1]].concat() } else { shape.to_vec() };
        Some((name, shape))
    })
}

/// The text encoder under its original names, query, key and value in one tensor again.
pub fn text(file: &Checkpoint) -> Checkpoint {
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
    use diffbir_models::clip::ClipTextConfig;
    use diffbir_models::kl::KlConfig;
    use diffbir_models::unet::UnetConfig;
    use diffbir_nn::params::{Keys, keys_of};
    use std::collections::BTreeSet;

    /// Names of the library's layout as its own converter to the original layout reads them (DiffBIR
    /// `scripts/convert_diffusers_to_sd.py`): what it makes of one of each kind.
    #[test]
    fn names_of_every_kind_are_known() {
        for (from, to) in [
            ("down_blocks.2.resnets.1.time_emb_proj.weight", "input_blocks.8.0.emb_layers.1.weight"),
            ("down_blocks.0.attentions.0.proj_in.weight", "input_blocks.1.1.proj_in.weight"),
            ("down_blocks.1.downsamplers.0.conv.bias", "input_blocks.6.0.op.bias"),
            ("mid_block.resnets.1.conv2.bias", "middle_block.2.out_layers.3.bias"),
            ("up_blocks.0.upsamplers.0.conv.weight", "output_blocks.2.1.conv.weight"),
            ("up_blocks.2.upsamplers.0.conv.weight", "output_blocks.8.2.conv.weight"),
            ("up_blocks.3.resnets.2.conv_shortcut.weight", "output_blocks.11.0.skip_connection.weight"),
        ] {
            assert_eq!(unet_name(from).as_deref(), Some(to));
        }
        for (from, to) in [
            ("encoder.down_blocks.1.resnets.0.conv_shortcut.weight", "encoder.down.1.block.0.nin_shortcut.weight"),
            ("decoder.up_blocks.0.resnets.2.norm1.bias", "decoder.up.3.block.2.norm1.bias"),
            ("decoder.up_blocks.2.upsamplers.0.conv.bias", "decoder.up.1.upsample.conv.bias"),
            ("encoder.mid_block.attentions.0.to_out.0.weight", "encoder.mid.attn_1.proj_out.weight"),
            ("decoder.mid_block.attentions.0.query.bias", "decoder.mid.attn_1.q.bias"),
            ("decoder.conv_norm_out.weight", "decoder.norm_out.weight"),
        ] {
            assert_eq!(autoencoder_name(from).as_deref(), Some(to));
        }
        assert_eq!(
            text_name("text_model.encoder.layers.3.self_attn.out_proj.bias").as_deref(),
            Some("model.transformer.resblocks.3.attn.out_proj.bias")
        );
        assert_eq!(unet_name("add_embedding.linear_1.weight"), None);
    }

    /// Every original name is reached, and none twice.
    #[test]
    fn all_names_of_the_networks_are_reached() {
        let names = |keys: &Keys| -> BTreeSet<String> {
            keys.entries().iter().map(|entry| entry.key.clone()).collect()
        };
        let unet = names(&keys_of(|params| UnetConfig::official().build(params)).unwrap());
        let autoencoder = names(&keys_of(|params| KlConfig::official().build(params)).unwrap());
        let text = names(&keys_of(|params| ClipTextConfig::official().build(params)).unwrap());
        let both = |weight: &str| ["weight", "bias"].map(|kind| format!("{weight}.{kind}"));

        let mut reached = Vec::new();
        for level in 0..4 {
            for (part, count) in [("down_blocks", BLOCKS), ("up_blocks", BLOCKS + 1)] {
                for j in 0..count {
                    for layer in ["norm1", "conv1", "time_emb_proj", "norm2", "conv2", "conv_shortcut"] {
                        reached.extend(both(&format!("{part}.{level}.resnets.{j}.{layer}")));
                    }
                }
                reached.extend(both(&format!("{part}.{level}.downsamplers.0.conv")));
                reached.extend(both(&format!("{part}.{level}.upsamplers.0.conv")));
            }
        }
        for single in ["conv_in", "conv_norm_out", "conv_out", "time_embedding.linear_1", "time_embedding.linear_2"] {
            reached.extend(both(single));
        }
        for j in 0..2 {
            for layer in ["norm1", "conv1", "time_emb_proj", "norm2", "conv2"] {
                reached.extend(both(&format!("mid_block.resnets.{j}.{layer}")));
            }
        }
        let reached: BTreeSet<String> = reached.iter().filter_map(|name| unet_name(name)).collect();
        let missed: Vec<&String> = unet
            .iter()
            .filter(|name| !reached.contains(*name))
            .filter(|name| !["input_blocks", "middle_block", "output_blocks"].iter().any(|part| {
                // What belongs to a transformer keeps its name.
                name.starts_with(part) && name.split('.').nth(if *part == "middle_block" { 1 } else { 2 }) == Some("1")
            }))
            .collect();
        assert!(missed.is_empty(), "{missed:?}");
        assert_eq!(autoencoder.len(), 248);
        assert_eq!(text.len(), 294);
    }
}
