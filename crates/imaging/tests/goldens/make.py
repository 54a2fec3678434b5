"""Goldens of resampling, from Pillow and torch, and of the colour fix, from the reference.

    python make.py CHECKOUT

CHECKOUT is https://github.com/XPixelGroup/DiffBIR at commit 3f8b5304245ba0ffd6f1995e51c27c3c72d7618f.
Needs Pillow, torch, numpy, einops, omegaconf, safetensors from PyPI. The picture has 37 x 29 pixels of
three channels, value i being (i * i * 31 + i * 7) mod 256.
"""

import importlib
import os
import sys
import types

import numpy as np
import PIL
import torch
from PIL import Image
from safetensors.torch import save_file

COMMIT = "3f8b5304245ba0ffd6f1995e51c27c3c72d7618f"
HERE = os.path.dirname(os.path.abspath(__file__))
WIDTH, HEIGHT = 37, 29


def main(checkout):
    index = np.arange(WIDTH * HEIGHT * 3, dtype=np.uint64)
    pixels = ((index * index * 31 + index * 7) % 256).astype(np.uint8).reshape(HEIGHT, WIDTH, 3)
    out = {}
    for name, method in (
        ("box", Image.Resampling.BOX), ("bilinear", Image.Resampling.BILINEAR),
        ("bicubic", Image.Resampling.BICUBIC), ("lanczos", Image.Resampling.LANCZOS),
    ):
        for width, height in ((11, 9), (37, 58), (74, 29), (100, 41), (150, 117)):
            resized = np.asarray(Image.fromarray(pixels).resize((width, height), method))
            out[f"{name}_{width}x{height}"] = torch.from_numpy(resized.copy())
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
    for width, height in ((11, 9), (100, 41)):
        resized = torch.nn.functional.interpolate(
            tensor, (height, width), mode="bicubic", antialias=True, align_corners=False
        )
        out[f"torch_{width}x{height}"] = resized[0].permute(1, 2, 0)

    sys.path.insert(0, checkout)
    for name in ("diffbir", "diffbir.utils"):
        package = types.ModuleType(name)
        package.__path__ = [os.path.join(checkout, *name.split("."))]
        sys.modules[name] = package
    common = importlib.import_module("diffbir.utils.common")
    out["wavelet"] = common.wavelet_reconstruction(tensor, tensor.flip(2))[0].permute(1, 2, 0)
    weights = common.gaussian_weights(16, 16)
    out["gaussian_16"] = torch.from_numpy(np.asarray(weights)).float()
    windows = [common.sliding_windows(h, w, t, s) for h, w, t, s in ((24, 20, 16, 8), (64, 64, 64, 32), (70, 131, 64, 48))]
    out["windows"] = torch.tensor([list(map(int, window)) for group in windows for window in group])
    out = {key: value.contiguous().clone() for key, value in out.items()}
    metadata = {"reference": COMMIT, "torch": torch.__version__, "pillow": PIL.__version__}
    save_file(out, os.path.join(HERE, "imaging.safetensors"), metadata)
    print({key: tuple(value.shape) for key, value in out.items()})


if __name__ == "__main__":
    main(sys.argv[1])
