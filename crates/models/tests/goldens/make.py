"""Goldens of the networks, made by the reference itself.

    python make.py DIFFBIR --taesd TAESD --realesrgan REAL_ESRGAN

The arguments are checkouts of
  https://github.com/XPixelGroup/DiffBIR    at 3f8b5304245ba0ffd6f1995e51c27c3c72d7618f
  https://github.com/madebyollin/taesd      at 5cccb12dc72074a4be35680c3b108548a7c69978 (needs taesd.py)
  https://github.com/xinntao/Real-ESRGAN    at a4abfb2979a7bbff3f69f58f58ae324608821e27 (needs srvgg_arch.py)
Without the last two the files of these networks stay as they are. README.md lists versions and contents.

Networks have the official structure at reduced widths. Every tensor and every input follows from its name by
the formula in `filler`, which the Rust tests evaluate again. Each network runs twice, in float32, which is
stored, and in float64, which gives the error that float32 alone brings (`floor.NAME` in the metadata).
"""

import argparse
import copy
import importlib
import importlib.util
import json
import math
import os
import struct
import sys
import types
import typing
import warnings

os.environ["ATTN_MODE"] = "sdp"
import numpy as np
import torch

COMMIT = "3f8b5304245ba0ffd6f1995e51c27c3c72d7618f"
TAESD_COMMIT = "5cccb12dc72074a4be35680c3b108548a7c69978"
REALESRGAN_COMMIT = "a4abfb2979a7bbff3f69f58f58ae324608821e27"
HERE = os.path.dirname(os.path.abspath(__file__))
ROOT3 = np.float32(np.sqrt(3))
# Tensors with more values than this are sampled, unless asked for as a whole.
LIMIT = 4096
SAMPLES = 2048
FORMULA = (
    "u = (z >> 40) * 2^-23 - 1; z = splitmix64 finaliser of FNV-1a-64('0:' + key) + (i + 1) * 0x9e3779b97f4a7c15; "
    "inputs at key 'in/' + name: pictures (u + 1) / 2, latents and context u * sqrt(3)"
)


def fnv(text):
    h = 0xCBF29CE484222325
    for byte in text.encode():
        h = ((h ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return h


def filler(key, count):
    """Uniform values in [-1, 1) from FNV-1a of the name and SplitMix64 of the index."""
    with np.errstate(over="ignore"):
        z = np.uint64(fnv("0:" + key))
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


# Last layers of residual branches.
SMALL = ("out_layers.3", "to_out.0", "ff.net.2", "proj_out", "conv2", "mlp.fc2", "conv5")


def fill(module):
    """Every tensor by the formula; masks and indices stay as computed."""
    state = module.state_dict()
    for key, tensor in state.items():
        if not tensor.is_floating_point() or key.endswith("attn_mask"):
            continue
        u = torch.from_numpy(filler(key, tensor.numel())).reshape(tensor.shape)
        name, _, kind = key.rpartition(".")
        owner = module.get_submodule(name)
        flat = name + ".weight" in state and state[name + ".weight"].dim() == 1
        if key.endswith(("relative_position_bias_table", "relative_position_params")):
            value = 0.5 * u
        elif isinstance(owner, torch.nn.PReLU):
            value = 0.25 + 0.2 * u
        elif flat:
            value = 1 + 0.2 * u if kind == "weight" else 0.1 * u
        elif kind == "bias":
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


class Recorder:
    """Takes down outputs of submodules under their own path and a suffix."""

    def __init__(self, out, module, paths, suffix="", prefix="", shape=None):
        self.handles = []
        for path in paths:

            def hook(_module, _inputs, result, path=path):
                # Later layers may work in place.
                result = result.detach().clone()
                out[prefix + path + suffix] = result if shape is None else shape(result)

            self.handles.append(module.get_submodule(path).register_forward_hook(hook))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for handle in self.handles:
            handle.remove()


def twice(networks, run):
    """`run` with the networks in float32 and with copies in float64."""
    single = {}
    run(single, *networks)
    # What stays float32 in the reference by explicit casts is lifted as well.
    util, controlnet = (importlib.import_module("diffbir.model." + name) for name in ("util", "controlnet"))
    norm, embedding = util.GroupNorm32.forward, controlnet.timestep_embedding

    def exact_embedding(t, width, **_):
        angles = t.double()[:, None] * 10000.0 ** (-torch.arange(width // 2).double() / (width // 2))
        return torch.cat([angles.cos(), angles.sin()], dim=-1)

    util.GroupNorm32.forward = torch.nn.GroupNorm.forward
    controlnet.timestep_embedding = exact_embedding
    torch.set_default_dtype(torch.float64)
    try:
        copies = [copy.deepcopy(network).double() for network in networks]
        for network in copies:
            if hasattr(network, "dtype"):
                network.dtype = torch.float64
        double = {}
        run(double, *copies)
    finally:
        torch.set_default_dtype(torch.float32)
        util.GroupNorm32.forward, controlnet.timestep_embedding = norm, embedding
    assert single.keys() == double.keys()
    return {key: (single[key], double[key]) for key in single}


def official(*builders):
    """Number of tensors and a hash of names and shapes of networks at official size."""
    result = {}
    for name, builder in builders:
        # SwinIR and SCUNet compute with real numbers while they are built.
        with torch.device("cpu" if name in ("swinir", "scunet") else "meta"):
            state = builder().state_dict()
        lines = sorted(f"{key} {'x'.join(map(str, tensor.shape))}" for key, tensor in state.items())
        text = "\n".join(lines)
        result["official_" + name] = f"{len(lines)} {fnv(text):016x}"
    return result


def stride_of(count):
    """The smallest step that gives at most SAMPLES values and no pattern along an axis."""
    stride = -(-count // SAMPLES)
    while math.gcd(stride, count) != 1:
        stride += 1
    return stride


def save(name, results, metadata, whole=()):
    """Writes a safetensors file; keys in order, so that the same values give the same bytes."""
    tensors, metadata = {}, {"torch": torch.__version__, "formula": FORMULA, **metadata}
    for key, (single, double) in results.items():
        assert single.dtype == torch.float32, key
        single, double = single.detach().contiguous(), double.detach().double()
        assert single.isfinite().all() and single.std() > 1e-3, key
        largest = double.abs().max()
        error = (single.double() - double).abs().max() / largest
        metadata["floor." + key] = f"{error.item():.1e}"
        if single.numel() <= LIMIT or key in whole:
            tensors[key] = single
            continue
        stride, flat = stride_of(single.numel()), single.flatten()
        exact = flat.double()
        stats = [exact.mean(), exact.std(correction=0), exact.min(), exact.max(), exact.norm()]
        tensors[key + ".sample"] = flat[::stride]
        tensors[key + ".stats"] = torch.stack(stats).float()
        metadata["shape." + key] = "x".join(map(str, single.shape))
        metadata["stride." + key] = str(stride)
    header, data = {"__metadata__": dict(sorted(metadata.items()))}, b""
    for key in sorted(tensors):
        values = tensors[key].numpy().astype("<f4").tobytes()
        header[key] = {
            "dtype": "F32",
            "shape": list(tensors[key].shape),
            "data_offsets": [len(data), len(data) + len(values)],
        }
        data += values
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(os.path.join(HERE, name + ".safetensors"), "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + data)
    for key, (single, _) in results.items():
        how = "whole" if key in tensors else "sample"
        print(f"{name}\t{key}\t{'x'.join(map(str, single.shape))}\t{how}\t{metadata['floor.' + key]}")


def load(checkout):
    sys.path.insert(0, checkout)
    # Shims for a machine without a GPU and for a torch newer than the reference's.
    torch.Tuple = typing.Tuple
    torch.cuda.synchronize = lambda *a, **k: None
    importlib.import_module("diffbir.model")
    return lambda name: importlib.import_module("diffbir." + name)


def load_file(path, name):
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def swinir_of(module, embed, depths):
    return module("model.swinir").SwinIR(
        img_size=64, patch_size=1, in_chans=3, embed_dim=embed, depths=depths, num_heads=[6] * len(depths),
        window_size=8, mlp_ratio=2, sf=8, img_range=1.0, upsampler="nearest+conv", resi_connection="1conv",
        unshuffle=True, unshuffle_scale=8,
    )  # fmt: skip


def make_swinir(module):
    full, tiny = fill(swinir_of(module, 12, [6] * 8)), fill(swinir_of(module, 12, [2, 2]))
    assert len(full.state_dict()) == 732

    def run(out, full, tiny):
        def forward(network, prefix, height, width):
            rows, columns = (-(-side // 64) * 8 for side in (height, width))

            def shape(x):
                """Tokens as a picture."""
                return x.transpose(1, 2).reshape(1, -1, rows, columns) if x.dim() == 3 else x

            paths = ["conv_first", "patch_embed", "norm", "conv_after_body", "conv_before_upsample.0"]
            paths += ["conv_up1", "conv_up2", "conv_up3", "conv_hr"]
            paths += [f"layers.{index}" for index in range(len(network.layers))]
            suffix = f"@{height}x{width}"
            if prefix or height == 128:
                # Only a few: the main sizes have all.
                paths = ["conv_first", "conv_after_body"]
            with Recorder(out, network, paths, suffix, prefix, shape):
                x = picture(f"swinir_{height}x{width}", 1, 3, height, width)
                out[f"{prefix}out_{height}x{width}"] = network(x)

        for height, width in ((64, 64), (60, 124), (128, 192)):
            forward(full, "", height, width)
        for height, width in ((64, 64), (64, 192), (512, 512)):
            forward(tiny, "tiny.", height, width)

    # Whole windows are needed: the reference pads to a multiple of 8 pixels, but a window spans 64.
    try:
        full(picture("swinir_72x136", 1, 3, 72, 136))
        refused = "no"
    except RuntimeError:
        refused = "yes"
    metadata = {
        "reference": COMMIT,
        "config": "embed 12, depths 6 x 8, heads 6 x 8; tiny.: embed 12, depths 2 2, heads 6 6; all else official",
        "refuses_72x136": refused,
        **official(("swinir", lambda: swinir_of(module, 180, [6] * 8))),
    }
    whole = ("out_64x64", "out_128x192", "tiny.out_64x64")
    save("swinir", twice([full, tiny], run), metadata, whole)
    return full, tiny


def make_stage1(module, full, tiny):
    """Stage 1 in tiles, and what the pipeline does around the network."""
    common = module("utils.common")
    pipeline = module("pipeline").SwinIRPipeline

    def run(out, full, tiny):
        def tiled(network, height, width, **options):
            x = picture(f"stage1_{height}x{width}", 1, 3, height, width)
            return common.make_tiled_fn(network, size=64, stride=32, progress=False, **options)(x)

        def clean(network, height, width, tiled):
            x = picture(f"stage1_{height}x{width}", 1, 3, height, width)
            return pipeline.apply_cleaner(types.SimpleNamespace(cleaner=network), x, tiled, 64, 32)

        dtype = torch.get_default_dtype()
        out["weights_64"] = torch.tensor(common.gaussian_weights(64, 64), dtype=dtype)
        out["weights_8"] = torch.tensor(common.gaussian_weights(8, 8), dtype=dtype)
        out["tiled_96x160"] = tiled(full, 96, 160)
        out["tiled_100x150"] = tiled(full, 100, 150)
        out["tiled_uniform_100x150"] = tiled(full, 100, 150, weight="uniform")
        out["tiny.tiled_96x160"] = tiled(tiny, 96, 160)
        # The short side below 512: first resized, then padded, run and cropped.
        out["tiny.pipeline_40x56"] = clean(tiny, 40, 56, False)
        out["tiny.pipeline_520x600"] = clean(tiny, 520, 600, False)
        # In tiles: resized afterwards; smaller than a tile: as without tiles.
        out["tiny.pipeline_tiled_96x160"] = clean(tiny, 96, 160, True)
        out["tiny.pipeline_tiled_40x56"] = clean(tiny, 40, 56, True)

    metadata = {
        "reference": COMMIT,
        "config": "networks as in swinir.safetensors; tile 64, stride 32, gaussian weights unless uniform is said",
    }
    save("tiled_stage1", twice([full, tiny], run), metadata, ("weights_64",))


def make_rrdb(module):
    RRDBNet = module("model.bsrnet").RRDBNet
    network = fill(RRDBNet(nf=8, gc=4))
    assert len(network.state_dict()) == 702

    def run(out, network):
        for height, width in ((64, 48), (12, 20)):
            suffix = f"@{height}x{width}"
            paths = ["conv_first", "RRDB_trunk.0", "RRDB_trunk.22", "trunk_conv", "upconv1", "upconv2", "HRconv"]
            with Recorder(out, network, paths, suffix):
                out["out" + suffix] = network(picture(f"rrdb_{height}x{width}", 1, 3, height, width))
            out["features" + suffix] = out["conv_first" + suffix] + out["trunk_conv" + suffix]

    metadata = {
        "reference": COMMIT,
        "config": "nf 8, gc 4, all else official",
        **official(("rrdb", RRDBNet)),
    }
    save("rrdb", twice([network], run), metadata, ("out@12x20",))


def make_scunet(module):
    SCUNet = module("model.scunet").SCUNet

    class Narrow(SCUNet):
        """Heads of 8 channels instead of the 32 that the class sets itself, so that the width can shrink."""

        head_dim = property(lambda self: 8, lambda self, _: None)

    network = fill(Narrow(config=[2] * 7, dim=16))

    def run(out, network):
        for height, width in ((60, 100), (12, 20)):
            suffix = f"@{height}x{width}"
            stages = ["m_head", "m_down1", "m_down2", "m_down3", "m_body", "m_up3", "m_up2", "m_up1"]
            with Recorder(out, network, stages if height == 60 else [], suffix):
                out["out" + suffix] = network(picture(f"scunet_{height}x{width}", 1, 3, height, width))

    metadata = {
        "reference": COMMIT,
        "config": "dim 16, head_dim 8, config 2 x 7, all else official",
        **official(("scunet", lambda: SCUNet(config=[4] * 7))),
    }
    save("scunet", twice([network], run), metadata, ("out@12x20",))


def vae_of(module, channels):
    return module("model.vae").AutoencoderKL(
        dict(double_z=True, z_channels=4, resolution=256, in_channels=3, out_ch=3, ch=channels,
             ch_mult=[1, 2, 4, 4], num_res_blocks=2, attn_resolutions=[], dropout=0.0),
        embed_dim=4,
    )  # fmt: skip


def make_vae(module):
    vae = fill(vae_of(module, 32))
    assert len(vae.state_dict()) == 248
    ControlLDM = module("model.cldm").ControlLDM
    paths = ["encoder.conv_in", "encoder.mid.block_1", "encoder.mid.attn_1", "encoder.mid.block_2", "encoder"]
    paths += [f"encoder.down.{level}.block.1" for level in range(4)]
    paths += [f"encoder.down.{level}.downsample" for level in range(3)]
    paths += ["quant_conv", "post_quant_conv", "decoder.conv_in"]
    paths += ["decoder.mid.block_1", "decoder.mid.attn_1", "decoder.mid.block_2"]
    paths += [f"decoder.up.{level}.block.2" for level in range(4)]
    paths += [f"decoder.up.{level}.upsample" for level in range(1, 4)]

    def ldm(vae, scale):
        return types.SimpleNamespace(vae=vae, scale_factor=scale)

    def run(out, vae):
        posterior = vae.encode(picture("vae", 1, 3, 64, 48) * 2 - 1)
        out["mean"], out["logvar"] = posterior.mean, posterior.logvar
        out["decoded"] = vae.decode(latent("vae_latent", 1, 4, 8, 6))
        with Recorder(out, vae, paths, "@64x64"):
            posterior = vae.encode(picture("vae_64x64", 1, 3, 64, 64) * 2 - 1)
            out["mean_64x64"], out["logvar_64x64"] = posterior.mean, posterior.logvar
            out["decoded_64x64"] = vae.decode(latent("vae_latent_8x8", 1, 4, 8, 8))
        official_scale = ldm(vae, 0.18215)
        x = picture("vae_64x64", 1, 3, 64, 64)
        out["condition_64x64"] = ControlLDM.vae_encode(official_scale, x * 2 - 1, sample=False)
        out["restored_64x64"] = ControlLDM.vae_decode(official_scale, latent("vae_latent_8x8", 1, 4, 8, 8))
        out["tiled_mean"] = encode(vae, picture("vae_big", 1, 3, 192, 256), 64)[..., ::2, ::2]
        out["tiled_decoded"] = decode(vae, latent("vae_big_latent", 1, 4, 40, 56), 16)[..., ::7, ::7]

    def encode(vae, x, tile):
        return ControlLDM.vae_encode(ldm(vae, 1.0), x * 2 - 1, sample=False, tiled=True, tile_size=tile)

    def decode(vae, z, tile):
        return ControlLDM.vae_decode(ldm(vae, 1.0), z, tiled=True, tile_size=tile)

    metadata = {
        "reference": COMMIT,
        "config": "ch 32, all else official; encoder input 2 * picture - 1",
        **official(("vae", lambda: vae_of(module, 128))),
    }
    whole = ("decoded", "decoded_64x64", "tiled_decoded")
    save("vae", twice([vae], run), metadata, whole)

    def run_tiled(out, vae):
        # 128 and 38 are the largest sides that stay whole.
        for height, width in ((128, 128), (136, 128), (160, 192), (160, 256)):
            x = picture(f"tiled_{height}x{width}", 1, 3, height, width)
            out[f"mean_{height}x{width}"] = encode(vae, x, 64)
        for height, width in ((38, 38), (39, 38), (40, 48), (40, 56)):
            z = latent(f"tiled_latent_{height}x{width}", 1, 4, height, width)
            out[f"decoded_{height}x{width}"] = decode(vae, z, 16)

    boxes = {}
    hook = module("utils.tilevae").VAEHook
    for name, tile, sizes in (
        ("encode", 64, ((136, 128), (160, 192), (160, 256))),
        ("decode", 16, ((39, 38), (40, 48), (40, 56))),
    ):
        for height, width in sizes:
            split = hook(None, tile, name == "decode", False, False, False).split_tiles(height, width)
            boxes[f"boxes.{name}_{height}x{width}"] = json.dumps(list(zip(*split)), separators=(",", ":"))
    metadata = {
        "reference": COMMIT,
        "config": "as in vae.safetensors; encode tile 64 (pad 32), decode tile 16 (pad 11), latent scale 1",
        "boxes": "each [input, output] as [x0, x1, y0, y1]",
        **boxes,
    }
    save("tiled_vae", twice([vae], run_tiled), metadata)


def unet_config(width, context, head):
    return dict(
        image_size=32, in_channels=4, model_channels=width, num_res_blocks=2, attention_resolutions=[4, 2, 1],
        channel_mult=[1, 2, 4, 4], num_head_channels=head, use_spatial_transformer=True,
        use_linear_in_transformer=True, transformer_depth=1, context_dim=context, legacy=False,
        use_checkpoint=False,
    )  # fmt: skip


def make_unet(module):
    net = module("model.controlnet")
    ControlLDM = module("model.cldm").ControlLDM
    unet = fill(net.ControlledUnetModel(out_channels=4, **unet_config(32, 32, 8)))
    control = fill(net.ControlNet(hint_channels=4, **unet_config(32, 32, 8)))
    assert (len(unet.state_dict()), len(control.state_dict())) == (686, 324)
    paths = [f"input_blocks.{index}" for index in range(12)] + ["middle_block"]
    paths += [f"output_blocks.{index}" for index in range(12)]

    def run(out, unet, control):
        x, hint = latent("x", 1, 4, 16, 16), latent("c_img", 1, 4, 16, 16)
        context = latent("context", 1, 77, 32)

        def both(strength, x, time, hint):
            ldm = types.SimpleNamespace(unet=unet, controlnet=control, control_scales=[strength] * 13)
            return ControlLDM.forward(ldm, x, time, {"c_txt": context, "c_img": hint})

        for t in (0.0, 499.0, 999.0, 123.4):
            name = f"{t:g}"
            time = torch.tensor([t], dtype=torch.float32).to(torch.get_default_dtype())
            with Recorder(out, control, ["time_embed"], "@" + name, "control."):
                extra = control(x=x, hint=hint, timesteps=time, context=context)
            for index, tensor in enumerate(extra):
                out[f"control_{index}" + ("" if t == 499 else "@" + name)] = tensor
            with Recorder(out, unet, ["time_embed"] + (paths if t == 499 else []), "@" + name):
                out[f"unet_{name}"] = unet(x=x, timesteps=time, context=context, control=None)
            out[f"both_{name}"] = both(0.3, x, time, hint)
            out[f"strength1_{name}"] = both(1.0, x, time, hint)
        # Another picture shape, and the whole denoiser in tiles of 8 with stride 4, as the samplers do it.
        time = torch.tensor([499.0])
        x, hint = latent("x_16x24", 1, 4, 16, 24), latent("c_img_16x24", 1, 4, 16, 24)
        out["strength1_16x24"] = both(1.0, x, time, hint)

        def tile(x, time, hi, hi_end, wi, wi_end):
            return both(1.0, x, time, hint[..., hi:hi_end, wi:wi_end])

        out["tiled_16x24"] = module("utils.common").make_tiled_fn(tile, 8, 4, progress=False)(x, time)

    full = unet_config(320, 1024, 64)
    metadata = {
        "reference": COMMIT,
        "config": "model_channels 32, context_dim 32, num_head_channels 8, all else official",
        **official(
            ("unet", lambda: net.ControlledUnetModel(out_channels=4, **full)),
            ("controlnet", lambda: net.ControlNet(hint_channels=4, **full)),
        ),
    }
    save("unet_control", twice([unet, control], run), metadata, ("control_0", "control_4"))


def make_taef2(checkout):
    network = load_file(os.path.join(checkout, "taesd.py"), "taesd").TAESD(None, None, 32, "flux_2")
    network = fill(network)
    assert len(network.state_dict()) == 158

    def run(out, network):
        for height, width in ((32, 32), (40, 56)):
            suffix = f"@{height}x{width}"
            paths = [f"encoder.{index}" for index in range(14)] + [f"decoder.{index}" for index in range(19)]
            with Recorder(out, network, paths if height == 32 else [], suffix):
                x = picture(f"taef2_{height}x{width}", 1, 3, height, width)
                z = latent(f"taef2_latent_{height}x{width}", 1, 32, height // 8, width // 8)
                latents = network.encoder(x)
                out["latents" + suffix], out["decoded" + suffix] = latents, network.decoder(z)
            out["round_trip" + suffix] = network.decoder(latents)

    metadata = {
        "reference": TAESD_COMMIT,
        "config": "TAESD with 32 latent channels, variant flux_2, official widths; keys encoder.N..., decoder.N...",
    }
    save("taef2", twice([network], run), metadata, ("decoded@40x56", "round_trip@40x56"))


def make_srvgg(module, checkout):
    # The file only wants to register its class.
    registry = types.ModuleType("basicsr.utils.registry")
    registry.ARCH_REGISTRY = types.SimpleNamespace(register=lambda: lambda cls: cls)
    for name in ("basicsr", "basicsr.utils"):
        sys.modules[name] = types.ModuleType(name)
    sys.modules["basicsr.utils.registry"] = registry
    path = os.path.join(checkout, "realesrgan", "archs", "srvgg_arch.py")
    network = load_file(path, "srvgg_arch").SRVGGNetCompact(3, 3, num_feat=8, num_conv=3, upscale=4, act_type="prelu")
    network = fill(network)

    def run(out, network):
        for height, width in ((16, 16), (12, 20)):
            suffix = f"@{height}x{width}"
            paths = [f"body.{index}" for index in range(len(network.body))]
            with Recorder(out, network, paths if height == 16 else [], suffix):
                out["out" + suffix] = network(picture(f"srvgg_{height}x{width}", 1, 3, height, width))
        x = picture("srvgg_40x56", 1, 3, 40, 56)
        tiled = module("utils.common").make_tiled_fn(network, 32, 16, scale_type="up", scale=4, progress=False)
        out["tiled@40x56"] = tiled(x)

    metadata = {
        "reference": REALESRGAN_COMMIT,
        "config": "num_feat 8, num_conv 3, upscale 4, prelu; PReLU weights 0.25 + 0.2 u; tiled: DiffBIR "
        f"{COMMIT}, tile 32, stride 16, scale 4",
    }
    save("srvgg", twice([network], run), metadata, ("out@16x16", "out@12x20"))


@torch.no_grad()
def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("diffbir")
    parser.add_argument("--taesd")
    parser.add_argument("--realesrgan")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    check_filler()
    module = load(arguments.diffbir)
    if arguments.taesd:
        make_taef2(arguments.taesd)
    if arguments.realesrgan:
        make_srvgg(module, arguments.realesrgan)
    make_unet(module)
    make_vae(module)
    make_rrdb(module)
    make_scunet(module)
    networks = make_swinir(module)
    make_stage1(module, *networks)


if __name__ == "__main__":
    main()
