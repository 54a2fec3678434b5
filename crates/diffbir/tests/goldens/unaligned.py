"""Goldens of faces that are found in photographs, restored by themselves and laid back: `unaligned_*.safetensors`.

    python unaligned.py DIFFBIR [NAME...]
    python unaligned.py DIFFBIR real_unaligned WEIGHTS FOLDER

DIFFBIR is a checkout as README.md names it; facexlib 0.3.0, OpenCV 5.0.0. Each case is a command line of `inference.py`
with `--task unaligned_face`, run by its own loop, its own face helper and facexlib's detector and parser. Networks are
reduced as in v21.py; ParseNet is of official size. What finds faces is RetinaFace mobile0.25 with weights that let one
channel through (`one_channel`), so that it finds what is bright: the published weights cannot be kept here, and networks
by the formula see the same everywhere. `real_unaligned` takes those weights, and a picture of FOLDER (`real_faces.py`).
"""

import os
import sys
import time

import numpy as np
import torch
from common import PHOTO, in_folders, patched, photo, quiet, small_cleaner, small_latent_diffusion, start, Tape, write
from facexlib.detection.retinaface import RetinaFace
from facexlib.parsing.parsenet import ParseNet
from facexlib.utils.misc import img2tensor, imwrite
from formula import fill, filler
from PIL import Image
from store import together
from v21 import ALWAYS, COMMIT, V2, arguments_of

# Name: height and width of the photograph, the least brightness of a face, the command line after what all have.
CASES = {
    # Enlarged to 260x402, below 512, so that faces are looked for at 512x792 and the background has to come to it.
    "unaligned_v21": (130, 201, 248, ["--upscale", "2", "--steps", "3"]),
    # Background by BSRNet, at 600x816; two samples of a face in one batch, then of the background.
    "unaligned_v2": (150, 204, 252, [*V2, "--steps", "2", "--n_samples", "2", "--batch_size", "2"]),
}
# The same of a real picture, found by real weights.
REAL = ("old_photos/h.png", ["--upscale", "1", "--steps", "3"])
# Points of an aligned face turned by 20 degrees, in tenths of its side from its middle.
TEMPLATE = [-1.05, -0.71, 1.26, 0.13, -0.38, 1.07, -1.77, 1.75, 0.28, 2.5]
# Of a logit, for each level of brightness.
SLOPE = 0.05


@torch.no_grad()
def one_channel(network, least):
    """Lets the middle of the first channel through every convolution; the heads of the largest squares tell what is
    brighter than `least`, and move its points a little."""
    state = network.state_dict()
    for key, tensor in state.items():
        tensor.fill_(1.0 if key.endswith("running_var") else 0.0)
        if tensor.dim() == 4 and "Head" not in key:
            tensor[0, 0, tensor.shape[2] // 2, tensor.shape[3] // 2] = 1.0
        elif tensor.dim() == 1 and key.endswith("weight"):
            tensor.fill_(1.0)
        elif key.startswith("ClassHead") and key.endswith("bias"):
            # Of two logits each square is a face by the second.
            tensor.copy_(torch.tensor([9.0, 0.0, 9.0, 0.0]))
    # 104 is taken from what comes in; a score of .8 is a difference of ln 4.
    state["ClassHead.2.conv1x1.bias"].copy_(torch.tensor([0.0, np.log(4) - SLOPE * (least - 104), 9.0, 0.0]))
    state["ClassHead.2.conv1x1.weight"][1, 0] = SLOPE
    state["LandmarkHead.2.conv1x1.bias"][:10] = torch.tensor(TEMPLATE)
    state["LandmarkHead.2.conv1x1.weight"][:10, 0, 0, 0] = torch.from_numpy(filler("points", 10)) * 0.01
    return network.eval()


def loop_of(inference, checkout, args, detector, parser):
    module = sys.modules["diffbir.inference.loop"]
    face = sys.modules["diffbir.utils.face"]
    configs = os.path.join(checkout, "configs", "inference")

    def made(kind):
        return small_cleaner(os.path.join(configs, kind + ".yaml"), module.instantiate_from_config)

    class Loop(inference.UnAlignedBFRInferenceLoop):
        def load_cleaner(self):
            self.bg_cleaner = made("bsrnet" if args.version == "v2" else "swinir")
            self.face_cleaner = made("swinir")

        def load_cldm(self):
            path = os.path.join(configs, "cldm.yaml")
            self.cldm = small_latent_diffusion(path, module.instantiate_from_config)
            name = "diffusion_v2.1.yaml" if args.version == "v2.1" else "diffusion.yaml"
            self.diffusion = module.instantiate_from_config(module.OmegaConf.load(os.path.join(configs, name)))

    # The stubs of `start` stand where facexlib's own are wanted.
    face.img2tensor, face.imwrite = img2tensor, imwrite
    face.init_detection_model = lambda *a, **k: detector
    face.init_parsing_model = lambda *a, **k: parser
    return Loop(args)


def read(path):
    return np.asarray(Image.open(path)).transpose(2, 0, 1)[None]


def published(weights):
    network = RetinaFace("mobile0.25", device="cpu")
    state = torch.load(weights, map_location="cpu", weights_only=True)
    network.load_state_dict({name.removeprefix("module."): value for name, value in state.items()})
    return network.eval()


def case(name, more):
    """The detector, the photograph, the command line, and what is told of them."""
    if name == "real_unaligned":
        weights, folder = more
        path, command = REAL
        return published(weights), Image.open(os.path.join(folder, path)), command, {"photo": path}
    height, width, least, command = CASES[name]
    detector = one_channel(RetinaFace("mobile0.25", device="cpu"), least)
    facts = {"photo": f"{height}x{width}; {PHOTO}", "least": str(least)}
    return detector, photo(height, width), command, facts


def make(inference, checkout, name, more):
    detector, picture, command, facts = case(name, more)
    parser = fill(ParseNet(in_size=512, out_size=512, parsing_ch=19))
    tape = Tape()

    def within(source, target):
        picture.save(os.path.join(source, "photo.png"))
        args = arguments_of(
            inference, [*ALWAYS, "--task", "unaligned_face", *command, "--input", source, "--output", target]
        )
        loop = loop_of(inference, checkout, args, detector, parser)

        def found(rows):
            order = np.sort(rows[:, 4])[::-1]
            facts["scores"] = " ".join(f"{score:.4f}" for score in order)
            tape.put("found", rows.astype(np.float32))

        tape.listen(detector, "detect_faces", None, found)
        helper = sys.modules["diffbir.utils.face"].FaceRestoreHelper
        taken = []
        align = helper.align_warp_face

        def aligning(self, *a, **k):
            taken.append(np.stack(self.all_landmarks_5).astype(np.float32))
            tape.put("working", self.input_img.transpose(2, 0, 1)[None])
            return align(self, *a, **k)

        with patched((helper, "align_warp_face", aligning)):
            torch.manual_seed(args.seed)
            loop.run()
        tape.put("landmarks", taken[0])
        for folder, _, files in sorted(os.walk(target)):
            for file in sorted(files):
                if file.endswith(".png"):
                    below = os.path.relpath(os.path.join(folder, file), target)
                    tape.put(below.removesuffix(".png"), read(os.path.join(folder, file)))
        names = [os.path.relpath(os.path.join(f, n), target) for f, _, files in os.walk(target) for n in files]
        facts["files"] = " ".join(sorted(names))
        with open(os.path.join(target, "prompt.csv"), newline="") as file:
            facts["prompt.csv"] = file.read()

    since = time.time()
    with torch.no_grad(), quiet():
        in_folders(within)
    metadata = {
        "reference": COMMIT,
        "command": "\x1f".join([*ALWAYS, "--task", "unaligned_face", *command]),
        **facts,
    }
    write(name, together(tape.out), metadata)
    print(f"{name}: {time.time() - since:.0f} s, scores {facts['scores']}", flush=True)


def main():
    before, checkout = os.getcwd(), os.path.abspath(sys.argv[1])
    os.chdir(checkout)
    real = {name: module for name, module in sys.modules.items() if name.startswith("facexlib")}
    start(checkout)
    sys.modules.update(real)
    with quiet():
        import inference
    names, more = sys.argv[2:] or list(CASES), []
    if names[0] == "real_unaligned":
        names, more = names[:1], [os.path.join(before, path) for path in names[1:]]
    for name in names:
        make(inference, checkout, name, more)


if __name__ == "__main__":
    main()
