"""Golden of v1's program for faces: `unaligned_v1.safetensors`.

    python unaligned_v1.py DIFFBIR

DIFFBIR is a checkout of v1 (README.md). Its `inference_face.py` runs as a whole, with the networks of v1.py for faces and
background alike, and the detector and parser of unaligned.py.
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

HEIGHT, WIDTH, LEAST = 130, 201, 248
COMMAND = ["--sr_scale", "2", "--steps", "3", "--only_center_face", "--bg_upsampler", "DiffBIR", "--device", "cpu"]


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


def main():
    checkout = os.path.abspath(sys.argv[1])
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
    detector = one_channel(RetinaFace("mobile0.25", device="cpu"), LEAST)
    face.img2tensor, face.imwrite = img2tensor, imwrite
    face.init_detection_model = lambda *a, **k: detector
    # Made before the seed is set.
    parser = fill(ParseNet(in_size=512, out_size=512, parsing_ch=19))
    face.init_parsing_model = lambda *a, **k: parser
    script.build_diffbir_model = lambda *a, **k: model
    tape, facts = Tape(), {}

    def within(source, target):
        photo(HEIGHT, WIDTH).save(os.path.join(source, "photo.png"))
        tape.listen(detector, "detect_faces", None, lambda rows: tape.put("found", rows.astype(np.float32)))
        align = face.FaceRestoreHelper.align_warp_face

        def aligning(self, *a, **k):
            tape.put("landmarks", np.stack(self.all_landmarks_5).astype(np.float32))
            return align(self, *a, **k)

        paste = face.FaceRestoreHelper.paste_faces_to_input_image

        def pasting(self, upsample_img):
            # Without the filled edges, 512 x 792.
            width = -(-WIDTH * 2 * 512 // (HEIGHT * 2))
            tape.put("background", upsample_img[:, :width].transpose(2, 0, 1)[None])
            return paste(self, upsample_img=upsample_img)

        argv = ["inference_face.py", *COMMAND, "--input", source, "--output", target]
        with patched(
            (sys, "argv", argv),
            (face.FaceRestoreHelper, "align_warp_face", aligning),
            (face.FaceRestoreHelper, "paste_faces_to_input_image", pasting),
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
        "photo": f"{HEIGHT}x{WIDTH}; {PHOTO}",
        "command": "\x1f".join(COMMAND),
        "least": str(LEAST),
        **facts,
    }
    write("unaligned_v1", together(tape.out), metadata)
    print(f"unaligned_v1: {time.time() - since:.0f} s, {tape.out['found'][:, 4].tolist()}, {facts['files']}", flush=True)


if __name__ == "__main__":
    main()
