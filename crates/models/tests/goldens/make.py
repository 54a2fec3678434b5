"""Goldens of the networks, made by the reference itself.

    ATTN_MODE=sdp python make.py CHECKOUT

CHECKOUT is https://github.com/XPixelGroup/DiffBIR at commit 3f8b5304245ba0ffd6f1995e51c27c3c72d7618f.
Needs torch, numpy, einops, omegaconf, safetensors from PyPI. Networks have the official structure at
reduced widths; every tensor and every input follows from its name by the formula in `filler`, which the
Rust tests evaluate again.
"""

import importlib
import os
import sys
import types
import typing

os.environ.setdefault("ATTN_MODE", "sdp")
import numpy as np
import torch
from safetensors.torch import save_file

COMMIT = "3f8b5304245ba0ffd6f1995e51c27c3c72d7618f"
HERE = os.path.dirname(os.path.abspath(__file__))
MASK = np.uint64(0xFFFFFFFFFFFFFFFF)


def filler(key, count):
    """Uniform values in [-1, 1) from FNV-1a of the name and SplitMix64 of the index."""
    h = 0xCBF29CE484222325
    for byte in ("0:" + key).encode():
        h = ((h ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    with np.errstate(over="ignore"):
        z = np.uint64(h) + (np.arange(count, dtype=np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        z ^= z >> np.uint64(30)
        z *= np.uint64(0xBF58476D1CE4E5B9)
        z ^= z >> np.uint64(27)
        z *= np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return ((z >> np.uint64(40)).astype(np.float64) * 2.0**-23 - 1.0).astype(np.float32)


SMALL = ("out_layers.3", "to_out.0", "ff.net.2", "proj_out", "conv2", "mlp.fc2")


def fill(module):
    state = module.state_dict()
    for key, tensor in state.items():
        if not tensor.is_floating_point() or key.endswith("attn_mask"):
            continue
        u = torch.from_numpy(filler(key, tensor.numel())).reshape(tensor.shape)
        name, _, kind = key.rpartition(".")
        norm = name + ".weight" in state and state[name + ".weight"].dim() == 1
        if key.endswith("relative_position_bias_table"):
            value = 0.5 * u
        elif norm:
            value = 1 + 0.2 * u if kind == "weight" else 0.1 * u
        elif kind == "bias":
            value = 0.05 * u
        else:
            gain = 0.3 if name.endswith(SMALL) else 1.0
            if "zero_convs" in key or "middle_block_out" in key:
                gain = 0.5
            fan_in = tensor[0].numel()
            value = u * np.float32(np.sqrt(3.0 / fan_in) * gain)
        tensor.copy_(value)
    return module.eval()


def given(key, *shape):
    return torch.from_numpy(filler("in/" + key, int(np.prod(shape)))).reshape(shape)


def picture(key, *shape):
    return (given(key, *shape) + 1) / 2


def official(*builders):
    """Number of tensors and a hash of names and shapes of networks at official size."""
    result = {}
    for name, builder in builders:
        # SwinIR computes its mask while it is built, which needs real numbers.
        with torch.device("cpu" if name == "swinir" else "meta"):
            state = builder().state_dict()
        lines = sorted(f"{key} {'x'.join(map(str, tensor.shape))}" for key, tensor in state.items())
        h = 0xCBF29CE484222325
        for byte in "\n".join(lines).encode():
            h = ((h ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
        result["official_" + name] = f"{len(lines)} {h:016x}"
    return result


def save(name, tensors, extra):
    metadata = {"reference": COMMIT, "torch": torch.__version__, **extra}
    tensors = {key: tensor.detach().float().contiguous().clone() for key, tensor in tensors.items()}
    save_file(tensors, os.path.join(HERE, name + ".safetensors"), metadata)
    print(name, {key: tuple(t.shape) for key, t in tensors.items()})


def load(checkout):
    sys.path.insert(0, checkout)
    torch.Tuple = typing.Tuple
    torch.cuda.synchronize = lambda *a, **k: None
    # The package's __init__ imports captioners and face tools that the networks do not need.
    for name in ("diffbir", "diffbir.model", "diffbir.utils"):
        package = types.ModuleType(name)
        package.__path__ = [os.path.join(checkout, *name.split("."))]
        sys.modules[name] = package
    timm = types.ModuleType("timm.models.layers")
    timm.DropPath = lambda *a, **k: torch.nn.Identity()
    timm.to_2tuple = lambda x: (x, x)
    timm.trunc_normal_ = lambda *a, **k: None
    for name in ("timm", "timm.models"):
        sys.modules[name] = types.ModuleType(name)
    sys.modules["timm.models.layers"] = timm
    return lambda name: importlib.import_module("diffbir." + name)


@torch.no_grad()
def main(checkout):
    torch.set_num_threads(1)
    module = load(checkout)

    def make_swinir(embed):
        return module("model.swinir").SwinIR(
            img_size=64, patch_size=1, in_chans=3, embed_dim=embed, depths=[6] * 8, num_heads=[6] * 8,
            window_size=8, mlp_ratio=2, sf=8, img_range=1.0, upsampler="nearest+conv", resi_connection="1conv",
            unshuffle=True, unshuffle_scale=8,
        )

    swinir = fill(make_swinir(12))
    out = {}
    for height, width in ((64, 64), (128, 192)):
        out[f"out_{height}x{width}"] = swinir(picture(f"swinir_{height}x{width}", 1, 3, height, width))
    save("swinir", out, official(("swinir", lambda: make_swinir(180))))

    def make_vae(ch):
        return module("model.vae").AutoencoderKL(
            dict(double_z=True, z_channels=4, resolution=256, in_channels=3, out_ch=3, ch=ch,
                 ch_mult=[1, 2, 4, 4], num_res_blocks=2, attn_resolutions=[], dropout=0.0),
            embed_dim=4,
        )

    vae = fill(make_vae(32))
    posterior = vae.encode(picture("vae", 1, 3, 64, 48) * 2 - 1)
    decoded = vae.decode(given("vae_latent", 1, 4, 8, 6) * np.float32(np.sqrt(3)))
    out = {"mean": posterior.mean, "logvar": posterior.logvar, "decoded": decoded}
    tilevae = module("utils.tilevae")
    big = picture("vae_big", 1, 3, 192, 256) * 2 - 1
    latent = given("vae_big_latent", 1, 4, 40, 56) * np.float32(np.sqrt(3))
    encoder, decoder = vae.encoder, vae.decoder
    hook = tilevae.VAEHook(encoder, 64, is_decoder=False, fast_decoder=False, fast_encoder=False, color_fix=False)
    encoder.original_forward = encoder.forward
    out["tiled_mean"] = vae.quant_conv(hook(big))[:, :4, ::2, ::2]
    hook = tilevae.VAEHook(decoder, 16, is_decoder=True, fast_decoder=False, fast_encoder=False, color_fix=False)
    decoder.original_forward = decoder.forward
    out["tiled_decoded"] = hook(vae.post_quant_conv(latent))[..., ::7, ::7]
    save("vae", out, official(("vae", lambda: make_vae(128))))

    def config(width, context, head):
        return dict(
            image_size=32, in_channels=4, model_channels=width, num_res_blocks=2, attention_resolutions=[4, 2, 1],
            channel_mult=[1, 2, 4, 4], num_head_channels=head, use_spatial_transformer=True,
            use_linear_in_transformer=True, transformer_depth=1, context_dim=context, legacy=False,
            use_checkpoint=False,
        )

    net = module("model.controlnet")
    unet = fill(net.ControlledUnetModel(out_channels=4, **config(32, 32, 8)))
    control = fill(net.ControlNet(hint_channels=4, **config(32, 32, 8)))
    root = np.float32(np.sqrt(3))
    x, c_img = given("x", 1, 4, 16, 16) * root, given("c_img", 1, 4, 16, 16) * root
    context = given("context", 1, 77, 32) * root
    out = {}
    for t in (0.0, 499.0, 999.0, 123.4):
        time = torch.tensor([t])
        extra = control(x=x, hint=c_img, timesteps=time, context=context)
        out[f"unet_{t:g}"] = unet(x=x, timesteps=time, context=context, control=None, only_mid_control=False)
        out[f"both_{t:g}"] = unet(
            x=x, timesteps=time, context=context, control=[0.3 * e for e in extra], only_mid_control=False
        )
        if t == 499.0:
            for index in (0, 4, 11, 12):
                out[f"control_{index}"] = extra[index]
    full = config(320, 1024, 64)
    extra = official(
        ("unet", lambda: net.ControlledUnetModel(out_channels=4, **full)),
        ("controlnet", lambda: net.ControlNet(hint_channels=4, **full)),
    )
    save("unet_control", out, extra)


if __name__ == "__main__":
    main(sys.argv[1])
