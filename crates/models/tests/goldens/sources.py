"""The checkouts that goldens are made from."""

import importlib
import importlib.util
import os
import sys
import typing

os.environ["ATTN_MODE"] = "sdp"
import torch

COMMIT = "3f8b5304245ba0ffd6f1995e51c27c3c72d7618f"
TAESD_COMMIT = "5cccb12dc72074a4be35680c3b108548a7c69978"
REALESRGAN_COMMIT = "a4abfb2979a7bbff3f69f58f58ae324608821e27"


def path_of(name):
    """Where a golden goes, without its extension."""
    return os.path.join(os.path.dirname(os.path.abspath(__file__)), name)


def load(checkout):
    sys.path.insert(0, checkout)
    # Shims for a machine without a GPU and for a torch newer than the reference's.
    torch.Tuple = typing.Tuple
    if not torch.cuda.is_available():
        torch.cuda.synchronize = lambda *a, **k: None
    importlib.import_module("diffbir.model")
    return lambda name: importlib.import_module("diffbir." + name)


def load_file(path, name):
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
