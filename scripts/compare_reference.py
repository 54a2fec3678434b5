"""Runs the reference's command line and ours on the same pictures from the same seed, and says how far apart they are.

    python compare_reference.py CHECKOUT PROGRAM [--precision bf16] [--rounds 5] [--raw FILE] -- --input DIR [flags of inference.py]

CHECKOUT is a checkout of https://github.com/XPixelGroup/DiffBIR (commit 3f8b530) with its requirements installed; PROGRAM is the
binary `diffbir`. Both take the weights from CHECKOUT/weights, where the reference keeps what it downloads; without
them, `crates/diffbir/tests/goldens/full.py` makes files of the same names and shapes. --device cpu, --precision fp32 and
--captioner none are added, the precision before `--` being ours alone; the order of random draws is the reference's. Both are
measured in turns, each as its users run it, and the weights are read before each, so that neither waits for the disk. With --raw
times are added to FILE as those of `bench/`.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np
from PIL import Image

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "bench"))
import raw

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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", type=os.path.abspath)
    parser.add_argument("program", type=os.path.abspath)
    parser.add_argument("--precision", default="fp32", help="ours alone")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--raw", help="file that all times are added to")
    split = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    arguments = parser.parse_args(sys.argv[1:split])
    flags = [*sys.argv[split + 1 :], *ALWAYS]
    if "--input" not in flags:
        parser.error("--input DIR is wanted behind `--`")
    at = flags.index("--input") + 1
    pipeline = " ".join([*flags[:at], os.path.basename(flags[at]), *flags[at + 1 :]])
    flags[at] = os.path.abspath(flags[at])
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs = os.path.join(folder, "ours"), os.path.join(folder, "theirs")
        environment = {**os.environ, "DIFFBIR_MODELS": os.path.join(arguments.checkout, "weights"), "ATTN_MODE": "sdp"}
        own = [arguments.program, "restore", *flags, "--output", ours, "--seed-mode", "reference-cli"]
        own[own.index("--precision") + 1] = arguments.precision
        official = [sys.executable, "-c", SHIMS, *flags, "--output", theirs]
        weights, rounds = environment["DIFFBIR_MODELS"], []
        for _ in range(arguments.rounds):
            ours_took = run("diffbir", own, weights, env=environment)
            rounds.append([*ours_took, *run("reference", official, weights, cwd=arguments.checkout, env=environment)])
        names = ["seconds", "processor", "reference seconds", "reference processor"]
        raw.add(arguments.raw, {"pipeline": pipeline, "precision": arguments.precision}, dict(zip(names, zip(*rounds))))
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
