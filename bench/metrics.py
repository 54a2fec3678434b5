"""The metrics here and by pyiqa for one pair of pictures, in turns: medians, spreads, ratios.

    cargo bench --workspace --bench metrics --no-run
    python bench/metrics.py target/release/deps/metrics-HASH [--pictures RESTORED TRUTH] [--rounds 5] [--runs 5] [--threads 2]

Needs torch, torchvision, numpy, scipy, opencv, Pillow, lpips 0.1.4 and pyiqa 0.1.13 (`pip install --no-deps` is enough for it)
from PyPI. Without --pictures they are those of the crate's tests, brought to 512 x 512 pixels. Networks have weights drawn at
random and NIQE has those of the tests on both sides, which changes no time; what a metric takes is in memory as each side reads
it from a file: 8 bits here, float32 there. Each of the rounds runs a metric here, then there; the number of a round is the
median of its runs, after one that does not count. The clock says what a person waits; the processor's time, of all threads, is
what is left to compare where other work shares the machine. PyTorch's networks are channels last where that is faster for them.
"""

import argparse
import functools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from unittest import mock

GOLDENS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "crates", "metrics", "tests", "goldens")
sys.path.insert(0, GOLDENS)

import make
import numpy as np
import torch
from PIL import Image
from torchvision import models


def timed(call, runs):
    """Medians in milliseconds of the clock and of all threads."""
    times = []
    for _ in range(runs + 1):
        since, before = time.perf_counter(), time.process_time()
        call()
        times.append((time.perf_counter() - since, time.process_time() - before))
    return tuple(1e3 * statistics.median(column) for column in zip(*times[1:]))


def network(net, a, b):
    """LPIPS, in the layout that is faster."""
    # pyiqa would download the weights of AlexNet, whatever is asked for.
    drawn = {name: functools.partial(lambda build, **_: build(), getattr(models, name)) for name in ("alexnet", "vgg16")}
    with mock.patch.multiple(models, **drawn):
        module = make.pyiqa("pyiqa.archs.lpips_arch").LPIPS(net=net, pretrained=False, pnet_rand=True).eval()
    plain = timed(lambda: module(a, b), 1)[0]
    last = lambda x: x.contiguous(memory_format=torch.channels_last)
    a_last, b_last = last(a), last(b)
    module.to(memory_format=torch.channels_last)
    if timed(lambda: module(a_last, b_last), 1)[0] < plain:
        return lambda: module(a_last, b_last)
    module.to(memory_format=torch.contiguous_format)
    return lambda: module(a, b)


def metrics(a, b, niqe):
    noise, structure = make.pyiqa("pyiqa.archs.psnr_arch"), make.pyiqa("pyiqa.archs.ssim_arch")
    natural = make.pyiqa("pyiqa.archs.niqe_arch")
    of = lambda metric: lambda: metric(a, b)
    yield "psnr", of(noise.PSNR(test_y_channel=False))
    yield "psnr-y", of(noise.PSNR(test_y_channel=True, color_space="ycbcr"))
    yield "ssim", of(structure.SSIM(test_y_channel=False))
    yield "ssim-y", of(structure.SSIM(test_y_channel=True, color_space="ycbcr"))
    yield "ms-ssim", of(structure.MS_SSIM(test_y_channel=False))
    yield "ms-ssim-y", of(structure.MS_SSIM(test_y_channel=True, color_space="ycbcr"))
    yield "lpips", network("alex", a, b)
    yield "lpips-vgg", network("vgg", a, b)
    parameters = np.load(niqe)
    mean, covariance = (torch.from_numpy(parameters[name].copy()) for name in ("mu_pris_param", "cov_pris_param"))
    known = dict(mu_pris_param=mean.reshape(1, 36), cov_pris_param=covariance[None])
    yield "niqe", lambda: natural.calculate_niqe(a, color_space="yiq", **known)


@torch.inference_mode()
def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("--pictures", nargs=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    files, folder = arguments.pictures, tempfile.TemporaryDirectory()
    if not files:
        files = [os.path.join(folder.name, name) for name in ("restored.png", "truth.png")]
        for picture, file in zip(reversed(make.pictures()), files):
            Image.fromarray(picture.astype(np.uint8)).resize((512, 512), Image.BICUBIC).save(file)
    a, b = (make.tensor(np.array(Image.open(file).convert("RGB")), torch.float32).contiguous() for file in files)
    niqe = os.path.join(GOLDENS, "niqe_formula.npz")
    print("| metric | here, clock | pyiqa, clock | ratio | here, processor | pyiqa, processor | ratio |")
    print("|---|---|---|---|---|---|---|")
    for name, theirs in metrics(a, b, niqe):
        if arguments.only not in (None, name):
            continue
        here, there = [], []
        for _ in range(arguments.rounds):
            numbers = ["--runs", str(arguments.runs), "--threads", str(arguments.threads)]
            command = [arguments.program, *files, niqe, "--only", name, *numbers]
            line = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            here.append(tuple(float(value) for value in line.split()[1:3]))
            there.append(timed(theirs, arguments.runs))
        cells = [name]
        for here, there in zip(zip(*here), zip(*there)):
            cells += [f"{statistics.median(x):.3g} ms ({min(x):.3g}-{max(x):.3g})" for x in (here, there)]
            cells.append(f"{statistics.median(there) / statistics.median(here):.1f}")
        print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
