"""Goldens of GFPGAN's own program for photographs: `gfpganer.safetensors`.

    python gfpganer.py

PyPI's gfpgan 1.3.8, basicsr 1.4.2, facexlib 0.3.0, OpenCV 5.0.0. `GFPGANer.enhance` runs as it is, with landmarks given in
place of found ones, a network of a sixteenth of the width, the noise of the file in place of drawn one, and ParseNet with
weights by the formula: `whole`. Once more with faces laid back half a pixel of the result further up and left, which is where
they were: `placed`.
"""

import os
import sys
import tempfile
import types

import numpy as np
import torch
import torchvision.transforms.functional as functional

shim = types.ModuleType("torchvision.transforms.functional_tensor")
shim.rgb_to_grayscale = functional.rgb_to_grayscale
sys.modules[shim.__name__] = shim
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "../../../models/tests/goldens")]
from facexlib.parsing.parsenet import ParseNet
from faces import landmarks_of, noise
from formula import check_filler, fill
from store import save, together

HEIGHT, WIDTH, UPSCALE = 440, 520, 2
# Degrees, side of the aligned square in pixels, its left upper corner: inside, and cut off.
FACES = ((10, 290, 100, 30), (-15, 250, 380, 260))


@torch.no_grad()
def main():
    check_filler()
    torch.set_num_threads(1)
    import gfpgan.utils as package
    from facexlib.utils import face_restoration_helper as helper

    parser = fill(ParseNet(in_size=512, out_size=512, parsing_ch=19))
    helper.init_detection_model = lambda *a, **k: None
    helper.init_parsing_model = lambda *a, **k: parser
    whole = package.GFPGANv1Clean
    package.GFPGANv1Clean = lambda **sizes: whole(**{**sizes, "num_style_feat": 32, "narrow": 1 / 16})
    with tempfile.TemporaryDirectory() as folder:
        weights = os.path.join(folder, "gfpgan.pth")
        sizes = {"channel_multiplier": 2, "input_is_latent": True, "different_w": True, "sft_half": True}
        small = whole(512, num_style_feat=32, narrow=1 / 16, fix_decoder=False, **sizes)
        torch.save({"params_ema": fill(small).state_dict()}, weights)
        program = package.GFPGANer(weights, UPSCALE, device="cpu")
    forward = program.gfpgan.forward
    program.gfpgan.forward = lambda x, **options: forward(x, **options, randomize_noise=False)
    known = [landmarks_of(f"gfpganer_{index}", *place) for index, place in enumerate(FACES)]
    found = program.face_helper

    def given(**_):
        found.all_landmarks_5 = [points.astype(np.float64) for points in known]

    found.get_face_landmarks_5 = given
    picture = noise("gfpganer", HEIGHT, WIDTH)
    flipped = lambda pixels: torch.from_numpy(np.ascontiguousarray(pixels[..., ::-1]))
    out = {"faces": torch.from_numpy(np.stack(known)).float()}
    cut, restored, result = program.enhance(picture[..., ::-1])
    out["whole"] = flipped(result)
    for index, (before, after) in enumerate(zip(cut, restored, strict=True)):
        out[f"cut_{index}"], out[f"restored_{index}"] = flipped(before), flipped(after)
    back = found.get_inverse_affine

    def placed(*arguments):
        back(*arguments)
        for matrix in found.inverse_affine_matrices:
            matrix[:, 2] -= 0.5 * UPSCALE - (UPSCALE - 1) / 2

    found.get_inverse_affine = placed
    out["placed"] = flipped(program.enhance(picture[..., ::-1])[2])
    metadata = {"gfpgan": "1.3.8", "facexlib": "0.3.0"}
    save(os.path.join(HERE, "gfpganer"), together(out), metadata, ("faces",), samples=4096)


if __name__ == "__main__":
    main()
