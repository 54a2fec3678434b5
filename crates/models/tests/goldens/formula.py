"""Weights and inputs that follow from their names alone (README.md, "Formula"), so that nothing but results is
stored and the Rust tests can evaluate the same."""

import math

import numpy as np
import torch

ROOT3 = np.float32(np.sqrt(3))
FORMULA = (
    "u = (z >> 40) * 2^-23 - 1; z = splitmix64 finaliser of FNV-1a-64(salt + ':' + key) + (i + 1) * "
    "0x9e3779b97f4a7c15, salt 0 unless said; inputs at key 'in/' + name: pictures (u + 1) / 2, latents and context "
    "u * sqrt(3)"
)
# Last layers of residual branches.
SMALL = ("out_layers.3", "to_out.0", "ff.net.2", "proj_out", "conv2", "mlp.fc2", "mlp.c_proj", "conv5")
TABLES = ("relative_position_bias_table", "relative_position_params", "token_embedding.weight")


def fnv(text):
    h = 0xCBF29CE484222325
    for byte in text.encode():
        h = ((h ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return h


def filler(key, count, salt=0):
    """Uniform values in [-1, 1) from FNV-1a of the name and SplitMix64 of the index."""
    with np.errstate(over="ignore"):
        z = np.uint64(fnv(f"{salt}:{key}"))
        z = z + (np.arange(count, dtype=np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        z ^= z >> np.uint64(30)
        z *= np.uint64(0xBF58476D1CE4E5B9)
        z ^= z >> np.uint64(27)
        z *= np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return ((z >> np.uint64(40)).astype(np.float64) * 2.0**-23 - 1.0).astype(np.float32)


def check_filler():
    known = {
        "out.2.bias": (-0.156609774, -0.241501808, -0.472544193, -0.785495162),
        "input_blocks.0.0.weight": (-0.865603924, 0.190032244, -0.418459415, -0.191048145),
        "zero_convs.0.0.weight": (0.31708169, -0.323480844, -0.255005717, 0.920874119),
    }
    for key, values in known.items():
        assert np.array_equal(filler(key, 4), np.array(values, dtype=np.float32)), key
    assert filler("out.2.bias", 1, salt=1)[0] == np.float32(-0.0619549751)


@torch.no_grad()
def fill(module, salt=0):
    """Every tensor by the formula; masks and indices stay as computed."""
    state = module.state_dict()
    for key, tensor in state.items():
        if not tensor.is_floating_point() or key.endswith("attn_mask"):
            continue
        u = torch.from_numpy(filler(key, tensor.numel(), salt)).reshape(tensor.shape)
        name, _, kind = key.rpartition(".")
        norm = tensor.dim() == 1 and name + ".weight" in state and state[name + ".weight"].dim() == 1
        if key.endswith("logit_scale"):
            value = torch.tensor(2.6592)
        elif key.endswith(TABLES):
            value = 0.5 * u
        elif key.endswith("positional_embedding"):
            value = 0.1 * u
        elif isinstance(module.get_submodule(name), torch.nn.PReLU):
            value = 0.25 + 0.2 * u
        elif key.endswith("modulation.bias"):
            value = 1 + 0.2 * u
        elif key.endswith("constant_input.weight") or ".noises." in key:
            value = u * ROOT3
        elif norm:
            value = 1 + 0.2 * u if kind in ("weight", "running_var") else 0.1 * u
        elif kind.endswith("bias"):
            value = 0.05 * u
        else:
            gain = 0.3 if name.endswith(SMALL) else 1.0
            if "zero_convs" in key or "middle_block_out" in key:
                gain = 0.5
            value = u * np.float32(np.sqrt(3.0 / tensor[0].numel()) * gain)
        tensor.copy_(value)
    return module.eval()


def given(key, *shape):
    """The formula's values in the default type, as all functions for inputs below."""
    values = torch.from_numpy(filler("in/" + key, math.prod(shape))).reshape(shape)
    return values.to(torch.get_default_dtype())


def picture(key, *shape):
    return (given(key, *shape) + 1) / 2


def latent(key, *shape):
    # Rounded as in float32, so that both precisions get the same input.
    return (given(key, *shape).float() * ROOT3).to(torch.get_default_dtype())
