"""What the scripts beside share: where and when something was measured, the environment of our programs, and files of raw times."""

import datetime
import json
import os
import statistics
import sys

# As the program `diffbir` asks the C library: freed memory is kept for the next tensor.
KEPT = {"MALLOC_MMAP_MAX_": "0", "MALLOC_ARENA_MAX": "1", "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1)}


def keep_freed_memory():
    """Starts this script anew with what the C library reads at the start only."""
    if not KEPT.items() <= os.environ.items():
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **KEPT})


def environment(threads):
    return {**os.environ, **KEPT, "RAYON_NUM_THREADS": str(threads)}


def machine():
    lines = [line.split(":", 1) for line in open("/proc/cpuinfo").read().split("\n\n")[0].splitlines()]
    fields = {key.strip(): value.strip() for key, value in lines}
    return f"{fields['model name']}, family {fields['cpu family']}, model {fields['model']}, {os.cpu_count()} cores"


def add(file, about, times):
    """Adds a line of JSON to a file, if there is one: what `about` says, and lists of seconds by name."""
    if not file:
        return
    line = {"date": datetime.date.today().isoformat(), "machine": machine(), **about}
    line |= {name: [round(value, 4) for value in values] for name, values in times.items()}
    with open(file, "a") as opened:
        print(json.dumps(line), file=opened)


def shown(seconds):
    """The median, least and most in brackets."""
    return f"{statistics.median(seconds):.3f} s ({min(seconds):.3f}-{max(seconds):.3f})"
