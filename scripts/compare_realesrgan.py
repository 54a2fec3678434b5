"""Runs Real-ESRGAN's own command (RealESRGANer) and ours on the same pictures, and says how far apart they are.

    python compare_realesrgan.py PROGRAM WEIGHTS [--upscale N] PICTURE...

PROGRAM is the binary `diffbir`, WEIGHTS a file of x4plus, general-x4v3 or animevideov3, told by its name; the packages
are PyPI's realesrgan 0.3.0 and basicsr 1.4.2, whose import of a module that torchvision no longer has is answered here. Both
compute in 32 bits; Real-ESRGAN without tiles, rounded to 8 bits. Its networks see 10 reflected pixels more on the right and
below: ours runs once on the picture as it is, and once with that border laid on, which is cut off again.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import types

import cv2
import numpy as np
import torch
import torchvision.transforms.functional as functional

shim = types.ModuleType("torchvision.transforms.functional_tensor")
shim.rgb_to_grayscale = functional.rgb_to_grayscale
sys.modules[shim.__name__] = shim
from basicsr.archs.rrdbnet_arch import RRDBNet
from realesrgan import RealESRGANer
from realesrgan.archs.srvgg_arch import SRVGGNetCompact
from safetensors.torch import load_file

SCALE = 4
BORDER_PX = 10
# The names of the first ESRGAN and those that the package reads.
NAMES = (("RRDB_trunk", "body"), ("RDB", "rdb"), ("trunk_conv", "conv_body"), ("upconv", "conv_up"), ("HRconv", "conv_hr"))


def network_of(name):
    if "animevideo" in name:
        return SRVGGNetCompact(3, 3, num_feat=64, num_conv=16, upscale=SCALE, act_type="prelu")
    if "general" in name:
        return SRVGGNetCompact(3, 3, num_feat=64, num_conv=32, upscale=SCALE, act_type="prelu")
    return RRDBNet(3, 3, num_feat=64, num_block=23, num_grow_ch=32, scale=SCALE)


def upsampler_of(weights, folder):
    """Real-ESRGAN's, from a file as it wants it."""
    network = network_of(os.path.basename(weights))
    if weights.endswith(".safetensors"):
        tensors = {}
        for key, tensor in load_file(weights).items():
            for old, new in NAMES:
                key = key.replace(old, new)
            tensors[key] = tensor.float()
        weights = os.path.join(folder, "weights.pth")
        torch.save({"params": tensors}, weights)
    return RealESRGANer(SCALE, weights, model=network, tile=0, pre_pad=BORDER_PX, half=False)


def ours(arguments, folder, picture):
    # As PNG, so that both read the same pixels.
    source, result = os.path.join(folder, "in.png"), os.path.join(folder, "out.png")
    cv2.imwrite(source, picture)
    command = [arguments.program, "restore", source, "-o", result, "--existing", "overwrite", "--device", "cpu"]
    command += ["--model", arguments.weights, "--precision", "f32", "--upscale", str(arguments.upscale)]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    return cv2.imread(result)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("weights")
    parser.add_argument("--upscale", type=float, default=SCALE)
    parser.add_argument("pictures", nargs="+")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        upsampler = upsampler_of(arguments.weights, folder)
        for path in arguments.pictures:
            picture = cv2.imread(path)
            theirs, _ = upsampler.enhance(picture, outscale=arguments.upscale)
            height, width = theirs.shape[:2]
            bordered = cv2.copyMakeBorder(picture, 0, BORDER_PX, 0, BORDER_PX, cv2.BORDER_REFLECT_101)
            for how, given in (("as it is", picture), ("with its border", bordered)):
                off = abs(ours(arguments, folder, given)[:height, :width].astype(int) - theirs.astype(int))
                print(
                    f"{os.path.basename(path)} {how}, {width} x {height}: mean difference {off.mean():.5f} levels, largest "
                    f"{off.max()}, {(off > 0).sum()} of {off.size} values differ, {(off > 1).mean():.2%} by more than 1",
                    flush=True,
                )


if __name__ == "__main__":
    main()
