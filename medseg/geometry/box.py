"""A box of voxels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Box:
    """A half-open box of voxels, ``start <= index < stop`` on every axis.

    A box may overhang the scan that it is read from: its start may be negative and its stop may lie
    beyond the extent. A box whose stop is not above its start holds no voxel.

    >>> Box((0, -2), (4, 6)).shape
    (4, 8)
    """

    start: tuple[int, ...]
    stop: tuple[int, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "start", tuple(map(int, self.start)))
        object.__setattr__(self, "stop", tuple(map(int, self.stop)))
        if len(self.start) != len(self.stop):
            raise ValueError(f"start {self.start} and stop {self.stop} have different axes")

    @classmethod
    def of(cls, extent: Sequence[int]) -> Box:
        """The whole of an extent: from 0 to its shape."""
        return cls((0,) * len(extent), tuple(extent))

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.start)

    @property
    def shape(self) -> tuple[int, ...]:
        """Voxels along each axis, never negative."""
        return tuple(max(b - a, 0) for a, b in zip(self.start, self.stop, strict=True))

    @property
    def voxels(self) -> int:
        """How many voxels the box holds."""
        return math.prod(self.shape)

    @property
    def slices(self) -> tuple[slice, ...]:
        """The box as an index into an array; its start must not be negative.

        Raises:
            IndexError: where a start is negative, since NumPy would count it from the array's end.
        """
        if any(a < 0 for a in self.start):
            raise IndexError(f"{self} begins before the array; clip or mirror it first")
        return tuple(slice(a, max(a, b)) for a, b in zip(self.start, self.stop, strict=True))

    def grow(self, halo: int | Sequence[int]) -> Box:
        """The box with ``halo`` voxels more on both sides of every axis."""
        by = (halo,) * self.ndim if isinstance(halo, int) else tuple(halo)
        return Box(
            tuple(a - h for a, h in zip(self.start, by, strict=True)),
            tuple(b + h for b, h in zip(self.stop, by, strict=True)),
        )

    def shift(self, by: Sequence[int]) -> Box:
        """The box moved by ``by`` voxels."""
        return Box(
            tuple(a + d for a, d in zip(self.start, by, strict=True)),
            tuple(b + d for b, d in zip(self.stop, by, strict=True)),
        )

    def clip(self, extent: Sequence[int]) -> Box:
        """The part of the box that lies within ``[0, extent)``; empty where there is none."""
        start = tuple(min(max(a, 0), n) for a, n in zip(self.start, extent, strict=True))
        stop = tuple(min(max(b, 0), n) for b, n in zip(self.stop, extent, strict=True))
        return Box(start, tuple(max(a, b) for a, b in zip(start, stop, strict=True)))

    def within(self, extent: Sequence[int]) -> bool:
        """Whether every voxel of the box lies in ``[0, extent)``."""
        return all(a >= 0 and b <= n for a, b, n in zip(self.start, self.stop, extent, strict=True))

    def __str__(self) -> str:
        sides = zip(self.start, self.stop, strict=True)
        return "[" + ", ".join(f"{a}:{b}" for a, b in sides) + "]"
