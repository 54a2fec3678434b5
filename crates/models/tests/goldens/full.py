"""Goldens of the networks at official size, once each.

    python full.py DIFFBIR [swinir|clip|vae|unet|gfpgan ...]

As make.py, whose checkout, formula and layout it shares (README.md), but with the reference's own configurations and,
but for SwinIR and the text encoder, in float32 alone. Prints time and peak memory; `unet` needs 8 GB.
"""

import gc
import resource
import sys
import time
import warnings

import faces
import sources
import torch
from formula import check_filler, fill, latent, picture
from sources import COMMIT, path_of
from stage1 import swinir_of
from stage2 import clip_of, rows, unet_config, vae_of
from store import recorded_layers, save, together, twice


def make_swinir(module):
    def run(out, network):
        x = picture("full_swinir_512x512", 1, 3, 512, 512)
        out["out"], out["layers"] = recorded_layers(network, lambda: network(x))

    return twice([fill(swinir_of(module, 180, [6] * 8))], run)


def make_clip(module):
    def run(out, network):
        out["out"] = network(rows(2))

    return twice([fill(clip_of(module, 1024, 16))], run)


def make_vae(module):
    vae, out = fill(vae_of(module, 128)), {}
    x, z = picture("full_vae_512x512", 1, 3, 512, 512), latent("full_vae_latent_64x64", 1, 4, 64, 64)
    posterior, out["encoder.layers"] = recorded_layers(vae, lambda: vae.encode(x * 2 - 1))
    out["mean"], out["logvar"] = posterior.mean, posterior.logvar
    out["decoded"], out["decoder.layers"] = recorded_layers(vae, lambda: vae.decode(z))
    return together(out)


def on_meta(build):
    """Without the time that drawing numbers takes which are not used."""
    with torch.device("meta"):
        network = build()
    return fill(network.to_empty(device="cpu"))


def make_unet(module):
    net, config, out = module("model.controlnet"), unet_config(320, 1024, 64), {}
    x, hint = latent("full_x", 1, 4, 64, 64), latent("full_c_img", 1, 4, 64, 64)
    context, time_ = latent("full_context", 1, 77, 1024), torch.tensor([499.0])
    control = on_meta(lambda: net.ControlNet(hint_channels=4, **config))
    extra, out["control.layers"] = recorded_layers(
        control, lambda: control(x=x, hint=hint, timesteps=time_, context=context)
    )
    del control
    gc.collect()
    unet = on_meta(lambda: net.ControlledUnetModel(out_channels=4, **config))
    out["both"], out["unet.layers"] = recorded_layers(
        unet, lambda: unet(x=x, timesteps=time_, context=context, control=extra)
    )
    return together(out)


@torch.no_grad()
def main():
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    check_filler()
    module = sources.load(sys.argv[1])
    makers = {"swinir": make_swinir, "clip": make_clip, "vae": make_vae, "unet": make_unet}
    makers["gfpgan"] = lambda module: faces.make_full_gfpgan()
    for name in sys.argv[2:] or makers:
        since = time.time()
        results = makers[name](module)
        save(path_of("full_" + name), results, {"reference": COMMIT, "config": "official"})
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(f"{name}: {time.time() - since:.0f} s, {peak:.1f} GB at most", flush=True)
        gc.collect()


if __name__ == "__main__":
    main()
