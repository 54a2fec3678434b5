"""How far degraded pictures are from the true ones: those of the reference and those of `diffbir degrade`.

    python compare_degradations.py CHECKOUT DIFFBIR FOLDER [--seeds 8]

CHECKOUT is a checkout of the reference (github.com/XPixelGroup/DiffBIR, commit 3f8b530), DIFFBIR the program, FOLDER
holds PNG pictures of one size, 256 pixels a side or more. Degrades each picture once for each seed with CodeFormer's and with
Real-ESRGAN's degradation, noise included, and prints mean and deviation of the PSNR, with the standard error of the
difference. Needs torch, torchvision, numpy, scipy, opencv, omegaconf and Pillow.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import types

import numpy as np
import torch
from omegaconf import OmegaConf
from PIL import Image


def reference(root):
    """The reference's dataset modules, without the packages above, which import every network."""
    for name, folder in [("diffbir", "diffbir"), ("diffbir.dataset", "diffbir/dataset"), ("diffbir.utils", "diffbir/utils")]:
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].__path__ = [os.path.join(root, folder)]
    sys.modules["polars"] = types.ModuleType("polars")
    common = sys.modules["diffbir.utils.common"] = types.ModuleType("diffbir.utils.common")
    common.instantiate_from_config = lambda _: None
    from diffbir.dataset import batch_transform, codeformer, realesrgan

    return batch_transform, codeformer, realesrgan


def degraders(root):
    """By preset: from a picture of 8 bits to its degraded one."""
    batch_transform, codeformer, realesrgan = reference(root)

    def params(name, *keys):
        settings = OmegaConf.to_container(OmegaConf.load(os.path.join(root, "configs", "train", name)))
        for key in keys:
            settings = settings[key]
        return settings["params"]

    def dataset(kind, settings, entry):
        """One picture, given instead of read."""
        settings.update(crop_type="none")
        module = sys.modules[kind.__module__]
        module.load_file_list = module.load_file_metas = lambda _: [entry]
        return kind(**settings)

    single = dataset(
        codeformer.CodeformerDataset, params("train_stage1.yaml", "dataset", "train"), {"image_path": "", "prompt": ""}
    )
    texts = {"image_path": "", "short_prompt": "", "long_prompt": ""}
    kernels = dataset(realesrgan.RealESRGANDataset, params("train_stage2_v2.1.yaml", "dataset", "train"), texts)
    transform = batch_transform.RealESRGANBatchTransform(
        **{**params("train_stage2_v2.1.yaml", "batch_transform"), "queue_size": 1 << 20}
    )
    # The queue passes batches through until it is full.
    transform._dequeue_and_enqueue = lambda: None

    def by_codeformer(picture):
        single.load_gt_image = lambda _: picture
        return single[0][1]

    def by_realesrgan(picture):
        kernels.load_gt_image = lambda _: picture
        batch = kernels[0]
        batch = {key: value if key == "txt" else value[None] for key, value in batch.items()}
        return transform(batch)[1][0].numpy()

    return {"codeformer": by_codeformer, "realesrgan": by_realesrgan}


def psnr(degraded, truth):
    error = np.mean((degraded.astype(np.float64) * 255 - truth) ** 2)
    return 10 * np.log10(255**2 / error)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("checkout")
    parser.add_argument("diffbir")
    parser.add_argument("folder")
    parser.add_argument("--seeds", type=int, default=8)
    arguments = parser.parse_args()
    names = sorted(name for name in os.listdir(arguments.folder) if name.endswith(".png"))
    truths = [np.array(Image.open(os.path.join(arguments.folder, name)).convert("RGB")) for name in names]
    np.random.seed(1)
    torch.manual_seed(1)
    __import__("random").seed(1)
    for preset, degrade in degraders(arguments.checkout).items():
        theirs, ours = [], []
        for seed in range(arguments.seeds):
            theirs += [psnr(degrade(truth), truth) for truth in truths]
            with tempfile.TemporaryDirectory() as out:
                command = [arguments.diffbir, "degrade", arguments.folder, "-o", out, "--preset", preset]
                subprocess.run([*command, "--seed", str(seed)], check=True, stderr=subprocess.DEVNULL)
                for name, truth in zip(names, truths):
                    ours.append(psnr(np.array(Image.open(os.path.join(out, name))) / 255, truth))
        theirs, ours = np.array(theirs), np.array(ours)
        error = np.sqrt(theirs.var() / theirs.size + ours.var() / ours.size)
        print(
            f"{preset}: {theirs.size} pictures; reference {theirs.mean():.2f} dB, deviation {theirs.std():.2f}; "
            f"here {ours.mean():.2f}, {ours.std():.2f}; difference {ours.mean() - theirs.mean():+.2f}, standard error {error:.2f}"
        )


if __name__ == "__main__":
    main()
