"""Goldens of the small networks of other authors: the autoencoder TAESD for FLUX.2 and Real-ESRGAN's compact one."""

import os
import sys
import types

from formula import fill, latent, picture
from sources import COMMIT, REALESRGAN_COMMIT, TAESD_COMMIT, load_file, path_of
from store import recorded_layers, save, twice


def make_taef2(checkout):
    network = load_file(os.path.join(checkout, "taesd.py"), "taesd").TAESD(None, None, 32, "flux_2")
    network = fill(network)
    assert len(network.state_dict()) == 158

    def run(out, network):
        for height, width in ((32, 32), (40, 56)):
            suffix = f"@{height}x{width}"
            x = picture(f"taef2_{height}x{width}", 1, 3, height, width)
            z = latent(f"taef2_latent_{height}x{width}", 1, 32, height // 8, width // 8)
            latents, out["encoder.layers" + suffix] = recorded_layers(network, lambda x=x: network.encoder(x))
            out["latents" + suffix] = latents
            out["decoded" + suffix], out["decoder.layers" + suffix] = recorded_layers(
                network, lambda z=z: network.decoder(z)
            )
            out["round_trip" + suffix] = network.decoder(latents)

    metadata = {
        "reference": TAESD_COMMIT,
        "config": "TAESD with 32 latent channels, variant flux_2, official widths; keys encoder.N..., decoder.N...",
    }
    save(path_of("taef2"), twice([network], run), metadata, ("decoded@40x56", "round_trip@40x56"))


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
            x = picture(f"srvgg_{height}x{width}", 1, 3, height, width)
            out["out" + suffix], out["layers" + suffix] = recorded_layers(network, lambda x=x: network(x))
        x = picture("srvgg_40x56", 1, 3, 40, 56)
        tiled = module("utils.common").make_tiled_fn(network, 32, 16, scale_type="up", scale=4, progress=False)
        out["tiled@40x56"] = tiled(x)

    metadata = {
        "reference": REALESRGAN_COMMIT,
        "config": "num_feat 8, num_conv 3, upscale 4, prelu; PReLU weights 0.25 + 0.2 u; tiled: DiffBIR "
        f"{COMMIT}, tile 32, stride 16, scale 4",
    }
    save(path_of("srvgg"), twice([network], run), metadata, ("out@16x16", "out@12x20"))
