"""torchvision's state dicts: which kind one is, and which of its tensors goes where in a network of ours.

    vgg16, vgg16_bn                      stages ← features.N                 fc6, fc7 ← classifier.0, classifier.3
    resnet18, 34, 50, 101, 152           backbone ← conv1, bn1, layer1 … layer4
    mobilenet_v2                         backbone ← features.0 … features.17
    fcn_ or deeplabv3_ with a resnet     backbone ← backbone                 heads ← classifier, aux_classifier

Classifiers of ImageNet's classes stay behind. Every name is written out here or is the same on both sides.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from medseg.networks.deconvnet import DeconvNet
from medseg.networks.deeplab import DeepLabV1, DeepLabV2, Summed
from medseg.networks.deeplab_v3 import DeepLabV3
from medseg.networks.fcn import FCN
from medseg.networks.fcn_resnet import FCNResNet
from medseg.networks.mobilenet import MobileNetV2
from medseg.networks.network import Network
from medseg.networks.resnet import RESNETS, BasicBlock, ResNet
from medseg.networks.segnet import SegNet

Role = Literal["first", "layer", "fc", "head"]
VGG16_CONVOLUTIONS = {
    "vgg16": (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28),
    "vgg16_bn": (0, 3, 7, 10, 14, 17, 20, 24, 27, 30, 34, 37, 40),
}
"""Kind → N of each convolution ``features.N``; batch norm, where there is one, is N + 1."""
NORM = ("weight", "bias", "running_mean", "running_var")
FULLY_CONNECTED = {"classifier.0": 7, "classifier.3": 1}
"""VGG16's fc6 and fc7, and how many voxels of the last feature each sees along an axis."""
HEADS = ("classifier.", "aux_classifier.")
MOBILENET_LAST = 17
"""The last of ``features.N`` that a backbone has; 18 is the 1x1 convolution before the classifier."""


@dataclass(frozen=True)
class Pair:
    """One tensor's way.

    Attributes:
        source: its name in the file.
        target: its name in the network.
        role: ``first`` sees the window's channels, ``fc`` was fully connected, ``head`` is behind the backbone and may
            be left out.
    """

    source: str
    target: str
    role: Role = "layer"


def kind_of(tensors: Mapping[str, Tensor]) -> str | None:
    """torchvision's name of the network that a state dict belongs to, or None where it is none of those known."""
    if "features.0.weight" in tensors:
        return _vgg_of(tensors)
    if "features.17.conv.2.weight" in tensors and "features.0.0.weight" in tensors:
        return "mobilenet_v2"
    if "conv1.weight" in tensors:
        return _resnet_of(tensors, "")
    resnet = _resnet_of(tensors, "backbone.")
    if resnet is None:
        return None
    if "classifier.0.convs.0.0.weight" in tensors:
        return f"deeplabv3_{resnet}"
    return f"fcn_{resnet}" if "classifier.4.weight" in tensors else None


def _vgg_of(tensors: Mapping[str, Tensor]) -> str | None:
    """Which VGG16 by the places of its convolutions and norms."""
    kernels = {f"features.{n}.weight": n for n in range(VGG16_CONVOLUTIONS["vgg16_bn"][-1] + 2)}
    found = tuple(n for key, n in kernels.items() if key in tensors and tensors[key].ndim == 4)
    norms = [f"features.{n + 1}.{part}" for n in found for part in NORM]
    if found == VGG16_CONVOLUTIONS["vgg16_bn"]:
        return "vgg16_bn" if all(key in tensors for key in norms) else None
    return "vgg16" if found == VGG16_CONVOLUTIONS["vgg16"] else None


def _resnet_of(keys: Collection[str], prefix: str) -> str | None:
    """Which ResNet by its units: how many there are in each stage, and of which kind."""
    counts = []
    for stage in range(1, 5):
        pattern = re.compile(rf"{re.escape(prefix)}layer{stage}\.(\d+)\.conv1\.weight")
        counts.append(sum(pattern.fullmatch(key) is not None for key in keys))
    basic = f"{prefix}layer1.0.conv3.weight" not in keys
    for name, (unit, units) in RESNETS.items():
        if units == tuple(counts) and (unit is BasicBlock) == basic:
            return name
    return None


def kinds_for(network: Network) -> str:
    """What a network can take, in words; empty where it can take nothing."""
    if vgg_stages(network):
        return "vgg16 or vgg16_bn"
    backbone = _backbone(network)
    if isinstance(backbone, ResNet):
        resnet = _resnet_of(backbone.state_dict(), "")
        return f"{resnet}, fcn_{resnet} or deeplabv3_{resnet}"
    return "mobilenet_v2" if isinstance(backbone, MobileNetV2) else ""


def _backbone(network: Network) -> nn.Module | None:
    return dict(network.named_children()).get("backbone")


def pairs_of(kind: str, tensors: Mapping[str, Tensor], network: Network) -> list[Pair]:
    """Every tensor of a state dict that has a place in the network; empty where the kinds do not go together."""
    if kind in VGG16_CONVOLUTIONS:
        return list(_vgg(kind, tensors, network))
    backbone = _backbone(network)
    if kind == "mobilenet_v2":
        return list(_mobilenet(tensors)) if isinstance(backbone, MobileNetV2) else []
    if not isinstance(backbone, ResNet):
        return []
    prefix = "backbone." if kind.startswith(("fcn_", "deeplabv3_")) else ""
    inner = [key for key in tensors if key.startswith(prefix) and not key.startswith(("fc.", *HEADS))]
    first = f"{prefix}conv1.weight"
    pairs = [Pair(k, f"backbone.{k.removeprefix(prefix)}", "first" if k == first else "layer") for k in inner]
    return pairs + (list(_heads(kind, tensors, network)) if prefix else [])


def _heads(kind: str, tensors: Mapping[str, Tensor], network: Network) -> Iterator[Pair]:
    """The head of the same paper, as much of it as there is, and the auxiliary one, which all have alike."""
    has = {key for key, _ in network.named_parameters()}
    same = isinstance(network, FCNResNet if kind.startswith("fcn_") else DeepLabV3)
    whole = same and (isinstance(network, FCNResNet) or "classifier.4.weight" in has)
    for key in tensors:
        if key.startswith("aux_classifier."):
            wanted = "aux_classifier.4.weight" in has
        else:
            # DeepLab v3's own head scores what ASPP gives; torchvision's has a layer between.
            wanted = key.startswith("classifier.") and (whole or (same and key.startswith("classifier.0.")))
        if wanted:
            yield Pair(key, key, "head")


def _mobilenet(tensors: Mapping[str, Tensor]) -> Iterator[Pair]:
    for key in tensors:
        part = re.match(r"features\.(\d+)\.", key)
        if part and int(part[1]) <= MOBILENET_LAST:
            yield Pair(key, f"backbone.{key}", "first" if key == "features.0.0.weight" else "layer")


def vgg_stages(network: Network) -> tuple[str, ...]:
    """The names of VGG16's stages in a network, the finest first; none where it has none."""
    if isinstance(network, FCN):
        return tuple(f"stages.{stage}" for stage in range(len(network.stages)))
    if isinstance(network, DeepLabV1 | DeepLabV2) and isinstance(network.backbone, nn.Sequential):
        return tuple(f"backbone.{2 * stage}" for stage in range(5))
    if isinstance(network, DeconvNet | SegNet):
        return tuple(f"encoder.{stage}" for stage in range(len(network.encoder)))
    return ()


def _fully_connected(network: Network) -> tuple[tuple[str, str], ...]:
    """The names of fc6 and fc7; every branch of DeepLab v2 has its own."""
    if isinstance(network, FCN) and len(network.fc):
        return (("fc.0", "fc.3"),)
    if isinstance(network, DeepLabV1):
        return (("head.0", "head.3"),)
    if isinstance(network, DeepLabV2) and isinstance(network.head, Summed):
        return tuple((f"head.{branch}.0", f"head.{branch}.3") for branch in range(len(network.head)))
    if isinstance(network, DeconvNet):
        return (("bottom.0.0", "bottom.1.0"),)
    return ()


def _vgg(kind: str, tensors: Mapping[str, Tensor], network: Network) -> Iterator[Pair]:
    convolutions = iter(VGG16_CONVOLUTIONS[kind])
    role: Role = "first"
    for stage in vgg_stages(network):
        for index, layer in network.get_submodule(stage).named_children():
            if isinstance(layer, nn.Conv2d | nn.Conv3d):
                n = next(convolutions)
                yield Pair(f"features.{n}.weight", f"{stage}.{index}.weight", role)
                yield Pair(f"features.{n}.bias", f"{stage}.{index}.bias")
                role = "layer"
            elif isinstance(layer, nn.BatchNorm2d | nn.BatchNorm3d) and kind == "vgg16_bn":
                for part in NORM:
                    yield Pair(f"features.{n + 1}.{part}", f"{stage}.{index}.{part}")
    for layers in _fully_connected(network):
        for source, target in zip(FULLY_CONNECTED, layers, strict=True):
            for part in ("weight", "bias"):
                if f"{source}.{part}" in tensors:
                    yield Pair(f"{source}.{part}", f"{target}.{part}", "fc")
