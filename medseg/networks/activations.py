"""What a network's decoder makes of a window: the maps after each unpooling, deconvolution and interpolation.

Noh et al. (2015, figure 4) look at DeconvNet so: unpooling gives the places, deconvolution fills them, the finer the
later. Here the operations themselves are watched while a window goes through, not modules: no hook is left behind, and
a network may call functions. A map is taken after the norm and the activation that follow its operation; what
convolutions make of it is taken as it goes into the next one that enlarges, or into the last layer.

Legend: C input channels, A channels of a map, K output channels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from medseg.networks.network import Network

UNPOOLING, DECONVOLUTION, INTERPOLATION, STAGE = "unpooling", "deconvolution", "interpolation", "stage"
_UP: dict[Callable[..., Any], str] = {
    functional.max_unpool2d: UNPOOLING,
    functional.max_unpool3d: UNPOOLING,
    torch.conv_transpose2d: DECONVOLUTION,
    torch.conv_transpose3d: DECONVOLUTION,
    functional.conv_transpose2d: DECONVOLUTION,
    functional.conv_transpose3d: DECONVOLUTION,
    functional.interpolate: INTERPOLATION,
}
_CONVOLUTIONS = {torch.conv2d, torch.conv3d, functional.conv2d, functional.conv3d}
_FOLLOWING = {
    functional.batch_norm,
    functional.instance_norm,
    functional.group_norm,
    functional.relu,
    functional.relu_,
    torch.relu,
    torch.relu_,
    functional.leaky_relu,
    functional.prelu,
    torch.prelu,
    functional.elu,
}
"""Norms and activations: what they give takes the place of what they took."""


@dataclass(frozen=True, eq=False)
class Activations:
    """One layer's maps.

    Attributes:
        kind: ``unpooling``, ``deconvolution``, ``interpolation``, or ``stage``: what convolutions made of the last.
        number: which of its kind, from 1.
        maps: (A, \\*n), of one window.
    """

    kind: str
    number: int
    maps: Tensor

    @property
    def representative(self) -> int:
        """The channel that says most: the one of the largest variance."""
        return int(self.maps.float().flatten(1).var(1, correction=0).argmax())


def decoder_activations(network: Network, x: Tensor) -> tuple[list[Activations], Tensor]:
    """Lets one window through, and keeps what its decoder made of it.

    Args:
        network: in evaluation mode; it is left as it is.
        x: (1, C, \\*window).

    Returns:
        the layers in the order in which they were computed, and the logits (1, K, \\*out).

    Raises:
        TileError: where the network cannot take the window.
    """
    with torch.no_grad(), _Watch() as watch:
        logits = network(x)
    return watch.layers(), logits


class _Watch(TorchFunctionMode):
    """Sees every call of PyTorch's functions, and keeps what comes out of those that enlarge."""

    def __init__(self) -> None:
        super().__init__()
        self._found: list[tuple[str, Tensor]] = []
        self._read: Tensor | None = None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kind = _UP.get(func)
        if kind is not None:
            self._stage(args[0])
        elif func in _CONVOLUTIONS:
            self._read = args[0]
        out = func(*args, **(kwargs or {}))
        if kind is not None:
            self._found.append((kind, out))
        elif func in _FOLLOWING and self._found and args[0] is self._found[-1][1]:
            self._found[-1] = (self._found[-1][0], out)
        return out

    def layers(self) -> list[Activations]:
        """Numbered; the last stage is what the last convolution read."""
        if self._read is not None:
            self._stage(self._read)
        counts: dict[str, int] = {}
        layers = []
        for kind, maps in self._found:
            counts[kind] = counts.get(kind, 0) + 1
            layers.append(Activations(kind, counts[kind], maps[0]))
        return layers

    def _stage(self, x: Tensor) -> None:
        """What is made of the last map that was found: at its size, or less what valid convolutions take off."""
        if not self._found:
            return
        _, last = self._found[-1]
        sizes = list(zip(x.shape[2:], last.shape[2:], strict=True))
        if x is not last and all(before / 2 < n <= before for n, before in sizes):
            self._found.append((STAGE, x))
