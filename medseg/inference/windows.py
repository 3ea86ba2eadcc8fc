"""Where sliding windows lie, what each counts, and when a slab of the scan is final.

The windows and weights are those of MONAI's ``sliding_window_inference``; their order is along one axis, the slab axis:

    slab axis ->  0       s       2s      3s      4s              n
    window 0      |<----- roi ----->|     |       |               |
    window 1      |       |<----- roi ----->|     |               |
    window 2      |       |       |<----- roi ----->|             |
    ...           |       |       |       |     the last one ends with the scan
    last          |       |       |       |       |<---- roi ---->|
    slabs         |   0   |   1   |   2   |  ...  |     last      |
                          ^ once window 0 is added, nothing more comes to the rows before s: slab 0 is final

Where the view's grid is not the file's, values between two voxels are interpolated, and a slab ends one voxel (the
spare) before what is final.

Legend: roi a window's shape, s the distance between windows, n the scan's length along the slab axis, K channels.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from itertools import chain, pairwise, product
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from medseg.errors import ConfigError, TileError, nearest
from medseg.geometry import Box
from medseg.geometry.tiling import unravel
from medseg.inference.pipeline import AHEAD
from medseg.networks.network import Network
from medseg.scans.gridmap import grid_map
from medseg.scans.protocol import Scan

Mode = Literal["gaussian", "constant"]
Padding = Literal["mirror", "zeros"]

LEAST_WEIGHT = 1e-3
"""MONAI raises the weights of a window's corners to this, so that none vanishes."""


@dataclass(frozen=True)
class Blending:
    """How windows overlap, and what each counts where they do.

    Attributes:
        roi: a window's shape, in voxels of the view.
        overlap: the part of a window that the next one covers again, one number an axis or one for all.
        mode: ``gaussian`` counts a window's middle for more, ``constant`` all of it alike.
        sigma_scale: the Gaussian's sigma, as a part of the roi.
        padding: what a window sees beyond a scan that is smaller than it: its ``mirror``, as training samples do, or
            ``zeros``.

    Raises:
        ConfigError: for values that make no windows.
    """

    roi: tuple[int, ...]
    overlap: float | tuple[float, ...] = 0.5
    mode: Mode = "gaussian"
    sigma_scale: float = 0.125
    padding: Padding = "mirror"

    def __post_init__(self) -> None:
        roi, overlap = tuple(self.roi), self.overlap
        if not roi or not all(isinstance(n, int) and n >= 1 for n in roi):
            raise ConfigError(f"roi {roi}: a window needs a whole number of voxels, 1 or more, along each axis")
        object.__setattr__(self, "roi", roi)
        if not isinstance(overlap, int | float):
            object.__setattr__(self, "overlap", tuple(overlap))
        if len(self.overlaps) != len(roi) or not all(0 <= o < 1 for o in self.overlaps):
            raise ConfigError(f"overlap {overlap}: give a number from 0 to below 1, or one for each axis of roi {roi}")
        if self.mode not in get_args(Mode):
            hint = nearest(str(self.mode), get_args(Mode))
            raise ConfigError(f"blending mode {self.mode!r} is neither gaussian nor constant{hint}")
        if self.padding not in get_args(Padding):
            hint = nearest(str(self.padding), get_args(Padding))
            raise ConfigError(f"padding {self.padding!r} is neither mirror nor zeros{hint}")
        if not 0 < self.sigma_scale < math.inf:
            raise ConfigError(f"sigma_scale {self.sigma_scale} must be a number above 0")

    @property
    def overlaps(self) -> tuple[float, ...]:
        """The overlap along each axis."""
        return self.overlap if isinstance(self.overlap, tuple) else (self.overlap,) * len(self.roi)

    def weights(self) -> Tensor:
        """(\\*roi) float32: what each voxel of a window counts; rounded as MONAI rounds it."""
        if self.mode == "constant":
            return torch.ones(self.roi)
        weights = torch.ones(())
        for n in self.roi:
            x = torch.arange(-(n - 1) / 2, (n - 1) / 2 + 1)
            weights = weights.unsqueeze(-1) * torch.exp(x**2 / (-2 * (n * self.sigma_scale) ** 2))
        return weights.clamp(min=max(weights.min().item(), LEAST_WEIGHT))

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Blending:
        """What :meth:`to_dict` gave; all but the roi may be missing.

        Raises:
            ConfigError: where it is not that.
        """
        keys = {field.name for field in fields(cls)}
        if not isinstance(content, Mapping) or "roi" not in content or not set(content) <= keys:
            raise ConfigError(
                f"sliding windows have the keys roi, overlap, mode, sigma_scale and padding; these are {content!r}"
            )
        return cls(**content)


@dataclass(frozen=True)
class Window:
    """One window's place.

    Attributes:
        index: its number among all windows; those of one slab follow each other.
        slab: its position along the slab axis. Once the windows of slab i are added, slab i is final.
        box: in voxels of the view; it overhangs where the roi is larger.
    """

    index: int
    slab: int
    box: Box


@dataclass(frozen=True)
class Step:
    """A window that is added to the sums, and the slabs that are final then."""

    window: Window
    final: tuple[int, ...]


@dataclass(frozen=True)
class Windows:
    """The windows over a view, in the order in which they are added, and the slabs that become final.

    Attributes:
        extent: the view's shape.
        blending: how windows overlap.
        spare: 1 where the view's grid is not the file's, else 0.

    Raises:
        TileError: where the roi has another number of axes.
    """

    extent: tuple[int, ...]
    blending: Blending
    spare: int = 0

    @classmethod
    def over(cls, view: Scan, blending: Blending) -> Windows:
        """Those over what the network sees."""
        return cls(view.shape, blending, 0 if grid_map(view).identity else 1)

    def __post_init__(self) -> None:
        if len(self.extent) != len(self.blending.roi):
            raise TileError(f"roi {self.blending.roi} and the scan {self.extent} have different numbers of axes")

    @cached_property
    def step(self) -> tuple[int, ...]:
        """The distance between windows along each axis."""
        roi, overlaps = self.blending.roi, self.blending.overlaps
        return tuple(max(int(n * (1 - overlap)), 1) for n, overlap in zip(roi, overlaps, strict=True))

    @cached_property
    def starts(self) -> tuple[tuple[int, ...], ...]:
        """Where windows begin along each axis; before the view where the roi is larger."""
        return tuple(map(_starts, self.extent, self.blending.roi, self.step))

    @cached_property
    def axis(self) -> int:
        """The slab axis: the one across which the fewest voxels are held, the longest where the roi is a cube."""
        return min(range(len(self.extent)), key=lambda a: (self.blending.roi[a] / self.extent[a], a))

    @property
    def slabs(self) -> int:
        """How many slabs there are."""
        return len(self.starts[self.axis])

    @cached_property
    def held(self) -> tuple[int, ...]:
        """The shape of what is held: the view's, and along the slab axis a window's and the spare row."""
        rows = min(self.blending.roi[self.axis] + self.spare, self.extent[self.axis])
        return tuple(rows if a == self.axis else n for a, n in enumerate(self.extent))

    def held_bytes(self, channels: int, batch: int = 1, ahead: int = AHEAD, itemsize: int = 4) -> int:
        """The most that is held for K ``channels``: sums and weights, and the slabs that wait to be written."""
        rows, across = self.held[self.axis], math.prod(self.held) // self.held[self.axis]
        at_once = -(-batch * self.slabs // len(self))  # slabs that are final with one batch
        waiting = rows + min((ahead + 1) * at_once - 1, self.slabs - 1) * min(self.step[self.axis], rows)
        return itemsize * across * ((channels + 1) * rows + channels * waiting)

    def rows(self, slab: int) -> tuple[int, int]:
        """The rows along the slab axis, ``start <= row < stop``, that are final with a slab and were not before."""
        starts, n = self.starts[self.axis], self.extent[self.axis]
        start = starts[slab] - self.spare if slab else 0
        return start, starts[slab + 1] - self.spare if slab + 1 < len(starts) else n

    def slab(self, slab: int, wanted: Box) -> Box:
        """The voxels of ``wanted`` that are final with a slab and were not before; may be empty."""
        start, stop = self.rows(slab)
        return replaced(wanted, self.axis, max(start, wanted.start[self.axis]), min(stop, wanted.stop[self.axis]))

    def with_spare(self, box: Box) -> Box:
        """A box and what interpolating in it needs beyond it."""
        return Box(box.start, tuple(b + self.spare for b in box.stop)).clip(self.extent)

    def __len__(self) -> int:
        return math.prod(map(len, self.starts))

    def __getitem__(self, index: int) -> Window:
        if not 0 <= index < len(self):
            raise IndexError(f"window {index} of {len(self)}")
        place = unravel(index, [len(self.starts[a]) for a in self._order])
        start = [0] * len(self.extent)
        for a, i in zip(self._order, place, strict=True):
            start[a] = self.starts[a][i]
        return Window(index, place[0], Box.of(self.blending.roi).shift(start))

    def needed(self, slabs: Collection[int], wanted: Box) -> tuple[list[int], list[range]]:
        """What touches these slabs' part of ``wanted``: positions along the slab axis, and along each other axis."""
        positions: set[int] = set()
        for slab in slabs:
            box = self.with_spare(self.slab(slab, wanted))
            positions.update(self._touching(self.axis, box))
        return sorted(positions), [self._touching(a, self.with_spare(wanted)) for a in self._order[1:]]

    def steps(self, slabs: Collection[int], wanted: Box) -> Iterator[Step]:
        """The windows that these slabs' part of ``wanted`` needs, in order, and when each slab is final."""
        counts = [len(self.starts[a]) for a in self._order]
        along, across = self.needed(slabs, wanted)
        indices = (int(np.ravel_multi_index(place, counts)) for place in product(along, *across))
        for window, following in pairwise(chain((self[i] for i in indices), [None])):
            if window is not None:
                until = self.slabs if following is None else following.slab
                yield Step(window, tuple(s for s in range(window.slab, until) if s in slabs))

    @cached_property
    def _order(self) -> tuple[int, ...]:
        """The axes, the one along which windows follow each other last being the fastest."""
        return (self.axis, *(a for a in range(len(self.extent)) if a != self.axis))

    def _touching(self, axis: int, box: Box) -> range:
        """The positions along an axis of the windows that touch a box."""
        starts = self.starts[axis]
        first = bisect_right(starts, box.start[axis] - self.blending.roi[axis])
        return range(first, bisect_left(starts, box.stop[axis]))


def check_roi(network: Network, roi: Sequence[int]) -> None:
    """Refuses a window that the network cannot take, or would not answer for as a whole.

    Raises:
        TileError: with the sizes that would do, or the reason.
    """
    network.check_window(roi)
    lost = tuple(f.trim for f in network.fields)
    if any(lost):
        answered = tuple(n - t for n, t in zip(roi, lost, strict=True))
        raise TileError(
            f"this network answers for {answered} of a window of {tuple(roi)}: its convolutions are valid, and sliding "
            "windows average whole ones; use tiles (--tile-overlap), which are exact"
        )


def _starts(n: int, roi: int, step: int) -> tuple[int, ...]:
    """Where windows begin along one axis: the last ends with the scan, a single one that is larger surrounds it."""
    if n <= roi:
        return (-((roi - n) // 2),)
    return tuple(min(i * step, n - roi) for i in range(-(-(n - roi) // step) + 1))


def replaced(box: Box, axis: int, start: int, stop: int) -> Box:
    """The box with another side along one axis."""
    return Box(
        (*box.start[:axis], start, *box.start[axis + 1 :]),
        (*box.stop[:axis], max(start, stop), *box.stop[axis + 1 :]),
    )
