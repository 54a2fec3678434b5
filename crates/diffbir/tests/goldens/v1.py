"""Goldens of the web demo of v1.

    python v1.py DIFFBIR [NAME...]

DIFFBIR is a checkout of https://github.com/XPixelGroup/DiffBIR at COMMIT. Its script `gradio_diffbir.py` is started
with the command line of the article, files of reduced networks in place of the official ones, and its function
`process` is called as the button does.
"""

import os
import sys
import tempfile
import time
import types
from unittest import mock

import torch
from common import (
    PHOTO, SMALL_TEXT, SMALL_UNET, SMALL_VISION, patched, photo, quiet, recorded, start, stub, write,
)  # fmt: skip
from formula import fill
from omegaconf import OmegaConf

COMMIT = "7bd5675823c157b9afdd479b59a2bf0a8954ce11"
NEGATIVE = (
    "longbody, lowres, bad anatomy, bad hands, missing fingers, extra digit, fewer digits, cropped, worst quality, "
    "low quality"
)
CITY = "a city with tall buildings, forest trees, snowy mountain background"
DEFAULTS = dict(
    num_samples=1, sr_scale=1, disable_preprocess_model=False, strength=1.0, positive_prompt="",
    negative_prompt=NEGATIVE, cfg_scale=1.0, steps=50, use_color_fix=True, seed=231, tiled=False, tile_size=512,
    tile_stride=256,
)  # fmt: skip
# Name: height and width of the photograph, and what differs from the demo's defaults.
CASES = {
    "v1_demo": (96, 80, dict(sr_scale=4, positive_prompt=CITY)),
    "v1_demo_options": (131, 197, dict(
        num_samples=2, sr_scale=2.5, disable_preprocess_model=True, strength=0.7, cfg_scale=4.0, steps=4,
        use_color_fix=False, seed=7,
    )),
    "v1_demo_tiled": (150, 204, dict(sr_scale=4, steps=3, tiled=True, cfg_scale=2.0)),
}  # fmt: skip


def shims():
    """Small parts of packages that the script of 2023 wants and this machine need not have."""

    class LightningModule(torch.nn.Module):
        device = property(lambda self: next(self.parameters()).device)

        def freeze(self):
            self.requires_grad_(False)
            self.eval()

    stub("pytorch_lightning", LightningModule=LightningModule, seed_everything=torch.manual_seed)
    stub("pytorch_lightning.utilities")
    stub("pytorch_lightning.utilities.types", STEP_OUTPUT=object)
    stub("pytorch_lightning.utilities.distributed", rank_zero_only=lambda function: function)
    stub("lpips", LPIPS=lambda net: types.SimpleNamespace(parameters=list, eval=lambda: None, train=None))
    sys.modules["gradio"] = mock.MagicMock()
    names = ("T5Tokenizer", "T5EncoderModel", "CLIPTokenizer", "CLIPTextModel")
    stub("transformers", **dict.fromkeys(names))


def small_text(*_, **options):
    """The text encoder of the package that the script uses, reduced."""
    import open_clip

    text = dict(context_length=77, vocab_size=49408, layers=24, **SMALL_TEXT)
    return open_clip.CLIP(SMALL_TEXT["width"], SMALL_VISION, text), None, None


def files(checkout, folder):
    """The three files of the article's command, reduced: configuration, full checkpoint, SwinIR's."""
    from utils.common import instantiate_from_config

    config = OmegaConf.load(os.path.join(checkout, "configs", "model", "cldm.yaml"))
    parts = config.params
    parts.unet_config.params.update(SMALL_UNET)
    parts.control_stage_config.params.update(SMALL_UNET)
    parts.first_stage_config.params.ddconfig.ch = 32
    parts.preprocess_config.params.embed_dim = 12
    model = instantiate_from_config(config)
    for part in (model.model.diffusion_model, model.first_stage_model, model.cond_stage_model, model.preprocess_model):
        fill(part)
    swinir = {key: value.clone() for key, value in model.preprocess_model.state_dict().items()}
    # Other values than those that are loaded over them, and than the UNet's.
    fill(model.preprocess_model, salt=1)
    fill(model.control_model, salt=1)
    fill(model.cond_encoder)
    assert torch.equal(model.cond_encoder.encoder.conv_in.weight, model.first_stage_model.encoder.conv_in.weight)
    paths = [os.path.join(folder, name) for name in ("cldm.yaml", "full.ckpt", "swinir.ckpt")]
    OmegaConf.save(config, paths[0])
    torch.save({"state_dict": model.state_dict()}, paths[1])
    torch.save({"state_dict": swinir}, paths[2])
    return paths


def demo(checkout):
    """The script as a module, its model loaded."""
    with tempfile.TemporaryDirectory() as folder:
        config, full, swinir = files(checkout, folder)
        argv = ["gradio_diffbir.py", "--ckpt", full, "--config", config, "--reload_swinir", "--swinir_ckpt", swinir]
        script = types.ModuleType("gradio_diffbir")
        path = os.path.join(checkout, "gradio_diffbir.py")
        with patched((sys, "argv", [*argv, "--device", "cpu"])), open(path) as file:
            exec(compile(file.read(), path, "exec"), vars(script))
    return script


def listen(script, tape, arguments):
    model = script.model
    sampling = sys.modules["model.spaced_sampler"]
    texts = []

    def text(found):
        texts.append(found)
        tape.put_first("text" if len(texts) % 2 else "negative_text", found)

    def start_of(*_, x_T, **options):
        tape.batch = len(texts) // 2
        tape.put("x_T", x_T)

    hooks = [
        model.preprocess_model.register_forward_hook(lambda _m, _i, out: tape.put("stage1", out)),
        model.model.diffusion_model.register_forward_hook(lambda _m, _i, out: tape.put_first("unet_0", out)),
    ]
    listened = [
        (script, "pad", None, lambda x: tape.put("input", x.transpose(2, 0, 1)[None])),
        (model, "get_learned_conditioning", None, text),
        (model, "apply_condition_encoder", None, lambda z: tape.put_first("c_img", z)),
        (sampling, "wavelet_reconstruction", None, lambda x: tape.put_first("fixed", x)),
    ]
    if not arguments["tiled"]:
        listened += [
            (script.sampler, "sample", start_of, None),
            (model, "decode_first_stage", lambda z: tape.put("z", z), lambda x: tape.put("decoded", x)),
        ]
    with patched(*((owner, name, getattr(owner, name)) for owner, name, _, _ in listened)):
        for owner, name, before, after in listened:
            tape.listen(owner, name, before, after)
        return script.process(**arguments), hooks


def make(script, name):
    height, width, options = CASES[name]
    arguments = {**DEFAULTS, **options}

    def run(tape):
        pictures, hooks = listen(script, tape, dict(arguments, control_img=photo(height, width)))
        for index, one in enumerate(pictures):
            tape.batch = index
            tape.put("final", one.transpose(2, 0, 1)[None])
        for hook in hooks:
            hook.remove()

    since = time.time()
    results = recorded(run, False)
    told = "\x1f".join(f"{key}={value}" for key, value in arguments.items())
    write(name, results, {"reference": COMMIT, "photo": f"{height}x{width}; {PHOTO}", "arguments": told})
    print(f"{name}: {time.time() - since:.0f} s", flush=True)


def main():
    checkout = sys.argv[1]
    start(checkout)
    shims()
    import open_clip

    with quiet(), patched((open_clip, "create_model_and_transforms", small_text)):
        script = demo(checkout)
    for name in sys.argv[2:] or CASES:
        make(script, name)


if __name__ == "__main__":
    main()
