"""medseg: from labelled medical images to a segmentation model for scans of any size.

The public names below are imported from their floors on first use, so that ``import medseg`` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from medseg.addresses import FETCHERS, Fetched

if TYPE_CHECKING:
    from medseg.errors import MedsegError as MedsegError
    from medseg.experiment import Experiment as Experiment
    from medseg.geometry import Box as Box
    from medseg.geometry import Footprint as Footprint
    from medseg.geometry import Tile as Tile
    from medseg.geometry import Tiling as Tiling
    from medseg.inference.segment import segment as segment
    from medseg.networks import NETWORKS as NETWORKS
    from medseg.networks import build_network as build_network
    from medseg.scans.mirror import read_mirrored as read_mirrored
    from medseg.scans.scan import create_mask as create_mask
    from medseg.scans.scan import open_scan as open_scan

__version__ = "0.1.0"

_HOMES = {
    "MedsegError": "medseg.errors",
    "Experiment": "medseg.experiment",
    "Box": "medseg.geometry",
    "Footprint": "medseg.geometry",
    "Tile": "medseg.geometry",
    "Tiling": "medseg.geometry",
    "segment": "medseg.inference.segment",
    "NETWORKS": "medseg.networks",
    "build_network": "medseg.networks",
    "read_mirrored": "medseg.scans.mirror",
    "create_mask": "medseg.scans.scan",
    "open_scan": "medseg.scans.scan",
}

__all__ = ["__version__", *_HOMES]


def _of_registry(address: str, digest: str | None) -> Fetched:
    from medseg.registry.fetch import fetch

    return fetch(address, digest)


FETCHERS["models"] = _of_registry


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'medseg' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
