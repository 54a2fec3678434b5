"""Goldens of resampling, from Pillow and torch, and of colour fixes and tiles, from the reference.

    ATTN_MODE=sdp python make.py CHECKOUT CHECKOUT_V1

The checkouts are https://github.com/XPixelGroup/DiffBIR at commits 3f8b5304245ba0ffd6f1995e51c27c3c72d7618f and
7bd5675823c157b9afdd479b59a2bf0a8954ce11 (for AdaIN).
Needs Pillow, torch, numpy, einops, omegaconf, safetensors from PyPI. The picture has 37 x 29 pixels of
three channels, value i being (i * i * 31 + i * 7) mod 256. Of what is enlarged most, every 53rd value is kept
(`sparse`), of floats every 331st.
"""

import importlib
import importlib.util
import os
import sys
import types
import typing

import numpy as np
import PIL
import torch
from PIL import Image
from safetensors.torch import save_file

COMMIT_V1 = "7bd5675823c157b9afdd479b59a2bf0a8954ce11"
COMMIT = "3f8b5304245ba0ffd6f1995e51c27c3c72d7618f"
HERE = os.path.dirname(os.path.abspath(__file__))
WIDTH, HEIGHT = 37, 29


def vae_tiles():
    """Input and output box [x0, x1, y0, y1] of each tile of the Tiled VAE, and height, width, tile, pad of each picture."""
    torch.Tuple = typing.Tuple
    # Each wants the other; this one can be first.
    importlib.import_module("diffbir.model")
    hook = importlib.import_module("diffbir.utils.tilevae").VAEHook
    boxes, sizes = [], []
    for height, width, tile in (
        (512, 512, 256), (320, 320, 256), (328, 320, 256), (320, 328, 256), (576, 640, 256), (584, 648, 256),
        (600, 816, 256), (616, 512, 256), (1000, 704, 512), (1088, 576, 512), (1096, 584, 512), (2048, 1024, 512),
        (776, 552, 256), (136, 128, 64), (160, 256, 64), (520, 600, 192),
    ):  # fmt: skip
        boxes, sizes = boxes + boxes_of(hook, height, width, tile, False), sizes + [[height, width, tile, 32]]
    for height, width, tile in (
        (64, 64, 32), (54, 54, 32), (55, 54, 32), (77, 64, 32), (75, 102, 32), (128, 128, 64), (86, 87, 64), (87, 86, 64),
        (100, 200, 48), (39, 38, 16), (40, 56, 16),
    ):  # fmt: skip
        boxes, sizes = boxes + boxes_of(hook, height, width, tile, True), sizes + [[height, width, tile, 11]]
    return torch.tensor(boxes), torch.tensor(sizes)


def boxes_of(hook, height, width, tile, is_decoder):
    pad = 11 if is_decoder else 32
    if max(height, width) <= 2 * pad + tile:
        return [[0, width, 0, height] * 2]
    inputs, outputs = hook(None, tile, is_decoder, False, False, False).split_tiles(height, width)
    # In cells of the input on both sides.
    scaled = [[at // 8 if is_decoder else at * 8 for at in box] for box in outputs]
    return [list(map(int, [*a, *b])) for a, b in zip(inputs, scaled)]


def main(checkout, checkout_v1):
    index = np.arange(WIDTH * HEIGHT * 3, dtype=np.uint64)
    pixels = ((index * index * 31 + index * 7) % 256).astype(np.uint8).reshape(HEIGHT, WIDTH, 3)
    out = {}
    for name, method in (
        ("box", Image.Resampling.BOX), ("bilinear", Image.Resampling.BILINEAR),
        ("bicubic", Image.Resampling.BICUBIC), ("lanczos", Image.Resampling.LANCZOS),
    ):
        for width, height in ((11, 9), (37, 58), (74, 29), (100, 41)):
            resized = np.asarray(Image.fromarray(pixels).resize((width, height), method))
            out[f"{name}_{width}x{height}"] = torch.from_numpy(resized.copy())
        for width, height in ((150, 117), (296, 232), (222, 87), (12, 232)):
            resized = np.asarray(Image.fromarray(pixels).resize((width, height), method))
            out[f"sparse_{name}_{width}x{height}"] = torch.from_numpy(resized.flatten()[::53].copy())
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
    for width, height in ((11, 9), (100, 41)):
        resized = torch.nn.functional.interpolate(
            tensor, (height, width), mode="bicubic", antialias=True, align_corners=False
        )
        out[f"torch_{width}x{height}"] = resized[0].permute(1, 2, 0)
    for width, height in ((653, 512), (20, 116)):
        resized = torch.nn.functional.interpolate(tensor, (height, width), mode="bicubic", antialias=True)
        out[f"sparse_torch_{width}x{height}"] = resized[0].permute(1, 2, 0).flatten()[::331]

    sys.path.insert(0, checkout)
    for name in ("diffbir", "diffbir.utils"):
        package = types.ModuleType(name)
        package.__path__ = [os.path.join(checkout, *name.split("."))]
        sys.modules[name] = package
    common = importlib.import_module("diffbir.utils.common")
    out["wavelet"] = common.wavelet_reconstruction(tensor, tensor.flip(2))[0].permute(1, 2, 0)
    weights = common.gaussian_weights(16, 16)
    out["gaussian_16"] = torch.from_numpy(np.asarray(weights)).float()
    # Heights and widths just above a tile, at whole strides and between.
    sizes = [(24, 20, 16, 8), (64, 64, 64, 32), (70, 131, 64, 48), (64, 65, 64, 32), (65, 64, 64, 32), (75, 102, 64, 32)]
    sizes += [(96, 96, 64, 32), (97, 127, 64, 32), (128, 128, 64, 64), (512, 512, 512, 256), (512, 768, 512, 256)]
    sizes += [(520, 600, 512, 256), (600, 816, 512, 256), (1024, 513, 512, 256), (767, 1025, 512, 256), (100, 90, 80, 17)]
    sizes += [(99, 80, 80, 1), (33, 47, 32, 40), (40, 32, 32, 31), (31, 37, 9, 9)]
    out["sizes of windows"] = torch.tensor(sizes)
    out["windows"] = torch.tensor([list(map(int, window)) for size in sizes for window in common.sliding_windows(*size)])
    out["vae tiles"], out["sizes of vae tiles"] = vae_tiles()
    # Without its package, which wants more than this.
    path = os.path.join(checkout_v1, "utils", "image", "align_color.py")
    spec = importlib.util.spec_from_file_location("align_color", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    out["adain"] = module.adaptive_instance_normalization(tensor, tensor.flip(2) ** 2)[0].permute(1, 2, 0)
    out = {key: value.contiguous().clone() for key, value in out.items()}
    metadata = {"reference": COMMIT, "reference v1": COMMIT_V1, "torch": torch.__version__, "pillow": PIL.__version__}
    save_file(out, os.path.join(HERE, "imaging.safetensors"), metadata)
    print({key: tuple(value.shape) for key, value in out.items()})


if __name__ == "__main__":
    main(*sys.argv[1:])
