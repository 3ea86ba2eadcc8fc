"""Going on from another model's weights, and keeping some of them: ``training.init_from`` and ``training.freeze``.

FCN's staged training (Long et al. 2015, section 4.2) is this: 16s from 32s, 8s from 16s. What both networks call alike
and shape alike is taken; the new skips begin as they are drawn, with scores of zero.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from medseg.errors import ConfigError, PackageError, nearest
from medseg.networks.kernels import for_channels, inflated, taps_of
from medseg.networks.names import listed, parts, prefixes, shape_of, within
from medseg.networks.network import BATCH_NORM, Network
from medseg.package import find_package, read_card, read_network

SHOWN = 3
"""Tensors of other shape that a line names."""
LISTED = 8
"""Parts that a line names."""


@dataclass(frozen=True)
class Inherited:
    """What was taken from a model.

    Attributes:
        name: of the model's network.
        sha256: of its weights.
        taken: how many of its parameters.
        of: how many it has.
        notes: what was changed, drawn anew and left out.
    """

    name: str
    sha256: str
    taken: int
    of: int
    notes: tuple[str, ...]

    def __str__(self) -> str:
        """One line."""
        return "; ".join([f"{self.taken} of the {self.of} parameters of {self.name}", *self.notes])


def initialise_from(network: Network, path: Path) -> Inherited:
    """Puts a trained model's weights into a network, in place: each that has the same name and shape.

    Two more fit after a change, as in :func:`medseg.networks.pretrained.load_pretrained`: a first layer of other input
    channels is averaged or repeated, and 2D kernels are inflated for a network of three axes.

    Args:
        network: takes them.
        path: a model package, or a run's folder.

    Raises:
        PackageError: where there is no package, it is damaged, or nothing in it fits.
    """
    folder = find_package(path)
    card = read_card(folder)
    model = read_network(folder, card)
    if model.dims > network.dims:
        raise PackageError(f"training.init_from {path} has 3 axes and this network 2: kernels can only grow an axis")
    given, own = model.state_dict(), network.state_dict()
    learned = {key for key, _ in network.named_parameters()}
    fitted = {key: _fitted(key, given[key], own[key], model, network) for key in own if key in given}
    taken = {key: tensor for key, tensor in fitted.items() if tensor is not None}
    name, count = str(card.network["name"]), sum(1 for _ in model.parameters())
    if not any(tensor.ndim > 1 for key, tensor in taken.items() if key in learned):
        raise PackageError(
            f"training.init_from {path} ({name}) does not fit this {type(network).__name__}: of its {count} parameters "
            f"no kernel has the name and the shape of one of the network's {len(learned)}"
        )
    with torch.no_grad():
        for key, tensor in taken.items():
            own[key].copy_(tensor)
    notes = tuple(_notes(model, network, set(taken)))
    return Inherited(name, card.weights_sha256, len(learned & set(taken)), count, notes)


def frozen_parameters(network: nn.Module, names: Sequence[str]) -> list[str]:
    """The parameters that ``training.freeze`` names: each name is a part's, with all that is in it, or a parameter's.

    Raises:
        ConfigError: for a name that nothing has, with the nearest, and where nothing is left to train.
    """
    parameters = [key for key, _ in network.named_parameters()]
    for name in names:
        if not any(within(key, name) for key in parameters):
            known = list(dict.fromkeys(prefix for key in parameters for prefix in prefixes(key)))
            raise ConfigError(
                f"training.freeze names {name!r}, which is no part of the network{nearest(name, known)}; "
                f"it has {', '.join(part for part in known if '.' not in part)}, and what is within them"
            )
    frozen = [key for key in parameters if any(within(key, name) for name in names)]
    if len(frozen) == len(parameters):
        raise ConfigError(f"training.freeze is {list(names)} and leaves nothing to train: name fewer parts")
    return frozen


def freeze(network: nn.Module, names: Sequence[str]) -> list[nn.Module]:
    """Takes parts out of the training: their parameters want no gradient.

    Returns:
        the batch norms within them. Their running statistics belong to the frozen weights, so whoever trains the
        network has to keep them in evaluation mode. Dropout in a frozen part goes on.

    Raises:
        ConfigError: as :func:`frozen_parameters`.
    """
    frozen = set(frozen_parameters(network, names))
    for key, parameter in network.named_parameters():
        if key in frozen:
            parameter.requires_grad_(False)
    norms = tuple(BATCH_NORM.values())
    inside = ((key, module) for key, module in network.named_modules() if any(within(key, name) for name in names))
    return [module for _, module in inside if isinstance(module, norms)]


def _fitted(key: str, tensor: Tensor, own: Tensor, model: Network, network: Network) -> Tensor | None:
    """A tensor of the model as the network has it, or None where it has another shape."""
    layer = network.get_submodule(key.rpartition(".")[0])
    if own.ndim == 5 and tensor.ndim == 4 and isinstance(layer, nn.Conv3d | nn.ConvTranspose3d):
        tensor = inflated(tensor, own.shape[2], taps_of(layer))
    first = (model.in_channels, network.in_channels)
    if isinstance(layer, nn.Conv2d | nn.Conv3d) and (*tensor.shape[1:2], *own.shape[1:2]) == first:
        tensor = for_channels(tensor, network.in_channels)
    return tensor if tensor.shape == own.shape else None


def _notes(model: Network, network: Network, taken: set[str]) -> Iterator[str]:
    """What was changed, what stays as it was drawn, and what stays in the model."""
    given, own = dict(model.named_parameters()), dict(network.named_parameters())
    if model.dims < network.dims:
        yield "kernels inflated to three axes"
    if any(given[key].shape[1:2] != own[key].shape[1:2] for key in taken & set(own)):
        yield f"{model.in_channels} input channels averaged or repeated for {network.in_channels}"
    if model.out_channels != network.out_channels:
        yield f"it gives {model.out_channels} channels and this network {network.out_channels}"
    other = [key for key in own if key in given and key not in taken]
    if other:
        shapes = [f"{key} {shape_of(given[key])} for {shape_of(own[key])}" for key in other]
        yield f"of other shape, so drawn anew: {listed(shapes, SHOWN)}"
    fresh = [key for key in own if key not in given]
    if fresh:
        yield f"not in it, so drawn anew: {listed(parts(fresh, given), LISTED)}"
    left = [key for key in given if key not in own]
    if left:
        yield f"left in it: {listed(parts(left, own), LISTED)}"
