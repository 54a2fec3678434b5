"""The pictures of docs/gallery.md: real ones restored by the built-in model, a crop of each as bicubic, stage 1 and result.

    python scripts/gallery.py target/release/diffbir PICTURES docs/gallery

PICTURES is a folder with the sets RealSRSet (from BSRGAN), real47 (from DiffBIR), old_photos (from Bringing Old Photos Back to Life) and
real_esrgan_inputs (from Real-ESRGAN). Needs Pillow. Every picture is restored with the defaults and the flags that stand here.
"""

import os
import subprocess
import sys
import tempfile

from PIL import Image

TILE_PX = 300

# The sheet, the file, its flags, and the middle of the crop as shares of width and height.
PICTURES = [
    ("photographs", "RealSRSet/frog.png", ["--upscale", "4"], (0.5, 0.4)),
    ("photographs", "real_esrgan_inputs/OST_009.png", ["--upscale", "2"], (0.5, 0.5)),
    ("photographs", "real47/41.jpg", ["--upscale", "4"], (0.5, 0.5)),
    ("photographs", "real47/48.jpg", ["--upscale", "4"], (0.5, 0.5)),
    ("photographs", "real47/14.jpg", ["--upscale", "4"], (0.5, 0.5)),
    ("old", "old_photos/h.png", ["--upscale", "2"], (0.5, 0.35)),
    ("old", "RealSRSet/oldphoto2.png", ["--upscale", "4"], (0.5, 0.45)),
    ("old", "old_photos/scratch_d.png", ["--upscale", "2"], (0.5, 0.5)),
    ("lines", "real47/5.jpg", ["--upscale", "2"], (0.5, 0.5)),
    ("lines", "RealSRSet/comic2.png", ["--upscale", "4"], (0.5, 0.5)),
    ("lines", "RealSRSet/ppt3.png", ["--upscale", "4"], (0.5, 0.5)),
    ("lines", "RealSRSet/chip.png", ["--upscale", "4"], (0.5, 0.5)),
]


def crop(picture, size, middle):
    """A square of a picture that is first brought to a size."""
    picture = picture.convert("RGB")
    if picture.size != size:
        picture = picture.resize(size, Image.Resampling.BICUBIC)
    corner = [min(max(round(side * at - TILE_PX / 2), 0), side - TILE_PX) for side, at in zip(size, middle)]
    return picture.crop((*corner, corner[0] + TILE_PX, corner[1] + TILE_PX))


def main():
    program, pictures, output = sys.argv[1:4]
    os.makedirs(output, exist_ok=True)
    sheets = {}
    with tempfile.TemporaryDirectory() as folder:
        for sheet, name, flags, middle in PICTURES:
            source = os.path.join(pictures, name)
            stem = name.replace("/", "_").rsplit(".", 1)[0]
            both, first = (os.path.join(folder, f"{stem}_{kind}.png") for kind in ("both", "first"))
            subprocess.run([program, "restore", source, *flags, "-o", both], check=True, stderr=subprocess.DEVNULL)
            subprocess.run(
                [program, "restore", source, *flags, "--stage1-only", "-o", first], check=True, stderr=subprocess.DEVNULL
            )
            result = Image.open(both)
            row = [crop(Image.open(path), result.size, middle) for path in (source, first, both)]
            sheets.setdefault(sheet, []).append(row)
    for sheet, rows in sheets.items():
        canvas = Image.new("RGB", (3 * (TILE_PX + 4) - 4, len(rows) * (TILE_PX + 4) - 4), "white")
        for y, row in enumerate(rows):
            for x, tile in enumerate(row):
                canvas.paste(tile, (x * (TILE_PX + 4), y * (TILE_PX + 4)))
        canvas.save(os.path.join(output, f"{sheet}.jpg"), quality=80, optimize=True)


main()
