"""Goldens of v1's program for faces: `unaligned_v1*.safetensors`.

    python unaligned_v1.py DIFFBIR [NAME...]

DIFFBIR is a checkout of v1 (README.md). Its `inference_face.py` runs as a whole, with the networks of v1.py for faces and
background alike, and the detector and parser of unaligned.py. Its Real-ESRGAN is reduced, with weights by the formula.
"""

import os
import sys
import time
import types

import numpy as np
import torch
from common import PHOTO, Tape, in_folders, patched, photo, quiet, start, write
from facexlib.detection.retinaface import RetinaFace
from facexlib.parsing.parsenet import ParseNet
from facexlib.utils.misc import img2tensor, imwrite
from formula import fill
from omegaconf import OmegaConf
from store import together
from unaligned import one_channel, read
from v1 import COMMIT, files, shims, small_text

ALWAYS = ["--sr_scale", "2", "--device", "cpu"]
# Name: height and width of the photograph, the least brightness of a face, the command line after what all have.
CASES = {
    "unaligned_v1": (130, 201, 248, ["--steps", "3", "--only_center_face", "--bg_upsampler", "DiffBIR"]),
    # Several faces, in one batch; the background's noise follows theirs. No two are as bright: how ties are sorted depends on
    # the machine.
    "unaligned_v1_batch": (130, 191, 251, ["--steps", "2", "--bg_upsampler", "DiffBIR"]),
    # The background by Real-ESRGAN x2, in two tiles.
    "unaligned_v1_realesrgan": (130, 201, 248, ["--steps", "2", "--only_center_face", "--bg_upsampler", "RealESRGAN"]),
}


def small_model(checkout):
    """As `build_diffbir_model`, reduced."""
    from utils.common import instantiate_from_config, load_state_dict

    def within(folder, _):
        config, full, swinir = files(checkout, folder)
        model = instantiate_from_config(OmegaConf.load(config))
        load_state_dict(model, torch.load(full), strict=True)
        load_state_dict(model.preprocess_model, torch.load(swinir), strict=True)
        return model

    model = in_folders(within)
    model.freeze()
    return model


def small_realesrgan(folder):
    """As `set_realesrgan` finds it, reduced."""
    from utils.realesrgan import realesrganer

    class Small(realesrganer.RRDBNet):
        def __init__(self, **options):
            super().__init__(**{**options, "num_feat": 8, "num_grow_ch": 4})

    def made(*arguments):
        # As all networks, before the seed is set.
        with torch.random.fork_rng(devices=[]):
            return function(*arguments)

    function = realesrganer.set_realesrgan
    path = os.path.join(folder, "realesrgan.pth")
    network = fill(Small(num_in_ch=3, num_out_ch=3, num_block=23, scale=2))
    torch.save({"params_ema": network.state_dict()}, path)
    return (
        (realesrganer, "set_realesrgan", made),
        (realesrganer, "RRDBNet", Small),
        (realesrganer, "load_file_from_url", lambda *a, **k: path),
    )


def start_all(checkout):
    """The program as a module, and the names that its helper has."""
    os.chdir(checkout)
    real = {name: module for name, module in sys.modules.items() if name.startswith("facexlib")}
    start(checkout)
    sys.modules.update(real)
    shims()
    import open_clip

    sys.modules["pytorch_lightning"].seed_everything = torch.manual_seed
    with patched((open_clip, "create_model_and_transforms", small_text)):
        with quiet():
            model = small_model(checkout)
        script = types.ModuleType("inference_face")
        path = os.path.join(checkout, "inference_face.py")
        with open(path) as file:
            exec(compile(file.read(), path, "exec"), vars(script))
    face = sys.modules["utils.face_restoration_helper"]
    face.img2tensor, face.imwrite = img2tensor, imwrite
    # Made before the seed is set.
    parser = fill(ParseNet(in_size=512, out_size=512, parsing_ch=19))
    face.init_parsing_model = lambda *a, **k: parser
    script.build_diffbir_model = lambda *a, **k: model
    return script, face


def make(script, face, name):
    height, width, least, command = CASES[name]
    command = [*ALWAYS, *command]
    detector = one_channel(RetinaFace("mobile0.25", device="cpu"), least)
    face.init_detection_model = lambda *a, **k: detector
    tape, facts = Tape(), {}

    def within(source, target):
        photo(height, width).save(os.path.join(source, "photo.png"))
        os.mkdir(source + "_weights")
        tape.listen(detector, "detect_faces", None, lambda rows: tape.put("found", rows.astype(np.float32)))
        align = face.FaceRestoreHelper.align_warp_face

        def aligning(self, *a, **k):
            tape.put("landmarks", np.stack(self.all_landmarks_5).astype(np.float32))
            return align(self, *a, **k)

        paste = face.FaceRestoreHelper.paste_faces_to_input_image

        def pasting(self, upsample_img):
            # Without the filled edges.
            inner = -(-width * 512 // height)
            rows, columns, _ = self.input_img.shape
            laid = face.cv2.resize(upsample_img, (columns, rows), interpolation=face.cv2.INTER_LANCZOS4)
            tape.put("background", laid[:, :inner].transpose(2, 0, 1)[None])
            return paste(self, upsample_img=upsample_img)

        argv = ["inference_face.py", *command, "--input", source, "--output", target]
        with patched(
            (sys, "argv", argv),
            (face.FaceRestoreHelper, "align_warp_face", aligning),
            (face.FaceRestoreHelper, "paste_faces_to_input_image", pasting),
            *small_realesrgan(source + "_weights"),
        ):
            script.main()
        found = [os.path.relpath(os.path.join(f, n), target) for f, _, names in os.walk(target) for n in names]
        for name in sorted(found):
            tape.put(os.path.normpath(name).removesuffix(".png"), read(os.path.join(target, name)))
        facts["files"] = " ".join(sorted(found))

    since = time.time()
    with torch.no_grad(), quiet():
        in_folders(within)
    metadata = {
        "reference": COMMIT,
        "photo": f"{height}x{width}; {PHOTO}",
        "command": "\x1f".join(command),
        "least": str(least),
        **facts,
    }
    write(name, together(tape.out), metadata)
    print(f"{name}: {time.time() - since:.0f} s, {tape.out['found'][:, 4].tolist()}, {facts['files']}", flush=True)


def main():
    script, face = start_all(os.path.abspath(sys.argv[1]))
    for name in sys.argv[2:] or CASES:
        make(script, face, name)


if __name__ == "__main__":
    main()
