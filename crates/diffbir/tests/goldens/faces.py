"""Goldens of faces cut from and laid back into a picture: `faces.safetensors`.

    python faces.py DIFFBIR

DIFFBIR is a checkout as README.md names it; facexlib 0.3.0, OpenCV 5.0.0. Landmarks are given in place of found ones,
restored faces are noise by the formula. ParseNet has the formula's weights at official size.
"""

import importlib
import os
import sys
import warnings

import numpy as np
import torch

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "../../../models/tests/goldens"))
from facexlib.parsing.parsenet import ParseNet
from formula import check_filler, fill, filler
from store import save, together

TEMPLATE = np.array(
    [[192.98138, 239.94708], [318.90277, 240.1936], [256.63416, 314.01935], [201.26117, 371.41043], [313.08905, 371.15118]]
)
HEIGHT, WIDTH = 560, 640
# Degrees, side of the aligned square in pixels, its left upper corner: inside, turned, cut off, small.
FACES = ((0, 300, 40, 30), (38, 240, 420, 140), (-12, 260, 500, 400), (5, 60, 120, 420))


def noise(key, height, width):
    return np.floor((filler("in/" + key, height * width * 3) + 1) * 128).astype(np.uint8).reshape(height, width, 3)


def landmarks_of(index, degrees, side, x, y, astray=3.0):
    """The template, turned, scaled, moved, and each point astray by the formula."""
    angle, scale = np.deg2rad(degrees), side / 512
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) * scale
    off = filler(f"in/landmarks_{index}", 10).reshape(5, 2) * astray * scale * 4
    # Rounded as in float32, so that both sides start from the same.
    return (TEMPLATE @ turn.T + [x, y] + off).astype(np.float32)


@torch.no_grad()
def main():
    warnings.simplefilter("ignore")
    check_filler()
    torch.set_num_threads(2)
    sys.path.insert(0, os.path.abspath(sys.argv[1]))
    face = importlib.import_module("diffbir.utils.face")
    import cv2

    parser = fill(ParseNet(in_size=512, out_size=512, parsing_ch=19))
    face.init_detection_model = lambda *a, **k: None
    face.init_parsing_model = lambda *a, **k: parser
    out = {}
    many = [landmarks_of(f"many_{n}", 7.0 * n, 100 + 9 * n, 3.0 * n, 500 - 5.0 * n, 6.0) for n in range(40)]
    maps = [cv2.estimateAffinePartial2D(points.astype(np.float64), TEMPLATE, method=cv2.LMEDS)[0] for points in many]
    out["landmarks"] = torch.from_numpy(np.stack(many)).float()
    out["maps"] = torch.from_numpy(np.stack(maps)).float()
    known = [landmarks_of(index, *place) for index, place in enumerate(FACES)]
    out["faces"] = torch.from_numpy(np.stack(known)).float()
    for name, use_parse in (("parsed", True), ("feathered", False)):
        helper = face.FaceRestoreHelper(1, 512, use_parse=use_parse, device="cpu")
        helper.read_image(noise("scene", HEIGHT, WIDTH))
        helper.all_landmarks_5 = [points.astype(np.float64) for points in known]
        helper.align_warp_face()
        for index, cut in enumerate(helper.cropped_faces):
            out[f"cut_{index}"] = torch.from_numpy(cut)
            helper.add_restored_face(noise(f"restored_{index}", 512, 512))
        helper.get_inverse_affine()
        out[name] = torch.from_numpy(helper.paste_faces_to_input_image(upsample_img=noise("background", HEIGHT, WIDTH)))
    metadata = {"opencv": cv2.__version__, "facexlib": "0.3.0"}
    save(os.path.join(HERE, "faces"), together(out), metadata, ("landmarks", "maps", "faces"), samples=16384)


if __name__ == "__main__":
    main()
