"""Goldens of the networks of stage 2: autoencoder, whole and in tiles, denoiser with its control branch, text encoder."""

import json
import types

import numpy as np
import torch
from formula import fill, filler, latent, picture
from sources import COMMIT, path_of
from store import Recorder, official, recorded_layers, save, twice

VOCABULARY, TOKENS = 49408, 77


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

    def ldm(vae, scale):
        return types.SimpleNamespace(vae=vae, scale_factor=scale)

    def run(out, vae):
        posterior = vae.encode(picture("vae", 1, 3, 64, 48) * 2 - 1)
        out["mean"], out["logvar"] = posterior.mean, posterior.logvar
        out["decoded"] = vae.decode(latent("vae_latent", 1, 4, 8, 6))
        x, z = picture("vae_64x64", 1, 3, 64, 64), latent("vae_latent_8x8", 1, 4, 8, 8)
        posterior, out["encoder.layers@64x64"] = recorded_layers(vae, lambda: vae.encode(x * 2 - 1))
        out["mean_64x64"], out["logvar_64x64"] = posterior.mean, posterior.logvar
        out["decoded_64x64"], out["decoder.layers@64x64"] = recorded_layers(vae, lambda: vae.decode(z))
        official_scale = ldm(vae, 0.18215)
        out["condition_64x64"] = ControlLDM.vae_encode(official_scale, x * 2 - 1, sample=False)
        out["restored_64x64"] = ControlLDM.vae_decode(official_scale, z)
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
    save(path_of("vae"), twice([vae], run), metadata, whole)

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
    save(path_of("tiled_vae"), twice([vae], run_tiled), metadata)


def make_vae_fast(module):
    vae = fill(vae_of(module, 32))
    hook = module("utils.tilevae").VAEHook

    def run(out, vae):
        for colour_fix, name in ((False, "mean_160x192"), (True, "fixed_mean_160x192")):
            fast = hook(vae.encoder, 64, False, False, True, colour_fix)
            x = picture("tiled_160x192", 1, 3, 160, 192)
            out[name] = vae.quant_conv(fast(x * 2 - 1)).chunk(2, dim=1)[0]
        z = latent("tiled_latent_40x48", 1, 4, 40, 48)
        out["decoded_40x48"] = hook(vae.decoder, 16, True, True, False, False)(vae.post_quant_conv(z))

    metadata = {"reference": COMMIT, "config": "as in tiled_vae.safetensors, in fast mode"}
    save(path_of("tiled_vae_fast"), twice([vae], run), metadata)


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
    small = unet_config(32, 32, 8)

    def pair(salt):
        unet = fill(net.ControlledUnetModel(out_channels=4, **small), salt)
        return unet, fill(net.ControlNet(hint_channels=4, **small), salt)

    networks = [*pair(0), *pair(1)]
    assert [len(network.state_dict()) for network in networks[:2]] == [686, 324]

    def run(out, unet, control, other_unet, other_control):
        def both(strength, x, time, hint, context, unet=unet, control=control):
            ldm = types.SimpleNamespace(unet=unet, controlnet=control, control_scales=[strength] * 13)
            return ControlLDM.forward(ldm, x, time, {"c_txt": context, "c_img": hint})

        def at(*times):
            return torch.tensor(times, dtype=torch.float32).to(torch.get_default_dtype())

        x, hint, context = latent("x", 1, 4, 16, 16), latent("c_img", 1, 4, 16, 16), latent("context", 1, 77, 32)
        for t in (0.0, 1.0, 499.0, 999.0, 123.4):
            name, time = f"{t:g}", at(t)
            extra, out[f"control.layers@{name}"] = recorded_layers(
                control, lambda time=time: control(x=x, hint=hint, timesteps=time, context=context)
            )
            for index, tensor in enumerate(extra):
                out[f"control_{index}@{name}"] = tensor
            out[f"unet_{name}"], out[f"unet.layers@{name}"] = recorded_layers(
                unet, lambda time=time: unet(x=x, timesteps=time, context=context, control=None)
            )
            out[f"both_{name}"] = both(0.3, x, time, hint, context)
            out[f"strength1_{name}"] = both(1.0, x, time, hint, context)
        # Other weights.
        out["salt1.strength1_499"] = both(1.0, x, at(499.0), hint, context, other_unet, other_control)
        # A batch of two that have nothing in common.
        two = latent("x_two", 2, 4, 16, 24), at(123.4, 999.0), latent("c_img_two", 2, 4, 16, 24)
        out["strength1_two"] = both(1.0, *two, latent("context_two", 2, 77, 32))
        # Other picture shapes, and the whole denoiser in tiles of 8 with stride 4, as the samplers do it.
        time = at(499.0)
        for height, width in ((16, 24), (64, 64)):
            size = f"{height}x{width}"
            x, hint = latent(f"x_{size}", 1, 4, height, width), latent(f"c_img_{size}", 1, 4, height, width)
            out[f"strength1_{size}"] = both(1.0, x, time, hint, context)
        x, hint = latent("x_16x24", 1, 4, 16, 24), latent("c_img_16x24", 1, 4, 16, 24)

        def tile(x, time, hi, hi_end, wi, wi_end):
            return both(1.0, x, time, hint[..., hi:hi_end, wi:wi_end], context)

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
    # Many tensors of one kind; a few values of each do.
    save(path_of("unet_control"), twice(networks, run), metadata, limit=1024, samples=512)


def clip_of(module, width, heads):
    # The picture tower, which the reference throws away, as small as it can be.
    vision = dict(image_size=14, patch_size=14, width=8, head_width=8, layers=1)
    text = dict(context_length=TOKENS, vocab_size=VOCABULARY, width=width, heads=heads, layers=24)
    return module("model.clip").FrozenOpenCLIPEmbedder(width, vision, text, layer="penultimate")


def rows(count):
    """Token ids by the formula, and last the empty prompt."""
    u = filler("in/clip", (count - 1) * TOKENS).astype(np.float64)
    ids = torch.from_numpy(((u + 1) / 2 * VOCABULARY).astype(np.int64)).reshape(count - 1, TOKENS)
    return torch.cat([ids, torch.tensor([[49406, 49407] + [0] * (TOKENS - 2)])])


def make_clip(module):
    network = fill(clip_of(module, 64, 4))
    assert len(network.state_dict()) == 294

    def run(out, network):
        paths = [f"model.transformer.resblocks.{index}" for index in (0, 11, 22)]
        with Recorder(out, network, paths, shape=lambda x: x.permute(1, 0, 2)):
            out["out"] = network(rows(4))

    metadata = {
        "reference": COMMIT,
        "config": "width 64, heads 4, all else official; ids floor((u + 1) / 2 * 49408) of key in/clip, last row the "
        "empty prompt",
        **official(("clip", lambda: clip_of(module, 1024, 16))),
    }
    save(path_of("clip"), twice([network], run), metadata)
