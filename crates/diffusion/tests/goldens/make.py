"""Goldens of the samplers, made by the reference itself with a network in closed form.

    ATTN_MODE=sdp python make.py CHECKOUT

CHECKOUT is https://github.com/XPixelGroup/DiffBIR at commit 3f8b5304245ba0ffd6f1995e51c27c3c72d7618f.
Needs torch, torchsde, numpy, scipy, einops, omegaconf, safetensors from PyPI. Every run starts from
torch.manual_seed(231), draws its noise on the CPU, and stores its last latent. `x_T` is the first draw.

The network is (.3 + .0002 t) x + (.5 - .0003 t) c + .01 tanh(x) m, with c[i] = sin(.37 i) and m = 1 for
the prompt and -.5 for the negative prompt. A trace is the latents with which it was called for the prompt,
their times, and the conditions in order: 0 the prompt, 1 the negative prompt.

EDM samplers of a model that predicts eps start at the schedule's own sigma, not at 1e4: the one place where
the reference's class is changed.
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
SHAPE = (1, 4, 6, 5)
EDM = ["euler", "euler_a", "heun", "dpm_2", "dpm_2_a", "lms"]
EDM += ["dpm++_2s_a", "dpm++_sde", "dpm++_2m", "dpm++_2m_sde", "dpm++_3m_sde"]
CHURNED = ["edm_euler", "edm_heun", "edm_dpm_2"]
NOISY = ["edm_" + name for name in EDM if name.endswith(("_a", "sde"))]


class Network(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.inputs, self.times, self.conditions = [], [], []

    def forward(self, x, t, cond):
        for i in range(len(x)):
            negative = cond["c_txt"][i].item() < 0
            self.conditions.append(int(negative))
            if not negative:
                self.inputs.append(x[i].clone())
                self.times.append(float(t[i]))
        t, text = t.reshape(-1, 1, 1, 1).float(), cond["c_txt"].reshape(-1, 1, 1, 1)
        return (0.3 + 0.0002 * t) * x + (0.5 - 0.0003 * t) * cond["c_img"] + 0.01 * torch.tanh(x) * text


def load(checkout):
    sys.path.insert(0, checkout)
    torch.Tuple = typing.Tuple
    for name in ("diffbir", "diffbir.model", "diffbir.utils", "diffbir.sampler"):
        package = types.ModuleType(name)
        package.__path__ = [os.path.join(checkout, *name.split("."))]
        sys.modules[name] = package
    # Only named in annotations.
    stub = types.ModuleType("diffbir.model.cldm")
    stub.ControlLDM = sys.modules["diffbir.model"].ControlLDM = object
    sys.modules["diffbir.model.cldm"] = stub
    stub = types.ModuleType("diffbir.utils.cond_fn")
    stub.Guidance = object
    sys.modules["diffbir.utils.cond_fn"] = stub
    return lambda name: importlib.import_module("diffbir." + name)


@torch.no_grad()
def main(checkout):
    module = load(checkout)
    diffusion = module("model.gaussian_diffusion").Diffusion
    schedules = {
        kind: diffusion(
            linear_start=0.00085, linear_end=0.0120, timesteps=1000, zero_snr=kind == "v", parameterization=kind
        )
        for kind in ("eps", "v")
    }

    class OwnStart(module("sampler.edm_sampler").EDMSampler):
        def make_schedule(self, steps):
            super().make_schedule(steps)
            if self.parameterization == "eps":
                last = self.training_alphas_cumprod[-1]
                self.sigmas[0] = float(((1 - last) / last) ** 0.5)

    def build(name, kind, rescale=False, churn=0, s_noise=1, eta=1, order=1):
        base = (schedules[kind].betas, kind, rescale)
        if name == "spaced":
            return module("sampler.spaced_sampler").SpacedSampler(*base)
        if name == "ddim":
            return module("sampler.ddim_sampler").DDIMSampler(*base, eta=0)
        if name == "dpm++_m2":
            return module("sampler.dpms_sampler").DPMSolverSampler(*base, name)
        return OwnStart(*base, name, churn, 0, 300, s_noise, eta, order)

    out = {}

    def run(key, name, kind, steps=10, cfg=4.0, shape=SHAPE, tiling={}, start="noise", noise_aug=0, trace=False, **p):
        torch.manual_seed(231)
        c_img = torch.sin(0.37 * torch.arange(int(np.prod(shape)))).reshape(shape)
        x_t = torch.randn(shape)
        out["x_T" if shape == SHAPE else "x_T tiled"] = x_t
        if start == "cond":
            x_t = schedules[kind].q_sample(c_img, torch.tensor([999]), x_t)
        if noise_aug:
            c_img = schedules[kind].q_sample(c_img, torch.tensor([noise_aug]), torch.randn_like(c_img))
        cond, uncond = ({"c_img": c_img, "c_txt": torch.tensor([m])} for m in (1.0, -0.5))
        network = Network()
        out[key] = build(name, kind, **p).sample(
            model=network, device="cpu", steps=steps, x_size=shape, cond=cond, uncond=uncond, cfg_scale=cfg,
            x_T=x_t, progress=False, **tiling,
        )
        assert out[key].isfinite().all(), key
        if trace:
            out[key + " inputs"] = torch.stack(network.inputs)
            out[key + " times"] = torch.tensor(network.times)
            out[key + " conditions"] = torch.tensor(network.conditions, dtype=torch.uint8)

    for name in ["spaced", "ddim", "dpm++_m2"] + ["edm_" + name for name in EDM]:
        for kind in ("eps", "v"):
            for steps in (5, 10, 20):
                for cfg in (1.0, 4.0):
                    key = f"{name} {kind} {steps} {cfg:g}"
                    run(key, name, kind, steps, cfg, trace=steps == 5 and cfg == 4)
            run(f"{name} {kind} rescaled", name, kind, rescale=True)
            run(f"{name} {kind} started", name, kind, start="cond", noise_aug=150)
        run(f"{name} v less", name, "v", cfg=0.5, rescale=True)
    for name in CHURNED:
        run(f"{name} churned", name, "v", churn=40, s_noise=1.05)
        run(f"{name} churned little", name, "v", churn=2)
    for name in NOISY:
        for eta in (0.0, 0.5, 1.2):
            run(f"{name} eta {eta:g}", name, "v", eta=eta)
        run(f"{name} s_noise", name, "v", s_noise=1.05)
    for order in (1, 2, 3, 4, 8):
        run(f"edm_lms order {order}", "edm_lms", "v", order=order)
    run("ddim 30", "ddim", "v", steps=30)
    tiling = dict(tiled=True, tile_size=16, tile_stride=8)
    run("tiled", "edm_dpm++_3m_sde", "v", 5, shape=(1, 4, 24, 20), tiling=tiling)
    out = {key: tensor.contiguous().clone() for key, tensor in out.items()}
    file = os.path.join(HERE, "samplers.safetensors")
    save_file(out, file, {"reference": COMMIT, "torch": torch.__version__})
    print(len(out), "tensors,", os.path.getsize(file), "bytes")


if __name__ == "__main__":
    main(sys.argv[1])
