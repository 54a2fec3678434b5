"""Runs GFPGAN's own network and ours on aligned faces, with the same weights, and says how far apart the results are.

    python compare_gfpgan.py PROGRAM WEIGHTS FACE...

PROGRAM is the binary `diffbir`, WEIGHTS a file such as GFPGANv1.4.pth; where there is none, one is made there, of weights by the
formula of `crates/models/tests/goldens`. The packages are PyPI's gfpgan 1.3.8 and basicsr 1.4.2, whose import of a module that
torchvision no longer has is answered here. A face goes in and comes out as in GFPGANer with `has_aligned`, but for the noise,
which is that of the file instead of drawn.
"""

import os
import subprocess
import sys
import tempfile
import types

import cv2
import torch
import torchvision.transforms.functional as functional

shim = types.ModuleType("torchvision.transforms.functional_tensor")
shim.rgb_to_grayscale = functional.rgb_to_grayscale
sys.modules[shim.__name__] = shim
from basicsr.utils import img2tensor, tensor2img
from gfpgan.archs.gfpganv1_clean_arch import GFPGANv1Clean

GOLDENS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../crates/models/tests/goldens")
SIDE_PX = 512


def network_of(weights):
    sizes = {"channel_multiplier": 2, "input_is_latent": True, "different_w": True, "sft_half": True}
    network = GFPGANv1Clean(SIDE_PX, fix_decoder=False, **sizes)
    if not os.path.exists(weights):
        sys.path.insert(0, GOLDENS)
        from formula import fill

        torch.save({"params_ema": fill(network).state_dict()}, weights)
    network.load_state_dict(torch.load(weights, map_location="cpu")["params_ema"], strict=True)
    return network.eval()


@torch.no_grad()
def main():
    program, weights, *faces = sys.argv[1:]
    network = network_of(weights)
    with tempfile.TemporaryDirectory() as folder:
        source, result = os.path.join(folder, "in.png"), os.path.join(folder, "out.png")
        for path in faces:
            face = cv2.resize(cv2.imread(path), (SIDE_PX, SIDE_PX))
            cv2.imwrite(source, face)
            x = img2tensor(face / 255.0, bgr2rgb=True, float32=True) * 2 - 1
            theirs, _ = network(x.unsqueeze(0), return_rgb=False, randomize_noise=False)
            theirs = tensor2img(theirs.squeeze(0), rgb2bgr=True, min_max=(-1, 1))
            command = [program, "restore", source, "-o", result, "--existing", "overwrite", "--device", "cpu"]
            command += ["--task", "face", "--model", weights, "--upscale", "1"]
            subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
            off = abs(cv2.imread(result).astype(int) - theirs.astype(int))
            print(f"{os.path.basename(path)}: {(off > 0).sum()} of {off.size} values differ, largest difference {off.max()}")


if __name__ == "__main__":
    main()
