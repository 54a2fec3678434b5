"""Goldens of the samplers, made by the reference itself with a network in closed form.

    ATTN_MODE=sdp python make.py CHECKOUT

CHECKOUT is https://github.com/XPixelGroup/DiffBIR at commit 3f8b5304245ba0ffd6f1995e51c27c3c72d7618f.
Needs torch, torchsde, numpy, scipy, einops, omegaconf, safetensors from PyPI. Every run starts from
torch.manual_seed(231), draws its noise on the CPU, and stores its last latent.

The network is (.3 + .0002 t) x + (.5 - .0003 t) c + .01 tanh(x) m, with c[i] = sin(.37 i) and m = 1 for
the prompt and -.5 for the negative prompt.
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


class Network(torch.nn.Module):
    def forward(self, x, t, cond):
        t = t.reshape(-1, 1, 1, 1).float()
        return (0.3 + 0.0002 * t) * x + (0.5 - 0.0003 * t) * cond["c_img"] + 0.01 * torch.tanh(x) * cond["c_txt"].mean()


def load(checkout):
    sys.path.insert(0, checkout)
    torch.Tuple = typing.Tuple
    for name in ("diffbir", "diffbir.model", "diffbir.utils", "diffbir.sampler"):
        package = types.ModuleType(name)
        package.__path__ = [os.path.join(checkout, *name.split("."))]
        sys.modules[name] = package
    # Only named in annotations.
    stub = types.ModuleType("diffbir.model.cldm")
    stub.ControlLDM = object
    sys.modules["diffbir.model.cldm"] = stub
    return lambda name: importlib.import_module("diffbir." + name)


def betas(module, zero_snr):
    linear = np.linspace(0.00085**0.5, 0.0120**0.5, 1000, dtype=np.float64) ** 2
    return module("model.gaussian_diffusion").enforce_zero_terminal_snr(linear) if zero_snr else linear


@torch.no_grad()
def main(checkout):
    module = load(checkout)
    edm, spaced = module("sampler.edm_sampler").EDMSampler, module("sampler.spaced_sampler").SpacedSampler
    out = {}

    def run(name, sampler, steps, cfg, shape=(1, 4, 6, 5), **tiling):
        torch.manual_seed(231)
        c_img = torch.sin(0.37 * torch.arange(int(np.prod(shape)))).reshape(shape)
        cond, uncond = ({"c_img": c_img, "c_txt": torch.tensor([m])} for m in (1.0, -0.5))
        x_t = torch.randn(shape)
        out[name] = sampler.sample(
            model=Network(), device="cpu", steps=steps, x_size=shape, cond=cond, uncond=uncond, cfg_scale=cfg,
            x_T=x_t, progress=False, **tiling,
        )

    def solver(rescale=False, eta=1.0):
        return edm(betas(module, True), "v", rescale, "edm_dpm++_3m_sde", 0, 0, 300, 1, eta, 1)

    for steps in (5, 10, 20):
        for cfg in (1.0, 4.0):
            run(f"spaced_eps_{steps}_{cfg:g}", spaced(betas(module, False), "eps", False), steps, cfg)
            run(f"spaced_v_{steps}_{cfg:g}", spaced(betas(module, True), "v", False), steps, cfg)
            run(f"3m_{steps}_{cfg:g}", solver(), steps, cfg)
    run("spaced_v_rescaled", spaced(betas(module, True), "v", True), 10, 4.0)
    run("3m_rescaled", solver(rescale=True), 10, 4.0)
    run("3m_eta0", solver(eta=0.0), 10, 4.0)
    run("3m_eta05", solver(eta=0.5), 10, 4.0)
    run("3m_tiled", solver(), 5, 4.0, (1, 4, 24, 20), tiled=True, tile_size=16, tile_stride=8)
    out = {key: tensor.contiguous().clone() for key, tensor in out.items()}
    save_file(out, os.path.join(HERE, "samplers.safetensors"), {"reference": COMMIT, "torch": torch.__version__})
    print({key: tuple(tensor.shape) for key, tensor in out.items()})


if __name__ == "__main__":
    main(sys.argv[1])
