"""Degradations by the reference, for the tests.

    python make_degrade.py CHECKOUT

CHECKOUT is a checkout of the reference (github.com/XPixelGroup/DiffBIR, commit 3f8b530). Needs torch, torchvision,
numpy, scipy, opencv, omegaconf, safetensors and Pillow. README.md says what is stored.
"""

import json
import os
import sys
import types

import cv2
import numpy as np
import torch
from omegaconf import OmegaConf
from PIL import Image
from safetensors.numpy import save_file
from torch.nn import functional as F

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = sys.argv[1]
torch.set_num_threads(1)


def package(name, folder):
    """A package whose own code, which imports every network, does not run."""
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [os.path.join(ROOT, folder)]


package("diffbir", "diffbir")
package("diffbir.dataset", "diffbir/dataset")
package("diffbir.utils", "diffbir/utils")
sys.modules["polars"] = types.ModuleType("polars")
common = sys.modules["diffbir.utils.common"] = types.ModuleType("diffbir.utils.common")
common.instantiate_from_config = None

from diffbir.dataset import batch_transform, codeformer, degradation  # noqa: E402
from diffbir.dataset.utils import DiffJPEG, USMSharp, filter2D  # noqa: E402

tensors, cases = {}, {}


def store(group, name, values, **what):
    values = np.ascontiguousarray(values)
    tensors[f"{group}/{name}"] = values
    cases.setdefault(group, []).append({"name": name, **what})


def single(value):
    """As the drawn parameters are kept."""
    return float(np.float32(value))


def picture(x, y, width, height):
    chelsea = os.path.join(HERE, "..", "..", "..", "metrics", "tests", "goldens", "chelsea.png")
    return np.array(Image.open(chelsea).convert("RGB"))[y : y + height, x : x + width]


def nchw(values):
    return torch.from_numpy(np.ascontiguousarray(values)).permute(2, 0, 1)[None].float()


def nhwc(tensor):
    return tensor[0].permute(1, 2, 0).numpy()


def bell(size, sigma, angle, profile, beta=None):
    drawn = {"size_px": size, "sigma_px": sigma, "angle_rad": angle}
    drawn["profile"] = profile if beta is None else {profile: beta}
    return {"bell": drawn}


def kernel(drawn):
    if drawn == "impulse":
        return np.ones((1, 1))
    if "sinc" in drawn:
        return degradation.circular_lowpass_kernel(drawn["sinc"]["cutoff_rad"], drawn["sinc"]["size_px"])
    drawn = drawn["bell"]
    size, (along, across), angle = drawn["size_px"], drawn["sigma_px"], drawn["angle_rad"]
    profile, isotropic = drawn["profile"], along == across and angle == 0
    if profile == "gaussian":
        return degradation.bivariate_Gaussian(size, along, across, angle, isotropic=isotropic)
    (profile, beta), = profile.items()
    make = {"generalized": degradation.bivariate_generalized_Gaussian, "plateau": degradation.bivariate_plateau}
    return make[profile](size, along, across, angle, beta, isotropic=isotropic)


def kernels():
    drawn = [
        bell(41, [0.5] * 2, 0.0, "gaussian"),
        bell(21, [single(2.7)] * 2, 0.0, "gaussian"),
        bell(15, [single(2.9), 0.25], single(-2.1), "gaussian"),
        bell(41, [single(11.3), single(0.7)], single(0.9), "gaussian"),
        bell(11, [single(1.3)] * 2, 0.0, "generalized", single(0.6)),
        bell(21, [single(0.4), single(2.2)], single(1.4), "generalized", 3.5),
        bell(9, [single(0.3)] * 2, 0.0, "plateau", 1.0),
        bell(19, [single(2.8), single(1.1)], single(3.0), "plateau", single(1.7)),
        {"sinc": {"size_px": 7, "cutoff_rad": single(1.1)}},
        {"sinc": {"size_px": 21, "cutoff_rad": single(np.pi)}},
        {"sinc": {"size_px": 13, "cutoff_rad": single(0.63)}},
    ]
    for index, one in enumerate(drawn):
        store("kernels", str(index), kernel(one).astype(np.float64), drawn=one)


def filters(image):
    for index, by in enumerate(["torch", "cv2"]):
        drawn = [bell(21, [single(2.2), single(0.6)], single(0.5), "plateau", 1.5), bell(41, [9.0, 3.0], 2.0, "gaussian")][index]
        if by == "torch":
            out = nhwc(filter2D(nchw(image), torch.FloatTensor(kernel(drawn))[None]))
        else:
            out = cv2.filter2D(image, -1, kernel(drawn))
        store("filters", by, out, drawn=drawn)
    store("usm", "usm", nhwc(USMSharp()(nchw(image))))


def resizes(image):
    for filter in ["area", "bilinear", "bicubic"]:
        for scale in [single(0.37), single(1.31), single(1.015), single(0.155)]:
            out = nhwc(F.interpolate(nchw(image), scale_factor=scale, mode=filter))
            store("resizes", f"{filter}-{scale:.3f}", out, filter=filter, scale=scale)
        for width, height in [(23, 19), (60, 41)]:
            out = nhwc(F.interpolate(nchw(image), size=(height, width), mode=filter))
            store("resizes", f"{filter}-{width}", out, filter=filter, scale=None)
    for width, height in [(23, 19), (24, 18), (60, 41), (5, 4)]:
        out = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
        store("resizes", f"cv2-{width}", out, filter="cv2_bilinear", scale=None)


def jpegs(image):
    jpeger = DiffJPEG(differentiable=False)
    for quality in [single(30.4), 50.0, single(73.3), single(94.7)]:
        with torch.no_grad():
            out = nhwc(jpeger(nchw(image), quality=torch.tensor([quality])))
        store("diffjpeg", f"{quality:.1f}", out, quality=quality)
    for quality in [30, 60, 90]:
        out = degradation.add_jpg_compression(image[..., ::-1].copy(), quality)[..., ::-1]
        store("jpeg", str(quality), (out * 255).round().astype(np.uint8), quality=quality)


LEVELS = [0.005, 0.05, 0.25, 0.5, 0.75, 0.95, 0.995]


def noises(image):
    """Quantiles and the deviation of what is added, over many draws; before anything is clamped."""
    torch.manual_seed(5)
    batch = nchw(image).repeat(64, 1, 1, 1)
    for grey in [0, 1]:
        flags = torch.full([64], float(grey))
        for kind, amount in [("gaussian", 20.0), ("poisson", 1.5)]:
            if kind == "gaussian":
                added = degradation.generate_gaussian_noise_pt(batch[:1].repeat(64, 1, 1, 1), torch.full([64], amount), torch.zeros(64))
                if grey:
                    added = torch.cat([degradation.generate_gaussian_noise_pt(batch[:1], amount, 1) for _ in range(64)])
            else:
                added = degradation.generate_poisson_noise_pt(batch, torch.full([64], amount), flags)
            values = added.numpy().astype(np.float64).ravel()
            cases.setdefault("noises", []).append({
                "kind": {kind: amount}, "grey": bool(grey), "deviation": values.std(), "mean": values.mean(),
                "quantiles": np.quantile(values, LEVELS).tolist(),
            })
    cases["levels"] = LEVELS


def codeformers(image):
    for index, (size, sigma, angle, factor, quality) in enumerate(
        [(41, [3.0, 3.0], 0.0, single(3.7), None), (41, [7.5, 1.25], 1.0, single(1.2), None), (41, [2.0, 1.0], 2.0, single(2.3), 55)]
    ):
        drawn = bell(size, sigma, angle, "gaussian")
        self = types.SimpleNamespace(
            image_files=[{"image_path": "", "prompt": ""}], load_gt_image=lambda _: image,
            kernel_list=None, kernel_prob=None, blur_kernel_size=None, blur_sigma=None,
            downsample_range=[factor, factor], noise_range=[0, 0], jpeg_range=quality and [quality, quality],
        )
        codeformer.random_mixed_kernels = lambda *_, **__: kernel(drawn)
        out = codeformer.CodeformerDataset.__getitem__(self, 0)[1]
        steps = [
            {"blur": drawn},
            {"resize": {"to": "small", "scale": 1.0, "filter": "cv2_bilinear"}},
            {"noise": {"kind": {"gaussian": 0.0}, "grey": False, "seed": 0}},
            {"resize": {"to": "original", "scale": 1.0, "filter": "cv2_bilinear"}},
        ]
        if quality:
            steps.insert(3, {"compress": {"codec": "jpeg", "quality": quality}})
        whole = {"chain": {"factor": factor, "sharpen": False, "steps": steps}}
        store("codeformer", str(index), out, drawn=whole, quality=quality)


def realesrgans(image):
    """The whole batch transform without noise, its choices logged where they are used."""
    settings = dict(
        use_sharpener=True, queue_size=4, resize_prob=[0.2, 0.7, 0.1], resize_range=[0.15, 1.5], gray_noise_prob=0,
        gaussian_noise_prob=1, noise_range=[0, 0], poisson_scale_range=[0, 0], jpeg_range=[30, 95],
        second_blur_prob=0.8, stage2_scale=4, resize_prob2=[0.3, 0.4, 0.3], resize_range2=[0.3, 1.2],
        gray_noise_prob2=0, gaussian_noise_prob2=1, noise_range2=[0, 0], poisson_scale_range2=[0, 0],
        jpeg_range2=[30, 95],
    )
    drawn = {
        "kernel1": bell(15, [2.0, 0.5], 1.0, "generalized", 2.0),
        "kernel2": bell(9, [0.75, 0.75], 0.0, "gaussian"),
        "sinc_kernel": {"sinc": {"size_px": 11, "cutoff_rad": 2.0}},
    }
    batch = {"hq": nchw(image), "txt": [""]}
    for name, one in drawn.items():
        weights = kernel(one)
        pad = (21 - len(weights)) // 2
        batch[name] = torch.FloatTensor(np.pad(weights, pad))[None]
    height, width = image.shape[:2]
    for seed in [1, 2, 3, 7]:
        steps = []
        transform = batch_transform.RealESRGANBatchTransform(**settings)

        def interpolate(x, size=None, scale_factor=None, mode=None):
            if scale_factor is not None:
                scale_factor = single(scale_factor)
                steps.append({"resize": {"to": "current", "scale": scale_factor, "filter": mode}})
            else:
                to, of = ("original", (height, width)) if size == (height, width) else ("small", (height // 4, width // 4))
                # Any scale that gives this size.
                scale = 1.0 if size == of else single((size[1] + 0.5) / of[1])
                assert all(int(side * scale) == wanted for side, wanted in zip(of, size)), (of, scale, size)
                steps.append({"resize": {"to": to, "scale": scale, "filter": mode}})
            return F.interpolate(x, size=size, scale_factor=scale_factor, mode=mode)

        def filter(x, weights):
            name = next(name for name in drawn if batch[name] is weights)
            steps.append({"blur": drawn[name]})
            return filter2D(x, weights)

        def jpeg(x, quality, jpeger=transform.jpeger):
            steps.append({"compress": {"codec": "diffjpeg", "quality": quality.item()}})
            return jpeger(x, quality=quality)

        jpeg.to = transform.jpeger.to
        transform.jpeger = jpeg
        batch_transform.F = types.SimpleNamespace(interpolate=interpolate)
        batch_transform.filter2D = filter
        np.random.seed(seed)
        batch_transform.random.seed(seed)
        torch.manual_seed(seed)
        truth, out, _ = transform(batch)
        steps.append("round")
        whole = {"chain": {"factor": 4.0, "sharpen": True, "steps": steps}}
        store("realesrgan", str(seed), (out[0].numpy() * 255).round().astype(np.uint8), drawn=whole)


def pools():
    """Which pairs leave the queue, by number, batch by batch."""
    transform = batch_transform.RealESRGANBatchTransform.__new__(batch_transform.RealESRGANBatchTransform)
    transform.queue_size = 6
    orders, left = [], []
    generator = np.random.default_rng(3)
    for first in range(0, 20, 2):
        transform.lq = transform.gt = torch.arange(first, first + 2).float().view(2, 1, 1, 1)
        transform.txt = [str(first), str(first + 1)]
        order = generator.permutation(6)
        randperm, torch.randperm = torch.randperm, lambda _: torch.from_numpy(order)
        transform._dequeue_and_enqueue()
        torch.randperm = randperm
        assert [str(int(x)) for x in transform.lq.flatten()] == transform.txt
        orders.append(order.tolist())
        left.append([int(x) for x in transform.lq.flatten()])
    cases["pool"] = {"size": 6, "batch": 2, "orders": orders, "left": left}


def settings():
    """The numbers of the reference's own configurations."""
    def read(name):
        return OmegaConf.to_container(OmegaConf.load(os.path.join(ROOT, "configs", "train", name)))

    cases["settings"] = {
        "codeformer": read("train_stage1.yaml")["dataset"]["train"]["params"],
        "kernels": read("train_stage2_v2.1.yaml")["dataset"]["train"]["params"],
        "realesrgan": read("train_stage2_v2.1.yaml")["batch_transform"]["params"],
    }
    for group in ["codeformer", "kernels"]:
        for key in ["file_list", "file_metas", "file_backend_cfg"]:
            cases["settings"][group].pop(key, None)


small, large = picture(120, 60, 48, 37), picture(100, 40, 96, 80)
tensors["small"], tensors["large"] = small, large
image = (small / 255.0).astype(np.float32)
kernels()
filters(image)
resizes(image[:29, :31])
jpegs(image)
noises(image)
codeformers(small)
realesrgans((large / 255.0).astype(np.float32))
pools()
settings()
tensors = {name: np.ascontiguousarray(values) for name, values in tensors.items()}
save_file(tensors, os.path.join(HERE, "degrade.safetensors"))
with open(os.path.join(HERE, "degrade.json"), "w") as file:
    json.dump(cases, file, indent=1)
    file.write("\n")
