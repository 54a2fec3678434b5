"""What `diffbir restore --memory` foretells of each stage, and what it takes: a grid of sizes, models and limits.

    python scripts/memory.py target/release/diffbir [--set NAME] [--model FILE] [--raw FILE] [--rows FIRST:END]

Makes its own pictures, restores each in a process of its own, and prints a row for each stage, as Markdown: foretold, measured,
how far the first is from the second, and at the end of a run its most beside the most that the system counted. Sets: nano, limits, large (12
megapixels, minutes), all three of the built-in model; engine (networks that enlarge), face (gfpgan), official, official-limits and short, which
restore by --model FILE. A limit `least` is the smallest that the program says would do. Ends with an error where a limit was exceeded. Needs nothing
beside Python, on Linux.

Model files of official size that are nearly all a hole (v2.1, v2, v2-denoise, v1, gfpgan) are written by

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

LEAST = ["--memory", "least"]
SETS = {
    "nano": [
        ("128x96", []),
        ("256x192", []),
        ("256x192", ["--precision", "f32"]),
        ("512x384", ["--steps", "2"]),
        ("512x384", ["--stage1-only"]),
        ("768x768", ["--upscale", "1"]),
        ("2000x1500", ["--upscale", "1", "--steps", "2"]),
        ("300x200", ["--sampler", "spaced", "--color-fix", "none"]),
        ("300x200", ["--samples", "2", "--batch-size", "2"]),
        ("1000x750", ["--upscale", "2", "--steps", "2"]),
        ("256x192", ["--no-stage1"]),
        ("512x384", ["--steps", "2", "--vae-encoder-tiled", "--vae-decoder-tiled", "--vae-tiling", "reference"]),
        ("512x384", ["--steps", "2", "--vae-encoder-tiled", "--vae-decoder-tiled", "--vae-tiling", "fast"]),
    ],
    "limits": [
        ("256x192", LEAST),
        ("512x384", ["--steps", "2", *LEAST]),
        ("768x768", ["--upscale", "1", *LEAST]),
        ("2000x1500", ["--upscale", "1", "--steps", "2", *LEAST]),
        ("128x96,300x200,160x240", LEAST),
        ("300x200", ["--samples", "3", *LEAST]),
        ("300x200", ["--samples", "3", "--batch-size", "3", *LEAST]),
        ("200x150", ["--sweep", "fidelity=0,.5", *LEAST]),
        ("300x200", ["--cldm-tiled", "--vae-encoder-tiled", "--vae-decoder-tiled", *LEAST]),
        ("512x384", ["--stage1-only", *LEAST]),
    ],
    "large": [("4000x3000", ["--upscale", "1"]), ("1000x750", [])],
    "engine": [("128x128", []), ("300x200", []), ("640x480", LEAST), ("400x300", ["--upscale", "2"])],
    "face": [("512x512", ["--task", "face", "--upscale", "1"])],
    "official": [
        ("128x128", ["--steps", "2", "--cfg-scale", "4"]),
        ("128x128", ["--steps", "2", "--cfg-scale", "4", "--precision", "f32"]),
        ("128x128", ["--steps", "2", "--cfg-scale", "4", "--memory", "3500MB"]),
        ("160x128", ["--steps", "2", "--cfg-scale", "1"]),
        ("256x192", ["--steps", "2", "--cfg-scale", "1"]),
    ],
    "official-limits": [
        ("128x128", ["--steps", "2", "--cfg-scale", "4", *LEAST]),
        ("128x128", ["--steps", "2", "--cfg-scale", "1", "--precision", "f32", *LEAST]),
        ("200x150", ["--steps", "2", "--cfg-scale", "1", *LEAST]),
    ],
    "short": [
        ("128x128", ["--steps", "1", "--cfg-scale", "1"]),
        ("128x128", ["--stage1-only", "--precision", "f32"]),
        ("200x150", ["--stage1-only"]),
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
    """What a process says on stderr, its seconds of processor time, the most that the system counted, bytes, and its status."""
    read, write = os.pipe()
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=write)
    os.close(write)
    with os.fdopen(read) as file:
        said = file.read()
    _, status, usage = os.wait4(child.pid, 0)
    return said, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024, status


def size(number, unit):
    return float(number.replace(",", "")) * UNITS[unit]


def percent(foretold, measured):
    off = round(100 * (foretold / measured - 1))
    return f"{off:+d} %" if off else "0 %"


def least(command):
    """The smallest limit that the program says would do, MiB."""
    said, _, _, status = run([*command, "--memory", "1MB"])
    found = re.search(r"--memory (\d+)MiB", said)
    if not status or not found:
        sys.exit(f"{' '.join(command)}: {said}")
    return int(found[1])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("diffbir")
    parser.add_argument("--set", choices=SETS, default="nano")
    parser.add_argument("--model", default="nano")
    parser.add_argument("--rows", default=":", help="those of the set from the first, counted from 0, up to the end")
    parser.add_argument("--raw", help="what the program said is added to this file")
    options = parser.parse_args()
    print("| picture, flags | stage | foretold | measured | off |\n|---|---|---|---|---|")
    worst, exceeded = [], []
    rows = slice(*(int(end) if end else None for end in options.rows.split(":")))
    with tempfile.TemporaryDirectory() as folder:
        for name, flags in SETS[options.set][rows]:
            sources = os.path.join(folder, name)
            os.makedirs(sources, exist_ok=True)
            for own in name.split(","):
                source = os.path.join(sources, own + ".png")
                if not os.path.exists(source):
                    picture(source, *map(int, own.split("x")))
            command = [options.diffbir, "restore", sources, "-o", os.path.join(folder, "out"), "--existing", "overwrite"]
            command += ["--device", "cpu", "--model", options.model]
            limit = None
            if flags[-2:] == LEAST:
                limit = least(command + flags[:-2]) * 2**20
                flags = flags[:-2] + ["--memory", f"{limit >> 20}MiB"]
            command += flags if "--memory" in flags else flags + ["--memory", "64GB"]
            said, seconds, most, status = run(command)
            if status:
                sys.exit(f"{' '.join(command)}: {said}")
            if options.raw:
                with open(options.raw, "a") as file:
                    file.write(f"{name} {flags} {most}\n{said}\n")
            row = r"  (load|stage 1|encode|sample|decode) +.*?([\d.,]+) (B|KiB|MiB|GiB) +([\d.,]+) (B|KiB|MiB|GiB) \([-+]?\d+ %\)"
            stages = [(s, size(a, b), size(c, d)) for s, a, b, c, d in re.findall(row, said)]
            told = max(foretold for _, foretold, _ in stages)
            worst.append((100 * (told / most - 1), percent(told, most)))
            label = " ".join([name, *flags])
            if limit and most > limit:
                exceeded.append(f"{label}: {most / limit:.3f} of its limit")
            for stage, foretold, measured in [*stages, ("**all**", told, most)]:
                print(f"| {label} | {stage} | {foretold / 2**20:.0f} MiB | {measured / 2**20:.0f} MiB | {percent(foretold, measured)} |", flush=True)
            print(f"{label}: {seconds:.0f} s of processors", file=sys.stderr)
    print(f"\nAll: {min(worst)[1]} to {max(worst)[1]}", file=sys.stderr)
    if exceeded:
        sys.exit("\n".join(exceeded))


main()
