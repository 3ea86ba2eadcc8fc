"""The networks by name, and how a spec becomes one."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from medseg.errors import ConfigError, nearest
from medseg.networks.network import Network
from medseg.networks.unet import UNet, UNet3D

NETWORKS: dict[str, type[Network]] = {"unet": UNet, "unet3d": UNet3D}
"""Every network that a config, a package or ``medseg networks`` can name."""


def build_network(spec: Mapping[str, Any]) -> Network:
    """A network from ``{"name": ..., argument: value, ...}``, the arguments being those of its class.

    Raises:
        ConfigError: for a name that is not in :data:`NETWORKS`, or an argument that the network does not have.
    """
    arguments = dict(spec)
    name = arguments.pop("name", None)
    if name not in NETWORKS:
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
