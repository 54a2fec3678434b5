"""Runs the reference's command line and ours on the same pictures from the same seed, and says how far apart they are.

    python compare_reference.py CHECKOUT PROGRAM [--precision=bf16] [--rounds=5] -- --input DIR [flags of inference.py]

CHECKOUT is a checkout of https://github.com/XPixelGroup/DiffBIR (commit 3f8b530) with its requirements installed; PROGRAM is the
binary `diffbir`. Both take the weights from CHECKOUT/weights, where the reference keeps what it downloads; without
them, `crates/diffbir/tests/goldens/full.py` makes files of the same names and shapes. --device cpu, --precision fp32 and
--captioner none are added, the precision before `--` being ours alone; the order of random draws is the reference's. Both are
measured in turns, and the weights are read before each, so that neither waits for the disk.
"""

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np
from PIL import Image

ALWAYS = ["--device", "cpu", "--precision", "fp32", "--captioner", "none"]
# A newer PyTorch than the reference's, and a machine without a GPU.
SHIMS = """
import runpy, sys, typing, torch
torch.Tuple = typing.Tuple
torch.cuda.synchronize = lambda *a, **k: None
torch.load = (lambda load: lambda *a, **k: load(*a, **{"weights_only": False, **k}))(torch.load)
try:
    import facexlib
except ImportError:
    import types
    from unittest import mock
    for name in ("", ".detection", ".parsing", ".utils", ".utils.misc"):
        sys.modules["facexlib" + name] = mock.MagicMock()
try:
    import accelerate
except ImportError:
    import random, types, numpy
    def set_seed(seed):
        random.seed(seed), numpy.random.seed(seed), torch.manual_seed(seed)
    sys.modules["accelerate"] = types.ModuleType("accelerate")
    sys.modules["accelerate.utils"] = types.SimpleNamespace(set_seed=set_seed)
sys.path.insert(0, ".")
runpy.run_path("inference.py", run_name="__main__")
"""


def run(name, command, weights, **options):
    """Seconds, and seconds of processor time."""
    for file in os.scandir(weights):
        with open(file.path, "rb") as opened:
            while opened.read(1 << 24):
                pass
    since, before = time.time(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, **options)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    seconds = time.time() - since
    # The most of all children so far: the larger program is to run last, or its number is the smaller one's bound.
    print(f"{name}: {seconds:.0f} s, {cpu:.0f} s of processor, most memory {after.ru_maxrss / 2**20:.1f} GiB", flush=True)
    return seconds, cpu


def main():
    checkout, program = (os.path.abspath(path) for path in sys.argv[1:3])
    split = sys.argv.index("--")
    flags, ours_alone = [*sys.argv[split + 1 :], *ALWAYS], sys.argv[3:split]
    flags[flags.index("--input") + 1] = os.path.abspath(flags[flags.index("--input") + 1])
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs = os.path.join(folder, "ours"), os.path.join(folder, "theirs")
        environment = {**os.environ, "DIFFBIR_MODELS": os.path.join(checkout, "weights"), "ATTN_MODE": "sdp"}
        own = [program, "restore", *flags, "--output", ours, "--seed-mode", "reference-cli"]
        options = dict(option.removeprefix("--").split("=") for option in ours_alone)
        own[own.index("--precision") + 1] = options.get("precision", "fp32")
        official = [sys.executable, "-c", SHIMS, *flags, "--output", theirs]
        weights, rounds = environment["DIFFBIR_MODELS"], []
        for _ in range(int(options.get("rounds", 1))):
            ours_took = run("diffbir", own, weights, env=environment)
            rounds.append([*ours_took, *run("reference", official, weights, cwd=checkout, env=environment)])
        seconds, cpu, their_seconds, their_cpu = (statistics.median(times) for times in zip(*rounds))
        print(f"by the medians {seconds / their_seconds:.2f} of the time, {cpu / their_cpu:.2f} of the processor's")
        for name in sorted(os.listdir(theirs)):
            if not name.endswith(".png"):
                same = open(os.path.join(ours, name)).read() == open(os.path.join(theirs, name)).read()
                print(f"{name}: {'the same' if same else 'differs'}")
                continue
            a, b = (np.asarray(Image.open(os.path.join(at, name))).astype(int) for at in (ours, theirs))
            off = abs(a - b)
            print(
                f"{name}: {b.shape[1]} x {b.shape[0]}, mean difference {off.mean():.4f} levels, largest {off.max()}, "
                f"above one level {(off > 1).mean():.2%}"
            )


if __name__ == "__main__":
    main()
