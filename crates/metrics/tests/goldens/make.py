"""Values of the metrics by the packages that the field uses, for the tests.

    python make.py NIQE_NPZ

Needs torch, lpips 0.1.4, numpy, Pillow, scipy, opencv and the files of pyiqa 0.1.13 (`pip install --no-deps`) from
PyPI, and BasicSR's `niqe_pris_params.npz`. README.md says what is stored.
"""

import importlib.util
import json
import os
import sys
import types

import lpips
import numpy as np
import torch
from PIL import Image

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "..", "..", "models", "tests", "goldens"))
from formula import filler  # noqa: E402


def pyiqa(name):
    """A module of pyiqa, without running the packages above it, which import every metric there is."""
    if "pyiqa" not in sys.modules:
        root = importlib.util.find_spec("pyiqa").submodule_search_locations[0]
        for package in ("pyiqa", "pyiqa.archs", "pyiqa.utils"):
            sys.modules[package] = types.ModuleType(package)
            sys.modules[package].__path__ = [os.path.join(root, *package.split(".")[1:])]
    return importlib.import_module(name)


def pictures():
    """The truth and a blurred, noisy copy of it, in integers that the tests compute again."""
    truth = np.array(Image.open(os.path.join(HERE, "chelsea.png")).convert("RGB")).astype(np.int64)
    left = np.concatenate([truth[:, :1], truth[:, :-1]], 1)
    noise = np.floor(np.float32(12) * filler("in/metrics_noise", truth.size)).astype(np.int64)
    worse = ((truth + left + 1) // 2 + noise.reshape(truth.shape)).clip(0, 255)
    return truth, worse


def tensor(picture, dtype=torch.float64):
    return torch.from_numpy(picture).permute(2, 0, 1)[None].to(dtype) / 255


def exact_luma(picture, luma):
    """Rounded in integers; of float32, or weights rounded to it, pixels in the middle of two levels fall to either
    side. As a picture of one channel, which pyiqa takes as it is."""
    weights, unit, black = {"full": ((299, 587, 114), 1000, 0), "studio": ((65481, 128553, 24966), 255000, 16)}[luma]
    levels = (2 * (picture @ np.array(weights)) + unit) // (2 * unit) + black
    return torch.from_numpy(levels)[None, None].double() / 255


def alexnet():
    """LPIPS with weights by the formula, under the names of the files that we read."""
    network = lpips.LPIPS(net="alex", pretrained=False, pnet_rand=True, verbose=False)
    slices = {0: 1, 3: 2, 6: 3, 8: 4, 10: 5}
    names = {}
    for index, part in slices.items():
        for kind in ("weight", "bias"):
            names[f"features.{index}.{kind}"] = [f"net.slice{part}.{index}.{kind}"]
    for layer in range(5):
        names[f"lin{layer}.model.1.weight"] = [f"lin{layer}.model.1.weight", f"lins.{layer}.model.1.weight"]
    state, filled = network.state_dict(), set()
    for name, places in names.items():
        shape = state[places[0]].shape
        u = torch.from_numpy(filler(name, shape.numel())).reshape(shape)
        value = 0.05 * u if name.endswith("bias") else u * np.float32(np.sqrt(3.0 / shape[1:].numel()))
        # As the authors' are, so that channels do not cancel.
        value = value.abs() if name.startswith("lin") else value
        for place in places:
            state[place].copy_(value)
            filled.add(place)
    assert all("scaling_layer" in key for key in state.keys() - filled)
    return network.eval()


def layers(network, a, b):
    to = lambda picture: tensor(np.ascontiguousarray(picture), torch.float32) * 2 - 1
    total, each = network(to(a), to(b), retPerLayer=True)
    assert abs(total.item() - sum(x.item() for x in each)) < 1e-5
    return [x.item() for x in each]


def statistics():
    """Parameters for NIQE by the formula, one array in each order."""
    mean = 1 + 0.5 * filler("niqe/mean", 36).astype(np.float64)
    root = 0.3 * np.eye(36) + 0.05 * filler("niqe/root", 36 * 36).astype(np.float64).reshape(36, 36)
    parameters = {"mu_pris_param": mean.reshape(1, 36), "cov_pris_param": np.asfortranarray(root @ root.T)}
    np.savez(os.path.join(HERE, "niqe_formula.npz"), **parameters)
    return parameters


def niqe(picture, parameters, double):
    """`double` lifts what pyiqa computes in float32: the windows, resizing, and luma before it is rounded."""
    module = pyiqa("pyiqa.archs.niqe_arch")
    functions, resizing = pyiqa("pyiqa.archs.func_util"), pyiqa("pyiqa.matlab_utils.resize")
    kept = functions.fspecial, resizing.cast_input

    def window(size, sigma, _channels):
        x = np.arange(size) - (size - 1) / 2
        h = np.exp(-x * x / (2 * sigma * sigma))
        h = np.outer(h, h)
        return torch.from_numpy(h / h.sum())[None, None]

    if double:
        functions.fspecial, resizing.cast_input = window, lambda x: (x, None)
    mean, covariance = (torch.from_numpy(parameters[name].copy()) for name in ("mu_pris_param", "cov_pris_param"))
    found = {}
    for luma, space in (("full", "yiq"), ("studio", "ycbcr")):
        x = exact_luma(picture, luma) if double else tensor(picture, torch.float32)
        found[luma] = module.calculate_niqe(
            x, color_space=space, mu_pris_param=mean.reshape(1, 36), cov_pris_param=covariance[None]
        ).item()
    functions.fspecial, resizing.cast_input = kept
    return found


@torch.no_grad()
def main():
    torch.set_num_threads(1)
    truth, worse = pictures()
    a, b = tensor(worse), tensor(truth)
    structure, noise = pyiqa("pyiqa.archs.ssim_arch"), pyiqa("pyiqa.archs.psnr_arch")
    both = lambda metric: {
        "rgb": metric(test_y_channel=False)(a, b).item(),
        "luma": metric()(exact_luma(worse, "studio"), exact_luma(truth, "studio")).item(),
    }
    network, parameters = alexnet(), {"formula": statistics(), "official": np.load(sys.argv[1])}
    small = (slice(20, 67), slice(30, 95))
    values = {
        "psnr": {
            name: noise.psnr(a, b, name == "luma", eps=0, color_space="ycbcr").item() for name in ("rgb", "luma")
        },
        "ssim": both(structure.SSIM),
        "ms_ssim": both(structure.MS_SSIM),
        "lpips": {
            "288x208": layers(network, worse, truth),
            "65x47": layers(network, worse[small], truth[small]),
        },
        "niqe": {
            of: {
                name: {"shipped": niqe(picture, known, False), "double": niqe(picture, known, True)}
                for name, picture in (("truth", truth), ("worse", worse))
            }
            for of, known in parameters.items()
        },
    }
    with open(os.path.join(HERE, "values.json"), "w") as file:
        json.dump(values, file, indent=1)
        file.write("\n")


if __name__ == "__main__":
    main()
