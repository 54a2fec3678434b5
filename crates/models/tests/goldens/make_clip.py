"""Goldens of the text encoder, made by the reference itself.

    python make_clip.py DIFFBIR

As make.py, whose checkout, formula and layout it shares (README.md).
"""

import sys
import warnings

import numpy as np
import torch
from make import COMMIT, Recorder, check_filler, filler, load, official, save, twice

VOCABULARY, TOKENS = 49408, 77


def clip_of(module, width, heads):
    # The picture tower, which the reference throws away, as small as it can be.
    vision = dict(image_size=14, patch_size=14, width=8, head_width=8, layers=1)
    text = dict(context_length=TOKENS, vocab_size=VOCABULARY, width=width, heads=heads, layers=24)
    return module("model.clip").FrozenOpenCLIPEmbedder(width, vision, text, layer="penultimate")


def fill_text(network):
    """Every tensor by the formula."""
    for key, tensor in network.state_dict().items():
        u = torch.from_numpy(filler(key, tensor.numel())).reshape(tensor.shape)
        if key.endswith("logit_scale"):
            value = torch.tensor(2.6592)
        elif key.endswith("token_embedding.weight"):
            value = 0.5 * u
        elif key.endswith("positional_embedding"):
            value = 0.1 * u
        elif ".ln_" in key:
            value = 1 + 0.2 * u if key.endswith("weight") else 0.1 * u
        elif key.endswith("bias"):
            value = 0.05 * u
        else:
            gain = 0.3 if key.endswith("mlp.c_proj.weight") else 1.0
            value = u * np.float32(np.sqrt(3.0 / tensor[0].numel()) * gain)
        tensor.copy_(value)
    return network.eval()


def rows(count):
    """Token ids by the formula, and last the empty prompt."""
    u = filler("in/clip", (count - 1) * TOKENS).astype(np.float64)
    ids = torch.from_numpy(((u + 1) / 2 * VOCABULARY).astype(np.int64)).reshape(count - 1, TOKENS)
    return torch.cat([ids, torch.tensor([[49406, 49407] + [0] * (TOKENS - 2)])])


@torch.no_grad()
def main():
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    check_filler()
    module = load(sys.argv[1])
    network = fill_text(clip_of(module, 64, 4))
    assert len(network.state_dict()) == 294

    def run(out, network):
        paths = [f"model.transformer.resblocks.{index}" for index in (0, 11, 22)]
        with Recorder(out, network, paths, shape=lambda x: x.permute(1, 0, 2)):
            out["out"] = network(rows(4))

    metadata = {
        "reference": COMMIT,
        "config": "width 64, heads 4, all else official; ids floor((u + 1) / 2 * 49408) of key in/clip, last row the "
        "empty prompt",
        **official(("clip", lambda: clip_of(module, 1024, 16))),
    }
    save("clip", twice([network], run), metadata)


if __name__ == "__main__":
    main()
