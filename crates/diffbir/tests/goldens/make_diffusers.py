"""Names of Stable Diffusion 2.1 in the layout of the diffusers library, and to what the reference's converter brings
them.

    python make_diffusers.py DIFFBIR

DIFFBIR is a checkout of https://github.com/XPixelGroup/DiffBIR at commit
3f8b5304245ba0ffd6f1995e51c27c3c72d7618f; diffusers and transformers come from PyPI. Weights are never made.
"""

import contextlib
import importlib.util
import io
import os
import sys

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

spec = importlib.util.spec_from_file_location(
    "converter", os.path.join(sys.argv[1], "scripts", "convert_diffusers_to_sd.py")
)
converter = importlib.util.module_from_spec(spec)
spec.loader.exec_module(converter)

with torch.device("meta"):
    unet = UNet2DConditionModel(
        sample_size=64, cross_attention_dim=1024, attention_head_dim=[5, 10, 20, 20], use_linear_projection=True
    )
    vae = AutoencoderKL(
        block_out_channels=(128, 256, 512, 512), latent_channels=4, layers_per_block=2, sample_size=768,
        down_block_types=["DownEncoderBlock2D"] * 4, up_block_types=["UpDecoderBlock2D"] * 4,
    )  # fmt: skip
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=49408, hidden_size=1024, intermediate_size=4096, num_hidden_layers=23, num_attention_heads=16
        )
    )


out = []
for part, network, convert in [
    ("unet", unet, converter.convert_unet_state_dict),
    ("vae", vae, converter.convert_vae_state_dict),
    ("text", text, converter.convert_text_enc_state_dict_v20),
]:
    tensors = network.state_dict()
    names = sorted(tensors)
    # Each tensor holds nothing but its number, which shows where it comes out.
    given = {name: torch.full([1] * tensors[name].ndim, float(index)) for index, name in enumerate(names)}
    if part == "text":
        # Files have the first beginning, which newer versions of the library leave out; the converter wants both.
        files = [name if name.startswith("text_model.") else f"text_model.{name}" for name in names]
        given = {f"transformer.{file}": given[name] for file, name in zip(files, names)}
        names = files
    with contextlib.redirect_stdout(io.StringIO()):
        converted = convert(given)
    for name, tensor in sorted(converted.items()):
        out.append("\t".join([part, name, *(names[int(index)] for index in tensor.flatten())]))
with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "diffusers.tsv"), "w") as file:
    file.write("\n".join(out) + "\n")
