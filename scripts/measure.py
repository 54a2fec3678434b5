"""PSNR (RGB) and LPIPS (AlexNet) of restored pictures, with bicubic in the same table.

    python measure.py --truth DIR [DIR ...] --degraded DIR --restored DIR [DIR ...] --lpips FILE

A restored or degraded picture has the true picture's name, as PNG. True pictures are cut at the right
and bottom to a multiple of four, which is what `diffbir degrade` keeps of them. FILE is LPIPS 0.1 with its
AlexNet as safetensors (`features.*`, `lin*.model.1.weight`). Needs torch, torchvision, lpips, Pillow,
safetensors from PyPI.
"""

import argparse
import glob
import os

import lpips
import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file


def distance(file):
    network = lpips.LPIPS(net="alex", pretrained=False, pnet_rand=True, verbose=False)
    weights = load_file(file)
    slices = {0: 1, 3: 2, 6: 3, 8: 4, 10: 5}
    state = {}
    for key, value in weights.items():
        if key.startswith("features."):
            index = int(key.split(".")[1])
            state[f"net.slice{slices[index]}.{index}.{key.split('.')[2]}"] = value.float()
        else:
            state[key] = value.float()
            state["lins." + key[3:]] = value.float()
    missing = network.load_state_dict(state, strict=False).missing_keys
    assert all("scaling_layer" in key for key in missing), missing
    return network.eval()


def psnr(a, b):
    return -10 * np.log10(np.mean((a - b) ** 2))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--truth", nargs="+", required=True)
    parser.add_argument("--degraded", required=True)
    parser.add_argument("--restored", nargs="+", required=True)
    parser.add_argument("--lpips", required=True)
    arguments = parser.parse_args()
    network = distance(arguments.lpips)
    tensor = lambda x: torch.from_numpy(x.transpose(2, 0, 1))[None].float() * 2 - 1
    rows = {name: [] for name in ["bicubic", *arguments.restored]}
    for folder in arguments.truth:
        for file in sorted(glob.glob(os.path.join(folder, "*"))):
            name = os.path.splitext(os.path.basename(file))[0] + ".png"
            small = Image.open(os.path.join(arguments.degraded, name)).convert("RGB")
            width, height = small.width * 4, small.height * 4
            truth = np.asarray(Image.open(file).convert("RGB").crop((0, 0, width, height))) / 255.0
            for row, values in rows.items():
                if row == "bicubic":
                    picture = small.resize((width, height), Image.Resampling.BICUBIC)
                else:
                    picture = Image.open(os.path.join(row, name)).convert("RGB")
                picture = np.asarray(picture) / 255.0
                with torch.no_grad():
                    far = network(tensor(picture), tensor(truth)).item()
                colour = np.abs(picture.mean((0, 1)) - truth.mean((0, 1))).mean() * 255
                values.append((psnr(picture, truth), far, colour))
    print("| | pictures | PSNR dB | LPIPS | colour difference / 255 |\n|---|---|---|---|---|")
    for row, values in rows.items():
        mean = np.mean(values, 0)
        print(f"| {row} | {len(values)} | {mean[0]:.2f} | {mean[1]:.4f} | {mean[2]:.2f} |")


if __name__ == "__main__":
    main()
