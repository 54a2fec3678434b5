"""The networks at official size here and in the reference on PyTorch, in turns: medians, spreads, ratios.

    cargo bench --workspace --bench networks --no-run
    python bench/reference.py CHECKOUT target/release/deps/networks-HASH [--rounds 5] [--threads 2] [--precision f32|bf16]

CHECKOUT is a checkout of https://github.com/XPixelGroup/DiffBIR, commit 3f8b530. Weights are drawn at random on both sides.
The program runs in float32 and in bf16, PyTorch in --precision. PyTorch keeps its pictures channels last where that is
faster for it (measured once, before the rounds). The C library is told to keep freed memory, as the program `diffbir` does.
Needs about 16 GB of memory.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time

os.environ.setdefault("ATTN_MODE", "sdp")
GOLDENS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "crates", "models", "tests", "goldens")
sys.path.insert(0, GOLDENS)

import sources
import torch
from stage1 import swinir_of
from stage2 import unet_config, vae_of


def networks(module, dtype):
    """A function for each name of the benchmark, as fast as PyTorch's layouts make it."""
    net, config = module("model.controlnet"), unet_config(320, 1024, 64)

    def ready(network):
        return network.eval().to(dtype)

    def faster(network, run):
        def seconds():
            run()
            since = time.time()
            run()
            return time.time() - since

        plain = seconds()
        network.to(memory_format=torch.channels_last)
        if seconds() > plain:
            network.to(memory_format=torch.contiguous_format)
        return run

    draw = lambda *shape: torch.rand(*shape, dtype=dtype)
    x, z, swinir, vae = draw(1, 3, 512, 512), draw(1, 4, 64, 64), ready(swinir_of(module, 180, [6] * 8)), ready(vae_of(module, 128))
    yield "swinir", faster(swinir, lambda: swinir(x))
    yield "encode", faster(vae, lambda: vae.encode(x * 2 - 1))
    yield "decode", faster(vae, lambda: vae.decode(z))
    control = ready(net.ControlNet(hint_channels=4, **config))
    unet = ready(net.ControlledUnetModel(out_channels=4, **config))
    latent, hint, context, t = draw(2, 4, 64, 64), draw(2, 4, 64, 64), draw(2, 77, 1024), torch.tensor([499.0, 499.0], dtype=dtype)

    def step():
        extra = control(x=latent, hint=hint, timesteps=t, context=context)
        return unet(x=latent, timesteps=t, context=context, control=extra)

    yield "step", faster(torch.nn.ModuleList([control, unet]), step)


@torch.no_grad()
def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("checkout")
    parser.add_argument("program")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--precision", choices=["f32", "bf16"], default="f32")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    dtype = torch.float32 if arguments.precision == "f32" else torch.bfloat16
    kept = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1)}
    environment = {**os.environ, **kept, "RAYON_NUM_THREADS": str(arguments.threads)}
    print(f"| | f32 | bf16 | PyTorch {arguments.precision} | ratio of f32 | of bf16 |\n|---|---|---|---|---|---|")

    def measured(name, precision):
        command = [arguments.program, name, "--runs", "1", "--precision", precision]
        line = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
        return float(line.split(": ")[1].split()[0])

    for name, run in networks(sources.load(arguments.checkout), dtype):
        ours, theirs = {"f32": [], "bf16": []}, []
        for _ in range(arguments.rounds):
            for precision, seconds in ours.items():
                seconds.append(measured(name, precision))
            since = time.time()
            run()
            theirs.append(time.time() - since)
        shown = lambda seconds: f"{statistics.median(seconds):.2f} s ({min(seconds):.2f}-{max(seconds):.2f})"
        ratios = [f"{statistics.median(seconds) / statistics.median(theirs):.2f}" for seconds in ours.values()]
        print(f"| {name} | {shown(ours['f32'])} | {shown(ours['bf16'])} | {shown(theirs)} | {' | '.join(ratios)} |", flush=True)


if __name__ == "__main__":
    main()
