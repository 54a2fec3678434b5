"""Goldens of the newest reference, which runs models v1, v2 and v2.1.

    python v21.py DIFFBIR [NAME...]

DIFFBIR is a checkout of https://github.com/XPixelGroup/DiffBIR at COMMIT. Each case is a command line of its
`inference.py`, run by its own loops and pipelines; only the networks are reduced, and the seed is set after they were
made (as its web demo does), so that no number depends on how they are built.
"""

import os
import sys
import time

import torch
from common import (
    PHOTO, in_folders, patched, photo, quiet, recorded, small_cleaner, small_latent_diffusion, start, stub,
    widened, write,
)  # fmt: skip

COMMIT = "3f8b5304245ba0ffd6f1995e51c27c3c72d7618f"
V2 = ["--version", "v2", "--sampler", "spaced", "--cfg_scale", "4", "--pos_prompt", ""]
V2 += ["--neg_prompt", "low quality, blurry, low-resolution, noisy, unsharp, weird textures"]
CITY = "a city with tall buildings, forest trees, snowy mountain background"
# Name: height and width of the photograph, the command line after what all have, and the size of a second photograph.
CASES = {
    # Enlarged to 384x320, by stage 1 to 614x512, padded to 640x512.
    "v21_sr_x4": (96, 80, ["--steps", "10"]),
    # Sides that nothing divides; above 512 as it comes in, so only padded, to 576x832.
    "v21_sr_odd": (131, 197, ["--sampler", "edm_euler_a", "--steps", "4", "--cfg_scale", "8"]),
    "v21_sr_x2_spaced": (131, 197, ["--upscale", "2", "--sampler", "spaced", "--steps", "5", "--rescale_cfg"]),
    # 600x816, everything in tiles.
    "v21_tiled": (150, 204, [
        "--steps", "3", "--cleaner_tiled", "--vae_encoder_tiled", "--vae_decoder_tiled", "--cldm_tiled",
    ]),
    # 614x512 after stage 1. Tiles asked for where the picture is too small, with another padding than without.
    "v21_tiled_small": (96, 80, [
        "--steps", "3", "--cleaner_tiled", "--vae_encoder_tiled", "--vae_decoder_tiled", "--cldm_tiled",
        "--vae_encoder_tile_size", "640", "--vae_decoder_tile_size", "640", "--cldm_tile_size", "640",
    ]),
    "v21_denoise_noise_aug": (520, 600, [
        "--task", "denoise", "--upscale", "1", "--noise_aug", "150", "--sampler", "spaced", "--steps", "4",
    ]),
    # Two batches, of two samples and of one.
    "v21_face": (512, 512, [
        "--task", "face", "--upscale", "1", "--strength", "0.3", "--steps", "4", "--n_samples", "3",
        "--batch_size", "2",
    ]),
    "v21_start_cond": (140, 128, [
        "--start_point_type", "cond", "--sampler", "ddim", "--steps", "5", "--pos_prompt", CITY,
    ]),
    "v21_no_guidance": (128, 128, ["--sampler", "edm_dpm++_2m_sde", "--steps", "4", "--cfg_scale", "1"]),
    # A second photograph behind the first, in the same stream of random numbers.
    "v21_folder": (128, 128, ["--steps", "3"], (128, 140)),
    "v21_dpm": (128, 140, ["--sampler", "dpm++_m2", "--steps", "5", "--noise_aug", "30"]),
    # Stage 1 four times as large and brought to the size asked for, or to 512 where that is below.
    "v2_sr_x4": (150, 200, [*V2, "--steps", "4"]),
    "v2_sr_x2": (96, 80, [*V2, "--upscale", "2", "--steps", "4", "--strength", "0.5"]),
    "v2_sr_tiled": (150, 204, [
        *V2, "--steps", "3", "--cleaner_tiled", "--cleaner_tile_size", "128", "--cleaner_tile_stride", "64",
        "--cldm_tiled",
    ]),
    "v2_denoise": (200, 230, [*V2, "--task", "denoise", "--upscale", "1", "--steps", "4"]),
    "v2_denoise_tiled": (520, 600, [
        *V2, "--task", "denoise", "--upscale", "1", "--steps", "3", "--cleaner_tiled", "--cleaner_tile_size", "256",
        "--cleaner_tile_stride", "128", "--start_point_type", "cond",
    ]),
    "v2_face": (256, 256, [*V2, "--task", "face", "--upscale", "2", "--steps", "4"]),
    "v1_sr": (131, 197, [*V2, "--version", "v1", "--steps", "5"]),
}  # fmt: skip
# These run in float64 too, which takes long.
EXACT = ("v21_sr_x4", "v21_sr_x2_spaced", "v2_sr_x2")
ALWAYS = ["--device", "cpu", "--precision", "fp32", "--captioner", "none"]


def arguments_of(inference, command):
    with patched((sys, "argv", ["inference.py", *command])):
        return inference.parse_args()


def loop_of(inference, checkout, args):
    """The loop that the reference's main function would run, with reduced networks."""
    classes = {
        "sr": inference.BSRInferenceLoop,
        "denoise": inference.BIDInferenceLoop,
        "face": inference.BFRInferenceLoop,
    }
    module = sys.modules["diffbir.inference.loop"]
    configs = os.path.join(checkout, "configs", "inference")
    double = torch.get_default_dtype() == torch.float64

    def made(network):
        return widened(network) if double else network

    class Loop(classes[args.task]):
        def load_cleaner(self):
            kinds = {"sr": "bsrnet", "denoise": "scunet"} if args.version == "v2" else {}
            path = os.path.join(configs, kinds.get(args.task, "swinir") + ".yaml")
            self.cleaner = made(small_cleaner(path, module.instantiate_from_config))

        def load_cldm(self):
            path = os.path.join(configs, "cldm.yaml")
            self.cldm = made(small_latent_diffusion(path, module.instantiate_from_config))
            name = "diffusion_v2.1.yaml" if args.version == "v2.1" else "diffusion.yaml"
            self.diffusion = module.instantiate_from_config(module.OmegaConf.load(os.path.join(configs, name)))

    return Loop(args)


def listen(loop, tape):
    """Takes down what the pipeline makes on its way."""
    pipeline, cldm = loop.pipeline, loop.cldm
    module = sys.modules["diffbir.pipeline"]
    conditions = []

    def next_batch(samples):
        tape.put("final", samples.transpose(0, 3, 1, 2))
        tape.batch += 1
        conditions.clear()

    def condition(found):
        conditions.append(found)
        tape.put("text" if len(conditions) == 1 else "negative_text", found["c_txt"])
        if len(conditions) == 1:
            tape.put("c_img", found["c_img"])

    def sampling(*_, cond, x_T, **options):
        tape.put("hint", cond["c_img"])
        tape.put("x_T", x_T)

    tape.listen(pipeline, "run", lambda lq, *_: tape.put("input", lq.transpose(0, 3, 1, 2)), next_batch)
    tape.listen(pipeline, "apply_cleaner", None, lambda x: tape.put("stage1", x))
    tape.listen(cldm, "prepare_condition", None, condition)
    cldm.unet.register_forward_hook(lambda _m, _i, out: tape.put_first("unet_0", out))
    tape.listen(cldm, "vae_decode", lambda z, *_: tape.put("z", z))
    tape.listen(pipeline, "apply_cldm", None, lambda x: tape.put("decoded", x))
    samplers = [getattr(module, name) for name in ("SpacedSampler", "DDIMSampler", "DPMSolverSampler", "EDMSampler")]
    changes = [(sampler, "sample", sampler.sample) for sampler in samplers]
    changes.append((module, "wavelet_reconstruction", module.wavelet_reconstruction))
    with patched(*changes):
        for sampler in samplers:
            tape.listen(sampler, "sample", lambda *a, **k: sampling(*a, **k))
        tape.listen(module, "wavelet_reconstruction", None, lambda x: tape.put("fixed", x))
        torch.manual_seed(loop.args.seed)
        loop.run()


def make(inference, checkout, name):
    height, width, command, *others = CASES[name]
    sizes = [(height, width), *others]
    files = {}

    def run(tape):
        def within(source, target):
            for size, file in zip(sizes, ("photo.png", "photo_second.png")):
                photo(*size).save(os.path.join(source, file))
            args = arguments_of(inference, [*ALWAYS, *command, "--input", source, "--output", target])
            listen(loop_of(inference, checkout, args), tape)
            files["names"] = " ".join(sorted(os.listdir(target)))
            with open(os.path.join(target, "prompt.csv"), newline="") as file:
                files["csv"] = file.read()

        in_folders(within)

    since = time.time()
    results = recorded(run, name in EXACT)
    metadata = {
        "reference": COMMIT,
        "photo": f"{' '.join(f'{height}x{width}' for height, width in sizes)}; {PHOTO}",
        "command": "\x1f".join([*ALWAYS, *command]),
        "files": files["names"],
        "prompt.csv": files["csv"],
    }
    write(name, results, metadata)
    print(f"{name}: {time.time() - since:.0f} s", flush=True)


def main():
    checkout = sys.argv[1]
    start(checkout)
    with quiet():
        import inference
    for name in sys.argv[2:] or CASES:
        make(inference, checkout, name)


if __name__ == "__main__":
    main()
