#!/usr/bin/env python3
"""Sends `diffbir serve` ten times the jobs that it can do, and looks at what becomes of it.

    bench/overload.py target/release/diffbir examples/chelsea-small.png [SECONDS]

Prints how fast /healthz answered meanwhile, how much memory the server took, and how many of the accepted jobs ended.
"""

import http.client
import json
import re
import subprocess
import sys
import tempfile
import threading
import time


def main(program, picture, seconds=120.0):
    with tempfile.TemporaryDirectory() as data:
        server = subprocess.Popen(
            [program, "serve", "--port", "0", "--device", "cpu", "--data", data, "--keep", "100000", "--keep-mb", "100000"],
            stderr=subprocess.PIPE, text=True,
        )
        try:
            address = re.search(r"http://([\d.:]+)/", server.stderr.readline()).group(1)
            threading.Thread(target=server.stderr.read, daemon=True).start()
            overload(address, server.pid, form(picture), float(seconds))
        finally:
            server.terminate()
            server.wait()


def form(picture):
    with open(picture, "rb") as file:
        image = file.read()
    head = b'--B\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'
    return head + image + b"\r\n--B--\r\n"


def ask(address, method, path, body=None):
    connection = http.client.HTTPConnection(address, timeout=120)
    headers = {"Content-Type": "multipart/form-data; boundary=B"} if body else {}
    connection.request(method, path, body, headers)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, content


def memory_mb(pid):
    with open(f"/proc/{pid}/statm") as statm:
        return int(statm.read().split()[1]) * 4096 / 1e6


def overload(address, pid, body, seconds):
    for _ in range(3):
        begun = time.monotonic()
        assert ask(address, "POST", "/v1/restorations?wait=60", body)[0] == 200
        job_s = time.monotonic() - begun
    rate = 10 / job_s
    until = time.monotonic() + seconds
    health_ms, memory, ids, statuses = [], [], [], {}

    def watch():
        while time.monotonic() < until:
            begun = time.monotonic()
            assert ask(address, "GET", "/healthz")[0] == 200
            health_ms.append((time.monotonic() - begun) * 1e3)
            memory.append(memory_mb(pid))
            time.sleep(0.05)

    def post():
        status, content = ask(address, "POST", "/v1/restorations", body)
        statuses[status] = statuses.get(status, 0) + 1
        if status == 202:
            ids.append(json.loads(content)["id"])

    watcher = threading.Thread(target=watch)
    watcher.start()
    sent = 0
    while time.monotonic() < until:
        threading.Thread(target=post).start()
        sent += 1
        time.sleep(1 / rate)
    watcher.join()
    states = {}
    for id in ids:
        while (state := json.loads(ask(address, "GET", f"/v1/restorations/{id}")[1])["state"]) in ("queued", "running"):
            time.sleep(0.2)
        states[state] = states.get(state, 0) + 1
    health_ms.sort()
    tenth = len(memory) // 10
    print(f"one job {job_s:.2f} s; {sent} sent in {seconds:.0f} s, {rate:.1f} a second: {statuses}")
    print(f"/healthz {len(health_ms)} times: median {health_ms[len(health_ms) // 2]:.1f} ms, "
          f"99th percentile {health_ms[len(health_ms) * 99 // 100]:.1f} ms, most {health_ms[-1]:.1f} ms")
    print(f"memory: {max(memory[:tenth]):.0f} MB at most in the first tenth, {max(memory[-tenth:]):.0f} MB in the last, {max(memory):.0f} MB at all")
    print(f"of {len(ids)} accepted jobs ended: {states}")


if __name__ == "__main__":
    main(*sys.argv[1:])
