"""Goldens of the networks that find faces and tell their parts apart, from facexlib, and of GFPGAN, from gfpgan, whose
copy in spandrel (the same structure) needs no patch."""

import torch
from facexlib.detection.retinaface import RetinaFace
from facexlib.parsing.parsenet import ParseNet
from formula import fill, picture
from sources import path_of
from spandrel.architectures.GFPGAN import GFPGAN
from store import official, recorded_layers, save, together, twice

VERSION = "facexlib 0.3.0"


def make():
    for name, network_name in (("retinaface_mobile", "mobile0.25"), ("retinaface_resnet50", "resnet50")):
        make_retinaface(name, network_name)
    make_parsenet()
    make_gfpgan()


def make_retinaface(name, network_name):
    network = fill(RetinaFace(network_name, phase="train", device="cpu"))

    def run(out, network):
        for height, width in ((64, 96), (60, 100)):
            suffix = f"@{height}x{width}"
            x = picture(f"retinaface_{height}x{width}", 1, 3, height, width) * 255 - 114
            heads, out["layers" + suffix] = recorded_layers(network, lambda x=x: network(x))
            for head, values in zip(("boxes", "faces", "landmarks"), heads, strict=True):
                out[head + suffix] = values

    whole = official((name, lambda: RetinaFace(network_name, device="meta")))
    metadata = {"reference": VERSION, "config": "official", **whole}
    save(path_of(name), twice([network], run), metadata)


def make_parsenet():
    small = {"in_size": 64, "out_size": 64, "min_feat_size": 4, "base_ch": 16, "ch_range": [16, 64], "parsing_ch": 19}
    network = fill(ParseNet(**small))
    # Nobody asks for its picture.
    network.out_img_conv = torch.nn.Identity()

    def run(out, network):
        for height, width in ((64, 64), (48, 80)):
            suffix = f"@{height}x{width}"
            x = picture(f"parsenet_{height}x{width}", 1, 3, height, width) * 2 - 1
            (out["parts" + suffix], _), out["layers" + suffix] = recorded_layers(network, lambda x=x: network(x))

    metadata = {
        "reference": VERSION,
        "config": "widths 16 to 64, all else official",
        **official(("parsenet", lambda: ParseNet(in_size=512, out_size=512, parsing_ch=19))),
    }
    save(path_of("parsenet"), twice([network], run), metadata)


def run_gfpgan(out, network, name, side):
    x = picture(name, 1, 3, side, side) * 2 - 1
    # As GFPGANer calls it, but with the noise of the file, so that there is no chance.
    forward = lambda: network(x, return_rgb=False, randomize_noise=False)
    (face, _), out["layers"] = recorded_layers(network, forward)
    out["out"] = (face + 1) / 2


def make_gfpgan():
    small = {"out_size": 128, "num_style_feat": 32, "narrow": 1 / 16}
    metadata = {
        "reference": "spandrel 0.4.1",
        "config": "a sixteenth of the width, styles of 32, 128 pixels, all else official",
        **official(("gfpgan", GFPGAN)),
    }
    results = twice([fill(GFPGAN(**small))], lambda out, network: run_gfpgan(out, network, "gfpgan_128x128", 128))
    save(path_of("gfpgan"), results, metadata)


def make_full_gfpgan():
    out = {}
    run_gfpgan(out, fill(GFPGAN()), "full_gfpgan_512x512", 512)
    return together(out)
