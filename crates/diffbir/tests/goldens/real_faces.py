"""What facexlib, or OpenCV, finds in a folder of pictures: `real_faces.json`, `real_faces_yunet.json`.

    python real_faces.py WEIGHTS FOLDER

WEIGHTS is RetinaFace mobile0.25 for facexlib 0.3.0 (torch 2.9.0), or YuNet in ONNX for OpenCV 5.0.0; Pillow. Each picture
goes in as it is, upright or not, its channels as BGR, at its own size. A face is x1, y1, x2, y2, score and five landmarks x, y
in pixels.
"""

import json
import os
import sys

import cv2
import numpy as np
import torch
from facexlib.detection.retinaface import RetinaFace
from PIL import Image

ENDINGS = (".png", ".jpg", ".jpeg")


def facexlibs(weights):
    network = RetinaFace("mobile0.25", device="cpu")
    state = torch.load(weights, map_location="cpu", weights_only=True)
    network.load_state_dict({name.removeprefix("module."): value for name, value in state.items()})
    network.eval()
    return network.detect_faces


def opencvs(weights):
    def find(picture):
        height, width, _ = picture.shape
        # facexlib's limits.
        rows = cv2.FaceDetectorYN.create(weights, "", (width, height), 0.8, 0.4, 5000).detect(picture)[1]
        rows = np.zeros((0, 15)) if rows is None else rows
        return [[x, y, x + w, y + h, score, *points] for x, y, w, h, *points, score in rows]

    return find


@torch.no_grad()
def main():
    weights, folder = sys.argv[1:]
    is_yunet = weights.endswith(".onnx")
    find = opencvs(weights) if is_yunet else facexlibs(weights)
    found = {}
    for place, _, names in sorted(os.walk(folder)):
        for name in sorted(names):
            if name.lower().endswith(ENDINGS):
                path = os.path.join(place, name)
                picture = np.asarray(Image.open(path).convert("RGB"))[:, :, ::-1]
                faces = find(np.ascontiguousarray(picture))
                found[os.path.relpath(path, folder)] = [[round(float(v), 3) for v in face] for face in faces]
    here = os.path.dirname(os.path.abspath(__file__))
    with open(os.path.join(here, "real_faces_yunet.json" if is_yunet else "real_faces.json"), "w") as file:
        file.write("{\n" + ",\n".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in found.items()) + "\n}\n")


if __name__ == "__main__":
    main()
