"""A training step with products in f32 and in bf16, in turns: seconds and processor time, medians, spreads, ratios.

    cargo bench --workspace --bench steps --no-run
    python bench/precision.py target/release/deps/steps-HASH [--rounds 5] [--threads 2] [--raw FILE]

The networks are those of `crates/train/benches/steps.rs`. Processor time is that of all threads for a step, the start of the program
not counted: it says more than seconds where other work runs on the machine.
"""

import argparse
import resource
import statistics
import subprocess

import raw

NAMES = ["srvgg", "swinir", "autoencoder", "stage2"]
PRECISIONS = ["f32", "bf16"]
STEPS = 8


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--raw", help="file that all times are added to")
    arguments = parser.parse_args()
    environment = raw.environment(arguments.threads)

    def run(name, precision, steps):
        used = lambda: sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])
        before = used()
        command = [arguments.program, name, "--runs", str(steps), "--precision", precision]
        line = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
        return float(line.split(": ")[1].split()[0]), used() - before

    print(f"| {arguments.threads} threads | | f32 | bf16 | ratio |\n|---|---|---|---|---|")
    for name in NAMES:
        seconds, processor = ({precision: [] for precision in PRECISIONS} for _ in range(2))
        for _ in range(arguments.rounds):
            for precision in PRECISIONS:
                _, start = run(name, precision, 1)
                median, whole = run(name, precision, STEPS)
                seconds[precision].append(median)
                processor[precision].append((whole - start) / (STEPS - 1))
        for what, values in [("seconds", seconds), ("processor time", processor)]:
            shown = [raw.shown(of) for of in values.values()]
            raw.add(arguments.raw, {"training step": name, "threads": arguments.threads, "what": what}, values)
            ratio = statistics.median(values["bf16"]) / statistics.median(values["f32"])
            print(f"| {name} | {what} | {shown[0]} | {shown[1]} | {ratio:.2f} |", flush=True)


if __name__ == "__main__":
    main()
