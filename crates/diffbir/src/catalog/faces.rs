//! Files that faces in photographs need beside a model.

use super::files::{hub, untried};
use super::{Network, WeightFile};

/// Networks that find faces, best first.
pub static DETECTORS: [&WeightFile; 3] = [&RETINAFACE_RESNET50, &RETINAFACE_MOBILE, &YUNET];

/// The network that tells a face from what is around it.
pub static PARSER: &WeightFile = &PARSENET;

/// All of them.
pub static FACES: [&WeightFile; 4] = [&RETINAFACE_RESNET50, &RETINAFACE_MOBILE, &YUNET, &PARSENET];

const FACEXLIB: &str =
    "MIT (facexlib, after Pytorch_Retinaface); trained on WIDER FACE, whose pictures have terms of their own";

pub(super) static RETINAFACE_RESNET50: WeightFile = WeightFile {
    name: "detection_Resnet50_Final.pth",
    holds: "RetinaFace with ResNet-50, which finds faces",
    network: Network::Detector,
    about: "109 MB",
    sha256: Some("6d1de9c2944f2ccddca5f5e010ea5ae64a39845a86311af6fdf30841b0a5a16d"),
    licence: FACEXLIB,
    addresses: &[
        untried("https://github.com/xinntao/facexlib/releases/download/v0.1.0/detection_Resnet50_Final.pth"),
        hub!("akhaliq/RetinaFace-R50", "RetinaFace-R50.pth"),
        untried("https://github.com/sczhou/CodeFormer/releases/download/v0.1.0/detection_Resnet50_Final.pth"),
    ],
};

pub(super) static RETINAFACE_MOBILE: WeightFile = WeightFile {
    name: "detection_mobilenet0.25_Final.pth",
    holds: "RetinaFace with MobileNet, which finds faces, quickly",
    network: Network::Detector,
    about: "2 MB",
    sha256: Some("2979b33ffafda5d74b6948cd7a5b9a7a62f62b949cef24e95fd15d2883a65220"),
    licence: FACEXLIB,
    addresses: &[
        untried(
            "https://github.com/xinntao/facexlib/releases/download/v0.1.0/detection_mobilenet0.25_Final.pth",
        ),
        untried(
            "https://github.com/elliottzheng/face-detection/releases/download/0.0.1/mobilenet0.25_Final.pth",
        ),
        untried(
            "https://github.com/sczhou/CodeFormer/releases/download/v0.1.0/detection_mobilenet0.25_Final.pth",
        ),
    ],
};

pub(super) static YUNET: WeightFile = WeightFile {
    name: "yunet_n_dynamic.onnx",
    holds: "YuNet, which finds faces, small and quick",
    network: Network::Detector,
    about: ".3 MB",
    sha256: Some("104ee26c71d5c270ce79a6b3dced91c91013260d29a6bf18f9296c5b8c4c2b12"),
    licence: "BSD-3-Clause (libfacedetection); trained on WIDER FACE, whose pictures have terms of their own",
    addresses: &[
        untried(
            "https://raw.githubusercontent.com/ShiqiYu/libfacedetection.train/master/onnx/yunet_n_dynamic.onnx",
        ),
        untried(concat!(
            "https://cdn.jsdelivr.net/gh/ShiqiYu/libfacedetection.train@02246e79b1e976c83d1e135a85e0628120c93769",
            "/onnx/yunet_n_dynamic.onnx"
        )),
    ],
};

/// facexlib publishes it under MIT; the project that it was trained in has a licence of its own.
pub(super) static PARSENET: WeightFile = WeightFile {
    name: "parsing_parsenet.pth",
    holds: "ParseNet, which tells a face from what is around it",
    network: Network::Parser,
    about: "85 MB",
    sha256: Some("3d558d8d0e42c20224f13cf5a29c79eba2d59913419f945545d8cf7b72920de2"),
    licence: "MIT as published by facexlib; made by PSFRGAN, whose own licence is CC BY-NC-SA 4.0: check whether your use is allowed",
    addresses: &[
        untried("https://github.com/xinntao/facexlib/releases/download/v0.2.2/parsing_parsenet.pth"),
        hub!("leonelhs/facexlib", "parsing_parsenet.pth"),
        untried("https://github.com/sczhou/CodeFormer/releases/download/v0.1.0/parsing_parsenet.pth"),
    ],
};
