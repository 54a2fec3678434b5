"""Goldens of the networks of stage 1: SwinIR, whole and in tiles, RRDBNet and SCUNet."""

import types

import torch
from formula import fill, picture
from sources import COMMIT, path_of
from store import official, recorded_layers, save, twice


def swinir_of(module, embed, depths):
    return module("model.swinir").SwinIR(
        img_size=64, patch_size=1, in_chans=3, embed_dim=embed, depths=depths, num_heads=[6] * len(depths),
        window_size=8, mlp_ratio=2, sf=8, img_range=1.0, upsampler="nearest+conv", resi_connection="1conv",
        unshuffle=True, unshuffle_scale=8,
    )  # fmt: skip


def make_swinir(module):
    full, tiny = fill(swinir_of(module, 12, [6] * 8)), fill(swinir_of(module, 12, [2, 2]))
    assert len(full.state_dict()) == 732
    # The same network with other weights.
    other = fill(swinir_of(module, 12, [6] * 8), salt=1)

    def run(out, full, tiny, other):
        for network, prefix, sizes in (
            (full, "", ((64, 64), (60, 124), (128, 192))),
            (tiny, "tiny.", ((64, 64), (64, 192), (512, 512))),
        ):
            for height, width in sizes:
                x, name = picture(f"swinir_{height}x{width}", 1, 3, height, width), f"{prefix}out_{height}x{width}"
                out[name], layers = recorded_layers(network, lambda network=network, x=x: network(x))
                # Its masks are those that come with the file.
                if (height, width) != (64, 192):
                    out[f"{prefix}layers@{height}x{width}"] = layers
        out["salt1.out_64x64"] = other(picture("swinir_64x64", 1, 3, 64, 64))

    # Whole windows are needed: the reference pads to a multiple of 8 pixels, but a window spans 64.
    try:
        full(picture("swinir_72x136", 1, 3, 72, 136))
        refused = "no"
    except RuntimeError:
        refused = "yes"
    metadata = {
        "reference": COMMIT,
        "config": "embed 12, depths 6 x 8, heads 6 x 8; tiny.: embed 12, depths 2 2, heads 6 6; all else official",
        "refuses_72x136": refused,
        **official(("swinir", lambda: swinir_of(module, 180, [6] * 8))),
    }
    save(path_of("swinir"), twice([full, tiny, other], run), metadata)
    return full, tiny


def make_stage1(module, full, tiny):
    """Stage 1 in tiles, and what the pipeline does around the network."""
    common = module("utils.common")
    pipeline = module("pipeline").SwinIRPipeline

    def run(out, full, tiny):
        def tiled(network, height, width, **options):
            x = picture(f"stage1_{height}x{width}", 1, 3, height, width)
            return common.make_tiled_fn(network, size=64, stride=32, progress=False, **options)(x)

        def clean(network, height, width, tiled):
            x = picture(f"stage1_{height}x{width}", 1, 3, height, width)
            return pipeline.apply_cleaner(types.SimpleNamespace(cleaner=network), x, tiled, 64, 32)

        dtype = torch.get_default_dtype()
        out["weights_64"] = torch.tensor(common.gaussian_weights(64, 64), dtype=dtype)
        out["weights_8"] = torch.tensor(common.gaussian_weights(8, 8), dtype=dtype)
        out["tiled_96x160"] = tiled(full, 96, 160)
        out["tiled_100x150"] = tiled(full, 100, 150)
        out["tiled_uniform_100x150"] = tiled(full, 100, 150, weight="uniform")
        out["tiny.tiled_96x160"] = tiled(tiny, 96, 160)
        # The short side below 512: first resized, then padded, run and cropped.
        out["tiny.pipeline_40x56"] = clean(tiny, 40, 56, False)
        out["tiny.pipeline_520x600"] = clean(tiny, 520, 600, False)
        # In tiles: resized afterwards; smaller than a tile: as without tiles.
        out["tiny.pipeline_tiled_96x160"] = clean(tiny, 96, 160, True)
        out["tiny.pipeline_tiled_40x56"] = clean(tiny, 40, 56, True)

    metadata = {
        "reference": COMMIT,
        "config": "networks as in swinir.safetensors; tile 64, stride 32, gaussian weights unless uniform is said",
    }
    save(path_of("tiled_stage1"), twice([full, tiny], run), metadata, ("weights_64",))


def make_rrdb(module):
    RRDBNet = module("model.bsrnet").RRDBNet
    network = fill(RRDBNet(nf=8, gc=4))
    assert len(network.state_dict()) == 702

    def run(out, network):
        for height, width in ((64, 48), (12, 20)):
            suffix = f"@{height}x{width}"
            x = picture(f"rrdb_{height}x{width}", 1, 3, height, width)
            out["out" + suffix], out["layers" + suffix] = recorded_layers(network, lambda x=x: network(x))

    metadata = {
        "reference": COMMIT,
        "config": "nf 8, gc 4, all else official",
        **official(("rrdb", RRDBNet)),
    }
    save(path_of("rrdb"), twice([network], run), metadata, ("out@12x20",))


def make_rrdb_x2():
    """Real-ESRGAN x2plus's network, as spandrel 0.4.1 (PyPI) knows it by its tensors."""
    import spandrel

    def shapes():
        yield "conv_first", (8, 12, 3, 3)
        for n in (1, 2, 3):
            for k in range(1, 6):
                yield f"body.0.rdb{n}.conv{k}", (32 if k < 5 else 8, 8 + 32 * (k - 1), 3, 3)
        for name in ("conv_body", "conv_up1", "conv_up2", "conv_hr"):
            yield name, (8, 8, 3, 3)
        yield "conv_last", (3, 8, 3, 3)

    holder = torch.nn.Module()
    for name, (out, into, *_) in shapes():
        place, parts = holder, name.split(".")
        for part in parts[:-1]:
            if not hasattr(place, part):
                place.add_module(part, torch.nn.Module())
            place = getattr(place, part)
        place.add_module(parts[-1], torch.nn.Conv2d(into, out, 3))
    state = fill(holder).state_dict()
    loaded = spandrel.ModelLoader().load_from_state_dict(dict(state))
    assert loaded.architecture.id == "ESRGAN" and loaded.scale == 2
    network = loaded.model

    def run(out, network):
        out["out@12x20"] = network(picture("rrdb_x2_12x20", 1, 3, 12, 20))

    metadata = {
        "spandrel": spandrel.__version__,
        "config": "8 features, growth 32, one block, twice the size, names of BasicSR",
    }
    save(path_of("rrdb_x2"), twice([network], run), metadata, ("out@12x20",))


def small_scunet(SCUNet):
    class Narrow(SCUNet):
        """Heads of 8 channels instead of the 32 that the class sets itself, so that the width can shrink."""

        head_dim = property(lambda self: 8, lambda self, _: None)

    return Narrow


def make_scunet(module):
    SCUNet = module("model.scunet").SCUNet
    network = fill(small_scunet(SCUNet)(config=[2] * 7, dim=16))

    def run(out, network):
        for height, width in ((60, 100), (12, 20)):
            suffix = f"@{height}x{width}"
            x = picture(f"scunet_{height}x{width}", 1, 3, height, width)
            out["out" + suffix], out["layers" + suffix] = recorded_layers(network, lambda x=x: network(x))

    metadata = {
        "reference": COMMIT,
        "config": "dim 16, head_dim 8, config 2 x 7, all else official",
        **official(("scunet", lambda: SCUNet(config=[4] * 7))),
    }
    save(path_of("scunet"), twice([network], run), metadata, ("out@12x20",))
