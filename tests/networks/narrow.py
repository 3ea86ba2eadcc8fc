"""Every network as narrow as laws about it need: its arguments, and what it takes to measure it.

A network that is not in this table fails the first law.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from laws import built

from medseg.geometry.footprint import least_congruent
from medseg.networks.network import Network


@dataclass(frozen=True)
class Narrow:
    """One network of the table.

    Attributes:
        arguments: what makes it narrow.
        deep: what changes in 3D: fewer stages.
        exact: what makes tiling exact where it is not by default; None where nothing does.
        gain: of probes, see :func:`laws.passing`.
        probed: in which dimensions a probe takes seconds at most.
    """

    arguments: Mapping[str, Any]
    deep: Mapping[str, Any] = field(default_factory=dict)
    exact: Mapping[str, Any] | None = field(default_factory=dict)
    gain: float = 1.0
    probed: tuple[int, ...] = (2, 3)

    def spec(self, name: str, dims: int, exact: bool = False) -> dict[str, Any]:
        """The spec in so many axes, where ``exact`` with what makes tiling exact."""
        more = {**(self.deep if dims == 3 else {}), **((self.exact or {}) if exact else {})}
        return {"name": name, "in_channels": 2, "out_channels": 3, "dims": dims, **self.arguments, **more}


SIZES = {2: (40, 33), 3: (40, 9, 8)}
"""About how large windows are."""
NORM = {"norm": "batch"}
RESNET18 = {"backbone": "resnet18", "width": 2}
ATROUS = {**RESNET18, "multi_grid": [1, 2], "rates": [1, 2]}
NARROW: dict[str, Narrow] = {
    "unet": Narrow({"depth": 2, "width": 2}, {"depth": 1}),
    "unet3d": Narrow({"depth": 2, "width": 2}, {"depth": 1}),
    "deconvnet": Narrow({"depth": 2, "width": 2, "fc_size": 3}, {"depth": 1, "fc_size": 2}),
    "segnet": Narrow({"depth": 2, "width": 2}, {"depth": 1}),
    "segnet_basic": Narrow({"depth": 2, "width": 2, "kernel": 3}, {"depth": 1}),
    "segnet_small": Narrow({"depth": 2, "width": 2}, {"depth": 1}),
    "fcn32s": Narrow({"width": 2, "padding": "same", "fc_size": 3}),
    "fcn16s": Narrow({"width": 2, "padding": "same", "fc_size": 3}),
    "fcn8s": Narrow({"width": 2, "padding": "same", "fc_size": 3}),
    "fcn_resnet": Narrow({**RESNET18, "auxiliary": True}),
    "deeplab_v1": Narrow({"width": 2, "rate": 4}),
    "deeplab_v2": Narrow({"backbone": "vgg16", "width": 2, "rates": [2, 4]}),
    "deeplab_v3": Narrow({**ATROUS, "auxiliary": True}, exact={"image_pooling": False}),
    "deeplab_v3plus": Narrow(ATROUS, exact={"image_pooling": False}),
    "pspnet": Narrow(RESNET18, exact={"bins": []}),
    "upernet": Narrow({**RESNET18, "auxiliary": True}, exact={"bins": []}),
    "hrnet_ocr": Narrow({"width": 2, "stem": 2, "features": 4, "modules": [1, 1]}, {"modules": [1]}, exact=None),
    "basic_unet": Narrow({"width": 2}, exact=NORM, gain=0.3, probed=(2,)),
    "dynunet": Narrow({"width": 2, "depth": 3, "supervised": 1}, {"depth": 2}, exact=NORM, gain=0.3),
    "attention_unet": Narrow({"width": 2, "depth": 2}, exact=NORM, gain=0.3),
    "segresnet": Narrow({"width": 2}, exact=NORM, gain=0.3),
    "vnet": Narrow({"width": 2}, gain=0.3, probed=(2,)),
    "unetr": Narrow({"width": 1, "image_size": 32}, exact=None),
    "swin_unetr": Narrow({"width": 1}, exact=None),
}


def network_of(name: str, dims: int, exact: bool = False) -> Network:
    """The narrow network, ready to be measured: in double precision where it is to be exact."""
    network = built(NARROW[name].spec(name, dims, exact))
    return network if exact else network.float()


def window_of(name: str, network: Network) -> tuple[int, ...]:
    """A window that the network can take, of about those sizes."""
    if name == "unetr":
        return (NARROW[name].arguments["image_size"],) * network.dims
    sizes = SIZES[network.dims]
    if network.any_size:
        return tuple(max(n, network.least + i) for i, n in enumerate(sizes))
    admissible = [
        least_congruent(max(n, f.trim + 1), f.step, f.offset) for n, f in zip(sizes, network.fields, strict=True)
    ]
    if network.over_instances and tuple(admissible) == network.footprint.step:
        admissible[0] *= 2
    return tuple(admissible)
