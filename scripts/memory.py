"""What `diffbir restore --memory` foretells of each stage, and what it takes: a grid of sizes, models and limits.

    python scripts/memory.py target/release/diffbir [--set NAME] [--model FILE] [--raw FILE]

Makes its own pictures, restores each in a process of its own, and prints a row for each stage, as Markdown: foretold, measured,
how far the first is from the second, and at the end of a run its most beside the most that the system counted. Sets: nano, large (12
megapixels, minutes), engine and official, which restore by --model FILE. Needs nothing beside Python, on Linux.

A model file of official size that is nearly all a hole is written by

    DIFFBIR_WRITE=v2.1.safetensors cargo test --release --workspace --test plan -- --ignored
"""

import argparse
import os
import random
import re
import struct
import subprocess
import sys
import tempfile
import zlib

UNITS = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}

SETS = {
    "nano": [
        ("128x96", []),
        ("256x192", []),
        ("256x192", ["--precision", "f32"]),
        ("512x384", []),
        ("512x384", ["--memory", "450MB"]),
        ("512x384", ["--stage1-only"]),
        ("768x768", ["--upscale", "1"]),
        ("300x200", ["--sampler", "spaced", "--color-fix", "none"]),
        ("300x200", ["--samples", "2", "--batch-size", "2"]),
        ("1000x750", ["--upscale", "2"]),
    ],
    "large": [("4000x3000", ["--upscale", "1"]), ("1000x750", [])],
    "engine": [("128x128", []), ("300x200", []), ("640x480", []), ("640x480", ["--memory", "700MB"]), ("400x300", ["--upscale", "2"])],
    "official": [
        ("128x128", ["--steps", "2", "--cfg-scale", "4"]),
        ("128x128", ["--steps", "2", "--cfg-scale", "4", "--precision", "f32"]),
        ("128x128", ["--steps", "2", "--cfg-scale", "4", "--memory", "3500MB"]),
        ("160x128", ["--steps", "2", "--cfg-scale", "1"]),
        ("256x192", ["--steps", "2", "--cfg-scale", "1"]),
    ],
}


def picture(path, width, height):
    """A picture of slopes and noise as PNG."""
    draw = random.Random(width * height)
    rows = b"".join(
        b"\0" + bytes((x * 255 // width + draw.getrandbits(5) + c * y // height) & 255 for x in range(width) for c in range(3))
        for y in range(height)
    )
    chunk = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    with open(path, "wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows, 1)) + chunk(b"IEND", b""))


def run(command):
    """What a process says on stderr, its seconds of processor time, and the most that the system counted, bytes."""
    read, write = os.pipe()
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=write)
    os.close(write)
    with os.fdopen(read) as file:
        said = file.read()
    _, status, usage = os.wait4(child.pid, 0)
    if status:
        sys.exit(f"{' '.join(command)}: {said}")
    return said, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024


def size(number, unit):
    return float(number.replace(",", "")) * UNITS[unit]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("diffbir")
    parser.add_argument("--set", choices=SETS, default="nano")
    parser.add_argument("--model", default="nano")
    parser.add_argument("--raw", help="what the program said is added to this file")
    options = parser.parse_args()
    print("| picture, flags | stage | foretold | measured | off |\n|---|---|---|---|---|")
    worst = []
    with tempfile.TemporaryDirectory() as folder:
        for name, flags in SETS[options.set]:
            source = os.path.join(folder, name + ".png")
            if not os.path.exists(source):
                picture(source, *map(int, name.split("x")))
            limit = [] if "--memory" in flags else ["--memory", "64GB"]
            command = [options.diffbir, "restore", source, "-o", os.path.join(folder, "out.png"), "--existing", "overwrite"]
            said, seconds, most = run(command + ["--device", "cpu", "--model", options.model, *limit, *flags])
            if options.raw:
                with open(options.raw, "a") as file:
                    file.write(f"{name} {flags} {most}\n{said}\n")
            row = r"  (load|stage 1|encode|sample|decode) +.*?([\d.,]+) (B|KiB|MiB|GiB) +([\d.,]+) (B|KiB|MiB|GiB) \([-+]\d+ %\)"
            stages = [(s, size(a, b), size(c, d)) for s, a, b, c, d in re.findall(row, said)]
            told = max(foretold for _, foretold, _ in stages)
            off = 100 * (told / most - 1)
            worst.append(off)
            label = " ".join([name, *flags])
            for stage, foretold, measured in stages:
                print(f"| {label} | {stage} | {foretold / 2**20:.0f} MiB | {measured / 2**20:.0f} MiB | {100 * (foretold / measured - 1):+.0f} % |")
            print(f"| {label} | **all** | {told / 2**20:.0f} MiB | {most / 2**20:.0f} MiB | {off:+.0f} % |", flush=True)
            print(f"{label}: {seconds:.0f} s of processors", file=sys.stderr)
    print(f"\nAll: {min(worst):+.0f} to {max(worst):+.0f} %", file=sys.stderr)


main()
