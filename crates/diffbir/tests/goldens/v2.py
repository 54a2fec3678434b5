"""The reference of v2: that it gives what the newest gives with the models of v2, and goldens of restoration guidance,
which the newest lost.

    python v2.py DIFFBIR [NAME...]

DIFFBIR is a checkout of https://github.com/XPixelGroup/DiffBIR at COMMIT. As v21.py, which runs before.
"""

import json
import os
import struct
import sys
import time

import numpy as np
import torch
from common import (
    HERE, PHOTO, in_folders, patched, photo, quiet, recorded, small_cleaner, small_latent_diffusion, start, write,
)  # fmt: skip

COMMIT = "9fb21078cdc11890a6cef01a4beceba6cf594e2c"
# Name: height and width of the photograph, and the command line after what all have.
CASES = {
    "v2_sr_x4": (150, 200, ["--task", "sr", "--upscale", "4", "--steps", "4"]),
    "v2_face": (256, 256, ["--task", "fr", "--upscale", "2", "--steps", "4"]),
}
# What the newest would be given for the same.
V2 = ["--version", "v2", "--sampler", "spaced", "--cfg_scale", "4", "--pos_prompt", "", "--neg_prompt",
      "low quality, blurry, low-resolution, noisy, unsharp, weird textures"]  # fmt: skip
GUIDED = {
    "v2_guidance_latent": (96, 80, ["--upscale", "4", "--steps", "4", "--guidance", "--g_loss", "mse", "--g_scale", "0.5",
                                    "--g_space", "latent", "--g_repeat", "2"]),
    "v2_guidance_rgb": (96, 80, ["--upscale", "4", "--steps", "4", "--guidance", "--g_loss", "w_mse", "--g_scale", "0.5",
                                 "--g_space", "rgb", "--g_start", "700"]),
}  # fmt: skip


def loop_of(inference, checkout, args):
    module = sys.modules["utils.inference"]
    classes = {"sr": module.BSRInferenceLoop, "dn": module.BIDInferenceLoop, "fr": module.BFRInferenceLoop}
    configs = os.path.join(checkout, "configs", "inference")

    class Loop(classes[args.task]):
        def init_stage1_model(self):
            kind, name = {"sr": ("bsrnet", "bsrnet"), "dn": ("scunet", "scunet_psnr"), "fr": ("swinir", "swinir_face")}[
                args.task
            ]
            network = small_cleaner(os.path.join(configs, kind + ".yaml"), module.instantiate_from_config)
            setattr(self, name, network)

        def init_stage2_model(self):
            instantiate = module.instantiate_from_config
            self.cldm = small_latent_diffusion(os.path.join(configs, "cldm.yaml"), instantiate)
            self.diffusion = instantiate(module.OmegaConf.load(os.path.join(configs, "diffusion.yaml")))

    return Loop(args)


def listen(loop, tape):
    pipeline, cldm = loop.pipeline, loop.cldm
    module = sys.modules["utils.helpers"]
    conditions = []

    def condition(found):
        conditions.append(found)
        tape.put("text" if len(conditions) == 1 else "negative_text", found["c_txt"])
        if len(conditions) == 1:
            tape.put("c_img", found["c_img"])

    def sampling(*_, cond, x_T, **options):
        tape.put("hint", cond["c_img"])
        tape.put("x_T", x_T)

    tape.listen(
        pipeline, "run", lambda lq, *_: tape.put("input", lq.transpose(0, 3, 1, 2)),
        lambda samples: tape.put("final", samples.transpose(0, 3, 1, 2)),
    )  # fmt: skip
    tape.listen(pipeline, "run_stage1", None, lambda x: tape.put("stage1", x))
    tape.listen(cldm, "prepare_condition", None, condition)
    cldm.unet.register_forward_hook(lambda _m, _i, out: tape.put_first("unet_0", out))
    tape.listen(pipeline, "run_stage2", None, lambda x: tape.put("decoded", x))
    sampler = module.SpacedSampler
    changes = [(sampler, "sample", sampler.sample), (module, "wavelet_reconstruction", module.wavelet_reconstruction)]
    with patched(*changes):
        tape.listen(sampler, "sample", lambda *a, **k: sampling(*a, **k), lambda z: tape.put("z", z))
        tape.listen(module, "wavelet_reconstruction", None, lambda x: tape.put("fixed", x))
        torch.manual_seed(loop.args.seed)
        loop.run()


def check_same(name, results):
    """That the file of the newest reference has the same numbers."""
    with open(os.path.join(HERE, name + ".safetensors"), "rb") as file:
        data = file.read()
    size = struct.unpack("<Q", data[:8])[0]
    header, data = json.loads(data[8 : 8 + size]), data[8 + size :]
    facts = header.pop("__metadata__")
    for key, (single, _) in results.items():
        whole = key in header
        entry = header[key if whole else key + ".sample"]
        start, end = entry["data_offsets"]
        known = np.frombuffer(data[start:end], "u1" if entry["dtype"] == "U8" else "<f4")
        found = single.contiguous().flatten().numpy()[:: 1 if whole else int(facts["stride." + key])]
        assert np.array_equal(known, found), f"{name}: {key} differs by {np.abs(known - found).max()}"
    print(f"{name}: the same as in the newest reference")


def make(inference, checkout, name):
    is_guided = name in GUIDED
    height, width, command = (GUIDED if is_guided else CASES)[name]
    if is_guided:
        command = ["--task", "sr", *command]

    def run(tape):
        def within(source, target):
            photo(height, width).save(os.path.join(source, "photo.png"))
            argv = ["inference.py", "--device", "cpu", *command, "--input", source, "--output", target]
            with patched((sys, "argv", argv)):
                args = inference.parse_args()
            listen(loop_of(inference, checkout, args), tape)

        in_folders(within)

    since = time.time()
    results = recorded(run, False)
    if is_guided:
        facts = {
            "reference": COMMIT,
            "photo": f"{height}x{width}; {PHOTO}",
            "command": "\x1f".join([*V2, *command]),
        }
        write(name, results, facts)
    else:
        check_same(name, results)
    print(f"{name}: {time.time() - since:.0f} s", flush=True)


def main():
    checkout = sys.argv[1]
    start(checkout)
    with quiet():
        import inference
    for name in sys.argv[2:] or [*CASES, *GUIDED]:
        make(inference, checkout, name)


if __name__ == "__main__":
    main()
