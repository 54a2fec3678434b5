"""Goldens of one training step of the reference: loss, gradients, parameters after AdamW.

    python make_training.py CHECKOUT

CHECKOUT is a checkout of github.com/XPixelGroup/DiffBIR at 3f8b5304245ba0ffd6f1995e51c27c3c72d7618f. Networks have the
official structure at reduced widths; weights and inputs follow from their names by the formula of
`crates/models/tests/goldens` (README.md there). What the reference draws at random, noise and timesteps, is given.
"""

import copy
import json
import os
import sys
import types

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "..", "..", "models", "tests", "goldens"))

import numpy as np
import sources
import torch
from formula import check_filler, fill, fnv, latent, picture
from stage2 import unet_config
from store import patched, stride_of

SAMPLES = 48
RATE = 1e-4
DECAYS = (0.0, 0.01)


def sampled(tensor):
    flat = tensor.detach().flatten()
    return [float(value) for value in flat[:: stride_of(flat.numel(), SAMPLES)]]


def step(network, loss_of, names):
    """Loss, gradients and parameters after a step with each decay."""
    result = {"tensors": {name: {} for name in names}}
    for decay in DECAYS:
        trained = copy.deepcopy(network)
        optimizer = torch.optim.AdamW(trained.parameters(), lr=RATE, weight_decay=decay)
        loss = loss_of(trained)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        result["loss"] = loss.item()
        parameters = dict(trained.named_parameters())
        for name, values in result["tensors"].items():
            values["stride"] = stride_of(parameters[name].numel(), SAMPLES)
            values["gradient"] = sampled(parameters[name].grad)
            values["norm"] = parameters[name].grad.double().norm().item()
            values[f"decay {decay:g}"] = sampled(parameters[name])
    return result


def stage1(module):
    network = fill(
        module("model.swinir").SwinIR(
            img_size=64, patch_size=1, in_chans=3, embed_dim=12, depths=[2, 2], num_heads=[6, 6], window_size=8,
            mlp_ratio=2, sf=8, img_range=1.0, upsampler="nearest+conv", resi_connection="1conv", unshuffle=True,
            unshuffle_scale=8, drop_path_rate=0.0,
        )
    ).train()  # fmt: skip
    # Pictures at which no rounding turns a leaky ReLU over, which alone would change gradients by a thousandth.
    low, high = picture("train_lq1", 2, 3, 64, 64), picture("train_gt1", 2, 3, 64, 64)
    names = [
        "conv_first.1.weight",
        "layers.0.residual_group.blocks.1.attn.relative_position_bias_table",
        "layers.1.residual_group.blocks.0.attn.qkv.weight",
        "layers.1.residual_group.blocks.1.norm2.weight",
        "conv_last.bias",
    ]
    return step(network, lambda net: torch.nn.functional.mse_loss(net(low), high, reduction="sum"), names)


def stage2(module, prediction, zero_snr, noise_aug):
    net = module("model.controlnet")
    small = unet_config(32, 32, 8)
    unet = fill(net.ControlledUnetModel(out_channels=4, **small)).requires_grad_(False)
    control = fill(net.ControlNet(hint_channels=4, **small)).train()
    diffusion = module("model.gaussian_diffusion").Diffusion(
        linear_start=0.00085, linear_end=0.0120, timesteps=1000, zero_snr=zero_snr, parameterization=prediction
    )
    z_0, noise = latent("train_z", 2, 4, 16, 16), latent("train_noise", 2, 4, 16, 16)
    hint, hint_noise = latent("train_c_img", 2, 4, 16, 16), latent("train_c_noise", 2, 4, 16, 16)
    context = latent("train_context", 2, 77, 32)
    if noise_aug:
        hint = diffusion.q_sample(x_start=hint, t=torch.tensor([3, 150]), noise=hint_noise)

    def loss_of(trained):
        ldm = types.SimpleNamespace(unet=unet, controlnet=trained, control_scales=[1.0] * 13)
        forward = module("model.cldm").ControlLDM.forward
        with patched((torch, "randn_like", lambda x: noise)):
            return diffusion.p_losses(
                lambda x, t, cond: forward(ldm, x, t, cond),
                z_0,
                torch.tensor([17, 999 if zero_snr else 640]),
                {"c_txt": context, "c_img": hint},
            )

    names = [
        "input_blocks.0.0.weight",
        "time_embed.2.bias",
        "input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight",
        "middle_block.2.out_layers.0.weight",
        "zero_convs.5.0.weight",
    ]
    return step(control, loss_of, names)


def checksum(state):
    """A sum over the bits of all values, each times its place, and over names."""
    total = 0
    for key in sorted(state):
        bits = state[key].detach().contiguous().numpy().astype("<f4").view(np.uint32).astype(np.uint64).flatten()
        with np.errstate(over="ignore"):
            places = np.arange(bits.size, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
            total += int((bits * places).sum()) ^ fnv(key)
    return f"{total % 2**64:016x}"


def start(module):
    """The control branch's first weights."""
    net = module("model.controlnet")
    small = unet_config(32, 32, 8)
    unet = fill(net.ControlledUnetModel(out_channels=4, **small))
    ldm = types.SimpleNamespace(unet=unet, controlnet=net.ControlNet(hint_channels=4, **small))
    widened, _ = module("model.cldm").ControlLDM.load_controlnet_from_unet(ldm)
    assert widened == {"input_blocks.0.0.weight"}
    state = ldm.controlnet.state_dict()
    assert not state["input_blocks.0.0.weight"][:, 4:].any()
    return {"tensors": len(state), "checksum": checksum(state)}


def main():
    torch.set_num_threads(1)
    check_filler()
    module = sources.load(sys.argv[1])
    result = {
        "reference": sources.COMMIT,
        "torch": torch.__version__,
        "rate": RATE,
        "stage1": stage1(module),
        "stage2 eps": stage2(module, "eps", False, False),
        "stage2 v": stage2(module, "v", True, True),
        "control start": start(module),
    }
    with open(os.path.join(HERE, "training.json"), "w") as file:
        json.dump(result, file, indent=1)
        file.write("\n")


if __name__ == "__main__":
    main()
