"""Goldens of the networks, made by the reference itself.

    python make.py DIFFBIR [--taesd TAESD] [--realesrgan REAL_ESRGAN] [--only NAME...]

The arguments are checkouts of
  https://github.com/XPixelGroup/DiffBIR    at 3f8b5304245ba0ffd6f1995e51c27c3c72d7618f
  https://github.com/madebyollin/taesd      at 5cccb12dc72074a4be35680c3b108548a7c69978 (needs taesd.py)
  https://github.com/xinntao/Real-ESRGAN    at a4abfb2979a7bbff3f69f58f58ae324608821e27 (needs srvgg_arch.py)
Without the last two the files of these networks stay as they are. Those for faces come from PyPI's facexlib 0.3.0. README.md lists versions and contents.

Networks have the official structure at reduced widths. Every tensor and every input follows from its name by
`formula.py`, which the Rust tests evaluate again. Each network runs twice, in float32, which is stored, and in
float64, which gives the error that float32 alone brings (`floor.NAME` in the metadata).
"""

import argparse
import warnings

import compact
import faces
import sources
import stage1
import stage2
import torch
from formula import check_filler


@torch.no_grad()
def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("diffbir")
    parser.add_argument("--taesd")
    parser.add_argument("--realesrgan")
    parser.add_argument("--only", nargs="*", default=["unet", "vae", "vae_fast", "clip", "rrdb", "rrdb_x2", "scunet", "swinir", "faces"])
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    check_filler()
    module = sources.load(arguments.diffbir)
    if arguments.taesd:
        compact.make_taef2(arguments.taesd)
    if arguments.realesrgan:
        compact.make_srvgg(module, arguments.realesrgan)
    makers = {
        "unet": stage2.make_unet,
        "vae": stage2.make_vae,
        "vae_fast": stage2.make_vae_fast,
        "clip": stage2.make_clip,
        "rrdb": stage1.make_rrdb,
        "scunet": stage1.make_scunet,
        "rrdb_x2": lambda module: stage1.make_rrdb_x2(),
        "faces": lambda module: faces.make(),
        "swinir": lambda module: stage1.make_stage1(module, *stage1.make_swinir(module)),
    }
    for name in arguments.only:
        makers[name](module)


if __name__ == "__main__":
    main()
