"""The order in which tiles are visited, so that a small cache decodes each chunk of the input about once.

Axis 0 is walked along a beam; the axes after it are cut into beams. A grid of 4 x 5 tiles in beams of 2, by position:

           beam 0  | beam 1  | beam 2              what must be kept is one cross-section of the beam:
          +--------+---------+-------
          |  0   1 |  8   9  | 16                      |<--- halo + beam * core + halo --->|
    axis 0|  2   3 | 10  11  | 17                    --+-----------------------------------+--  above: not needed again
       |  |  4   5 | 12  13  | 18              window  |  read by the beam's next windows  |
       v  |  6   7 | 14  15  | 19                    --+-----------------------------------+--  below: not read yet
          +--------+---------+-------

A narrow beam needs little memory and reads its two flanks again, once for each neighbour; a beam as wide as the grid
reads nothing twice. Positions become indices by arithmetic: a walk over a million tiles costs nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import overload

from medseg.errors import TileError
from medseg.geometry.tiling import unravel


class Walk(Sequence[int]):
    """The indices of a grid's tiles (as :class:`Tiling` counts them) in the order in which they are visited.

    Beams follow each other with the last axis fastest; in a beam the walk goes along axis 0 and, at each step, through
    the cross-section with the last axis fastest.

    Args:
        grid: tiles along each axis, at least one an axis.
        beam: tiles across a beam, one number for each axis after the first or one for all; a last beam may be narrower.

    Raises:
        TileError: for an empty grid, a beam under 1 or a wrong number of axes.
    """

    def __init__(self, grid: Sequence[int], beam: int | Sequence[int]) -> None:
        self.grid = tuple(map(int, grid))
        self.beam = (beam,) * (len(self.grid) - 1) if isinstance(beam, int) else tuple(map(int, beam))
        if min(self.grid, default=0) < 1 or min(self.beam, default=1) < 1:
            raise TileError(f"grid {self.grid} and beam {self.beam} must be at least 1")
        if len(self.grid) != len(self.beam) + 1:
            raise TileError(f"grid {self.grid} and beam {self.beam} differ: a beam has one axis less than the grid")

    def __len__(self) -> int:
        return math.prod(self.grid)

    @overload
    def __getitem__(self, index: int) -> int: ...
    @overload
    def __getitem__(self, index: slice) -> list[int]: ...
    def __getitem__(self, index: int | slice) -> int | list[int]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"position {index} of {len(self)}")
        flat = 0
        for i, n in zip(self._tile(index % len(self)), self.grid, strict=True):
            flat = flat * n + i
        return flat

    def _tile(self, position: int) -> tuple[int, ...]:
        """The tile at a position, along each axis: first its beam, axis by axis, then its place in the beam."""
        unit = len(self)
        starts, widths = [], []
        for n, width in zip(self.grid[1:], self.beam, strict=True):
            unit //= n  # tiles in one layer of this axis, in the beams chosen on the axes before it
            start = position // unit // width * width
            position -= start * unit
            starts.append(start)
            widths.append(min(width, n - start))
            unit *= widths[-1]
        along, rest = divmod(position, unit // self.grid[0])
        return (along, *(s + i for s, i in zip(starts, unravel(rest, widths), strict=True)))

    def __repr__(self) -> str:
        return f"Walk(grid={self.grid}, beam={self.beam})"
