"""Test-time augmentation: a network that looks at its window from several sides and averages what it sees.

    flips, 2^d looks         rotations, those and with X and Y exchanged before: 2 · 2^d looks
    (along d of the axes)

    a b     b a              a c     c a
    c d     d c              b d     d b          a turn by 90° is an exchange of the two axes and a flip

    c d     d c              b d     d b
    a b     b a              a c     c a

All windows of a tiling have one shape, so they end at one phase of the network's step as they begin at one: turned
windows agree with each other as straight ones do, and tiles equal the whole.

Legend: N batch, C channels, K output channels, d axes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import combinations
from typing import Literal, get_args

import torch
from torch import Tensor

from medseg.errors import ConfigError, GridError, TileError, nearest
from medseg.geometry import Field
from medseg.inference.segment import CHANNELS_LAST
from medseg.networks.network import Network

Turns = Literal["flips", "rotations"]


class Flips(Network):
    """A network whose logits are the mean over its window's flips, and its quarter turns where wanted.

    Args:
        network: what looks. Its footprint is kept: a halo is as wide on both sides of an axis.
        turns: ``flips`` or ``rotations``, which has twice as many looks.
        plane: for rotations, the two axes that are exchanged; see :func:`plane_of`.
        axes: for flips, those that are flipped; by default all.

    Raises:
        ConfigError: for other turns.
        TileError: for rotations of a network that needs more along one of the two axes than along the other.
    """

    paper = "Test-time augmentation"

    def __init__(
        self,
        network: Network,
        turns: Turns = "flips",
        plane: tuple[int, int] = (0, 1),
        axes: Sequence[int] | None = None,
    ) -> None:
        super().__init__(network.dims, network.in_channels, network.out_channels)
        if turns not in get_args(Turns):
            raise ConfigError(f"turns {turns!r} are neither flips nor rotations{nearest(turns, get_args(Turns))}")
        if turns == "rotations":
            _check_plane(network, plane)
        self.network = network
        self.plane = plane if turns == "rotations" else None
        self.axes = tuple(range(network.dims)) if axes is None or turns == "rotations" else tuple(axes)

    @property
    def looks(self) -> int:
        """How often the network looks at a window."""
        return sum(1 for _ in self._turns())

    def trace(self, field: Field, axis: int) -> Field:
        """One axis through the network."""
        return self.network.trace(field, axis)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, \\*window) → (N, K, \\*out): the mean of the network's logits.

        Raises:
            TileError: where the network takes more off its window on one side than on the other, as its core does not.
        """
        if any(f.trim % 2 for f in self.fields):
            raise TileError("this network takes more off its window on one side: only its tiles can be flipped")
        return self._mean(self.network, x)

    def core(self, x: Tensor) -> Tensor:
        """(N, C, \\*window) → (N, K, \\*core): the mean of the network's cores.

        Raises:
            TileError: where the window is not admissible.
        """
        return self._mean(self.network.core, x)

    def _mean(self, network: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        total = torch.zeros((), device=x.device)
        for exchanged, axes in self._turns():
            turned = x.transpose(*exchanged) if exchanged else x
            seen = network(turned.flip(axes).contiguous(memory_format=CHANNELS_LAST[self.dims])).flip(axes)
            straight = seen.transpose(*exchanged) if exchanged else seen
            total = total + straight.to(torch.promote_types(seen.dtype, torch.float32))
        return total / self.looks

    def _turns(self) -> Iterator[tuple[tuple[int, int] | None, tuple[int, ...]]]:
        """The two axes of (N, C, \\*n) to exchange, if any, and those to flip then; the straight look comes first."""
        spatial = [2 + axis for axis in self.axes]
        for exchanged in (None,) if self.plane is None else (None, (2 + self.plane[0], 2 + self.plane[1])):
            for count in range(len(spatial) + 1):
                for axes in combinations(spatial, count):
                    yield exchanged, axes


def plane_of(axes: str) -> tuple[int, int]:
    """The axes X and Y among a view's ``axes``, such as «ZYX».

    Raises:
        GridError: where it has none.
    """
    if not {"X", "Y"} <= set(axes):
        raise GridError(f"axes {axes} have no plane of X and Y to turn in: use flips")
    return axes.index("X"), axes.index("Y")


def _check_plane(network: Network, plane: tuple[int, int]) -> None:
    one, other = (network.fields[a] for a in plane)
    if one != other:
        raise TileError(
            f"rotations exchange axes {plane}, and this network has halo {one.halo} and step {one.step} along one, "
            f"halo {other.halo} and step {other.step} along the other: use flips"
        )
