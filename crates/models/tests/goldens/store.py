"""Running a network of the reference, in float32 and float64, and writing down what came out (README.md, "Layout")."""

import contextlib
import copy
import json
import math
import os
import struct

import torch
from formula import FORMULA, fnv

# Tensors with more values than this are sampled, unless asked for as a whole.
LIMIT = 4096
SAMPLES = 2048
# Of each layer.
LAYER_SAMPLES = 32
# Up to so many values of a layer are looked at for its noise floor, else its sample.
KEPT = 1 << 18


class Recorder:
    """Takes down outputs of submodules under their own path and a suffix."""

    def __init__(self, out, module, paths, suffix="", prefix="", shape=None):
        self.handles = []
        for path in paths:

            def hook(_module, _inputs, result, path=path):
                # Later layers may work in place.
                result = result.detach().clone()
                out[prefix + path + suffix] = result if shape is None else shape(result)

            self.handles.append(module.get_submodule(path).register_forward_hook(hook))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for handle in self.handles:
            handle.remove()


# Layers that see windows in another order than the port may.
WINDOWED = ("attn.qkv", "attn.proj", "msa.embedding_layer", "msa.linear")
# Group norms whose SiLU is taken with them.
WITH_SILU = ("in_layers.0", "out_layers.0", "out.0", "norm1", "norm2", "norm_out")
LAYERS = (
    torch.nn.Conv2d, torch.nn.ConvTranspose2d, torch.nn.Linear, torch.nn.LayerNorm, torch.nn.GroupNorm, torch.nn.PReLU,
    torch.nn.BatchNorm2d,
)  # fmt: skip


def recorded_layers(network, run):
    """`run()` and the outputs of all single layers of a network under their paths, each at its first call, channels
    last; of windowed ones sorted values. A sample of each, with what describes it."""
    found, hooks = {}, []

    def hook_of(path):
        def hook(module, _inputs, result):
            if path in found:
                return
            x = result.detach()
            if isinstance(module, torch.nn.GroupNorm) and path.endswith(WITH_SILU):
                x = torch.nn.functional.silu(x)
            if x.dim() == 4 and not isinstance(module, (torch.nn.Linear, torch.nn.LayerNorm)):
                x = x.movedim(1, -1)
            flat = x.flatten()
            if path.endswith(WINDOWED):
                flat = flat.sort().values
            exact = flat.double()
            stats = torch.stack([exact.mean(), exact.std(correction=0), exact.min(), exact.max(), exact.norm()])
            sample = flat[:: stride_of(flat.numel(), LAYER_SAMPLES)].clone()
            found[path] = (flat.numel(), stats, sample, flat.clone() if flat.numel() <= KEPT else sample)

        return hook

    for path, module in network.named_modules():
        if isinstance(module, LAYERS):
            hooks.append(module.register_forward_hook(hook_of(path)))
    result = run()
    for hook in hooks:
        hook.remove()
    return result, found


@contextlib.contextmanager
def patched(*changes):
    """Attributes of objects, as (object, name, value), for a while."""
    kept = [(owner, name, getattr(owner, name)) for owner, name, _ in changes]
    for owner, name, value in changes:
        setattr(owner, name, value)
    try:
        yield
    finally:
        for owner, name, value in reversed(kept):
            setattr(owner, name, value)


@contextlib.contextmanager
def in_double():
    """float64 also where the reference asks for float32; random numbers are float32's own, then widened."""
    single, randn, tensor = torch.float32, torch.randn, torch.Tensor

    def wide_randn(*size, dtype=None, **options):
        return randn(*size, dtype=single, **options).double()

    def wide_randn_like(x):
        return randn(x.shape, dtype=single).double()

    torch.set_default_dtype(torch.float64)
    try:
        with patched(
            (torch, "float32", torch.float64),
            (torch, "randn", wide_randn),
            (torch, "randn_like", wide_randn_like),
            (tensor, "float", lambda self: self.double()),
        ):
            yield
    finally:
        torch.set_default_dtype(single)


def twice(networks, run):
    """`run` with the networks in float32 and with copies in float64: name -> both."""
    single, double = {}, {}
    run(single, *networks)
    with in_double():
        copies = [copy.deepcopy(network).double() for network in networks]
        for network in copies:
            if hasattr(network, "dtype"):
                network.dtype = torch.float64
        run(double, *copies)
    return together(single, double)


def together(single, double=None):
    assert double is None or single.keys() == double.keys()
    return {key: (single[key], double and double[key]) for key in single}


def official(*builders):
    """Number of tensors and a hash of names and shapes of networks at official size."""
    result = {}
    for name, builder in builders:
        # SwinIR and SCUNet compute with real numbers while they are built.
        with torch.device("cpu" if name in ("swinir", "scunet") else "meta"):
            state = builder().state_dict()
        lines = sorted(f"{key} {'x'.join(map(str, tensor.shape))}" for key, tensor in state.items())
        text = "\n".join(lines)
        result["official_" + name] = f"{len(lines)} {fnv(text):016x}"
    return result


def stride_of(count, samples):
    """The smallest step that gives at most so many values and no pattern along an axis."""
    stride = -(-count // samples)
    while math.gcd(stride, count) != 1:
        stride += 1
    return stride


def floor_of(single, double):
    """The error that float32 alone brings, over the largest value; of bytes, how many differ and by how much."""
    if single.dtype == torch.uint8:
        error = (single.short() - double.short()).abs()
        return f"{(error > 0).double().mean().item():.1e} of values by up to {error.max().item()}"
    error = (single.double() - double.double()).abs().max() / double.double().abs().max()
    return f"{error.item():.1e}"


def save(path, results, metadata, whole=(), limit=LIMIT, samples=SAMPLES):
    """Writes PATH.safetensors; keys in order, so that the same values give the same bytes."""
    name = os.path.basename(path)
    tensors, metadata = {}, {"torch": torch.__version__, "formula": FORMULA, **metadata}
    for key, (single, double) in results.items():
        if isinstance(single, dict):
            metadata["layers." + key] = json.dumps(
                [
                    [path, count, float(floor_of(kept, double[path][3])) if double else None]
                    for path, (count, _, _, kept) in single.items()
                ],
                separators=(",", ":"),
            )
            tensors[key + ".stats"] = torch.stack([stats for _, stats, _, _ in single.values()]).float()
            tensors[key + ".samples"] = torch.cat([sample for _, _, sample, _ in single.values()])
            assert tensors[key + ".samples"].isfinite().all(), key
            continue
        bytes_ = single.dtype == torch.uint8
        assert bytes_ or single.dtype == torch.float32, (key, single.dtype)
        single = single.detach().contiguous()
        assert single.isfinite().all() and single.double().std() > 1e-3, key
        if double is not None:
            metadata["floor." + key] = floor_of(single, double.detach())
        if single.numel() <= limit or key in whole:
            tensors[key] = single
            continue
        # A byte costs a quarter.
        stride, flat = stride_of(single.numel(), samples * 4 if bytes_ else samples), single.flatten()
        exact = flat.double()
        stats = [exact.mean(), exact.std(correction=0), exact.min(), exact.max(), exact.norm()]
        tensors[key + ".sample"] = flat[::stride]
        tensors[key + ".stats"] = torch.stack(stats).float()
        metadata["shape." + key] = "x".join(map(str, single.shape))
        metadata["stride." + key] = str(stride)
    header, data = {"__metadata__": dict(sorted(metadata.items()))}, b""
    # Bytes last, so that everything stays aligned.
    for key in sorted(tensors, key=lambda key: (tensors[key].dtype == torch.uint8, key)):
        bytes_ = tensors[key].dtype == torch.uint8
        values = tensors[key].numpy().astype("u1" if bytes_ else "<f4").tobytes()
        header[key] = {
            "dtype": "U8" if bytes_ else "F32",
            "shape": list(tensors[key].shape),
            "data_offsets": [len(data), len(data) + len(values)],
        }
        data += values
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path + ".safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + data)
    for key, (single, _) in results.items():
        if isinstance(single, dict):
            largest = max(layer[2] or 0 for layer in json.loads(metadata["layers." + key]))
            print(f"{name}\t{key}\t{len(single)} layers\t\t{largest:.1e}")
            continue
        how = "whole" if key in tensors else "sample"
        print(f"{name}\t{key}\t{'x'.join(map(str, single.shape))}\t{how}\t{metadata.get('floor.' + key, '')}")
