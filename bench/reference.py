"""The networks at official size here and, from the reference's classes, on PyTorch, OpenVINO or ONNX Runtime, in turns: medians, spreads, ratios.

    cargo bench --workspace --bench networks --no-run
    python bench/reference.py CHECKOUT target/release/deps/networks-HASH [--rounds 5] [--threads 2] [--peer torch|openvino|onnxruntime]
        [--precision f32|bf16] [--only NAME] [--raw FILE]

CHECKOUT is a checkout of https://github.com/XPixelGroup/DiffBIR, commit 3f8b530. Weights are drawn at random on both sides.
The program runs in the peer's precision, and against PyTorch in float32 in bf16, too. PyTorch keeps its pictures channels last where that is
faster for it (measured once, before the rounds). The C library is told to keep freed memory on both sides, as the program `diffbir` does.
With --raw every time that was measured is added to FILE, a line of JSON for each row, with date, machine and versions.
Needs about 16 GB of memory, and openvino, or onnx and onnxruntime, from PyPI for those peers.
"""

import argparse
import importlib.metadata
import multiprocessing
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time

os.environ.setdefault("ATTN_MODE", "sdp")
GOLDENS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "crates", "models", "tests", "goldens")
sys.path.insert(0, GOLDENS)

import raw
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


NAMES = ["composite", "swinir", "encode", "decode", "step"]


def network(name, module, side=512):
    """Network and inputs of a row of the benchmark for pictures of this many pixels a side."""
    cells, draw = side // 8, torch.rand
    if name == "composite":
        return Composite(module), (draw(1, 320, cells, cells), draw(1, 1280), draw(1, 77, 1024))
    if name == "swinir":
        return swinir_of(module, 180, [6] * 8), (draw(1, 3, side, side),)
    if name == "encode":
        return Encode(vae_of(module, 128)), (draw(1, 3, side, side) * 2 - 1,)
    if name == "decode":
        return Decode(vae_of(module, 128)), (draw(1, 4, cells, cells),)
    net, config = module("model.controlnet"), unet_config(320, 1024, 64)
    step = Step(net.ControlNet(hint_channels=4, **config), net.ControlledUnetModel(out_channels=4, **config))
    x, hint, context = draw(2, 4, cells, cells), draw(2, 4, cells, cells), draw(2, 77, 1024)
    return step, (x, hint, torch.tensor([499.0, 499.0]), context)


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


@torch.no_grad()
def serve(connection, checkout, name, peer, precision, threads):
    """In a process of its own: makes the peer's network ready and runs it whenever it is asked to."""
    run = PEERS[peer](*network(name, sources.load(checkout)), precision, threads)
    connection.send("ready")
    while connection.recv():
        # As ours: one run that does not count, for what the pause has cooled.
        run()
        since = time.time()
        run()
        connection.send(time.time() - since)


class Peer:
    """The peer's process, which is stopped while nothing is asked of it: its waiting threads would take time from ours."""

    def __init__(self, *what):
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs, *what), daemon=True)
        self.process.start()
        # So that the end of the peer's process is the end of what is read from it.
        theirs.close()
        try:
            self.connection.recv()
        except EOFError:
            sys.exit(f"{' '.join(map(str, what))}: ended before it was ready; its reason stands above")
        os.kill(self.process.pid, signal.SIGSTOP)

    def seconds(self):
        os.kill(self.process.pid, signal.SIGCONT)
        self.connection.send(True)
        seconds = self.connection.recv()
        os.kill(self.process.pid, signal.SIGSTOP)
        return seconds

    def end(self):
        os.kill(self.process.pid, signal.SIGCONT)
        self.connection.send(False)
        self.process.join()


PEERS = {"torch": on_torch, "openvino": on_openvino, "onnxruntime": on_onnxruntime}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("checkout")
    parser.add_argument("program")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--peer", choices=list(PEERS), default="torch")
    parser.add_argument("--precision", choices=["f32", "bf16"], default="f32")
    parser.add_argument("--raw", help="file that all times are added to")
    parser.add_argument("--only", default="", help="rows whose names contain this")
    arguments = parser.parse_args()
    # Before the peer's process starts.
    os.environ.update(raw.KEPT)
    environment = raw.environment(arguments.threads)
    kinds = ["f32", "bf16"] if (arguments.peer, arguments.precision) == ("torch", "f32") else [arguments.precision]
    heads = [*kinds, f"{arguments.peer} {arguments.precision}", *(f"ratio of {precision}" for precision in kinds)]
    print(f"| {arguments.threads} threads | {' | '.join(heads)} |\n|{'---|' * (len(heads) + 1)}")

    def measured(name, precision):
        command = [arguments.program, name, "--runs", "1", "--precision", precision]
        line = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
        return float(line.split(": ")[1].split()[0])

    for name in NAMES:
        if arguments.only not in name:
            continue
        peer = Peer(arguments.checkout, name, arguments.peer, arguments.precision, arguments.threads)
        ours, theirs = {precision: [] for precision in kinds}, []
        for _ in range(arguments.rounds):
            for precision, seconds in ours.items():
                seconds.append(measured(name, precision))
            theirs.append(peer.seconds())
        peer.end()
        program = f"{arguments.peer} {importlib.metadata.version(arguments.peer)} {arguments.precision}"
        times = {f"diffbir {key}": seconds for key, seconds in ours.items()} | {program: theirs}
        raw.add(arguments.raw, {"network": name, "threads": arguments.threads}, times)
        ratios = [f"{statistics.median(seconds) / statistics.median(theirs):.2f}" for seconds in ours.values()]
        print(f"| {name} | {' | '.join(map(raw.shown, [*ours.values(), theirs]))} | {' | '.join(ratios)} |", flush=True)


if __name__ == "__main__":
    main()
