"""Small files as PyTorch writes them, and the tensors that torch.load finds in them.

    pip install torch==2.9.0 numpy safetensors
    python make.py

Each file NAME.pth holds, under whatever nesting and in whatever format its name says, two tensors `a.weight` [3, 4] and
`b.bias` [5]; `expected.safetensors` holds their values. `forbidden.pth` would run a command if a pickle were run.
"""

import collections
import io
import os
import pathlib
import pickle
import zipfile

import numpy
import torch
from safetensors.torch import save_file

HERE = pathlib.Path(__file__).parent
generator = torch.Generator().manual_seed(5)
# Halves of small whole numbers are exact in every format.
A = torch.randint(-99, 99, (3, 4), generator=generator).float() / 2
B = torch.randint(-99, 99, (5,), generator=generator).float() / 2
SAME = {"a.weight": A, "b.bias": B}
save_file(SAME, HERE / "expected.safetensors")


def save(name, value, **options):
    torch.save(value, HERE / f"{name}.pth", **options)


def deflated(name, of):
    """The members of a file compressed, as archivers and some mirrors leave them."""
    with zipfile.ZipFile(HERE / f"{of}.pth") as source, zipfile.ZipFile(HERE / f"{name}.pth", "w", zipfile.ZIP_DEFLATED) as target:
        for member in source.namelist():
            target.writestr(member, source.read(member))


save("zip", SAME)
save("legacy", SAME, _use_new_zipfile_serialization=False)
save("ordered", collections.OrderedDict(SAME))
save("nested_state_dict", {"state_dict": SAME, "epoch": 3, "optimizer_states": [{"state": {0: {"exp_avg": A}}}]})
save("nested_params", {"params": SAME})
save("nested_params_ema", {"params": {k: torch.zeros_like(v) for k, v in SAME.items()}, "params_ema": SAME})
save("module", {f"module.{k}": v for k, v in SAME.items()})
save("f16", {k: v.half() for k, v in SAME.items()})
save("bf16", {k: v.bfloat16() for k, v in SAME.items()})
save("f64", {k: v.double() for k, v in SAME.items()})
save("integers", SAME | {"position_ids": torch.arange(4), "steps": torch.tensor(7), "mask": torch.tensor([True, False])})
save("parameters", {k: torch.nn.Parameter(v) for k, v in SAME.items()})
# Views: a transposed tensor, and parts of one storage.
save("strided", {"a.weight": A.t().contiguous().t(), "b.bias": B})
storage = torch.cat([torch.zeros(7), A.flatten(), B, torch.zeros(3)])
save("shared", {"a.weight": storage[7:19].view(3, 4), "b.bias": storage[19:24]})
save("legacy_shared", {"a.weight": storage[7:19].view(3, 4), "b.bias": storage[19:24]}, _use_new_zipfile_serialization=False)
save("every_second", {"a.weight": A.repeat_interleave(2, 1)[:, ::2], "b.bias": B})
save("protocol_4", SAME, pickle_protocol=4)
deflated("deflated", "zip")
torch.serialization.set_crc32_options(False)
save("without_sums", SAME)
torch.serialization.set_crc32_options(True)


def with_device(name, of, device):
    """The same file as a GPU's program writes it: only the location of its storages differs."""
    with zipfile.ZipFile(HERE / f"{of}.pth") as source, zipfile.ZipFile(HERE / f"{name}.pth", "w") as target:
        for member in source.namelist():
            data = source.read(member)
            if member.endswith("data.pkl"):
                old, new = b"X\x03\x00\x00\x00cpu", b"X" + len(device).to_bytes(4, "little") + device.encode()
                assert old in data
                data = data.replace(old, new)
            target.writestr(member, data)


with_device("cuda", "zip", "cuda:1")


class Callback:
    """A class of a training program, which no reader of weights knows."""

    def __init__(self):
        self.best = 0.5


class Runs:
    def __reduce__(self):
        return (os.system, ("touch pickle-was-run",))


# The class is found under another module's name, as in files of other people's programs.
Callback.__module__, Callback.__qualname__ = "lightning.callbacks", "Callback"
import sys
import types

sys.modules["lightning"] = types.ModuleType("lightning")
sys.modules["lightning.callbacks"] = types.ModuleType("lightning.callbacks")
sys.modules["lightning.callbacks"].Callback = Callback
save("lightning", {"state_dict": SAME, "callbacks": {"ModelCheckpoint": Callback(), "score": numpy.float64(0.5)}, "hyper_parameters": {"lr": 1e-4, "betas": (0.9, 0.999), "name": "x", "none": None, "flag": True}})
save("forbidden", {"state_dict": SAME, "extra": Runs()})

whole = (HERE / "zip.pth").read_bytes()
for name, of in [("zip", "zip"), ("legacy", "legacy")]:
    found = torch.load(HERE / f"{of}.pth")
    assert all(torch.equal(found[k], v) for k, v in SAME.items())
buffer = io.BytesIO()
pickle.dump({"a": 1}, buffer)
(HERE / "plain_pickle.pth").write_bytes(buffer.getvalue())
