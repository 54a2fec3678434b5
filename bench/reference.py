"""The networks at official size here and, from the reference's classes, on PyTorch, OpenVINO or ONNX Runtime, in turns: medians, spreads, ratios.

    cargo bench --workspace --bench networks --no-run
    python bench/reference.py CHECKOUT target/release/deps/networks-HASH [--rounds 5] [--threads 2] [--peer torch|openvino|onnxruntime]
        [--precision f32|bf16] [--only NAME] [--raw FILE]

CHECKOUT is a checkout of https://github.com/XPixelGroup/DiffBIR, commit 3f8b530. Weights are drawn at random on both sides.
The program runs in float32 and in bf16, the peer in --precision. PyTorch keeps its pictures channels last where that is
faster for it (measured once, before the rounds). The C library is told to keep freed memory, as the program `diffbir` does.
With --raw every time that was measured is added to FILE, a line of JSON for each row, with date, machine and versions.
Needs about 16 GB of memory, and openvino, or onnx and onnxruntime, from PyPI for those peers.
"""

import argparse
import datetime
import importlib.metadata
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

os.environ.setdefault("ATTN_MODE", "sdp")
GOLDENS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "crates", "models", "tests", "goldens")
sys.path.insert(0, GOLDENS)

import sources
import torch
from stage1 import swinir_of
from stage2 import unet_config, vae_of


class Step(torch.nn.Module):
    """A guided step's two evaluations of UNet and control branch as one batch."""

    def __init__(self, control, unet):
        super().__init__()
        self.control, self.unet = control, unet

    def forward(self, x, hint, t, context):
        extra = self.control(x=x, hint=hint, timesteps=t, context=context)
        return self.unet(x=x, timesteps=t, context=context, control=extra)


class Composite(torch.nn.Module):
    """A residual block and a transformer block as Stable Diffusion 2.1 has them at 64 x 64 latents."""

    def __init__(self, module):
        super().__init__()
        self.block = module("model.unet").ResBlock(320, 1280, 0.0)
        self.transformer = module("model.attention").SpatialTransformer(
            320, 5, 64, context_dim=1024, use_linear=True, use_checkpoint=False
        )

    def forward(self, x, time, context):
        return self.transformer(self.block(x, time), context)


class Encode(torch.nn.Module):
    def __init__(self, vae):
        super().__init__()
        self.encoder, self.quant_conv = vae.encoder, vae.quant_conv

    def forward(self, x):
        return self.quant_conv(self.encoder(x))


class Decode(torch.nn.Module):
    def __init__(self, vae):
        super().__init__()
        self.decoder, self.post_quant_conv = vae.decoder, vae.post_quant_conv

    def forward(self, z):
        return self.decoder(self.post_quant_conv(z))


def networks(module, side=512):
    """Name, network and inputs of each row of the benchmark for pictures of this many pixels a side."""
    cells = side // 8
    net, config = module("model.controlnet"), unet_config(320, 1024, 64)
    draw = torch.rand
    inputs = draw(1, 320, cells, cells), draw(1, 1280), draw(1, 77, 1024)
    yield "composite", Composite(module), inputs
    yield "swinir", swinir_of(module, 180, [6] * 8), (draw(1, 3, side, side),)
    vae = vae_of(module, 128)
    yield "encode", Encode(vae), (draw(1, 3, side, side) * 2 - 1,)
    yield "decode", Decode(vae), (draw(1, 4, cells, cells),)
    step = Step(net.ControlNet(hint_channels=4, **config), net.ControlledUnetModel(out_channels=4, **config))
    x, hint, context = draw(2, 4, cells, cells), draw(2, 4, cells, cells), draw(2, 77, 1024)
    yield "step", step, (x, hint, torch.tensor([499.0, 499.0]), context)


def on_torch(network, inputs, precision, threads):
    torch.set_num_threads(threads)
    dtype = torch.float32 if precision == "f32" else torch.bfloat16
    network, inputs = network.eval().to(dtype), [value.to(dtype) for value in inputs]
    run = lambda: network(*inputs)

    def seconds():
        run()
        since = time.time()
        run()
        return time.time() - since

    plain = seconds()
    network.to(memory_format=torch.channels_last)
    if seconds() > plain:
        network.to(memory_format=torch.contiguous_format)
    return run


def on_openvino(network, inputs, precision, threads):
    import openvino

    model = openvino.convert_model(network.eval(), example_input=inputs)
    options = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
    compiled = openvino.Core().compile_model(model, "CPU", options)
    arrays = [value.numpy() for value in inputs]
    run = lambda: compiled(arrays)
    run()
    return run


def on_onnxruntime(network, inputs, precision, threads):
    import onnxruntime

    assert precision == "f32", "its CPU kernels are for float32"
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    with tempfile.TemporaryDirectory() as folder:
        file = os.path.join(folder, "network.onnx")
        names = [f"x{index}" for index in range(len(inputs))]
        torch.onnx.export(network.eval(), inputs, file, input_names=names, opset_version=17, dynamo=False)
        session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    arrays = {name: value.numpy() for name, value in zip(names, inputs)}
    run = lambda: session.run(None, arrays)
    run()
    return run


def machine():
    lines = [line.split(":", 1) for line in open("/proc/cpuinfo").read().split("\n\n")[0].splitlines()]
    fields = {key.strip(): value.strip() for key, value in lines}
    return f"{fields['model name']}, family {fields['cpu family']}, model {fields['model']}, {os.cpu_count()} cores"


@torch.no_grad()
def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("checkout")
    parser.add_argument("program")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--peer", choices=["torch", "openvino", "onnxruntime"], default="torch")
    parser.add_argument("--precision", choices=["f32", "bf16"], default="f32")
    parser.add_argument("--raw", help="file that all times are added to")
    parser.add_argument("--only", default="", help="rows whose names contain this")
    arguments = parser.parse_args()
    peer = {"torch": on_torch, "openvino": on_openvino, "onnxruntime": on_onnxruntime}[arguments.peer]
    kept = {"MALLOC_MMAP_MAX_": "0", "MALLOC_ARENA_MAX": "1", "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1)}
    environment = {**os.environ, **kept, "RAYON_NUM_THREADS": str(arguments.threads)}
    print(f"| | f32 | bf16 | {arguments.peer} {arguments.precision} | ratio of f32 | of bf16 |\n|---|---|---|---|---|---|")

    def measured(name, precision):
        command = [arguments.program, name, "--runs", "1", "--precision", precision]
        line = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
        return float(line.split(": ")[1].split()[0])

    for name, network, inputs in networks(sources.load(arguments.checkout)):
        if arguments.only not in name:
            continue
        run = peer(network, inputs, arguments.precision, arguments.threads)
        ours, theirs = {"f32": [], "bf16": []}, []
        for _ in range(arguments.rounds):
            for precision, seconds in ours.items():
                seconds.append(measured(name, precision))
            since = time.time()
            run()
            theirs.append(time.time() - since)
        if arguments.raw:
            about = {"date": datetime.date.today().isoformat(), "machine": machine(), "threads": arguments.threads}
            version = importlib.metadata.version(arguments.peer)
            about |= {"network": name, "peer": f"{arguments.peer} {version} {arguments.precision}"}
            rounded = lambda seconds: [round(value, 4) for value in seconds]
            times = {f"diffbir {key}": rounded(seconds) for key, seconds in ours.items()} | {"peer seconds": rounded(theirs)}
            with open(arguments.raw, "a") as file:
                print(json.dumps(about | times), file=file)
        shown = lambda seconds: f"{statistics.median(seconds):.3f} s ({min(seconds):.3f}-{max(seconds):.3f})"
        ratios = [f"{statistics.median(seconds) / statistics.median(theirs):.2f}" for seconds in ours.values()]
        print(f"| {name} | {shown(ours['f32'])} | {shown(ours['bf16'])} | {shown(theirs)} | {' | '.join(ratios)} |", flush=True)


if __name__ == "__main__":
    main()
