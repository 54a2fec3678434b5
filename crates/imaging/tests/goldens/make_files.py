"""JPEG XL and HEIC files, small ones and what other decoders make of them, and smooth ones of 1280 x 1024 pixels (`large_*`).

    python make_files.py

Needs Pillow, pillow-jxl-plugin, pillow-heif, imagecodecs, numpy and safetensors from PyPI. The picture has 37 x 29 pixels of
three channels: smooth ramps with a bright disc, so that a lossy file stays small. Files go to jxl/ and heic/,
pixels to files.safetensors: `NAME` as [height, width, channels], in 8 or 16 bits, upright.
"""

import io
import os

import imagecodecs
import numpy as np
import pillow_heif
import pillow_jxl  # noqa: F401, registers the format
from PIL import Image
from safetensors.numpy import save_file

HERE = os.path.dirname(os.path.abspath(__file__))
WIDTH, HEIGHT = 37, 29


LARGE = 1280, 1024


def smooth():
    y, x = np.mgrid[0 : LARGE[1], 0 : LARGE[0]]
    return np.stack([x // 6, y // 5, x // 8], axis=-1).astype(np.uint8)


def picture():
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    disc = 90 * ((x - 20) ** 2 + (y - 12) ** 2 < 60)
    rgb = np.stack([x * 4 + disc, y * 5 + 30, (x + y) * 2 + 40 - disc // 3], axis=-1)
    return np.clip(rgb, 0, 255).astype(np.uint8)


def exif(orientation):
    tags = Image.Exif()
    tags[0x010F] = "maker"
    tags[0x0112] = orientation
    return tags.tobytes()


XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"/></x:xmpmeta>'


def main():
    files, pixels = {}, {}

    def jxl(name, image, exif=None, **options):
        # The plugin writes the box as it gets it; four bytes say where the TIFF structure begins (ISO/IEC 23008-12, A.2.1).
        if exif is not None:
            options["exif"] = bytes(4) + exif.removeprefix(b"Exif\0\0")
        file = io.BytesIO()
        image.save(file, "jxl", **options)
        files[f"jxl/{name}.jxl"] = file.getvalue()

    rgb = picture()
    alpha = np.broadcast_to(np.arange(WIDTH, dtype=np.uint8) * 6, (HEIGHT, WIDTH))
    rgba = np.dstack([rgb, alpha])
    grey = rgb[..., 1]
    deep = rgb.astype(np.uint16) * 257 + np.arange(WIDTH, dtype=np.uint16)[:, None] % 200
    jxl("rgb", Image.fromarray(rgb), lossless=True, exif=exif(1), xmp=XMP)
    pixels["rgb"] = rgb
    jxl("rgba", Image.fromarray(rgba), lossless=True)
    pixels["rgba"] = rgba
    jxl("grey", Image.fromarray(grey), lossless=True)
    pixels["grey"] = grey[..., None]
    # Encoded from a JPEG, which the file keeps whole.
    jpeg = io.BytesIO()
    Image.fromarray(rgb).save(jpeg, "jpeg", quality=90, subsampling=0)
    files["jxl/of_jpeg.jxl"] = imagecodecs.jpegxl_encode_jpeg(jpeg.getvalue())
    pixels["of_jpeg"] = imagecodecs.jpegxl_decode(files["jxl/of_jpeg.jxl"])
    jpeg = io.BytesIO()
    Image.fromarray(rgb).save(jpeg, "jpeg", quality=90, subsampling=0, icc_profile=imagecodecs.cms_profile("adobergb"))
    files["jxl/adobe.jxl"] = imagecodecs.jpegxl_encode_jpeg(jpeg.getvalue())
    # The encoder takes the orientation into the codestream.
    jpeg = io.BytesIO()
    Image.fromarray(rgb).save(jpeg, "jpeg", quality=90, subsampling=0, exif=exif(6))
    files["jxl/turned.jxl"] = imagecodecs.jpegxl_encode_jpeg(jpeg.getvalue())
    pixels["turned"] = imagecodecs.jpegxl_decode(files["jxl/turned.jxl"])
    # EXIF alone turns nothing.
    jxl("not_turned", Image.fromarray(rgb), lossless=True, exif=exif(6))
    pixels["not_turned"] = rgb
    files["jxl/deep.jxl"] = imagecodecs.jpegxl_encode(deep, lossless=True, bitspersample=16)
    pixels["deep"] = deep
    files["jxl/lossy.jxl"] = imagecodecs.jpegxl_encode(rgb, distance=1.0)
    pixels["lossy"] = imagecodecs.jpegxl_decode(files["jxl/lossy.jxl"])
    files["jxl/animated.jxl"] = imagecodecs.jpegxl_encode(np.stack([rgb, 255 - rgb]), lossless=True)

    large = smooth()
    opaque = np.dstack([large, large[..., 0]])
    for name, values in [("rgb", large), ("rgba", opaque), ("grey", large[..., 1]), ("deep", large.astype(np.uint16) * 257)]:
        bits = 8 * values.itemsize
        files[f"jxl/large_{name}.jxl"] = imagecodecs.jpegxl_encode(values, lossless=True, bitspersample=bits)
        files[f"jxl/large_lossy_{name}.jxl"] = imagecodecs.jpegxl_encode(values, distance=2.0, bitspersample=bits)

    def heic(name, image, **options):
        file = io.BytesIO()
        pillow_heif.from_pillow(image).save(file, **options)
        files[f"heic/{name}.heic"] = file.getvalue()
        if image.size != LARGE:
            pixels[f"heic_{name}"] = np.asarray(pillow_heif.open_heif(file.getvalue()).to_pillow())

    # Without a loss in colours: the decoders differ in how they enlarge halved planes.
    heic("rgb", Image.fromarray(rgb), quality=80, chroma=444, exif=exif(1), xmp=XMP)
    heic("turned", Image.fromarray(rgb), quality=80, chroma=444, exif=exif(6))
    heic("rgba", Image.fromarray(rgba), quality=80, chroma=444)
    heic("half", Image.fromarray(rgb), quality=80, chroma=420)

    heic("large_rgb", Image.fromarray(large), quality=50, chroma=444)
    heic("large_half", Image.fromarray(large), quality=50, chroma=420)
    heic("large_rgba", Image.fromarray(opaque), quality=50, chroma=420)

    for name, data in files.items():
        with open(os.path.join(HERE, name), "wb") as file:
            file.write(data)
        print(name, len(data))
    save_file({name: np.ascontiguousarray(value) for name, value in pixels.items()}, os.path.join(HERE, "files.safetensors"))


main()
