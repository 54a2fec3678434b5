"""Makes crops.safetensors: centred crops by Pillow, as reference 5.3 describes them.

    python make_crops.py        # Pillow 11.3.0, numpy, safetensors
"""

from pathlib import Path

import numpy as np
from PIL import Image
from safetensors.numpy import save_file


def picture(width, height):
    y, x, c = np.indices((height, width, 3))
    return ((x * 7 + y * 13 + c * 29 + x * y // 8) % 256).astype(np.uint8)


def short_side_to(image, short):
    while min(image.size) >= 2 * short:
        image = image.resize((image.width // 2, image.height // 2), Image.BOX)
    scale = short / min(image.size)
    return image.resize((round(image.width * scale), round(image.height * scale)), Image.BICUBIC)


crops = {}
for width, height, side in [(150, 101, 16), (61, 200, 40), (20, 27, 32), (64, 64, 32), (33, 33, 33)]:
    scaled = np.array(short_side_to(Image.fromarray(picture(width, height)), side))
    top, left = (scaled.shape[0] - side) // 2, (scaled.shape[1] - side) // 2
    crop = scaled[top : top + side, left : left + side]
    crops[f"{width}x{height} to {side}"] = np.ascontiguousarray(crop)
save_file(crops, Path(__file__).parent / "crops.safetensors")
