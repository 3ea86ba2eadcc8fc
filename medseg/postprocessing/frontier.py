"""Where blocks meet: the last layer of voxels of every block that a later block still has to be joined to.

    blocks in C order, axis 0 downwards            what block ▣ meets

        ■ ■ ■ ■      done                          ■ ■ ■      the layer above it, one voxel wider on both sides
        ■ ■ ▣ □      ▣ now, □ to come              ■ ▣        and the layer before it

Two voxels of different blocks that touch are met once: along the first axis in which their blocks' places differ. A
layer spans the scan along the later axes, and one block along the earlier ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import DTypeLike, NDArray

from medseg.geometry import Box
from medseg.postprocessing.mask import Grid


@dataclass(frozen=True)
class Touching:
    """Voxels that touch, pair by pair: numbers and values of the one side and the other, arrays of one shape."""

    numbers: tuple[NDArray, NDArray]
    values: tuple[NDArray, NDArray]


@dataclass
class _Layer:
    numbers: NDArray
    values: NDArray

    @classmethod
    def empty(cls, shape: tuple[int, ...], dtype: DTypeLike) -> _Layer:
        return cls(np.zeros(shape, np.int64), np.zeros(shape, dtype))


class Frontier:
    """The layers of blocks that are done.

    Args:
        grid: the blocks.
        connectivity: along how many axes at once two voxels may be apart and touch: 1 to the number of axes.
        dtype: of the values.
    """

    def __init__(self, grid: Grid, connectivity: int, dtype: DTypeLike) -> None:
        self.grid = grid
        self._connectivity = connectivity
        self._cut = [axis for axis, count in enumerate(grid.counts) if count > 1]
        shapes = {axis: self._layer_shape(axis) for axis in self._cut}
        self._before = {axis: _Layer.empty(shape, dtype) for axis, shape in shapes.items()}
        self._next = {axis: _Layer.empty(shape, dtype) for axis, shape in shapes.items()}

    def meet(self, index: int, numbers: NDArray, values: NDArray) -> Iterator[Touching]:
        """What a block touches of the blocks before it, for each way in which voxels can touch; then it is kept.

        Args:
            index: the block's; blocks come in their order.
            numbers: (\\*box.shape) int64.
            values: (\\*box.shape).
        """
        place, box = self.grid.place(index), self.grid.box(index)
        for axis in self._cut:
            if not any(place[axis + 1 :]):
                self._before[axis], self._next[axis] = self._next[axis], self._before[axis]
            if place[axis]:
                yield from self._across(axis, box, numbers, values)
        for axis in self._cut:
            here = self._in_layer(axis, box)
            last = _one(axis, box.shape[axis] - 1, box.ndim)
            self._next[axis].numbers[here] = numbers[last]
            self._next[axis].values[here] = values[last]

    def _layer_shape(self, axis: int) -> tuple[int, ...]:
        return (*self.grid.sides[:axis], 1, *self.grid.shape[axis + 1 :])

    def _in_layer(self, axis: int, box: Box) -> tuple[slice, ...]:
        """The block's place in the layer across ``axis``."""
        own = (slice(0, n) for n in box.shape[:axis])
        return (*own, slice(0, 1), *box.slices[axis + 1 :])

    def _across(self, axis: int, box: Box, numbers: NDArray, values: NDArray) -> Iterator[Touching]:
        layer, first = self._before[axis], _one(axis, 0, box.ndim)
        near_numbers, near_values = numbers[first], values[first]
        for offset in self._offsets(axis, box.ndim):
            near, far = self._shifted(axis, box, offset)
            yield Touching(
                (near_numbers[near], layer.numbers[far]),
                (near_values[near], layer.values[far]),
            )

    def _offsets(self, axis: int, dims: int) -> Iterator[tuple[int, ...]]:
        """Steps along the other axes."""
        for offset in product(*((0,) if a == axis else (-1, 0, 1) for a in range(dims))):
            if np.count_nonzero(offset) < self._connectivity:
                yield offset

    def _shifted(self, axis: int, box: Box, offset: tuple[int, ...]) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
        """The part of a block's first layer, and the part of the layer before it, that lie a step apart."""
        near, far = [], []
        for a, (start, size, step) in enumerate(zip(box.start, box.shape, offset, strict=True)):
            if a == axis:
                near.append(slice(0, 1))
                far.append(slice(0, 1))
                continue
            base, end = (0, size) if a < axis else (start, self.grid.shape[a])
            low, high = max(0, -(base + step)), min(size, end - base - step)
            near.append(slice(low, high))
            far.append(slice(base + low + step, base + high + step))
        return tuple(near), tuple(far)


def _one(axis: int, index: int, dims: int) -> tuple[slice, ...]:
    """One layer of a block, its axis kept."""
    return tuple(slice(index, index + 1) if a == axis else slice(None) for a in range(dims))
