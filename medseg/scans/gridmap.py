"""How a view's grid lies in its file's own grid, and how values come back from the one to the other.

Views turn and resample axis by axis, so one axis of the view is a line in one axis of the file:

    file   index i     0     1     2     3     4     5     6     7     8     9    10        own grid
                       |-----|-----|-----|-----|-----|-----|-----|-----|-----|-----|
    view   voxel x     0         1         2         3         4         5         6        x = scale · i + offset
    tiles                 write 0:3 ........|.......... write 3:7                           (here scale = 0.6)
    owned              i = 0 1 2 3 4        |  5 6 7 8 9 10                                 floor(x) lies in write

A voxel of the file belongs to the tile whose write box holds floor(x), with x clamped to the view; so tiles that
partition the view partition the file. It takes its value from voxels floor(x) and floor(x) + 1: a tile must answer for
one spare voxel beyond its write box.

Legend: a an axis of the view, K channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from medseg.errors import GridError
from medseg.geometry import Box
from medseg.scans.protocol import Scan


@dataclass(frozen=True)
class GridMap:
    """Where a view's axes lie in its source: ``x_a = scale[a] * i_(axes[a]) + offset[a]``.

    Attributes:
        axes: for each axis of the view, the axis of the source.
        scale: voxels of the view for one of the source; negative where the axis is flipped.
        offset: the view's coordinate of the source's voxel 0.
    """

    axes: tuple[int, ...]
    scale: tuple[float, ...]
    offset: tuple[float, ...]

    @classmethod
    def same(cls, dims: int) -> GridMap:
        """The map of a grid onto itself."""
        return cls(tuple(range(dims)), (1.0,) * dims, (0.0,) * dims)

    @property
    def identity(self) -> bool:
        """Whether the view's grid is the source's."""
        return self == GridMap.same(len(self.axes))

    def after(self, first: GridMap) -> GridMap:
        """The map of a view (``self``) of a view (``first``) onto the source of the latter."""
        return GridMap(
            tuple(first.axes[b] for b in self.axes),
            tuple(s * first.scale[b] for s, b in zip(self.scale, self.axes, strict=True)),
            tuple(s * first.offset[b] + o for s, o, b in zip(self.scale, self.offset, self.axes, strict=True)),
        )

    def matrix(self) -> NDArray[np.float64]:
        """4 x 4: the view's voxel indices to the source's, so that affine_view = affine_source @ matrix."""
        matrix = np.eye(4)
        for a, (b, scale, offset) in enumerate(zip(self.axes, self.scale, self.offset, strict=True)):
            matrix[b, : len(self.axes)] = 0
            matrix[b, a], matrix[b, 3] = 1 / scale, -offset / scale
        return matrix

    def coordinates(self, axis: int, start: int, stop: int, view_n: int) -> NDArray[np.float64]:
        """Where the source's voxels ``start:stop`` lie along the view's ``axis``, clamped to [0, view_n - 1]."""
        x = np.arange(start, stop) * self.scale[axis] + self.offset[axis]
        return x.clip(0, view_n - 1)

    def owned(self, write: Box, view_shape: Sequence[int], own_shape: Sequence[int]) -> Box:
        """The source's voxels whose clamped view coordinate has its floor in ``write``; may be empty.

        Write boxes that partition the view own boxes that partition the source.
        """
        start, stop = [0] * write.ndim, [0] * write.ndim
        for a, b in enumerate(self.axes):
            below = np.floor(self.coordinates(a, 0, own_shape[b], view_shape[a]))
            within = np.flatnonzero((below >= write.start[a]) & (below < write.stop[a]))
            if len(within):
                start[b], stop[b] = int(within[0]), int(within[-1]) + 1
        return Box(tuple(start), tuple(stop))

    def back(self, core: NDArray, origin: Sequence[int], own_box: Box, view_shape: Sequence[int]) -> NDArray:
        """Values on the view's grid, interpolated linearly onto a box of the source's.

        Args:
            core: (K, *core_shape) on the view's grid, floating point.
            origin: the view's voxel that ``core[:, 0, ...]`` is.
            own_box: what to return, in the source's voxels.
            view_shape: coordinates are clamped to it, as MONAI's border padding does.

        Returns:
            (K, *own_box.shape), of the core's dtype. It does not depend on how the view was tiled.

        Raises:
            GridError: where ``core`` does not hold the voxels on both sides of a coordinate.
        """
        for a in shrinking_first(self.scale):
            b = self.axes[a]
            x = self.coordinates(a, own_box.start[b], own_box.stop[b], view_shape[a])
            core = interpolated(core, a + 1, x - origin[a])
        order = [1 + self.axes.index(b) for b in range(len(self.axes))]
        return np.ascontiguousarray(core.transpose(0, *order))


@runtime_checkable
class View(Protocol):
    """A scan that is seen through another grid or scale."""

    @property
    def source(self) -> Scan:
        """The scan that it is a view of."""

    @property
    def grid(self) -> GridMap:
        """How its grid lies in its source's."""


def grid_map(scan: Scan) -> GridMap:
    """How a scan's grid lies in its file's own, through all views between them; the identity for the file itself."""
    whole = GridMap.same(len(scan.shape))
    while isinstance(scan, View):
        whole, scan = whole.after(scan.grid), scan.source
    return whole


def own_scan(scan: Scan) -> Scan:
    """The file's own scan behind all views."""
    while isinstance(scan, View):
        scan = scan.source
    return scan


def shrinking_first(scale: Sequence[float]) -> list[int]:
    """The axes in the order in which interpolating is cheapest: those that lose most voxels first.

    It depends on the scales alone, never on a box, so that every box rounds alike.
    """
    return sorted(range(len(scale)), key=lambda a: (-abs(scale[a]), a))


def interpolated(values: NDArray, axis: int, x: NDArray[np.float64]) -> NDArray:
    """Floating-point values along ``axis`` at the coordinates ``x``, linearly between the two neighbours.

    Raises:
        GridError: where a neighbour lies outside of the array.
    """
    below = np.floor(x).astype(np.intp)
    weight = x - below
    above = below + (weight > 0)
    if len(x) and (below.min() < 0 or above.max() >= values.shape[axis]):
        raise GridError(
            f"axis {axis - 1} is interpolated at {x.min():g} to {x.max():g}, of {values.shape[axis]} voxels"
        )
    if np.array_equal(x, np.arange(values.shape[axis])):
        return values
    lower = values.take(below, axis)
    if not weight.any():
        return lower
    shares = weight.astype(values.dtype).reshape([-1 if d == axis else 1 for d in range(values.ndim)])
    upper = values.take(above, axis)
    with np.errstate(invalid="ignore"):  # inf - inf becomes NaN, which whoever wants finite values refuses
        upper -= lower
        upper *= shares
        upper += lower
    return upper
