"""A 512 x 512 picture with the built-in model on one and two threads, in f32 and bf16, in turns; and from the start to the first progress.

    python bench/nano.py target/release/diffbir examples/chelsea-small.png [--rounds 5] [--raw FILE]

Medians, least and most in brackets. `diffbir bench` says what a picture takes once the model is read (the median of three runs, after one that does not count); the
start is that of `diffbir restore PICTURE --json`, until its first event of a stage.
"""

import argparse
import json
import re
import subprocess
import tempfile
import time

import raw


def seconds(program, precision, threads):
    environment = raw.environment(threads)
    command = [program, "bench", "--precision", precision, "--runs", "3"]
    line = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
    return float(re.search(r"\| ([0-9.]+) s \(", line)[1])


def start(program, picture):
    with tempfile.TemporaryDirectory() as folder:
        command = [program, "restore", picture, "-o", folder + "/", "--json"]
        since = time.time()
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as running:
            first = next(line for line in running.stdout if "stage" in json.loads(line))
            passed = time.time() - since
            assert first
            running.communicate()
    return passed


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("picture")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--raw", help="file that all times are added to")
    arguments = parser.parse_args()
    kinds = [(precision, threads) for precision in ("f32", "bf16") for threads in (1, 2)]
    times = {kind: [] for kind in kinds}
    starts = []
    for _ in range(arguments.rounds):
        for kind in kinds:
            times[kind].append(seconds(arguments.program, *kind))
        starts.append(start(arguments.program, arguments.picture))
    print("| | one thread | two threads | ratio |\n|---|---|---|---|")
    for precision in ("f32", "bf16"):
        one, two = times[precision, 1], times[precision, 2]
        ratio = sorted(one)[len(one) // 2] / sorted(two)[len(two) // 2]
        print(f"| {precision} | {raw.shown(one)} | {raw.shown(two)} | {ratio:.2f} |")
        raw.add(arguments.raw, {"nano": "512 x 512", "precision": precision}, {"one thread": one, "two threads": two})
    print(f"start to first progress: {raw.shown(starts)}")
    raw.add(arguments.raw, {"nano": "start to first progress"}, {"seconds": starts})


if __name__ == "__main__":
    main()
