"""Goldens of schedules and random numbers, from the reference, torch and torchsde.

    ATTN_MODE=sdp python make_tables.py CHECKOUT

As make.py, whose checkout and versions it shares (README.md).
"""

import os
import sys

import numpy as np
import torch
from make import COMMIT, HERE, load
from safetensors.torch import save_file


def sampler_of(module, name, diffusion, *arguments):
    classes = {"edm": ("edm_sampler", "EDMSampler"), "spaced": ("spaced_sampler", "SpacedSampler")}
    file, cls = classes[name]
    return getattr(module("sampler." + file), cls)(diffusion.betas, diffusion.parameterization, *arguments)


def schedules(module, out):
    models = {
        kind: module("model.gaussian_diffusion").Diffusion(
            linear_start=0.00085, linear_end=0.0120, timesteps=1000, zero_snr=kind == "v", parameterization=kind
        )
        for kind in ("eps", "v")
    }
    for name, kind in (("plain", "eps"), ("zero-snr", "v")):
        out["alpha_bar " + name] = torch.from_numpy(np.cumprod(1.0 - models[kind].betas))
    for steps in (2, 5, 10, 20, 50, 100, 1000):
        sampler = sampler_of(module, "spaced", models["eps"], False)
        sampler.make_schedule(steps)
        out[f"spaced {steps}"] = torch.tensor(sampler.timesteps).long()
    ddim = module("sampler.ddim_sampler").make_ddim_timesteps
    for steps in (1, 2, 4, 5, 7, 8, 10, 13, 20, 30, 50, 100, 250, 500):
        out[f"ddim {steps}"] = torch.from_numpy(ddim("uniform", steps, 1000, verbose=False))
    works = [int(ddim("uniform", steps, 1000, verbose=False).max() < 1000) for steps in range(1, 1001)]
    out["ddim works"] = torch.tensor(works, dtype=torch.uint8)
    edm = sampler_of(module, "edm", models["v"], False, "edm_euler", 0, 0, 300, 1, 1, 1)
    for steps in (1, 2, 3, 5, 7, 10, 13, 20, 50, 100, 999):
        edm.make_schedule(steps)
        out[f"edm sigmas {steps}"], out[f"edm times {steps}"] = edm.sigmas.clone(), edm.timesteps.clone()
    rescaled = sampler_of(module, "spaced", models["v"], True)
    scales = [[rescaled.get_cfg_scale(scale, t) for t in range(0, 1000, 37)] for scale in (0.5, 1, 1.5, 4, 6, 8)]
    out["cfg"] = torch.tensor(scales, dtype=torch.float64)
    index = torch.arange(20)
    x, noise = torch.sin(0.37 * index), torch.cos(0.53 * index)
    times = torch.tensor([0, 1, 150, 499, 998, 999])
    for kind, model in models.items():
        many = [values.expand(len(times), 20) for values in (x, noise)]
        out["q_sample " + kind] = model.q_sample(many[0], times, many[1])
        out["get_v " + kind] = model.get_v(many[0], many[1], times)
    edm.make_schedule(10)
    return edm.sigmas


def random_numbers(module, sigmas, out):
    for seed in (0, 231, 2**32 + 5):
        torch.manual_seed(seed)
        out[f"normal {seed}"] = torch.cat([torch.randn(count) for count in range(1, 41)])
    torch.manual_seed(231)
    entropy = torch.randint(0, 2**63 - 1, []).item()
    noise = module("sampler.k_diffusion").BrownianTreeNoiseSampler(
        torch.zeros(1, 4, 6, 5), sigmas[sigmas > 0].min(), sigmas.max(), seed=entropy
    )
    fields = [noise(sigmas[index], sigmas[index + 1]).flatten() for index in range(len(sigmas) - 2)]
    out["brownian"] = torch.stack(fields)


def restoration(module, out):
    # Samplers need its name alone; the file itself needs nothing.
    del sys.modules["diffbir.utils.cond_fn"]
    guidance = module("utils.cond_fn")
    index = torch.arange(2 * 3 * 6 * 8).reshape(2, 3, 6, 8)
    target, estimate = torch.sin(0.37 * index), torch.cos(0.53 * index)
    # Steps between pixels small enough for weights other than 0.
    target, estimate = target * 0.02 + (index % 8 > 3), estimate * 0.3
    weighted = guidance.WeightedMSEGuidance(0.5, 1001, -1, "rgb", 1)
    out["restoration weights"] = weighted._get_weight((target + 1) / 2)
    out["restoration w_mse"] = weighted(target, estimate, 10)[0]
    out["restoration mse"] = guidance.MSEGuidance(0.5, 1001, -1, "rgb", 1)(target, estimate, 10)[0]


@torch.no_grad()
def main(checkout):
    module, out = load(checkout), {}
    restoration(module, out)
    random_numbers(module, schedules(module, out), out)
    out = {key: tensor.contiguous().clone() for key, tensor in out.items()}
    file = os.path.join(HERE, "tables.safetensors")
    save_file(out, file, {"reference": COMMIT, "torch": torch.__version__})
    print(len(out), "tensors,", os.path.getsize(file), "bytes")


if __name__ == "__main__":
    main(sys.argv[1])
