"""What facexlib finds in a folder of pictures: `real_faces.json`.

    python real_faces.py WEIGHTS FOLDER

WEIGHTS is RetinaFace mobile0.25; facexlib 0.3.0, torch 2.9.0, Pillow. Each picture goes in as it is, upright or not,
its channels as BGR, at its own size. A face is x1, y1, x2, y2, score and five landmarks x, y in pixels.
"""

import json
import os
import sys

import numpy as np
import torch
from facexlib.detection.retinaface import RetinaFace
from PIL import Image

ENDINGS = (".png", ".jpg", ".jpeg")


@torch.no_grad()
def main():
    weights, folder = sys.argv[1:]
    network = RetinaFace("mobile0.25", device="cpu")
    state = torch.load(weights, map_location="cpu", weights_only=True)
    network.load_state_dict({name.removeprefix("module."): value for name, value in state.items()})
    network.eval()
    found = {}
    for place, _, names in sorted(os.walk(folder)):
        for name in sorted(names):
            if name.lower().endswith(ENDINGS):
                path = os.path.join(place, name)
                picture = np.asarray(Image.open(path).convert("RGB"))[:, :, ::-1]
                faces = network.detect_faces(np.ascontiguousarray(picture))
                found[os.path.relpath(path, folder)] = [[round(float(v), 3) for v in face] for face in faces]
    here = os.path.dirname(os.path.abspath(__file__))
    with open(os.path.join(here, "real_faces.json"), "w") as file:
        file.write("{\n" + ",\n".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in found.items()) + "\n}\n")


if __name__ == "__main__":
    main()
