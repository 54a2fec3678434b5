"""Files with the names, shapes and format of the official ones of v2.1 and with weights by the formula, for runs at
official size where nobody has the official files. `scripts/compare_reference.py` uses such a folder.

    python full.py DIFFBIR FOLDER

DIFFBIR is a checkout of https://github.com/XPixelGroup/DiffBIR at the commit of `v21.py`; FOLDER gets 6.9 GB.
"""

import os
import sys

import torch
from common import quiet, start
from formula import fill
from omegaconf import OmegaConf


def made(path, instantiate):
    """A network without values: the text encoder would bring a large picture tower along."""
    with torch.device("meta"):
        return instantiate(OmegaConf.load(path))


def filled(network, salt=0):
    network.to_empty(device="cpu")
    fill(network, salt)
    return {key: tensor for key, tensor in network.state_dict().items() if not key.startswith("visual.")}


def main():
    checkout, folder = sys.argv[1:]
    start(checkout)
    os.makedirs(folder, exist_ok=True)
    with quiet():
        import inference  # noqa: F401: brings the classes in

        instantiate = sys.modules["diffbir.inference.loop"].instantiate_from_config
        configs = os.path.join(checkout, "configs", "inference")
        network = made(os.path.join(configs, "cldm.yaml"), instantiate)
        # The checker of names counts these buffers in, so their values have to be right.
        cleaner = instantiate(OmegaConf.load(os.path.join(configs, "swinir.yaml")))
        fill(cleaner)
    torch.save(cleaner.state_dict(), os.path.join(folder, "realesrgan_s4_swinir_100k.pth"))
    torch.save(filled(network.controlnet, salt=1), os.path.join(folder, "DiffBIR_v2.1.pt"))
    network.controlnet = None
    base = {}
    for part, prefix in ((network.unet, "model.diffusion_model"), (network.vae, "first_stage_model")):
        base.update({f"{prefix}.{key}": tensor for key, tensor in filled(part).items()})
    base.update({f"cond_stage_model.{key}": tensor for key, tensor in filled(network.clip).items()})
    torch.save({"state_dict": base, "global_step": 0}, os.path.join(folder, "sd2.1-base-zsnr-laionaes5.ckpt"))
    for name in sorted(os.listdir(folder)):
        print(f"{name}: {os.path.getsize(os.path.join(folder, name)) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
