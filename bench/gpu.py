"""The networks at official size on a graphics card, here and, from the reference's classes, on PyTorch: seconds, memory, ratios.

    cargo bench --workspace --features gpu --bench networks --no-run
    python bench/gpu.py CHECKOUT target/release/deps/networks-HASH [--device vulkan] [--side 512] [--runs 20] [--only NAME]

CHECKOUT is a checkout of https://github.com/XPixelGroup/DiffBIR, commit 3f8b530. Weights are drawn at random on both sides.
PyTorch runs in float16 with its fused attention, cuDNN's search for the fastest algorithms, and channels last where that is
faster for it. Memory is what each side holds of the card after its runs.
"""

import argparse
import functools
import os
import re
import statistics
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import torch
from reference import NAMES, network, sources


def on_torch(network, inputs, runs):
    """Median seconds, and MiB held at most."""
    network, inputs = network.eval().half(), [value.half() for value in inputs]
    for name, module in network.named_modules():
        # The reference's networks cast to this, and compute the waves of the time in float32.
        if isinstance(getattr(module, "dtype", None), torch.dtype):
            module.dtype = torch.float16
        if name.endswith("time_embed"):
            module.register_forward_pre_hook(lambda _, given: (given[0].half(),))
        # PyTorch's own norm adds in float32; the reference's casts everything there and back.
        if isinstance(module, torch.nn.GroupNorm):
            module.forward = functools.partial(torch.nn.GroupNorm.forward, module)

    def seconds(count):
        took = []
        for _ in range(count):
            torch.cuda.synchronize()
            since = time.perf_counter()
            network(*inputs)
            torch.cuda.synchronize()
            took.append(time.perf_counter() - since)
        return statistics.median(took)

    def settled():
        seconds(3)
        return seconds(runs)

    torch.cuda.reset_peak_memory_stats()
    best = settled()
    network.to(memory_format=torch.channels_last)
    best = min(best, settled())
    return best, torch.cuda.max_memory_reserved() >> 20


@torch.no_grad()
def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("checkout")
    parser.add_argument("program")
    parser.add_argument("--device", default="vulkan")
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--only", default="", help="rows whose names contain this")
    parser.add_argument("--precisions", nargs="*", default=["f16", "f32"])
    arguments = parser.parse_args()
    torch.backends.cudnn.benchmark = True
    ours = {}
    for precision in arguments.precisions:
        command = [arguments.program, arguments.only, "--device", arguments.device, "--precision", precision]
        command += ["--side", str(arguments.side), "--runs", str(arguments.runs)]
        for line in subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines():
            found = re.fullmatch(r"(\w+): ([\d.]+) s, first ([\d.]+) s, (\d+) MiB held", line)
            if found:
                ours[found[1], precision] = float(found[2]), float(found[3]), int(found[4])
    print("| | PyTorch f16 | MiB |" + "".join(f" {p} | first | MiB | ratio |" for p in arguments.precisions))
    print("|---" * (3 + 4 * len(arguments.precisions)) + "|")
    with torch.device("cuda"):
        module = sources.load(arguments.checkout)
        for name in NAMES:
            if arguments.only not in name:
                continue
            theirs, memory = on_torch(*network(name, module, arguments.side), arguments.runs)
            row = f"| {name} | {theirs * 1e3:.1f} ms | {memory} |"
            for precision in arguments.precisions:
                seconds, first, held = ours[name, precision]
                row += f" {seconds * 1e3:.1f} ms | {first:.1f} s | {held} | {seconds / theirs:.2f} |"
            print(row, flush=True)
            torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
