"""What the scripts of all versions share: reduced networks, photographs by formula, and the taking down of what a
pipeline makes on its way. README.md says what is in the files."""

import contextlib
import io
import os
import sys
import tempfile
import types
import typing
import warnings

os.environ["ATTN_MODE"] = "sdp"
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "../../../models/tests/goldens"))
import numpy as np
import torch
from formula import check_filler, fill, filler
from omegaconf import OmegaConf
from PIL import Image
from store import in_double, patched, save, together

PHOTO = "photo H x W: floor((u + 1) * 128) of key 'in/photo_HxW' in order of rows, columns, channels (RGB)"
# The smallest whole networks; in all else they are official.
SMALL_UNET = dict(model_channels=32, context_dim=32, num_head_channels=32, use_checkpoint=False)
SMALL_TEXT = dict(width=32, heads=4)
# The picture tower, which the reference throws away.
SMALL_VISION = dict(image_size=14, patch_size=14, width=8, head_width=8, layers=1)


def start(checkout):
    """Shims for a machine without a GPU and for a torch newer than the reference's."""
    warnings.simplefilter("ignore")
    check_filler()
    sys.path.insert(0, checkout)
    torch.set_num_threads(1)
    torch.Tuple = typing.Tuple
    torch.cuda.synchronize = lambda *a, **k: None
    # Only faces that must be found first need it.
    for name in ("facexlib", "facexlib.detection", "facexlib.parsing", "facexlib.utils", "facexlib.utils.misc"):
        stub(name)
    for name in ("init_detection_model", "init_parsing_model", "img2tensor", "imwrite"):
        for owner in ("facexlib.detection", "facexlib.parsing", "facexlib.utils.misc"):
            setattr(sys.modules[owner], name, None)
    stub("accelerate")
    stub("accelerate.utils").set_seed = None


def stub(name, **attributes):
    module = types.ModuleType(name)
    vars(module).update(attributes)
    sys.modules[name] = module
    return module


def small_latent_diffusion(path, instantiate):
    """The networks of stage 2 and the text encoder from the reference's own configuration file."""
    config = OmegaConf.load(path)
    parts = config.params
    parts.unet_cfg.update(SMALL_UNET)
    parts.controlnet_cfg.update(SMALL_UNET)
    parts.vae_cfg.ddconfig.ch = 32
    parts.clip_cfg.update(embed_dim=SMALL_TEXT["width"], vision_cfg=SMALL_VISION)
    parts.clip_cfg.text_cfg.update(SMALL_TEXT)
    network = instantiate(config)
    for part in (network.unet, network.vae, network.clip):
        fill(part)
    # Other values than the UNet's, whose names it shares.
    fill(network.controlnet, salt=1)
    return network.eval()


def small_cleaner(path, instantiate):
    """The network of stage 1 from the reference's own configuration file."""
    config = OmegaConf.load(path)
    kind = config.target.rsplit(".")[-1]
    if kind == "SwinIR":
        config.params.embed_dim = 12
    elif kind == "RRDBNet":
        config.params.update(nf=8, gc=4)
    else:
        assert kind == "SCUNet"
        config.params.update(config=[2] * 7, dim=16)
        scunet = sys.modules[instantiate.__globals__["get_obj_from_str"](config.target).__module__].SCUNet

        class Narrow(scunet):
            """Heads of 8 channels instead of the 32 that the class sets itself, so that the width can shrink."""

            head_dim = property(lambda self: 8, lambda self, _: None)

        return fill(Narrow(**config.params))
    return fill(instantiate(config))


def widened(network):
    """In float64, to be made within `in_double`."""
    network = network.double()
    for part in network.modules():
        if isinstance(getattr(part, "dtype", None), torch.dtype):
            part.dtype = torch.float64
    return network


def photo(height, width):
    u = filler(f"in/photo_{height}x{width}", height * width * 3).astype(np.float64)
    return Image.fromarray(np.floor((u + 1) * 128).astype(np.uint8).reshape(height, width, 3))


class Tape:
    """Tensors by name; of the second batch with `@1` behind the name and so on."""

    def __init__(self):
        self.out, self.batch = {}, 0

    def put(self, name, value):
        if isinstance(value, np.ndarray):
            value = torch.from_numpy(value.copy())
        key = name if self.batch == 0 else f"{name}@{self.batch}"
        assert key not in self.out, key
        self.out[key] = value.detach().clone()

    def put_first(self, name, value):
        """Unless this batch has it already."""
        if (name if self.batch == 0 else f"{name}@{self.batch}") not in self.out:
            self.put(name, value)

    def listen(self, owner, name, before=None, after=None):
        """Calls `before(*arguments)` and `after(result)` around a function that is an attribute."""
        function = getattr(owner, name)

        def around(*arguments, **options):
            if before:
                before(*arguments, **options)
            result = function(*arguments, **options)
            if after:
                after(result)
            return result

        setattr(owner, name, around)


@contextlib.contextmanager
def quiet():
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


def recorded(run, exact):
    """`run(tape)` in float32, and if `exact` in float64 too: name -> both."""
    single, double = Tape(), Tape()
    with torch.no_grad(), quiet():
        run(single)
        if exact:
            with in_double():
                run(double)
    return together(single.out, double.out if exact else None)


def write(name, results, metadata):
    save(os.path.join(HERE, name), results, metadata, limit=1024, samples=1024)


def in_folders(run):
    """`run(input folder, output folder)` with new ones."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = os.path.join(folder, "in"), os.path.join(folder, "out")
        os.mkdir(source)
        return run(source, target)
