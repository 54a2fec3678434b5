"""A training step of networks of the built-in model's size here and on PyTorch, in turns: medians, spreads, ratios.

    cargo bench --workspace --bench steps --no-run
    python bench/training.py CHECKOUT target/release/deps/steps-HASH [--rounds 5] [--threads 2] [--device vulkan] [--raw FILE]

CHECKOUT is a checkout of https://github.com/XPixelGroup/DiffBIR, commit 3f8b530, whose classes are trained on the other side. Forward,
backward and AdamW in float32 on random numbers: SRVGGNetCompact (batch 4, 32 to 128 pixels), SwinIR (batch 4, 128 pixels, 96
channels, 4 x 4 layers), UNet and control branch together (batch 16, 16 x 16 x 32 latents, 64 channels). PyTorch trains its networks
channels last where that is faster for it. With --device, both sides are on a graphics card, PyTorch by CUDA with its defaults, and
the control branch of Stable Diffusion 2.1 for a picture of 512 x 512 is a row more.
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

import raw

raw.keep_freed_memory()
import sources
import torch
from stage1 import swinir_of
from stage2 import unet_config
from torch import nn


class Compact(nn.Module):
    """32 convolutions of 64 channels with PReLUs, four times the size by pixel shuffle, added to repeated pixels."""

    def __init__(self):
        super().__init__()
        layers = [nn.Conv2d(3, 64, 3, 1, 1), nn.PReLU(64)]
        for _ in range(32):
            layers += [nn.Conv2d(64, 64, 3, 1, 1), nn.PReLU(64)]
        self.body = nn.Sequential(*layers, nn.Conv2d(64, 48, 3, 1, 1), nn.PixelShuffle(4))

    def forward(self, x):
        return self.body(x) + nn.functional.interpolate(x, scale_factor=4, mode="nearest")


def trainer(network, loss):
    network.train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, foreach=True)

    def step():
        optimizer.zero_grad(set_to_none=True)
        loss().backward()
        nn.utils.clip_grad_norm_(network.parameters(), 0.5)
        optimizer.step()
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    def seconds():
        step()
        since = time.time()
        step()
        return time.time() - since

    plain = seconds()
    network.to(memory_format=torch.channels_last)
    if seconds() > plain:
        network.to(memory_format=torch.contiguous_format)
    step()
    return step


def trainers(module):
    small, degraded, truth = torch.randn(4, 3, 32, 32), torch.randn(4, 3, 128, 128), torch.randn(4, 3, 128, 128)
    compact = Compact()
    yield "srvgg", trainer(compact, lambda: (compact(small) - truth).square().mean())
    swinir = swinir_of(module, 96, [4] * 4)
    yield "swinir", trainer(swinir, lambda: (swinir(degraded) - truth).square().mean())
    net = module("model.controlnet")
    config = unet_config(64, 64, 32) | dict(
        image_size=16, in_channels=32, num_res_blocks=1, attention_resolutions=[4], channel_mult=[1, 2, 2]
    )
    control, unet = net.ControlNet(hint_channels=32, **config), net.ControlledUnetModel(out_channels=32, **config)
    x, hint, target = (torch.randn(16, 32, 16, 16) for _ in range(3))
    t, context = torch.full((16,), 499.0), torch.randn(16, 1, 64)

    def loss():
        extra = control(x=x, hint=hint, timesteps=t, context=context)
        return (unet(x=x, timesteps=t, context=context, control=extra) - target).square().mean()

    yield "stage2", trainer(nn.ModuleList([control, unet]), loss)


def official(module):
    net, config = module("model.controlnet"), unet_config(320, 1024, 64)
    control, unet = net.ControlNet(hint_channels=4, **config), net.ControlledUnetModel(out_channels=4, **config)
    unet.requires_grad_(False)
    x, hint, target = (torch.randn(1, 4, 64, 64) for _ in range(3))
    t, context = torch.full((1,), 499.0), torch.randn(1, 77, 1024)

    def loss():
        extra = control(x=x, hint=hint, timesteps=t, context=context)
        return (unet(x=x, timesteps=t, context=context, control=extra) - target).square().mean()

    yield "official", trainer(control, loss)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("checkout")
    parser.add_argument("program")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--raw", help="file that all times are added to")
    parser.add_argument("--device", help="where the program runs, if not on the CPU")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    module = sources.load(arguments.checkout)
    rows, flags = [trainers], []
    if arguments.device:
        torch.set_default_device("cuda")
        rows, flags = [trainers, official], ["--device", arguments.device]
    environment = raw.environment(arguments.threads)
    print(f"| {arguments.threads} threads | here | PyTorch | ratio |\n|---|---|---|---|")
    for name, step in (row for source in rows for row in source(module)):
        ours, theirs = [], []
        for _ in range(arguments.rounds):
            command = [arguments.program, name, "--runs", "5", *flags]
            line = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
            ours.append(float(line.split(": ")[1].split()[0]))
            times = []
            for _ in range(5):
                since = time.time()
                step()
                times.append(time.time() - since)
            theirs.append(statistics.median(times))
        about = {"training step": name, "threads": arguments.threads, "device": arguments.device or "cpu"}
        raw.add(arguments.raw, about, {"diffbir f32": ours, f"torch {torch.__version__} f32": theirs})
        ratio = statistics.median(ours) / statistics.median(theirs)
        print(f"| {name} | {raw.shown(ours)} | {raw.shown(theirs)} | {ratio:.2f} |", flush=True)


if __name__ == "__main__":
    main()
