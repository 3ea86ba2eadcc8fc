"""The networks by name, and how a spec becomes one."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from medseg.errors import ConfigError, nearest
from medseg.networks.deconvnet import DeconvNet
from medseg.networks.deeplab import DeepLabV1, DeepLabV2
from medseg.networks.deeplab_v3 import DeepLabV3, DeepLabV3Plus
from medseg.networks.fcn import FCN8s, FCN16s, FCN32s
from medseg.networks.fcn_resnet import FCNResNet
from medseg.networks.hrnet import HRNetOCR
from medseg.networks.monai_nets import AttentionUNet, BasicUNet, DynUNet
from medseg.networks.monai_residual import SegResNet, VNet
from medseg.networks.monai_transformers import UNETR, SwinUNETR
from medseg.networks.network import Network
from medseg.networks.pspnet import PSPNet
from medseg.networks.segnet import SegNet, SegNetBasic, SegNetSmall
from medseg.networks.unet import UNet, UNet3D
from medseg.networks.upernet import UPerNet

NETWORKS: dict[str, type[Network]] = {
    "unet": UNet,
    "unet3d": UNet3D,
    "deconvnet": DeconvNet,
    "segnet": SegNet,
    "segnet_basic": SegNetBasic,
    "segnet_small": SegNetSmall,
    "fcn32s": FCN32s,
    "fcn16s": FCN16s,
    "fcn8s": FCN8s,
    "fcn_resnet": FCNResNet,
    "deeplab_v1": DeepLabV1,
    "deeplab_v2": DeepLabV2,
    "deeplab_v3": DeepLabV3,
    "deeplab_v3plus": DeepLabV3Plus,
    "pspnet": PSPNet,
    "upernet": UPerNet,
    "hrnet_ocr": HRNetOCR,
    "basic_unet": BasicUNet,
    "dynunet": DynUNet,
    "attention_unet": AttentionUNet,
    "segresnet": SegResNet,
    "vnet": VNet,
    "unetr": UNETR,
    "swin_unetr": SwinUNETR,
}
"""Every network that a config, a package or ``medseg networks`` can name."""


def build_network(spec: Mapping[str, Any]) -> Network:
    """A network from ``{"name": ..., argument: value, ...}``, the arguments being those of its class.

    Raises:
        ConfigError: for a name that is not in :data:`NETWORKS`, or an argument that the network does not have.
    """
    arguments = dict(spec)
    name = arguments.pop("name", None)
    if not isinstance(name, str) or name not in NETWORKS:
        hint = nearest(str(name), NETWORKS)
        raise ConfigError(f"network.name is {name!r}{hint}; it must be one of {', '.join(NETWORKS)}")
    allowed = arguments_of(name)
    for key in arguments:
        if key not in allowed:
            raise ConfigError(
                f"network.{key} is no argument of {name}{nearest(key, allowed)}; it takes {', '.join(allowed)}"
            )
    return NETWORKS[name](**arguments)


def arguments_of(name: str) -> dict[str, Any]:
    """The arguments of a network and their defaults."""
    parameters = inspect.signature(NETWORKS[name]).parameters
    return {key: parameter.default for key, parameter in parameters.items()}


def describe(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Name, paper, arguments, parameters and footprint of a network, counted without allocating its weights."""
    import torch

    with torch.device("meta"):
        network = build_network(spec)
    name = str(spec["name"])
    footprint = network.footprint
    return {
        "name": name,
        "paper": network.paper,
        "dims": network.dims,
        "parameters": sum(p.numel() for p in network.parameters()),
        "halo": list(footprint.halo),
        "step": list(footprint.step),
        "offset": list(footprint.offset),
        "exact": footprint.exact,
        "arguments": {**arguments_of(name), **{k: v for k, v in spec.items() if k != "name"}},
    }
