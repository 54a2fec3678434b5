"""Values of LPIPS with VGG-16 by PyPI's lpips, and of Fréchet distances by scipy, for the tests.

    python make_vgg_fid.py

Needs torch, torchvision, lpips 0.1.4, numpy, scipy, Pillow from PyPI. README.md says what is stored.
"""

import json
import os
import sys

import lpips
import numpy as np
import scipy.linalg
import torch
from PIL import Image

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "..", "..", "models", "tests", "goldens"))
from formula import filler  # noqa: E402

# Numbers a picture, pictures of each set.
SETS = {"many": (24, 60, 50), "few": (24, 15, 20), "wide": (130, 300, 200)}


def pictures():
    """As in make.py."""
    truth = np.array(Image.open(os.path.join(HERE, "chelsea.png")).convert("RGB")).astype(np.int64)
    left = np.concatenate([truth[:, :1], truth[:, :-1]], 1)
    noise = np.floor(np.float32(12) * filler("in/metrics_noise", truth.size)).astype(np.int64)
    return truth, ((truth + left + 1) // 2 + noise.reshape(truth.shape)).clip(0, 255)


def vgg():
    """LPIPS with weights by the formula, under the names of the files that we read."""
    network = lpips.LPIPS(net="vgg", pretrained=False, pnet_rand=True, verbose=False)
    state, filled = network.state_dict(), set()
    for place in state:
        parts = place.split(".")
        if parts[0] == "net":
            name = ".".join(["features", *parts[2:]])
        elif parts[0].startswith("lin"):
            name = ".".join([f"lin{parts[1]}", *parts[2:]] if parts[0] == "lins" else parts)
        else:
            continue
        shape = state[place].shape
        u = torch.from_numpy(filler(name, shape.numel())).reshape(shape)
        value = 0.05 * u if name.endswith("bias") else u * np.float32(np.sqrt(3.0 / shape[1:].numel()))
        state[place].copy_(value.abs() if name.startswith("lin") else value)
        filled.add(place)
    assert all("scaling_layer" in key for key in state.keys() - filled)
    return network.eval()


def layers(network, a, b):
    to = lambda x: torch.from_numpy(np.ascontiguousarray(x)).permute(2, 0, 1)[None].float() / 255 * 2 - 1
    return [x.item() for x in network(to(a), to(b), retPerLayer=True)[1]]


def distances(width, m, n):
    a = filler("fid/a", m * width).astype(np.float64).reshape(m, width)
    b = 0.5 * filler("fid/b", n * width).astype(np.float64).reshape(n, width) + 0.25
    covariances = [np.cov(x, rowvar=False) for x in (a, b)]
    rest = ((a.mean(0) - b.mean(0)) ** 2).sum() + sum(np.trace(c) for c in covariances)
    product = (a - a.mean(0)) @ (b - b.mean(0)).T / np.sqrt((m - 1) * (n - 1))
    return {
        "sqrtm": rest - 2 * np.trace(scipy.linalg.sqrtm(covariances[0] @ covariances[1])).real,
        "svd": rest - 2 * np.linalg.svd(product, compute_uv=False).sum(),
    }


@torch.no_grad()
def main():
    torch.set_num_threads(1)
    truth, worse = pictures()
    network, small = vgg(), (slice(20, 67), slice(30, 95))
    values = {
        "lpips_vgg": {
            "288x208": layers(network, worse, truth),
            "65x47": layers(network, worse[small], truth[small]),
        },
        "fid": {name: distances(*sizes) for name, sizes in SETS.items()},
    }
    with open(os.path.join(HERE, "vgg_fid.json"), "w") as file:
        json.dump(values, file, indent=1)
        file.write("\n")


if __name__ == "__main__":
    main()
