"""Cutting a scan into tiles that answer for every voxel once.

One axis of the 2015 U-Net (halo 92, windows ≡ 12 mod 16) on a scan of 1000 voxels, core 384:

    scan                  0|                 384|                 768|        |1000
                           :                    :                    :        :
    tile 0  read   -92 |======================================| 480          :
            write          |--------------------|384                          :
    tile 1  read                      292 |======================================| 864
            write                               |384-----------------|768     :
    tile 2  read                                           676 |======================================| 1248
            write                                                    |768-----|1000
            keep                                                      0    232

Every window is 572 wide and answers for 388 voxels, but tiles are 384 apart, a multiple of the step: pooling makes the
network shift-equivariant only by 16, so the paper's own 388 would not be exact. The four spare voxels agree with the
next tile's. The last tile overhangs into the mirror; it is never pushed back.

A tile is computed from its index and never stored: a tiling of a million tiles costs nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

from medseg.errors import TileError
from medseg.geometry.box import Box
from medseg.geometry.footprint import Footprint


@dataclass(frozen=True)
class Tile:
    """One window's work.

    Attributes:
        index: its place in the tiling, from 0, the last axis fastest.
        read: the window that the network sees, in scan voxels; it may overhang the scan.
        write: what this tile alone answers for, in scan voxels; always within the scan.
        keep: ``write`` in the coordinates of the core, from 0.
    """

    index: int
    read: Box
    write: Box
    keep: Box


class Tiling(Sequence[Tile]):
    """The tiles of an extent: their write boxes partition it, and their windows all have one shape.

    Args:
        extent: the scan's spatial shape, at least one voxel an axis.
        core: how far tiles are apart, one number an axis. It is rounded down to a multiple of the footprint's step
            (at least one step), since tiling is exact only there; ``.core`` tells what is used.
        footprint: the network's.
        spare: voxels that a window must answer for beyond its write box (a tile that is interpolated
            back to another grid needs its right neighbour's first voxel).

    Raises:
        TileError: for an empty extent, a core under 1 or a wrong number of axes.
    """

    def __init__(self, extent: Sequence[int], core: Sequence[int], footprint: Footprint, spare: int = 0) -> None:
        self.extent = tuple(map(int, extent))
        self.footprint = footprint
        self.spare = spare
        if not len(self.extent) == len(core) == footprint.ndim:
            raise TileError(
                f"extent {self.extent}, core {tuple(core)} and the network's {footprint.ndim} axes differ in number"
            )
        if min(*self.extent, *core) < 1:
            raise TileError(f"extent {self.extent} and core {tuple(core)} must be at least 1")
        self.core = tuple(c // s * s or s for c, s in zip(core, footprint.step, strict=True))
        self.window = footprint.input_shape(tuple(c + spare for c in self.core))
        self.grid = tuple(-(-n // c) for n, c in zip(self.extent, self.core, strict=True))

    @classmethod
    def by_window(cls, extent: Sequence[int], window: Sequence[int], footprint: Footprint, spare: int = 0) -> Tiling:
        """The tiling whose windows have this shape, as the paper counts tiles (572).

        Raises:
            TileError: where the network cannot take the window, or it leaves no core.
        """
        core = footprint.core_shape(window)
        if any(c - spare < s for c, s in zip(core, footprint.step, strict=True)):
            least = footprint.input_shape(tuple(s + spare for s in footprint.step))
            raise TileError(
                f"tile {tuple(window)} answers for {core}, less than one step {footprint.step}: use {least} or more"
            )
        return cls(extent, tuple(c - spare for c in core), footprint, spare)

    @classmethod
    def whole(cls, extent: Sequence[int], footprint: Footprint, spare: int = 0) -> Tiling:
        """One tile for the whole extent."""
        steps = footprint.step
        return cls(extent, [-(-n // s) * s for n, s in zip(extent, steps, strict=True)], footprint, spare)

    def __len__(self) -> int:
        return math.prod(self.grid)

    @overload
    def __getitem__(self, index: int) -> Tile: ...
    @overload
    def __getitem__(self, index: slice) -> list[Tile]: ...
    def __getitem__(self, index: int | slice) -> Tile | list[Tile]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"tile {index} of {len(self)}")
        index %= len(self)
        start = tuple(i * c for i, c in zip(unravel(index, self.grid), self.core, strict=True))
        stop = tuple(min(a + c, n) for a, c, n in zip(start, self.core, self.extent, strict=True))
        origin = tuple(a - h for a, h in zip(start, self.footprint.halo, strict=True))
        write = Box(start, stop)
        return Tile(index, Box.of(self.window).shift(origin), write, Box.of(write.shape))

    def __repr__(self) -> str:
        return f"Tiling(extent={self.extent}, core={self.core}, window={self.window}, tiles={len(self)})"


def unravel(index: int, grid: Sequence[int]) -> tuple[int, ...]:
    """The position of a flat index in a grid, the last axis fastest."""
    position = []
    for n in reversed(grid):
        index, rest = divmod(index, n)
        position.append(rest)
    return tuple(reversed(position))
