"""The coarser levels of a mask, each from the level before.

    level 0    o o o o o o o      a labels' level holds every second voxel of the one before,
    level 1    o   o   o   o      at the same places;
    level 1     x   x   x   x     a probabilities' level the means of 2 voxels an axis, which lie between them

An axis is halved only while its voxels are not already coarser than twice the finest, so that thick slices stay until
the pixels within them are as large.

Legend: C channels, if any.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.geometry import Box

LARGEST = {2: 256, 3: 64}
"""The last level's longest side is at most this."""


@dataclass(frozen=True)
class Level:
    """One level.

    Attributes:
        shape: its spatial shape.
        factor: the voxels of level 0 that make one of its own, along each axis.
    """

    shape: tuple[int, ...]
    factor: tuple[int, ...]

    def halved(self, spacing_mm: Sequence[float]) -> Level:
        """The next level of an array whose level 0 has this spacing."""
        sizes = [s * f for s, f in zip(spacing_mm, self.factor, strict=True)]
        finest = min(size for size, n in zip(sizes, self.shape, strict=True) if n > 1)
        by = [2 if n > 1 and size <= 2 * finest else 1 for size, n in zip(sizes, self.shape, strict=True)]
        shape = tuple(-(-n // b) for n, b in zip(self.shape, by, strict=True))
        return Level(shape, tuple(f * b for f, b in zip(self.factor, by, strict=True)))


def levels_of(shape: Sequence[int], spacing_mm: Sequence[float]) -> list[Level]:
    """Level 0 and all that follow, until one is small.

    >>> [level.shape for level in levels_of((30, 500, 400), (4.0, 1.0, 1.0))]
    [(30, 500, 400), (30, 250, 200), (15, 125, 100), (8, 63, 50)]
    """
    levels = [Level(tuple(shape), (1,) * len(shape))]
    while max(levels[-1].shape) > LARGEST[len(levels[-1].shape)]:
        levels.append(levels[-1].halved(spacing_mm))
    return levels


def step_of(fine: Level, coarse: Level) -> tuple[int, ...]:
    """By how much each axis shrinks from one level to another: 1 or 2 between neighbours."""
    return tuple(b // a for a, b in zip(fine.factor, coarse.factor, strict=True))


def source_of(box: Box, step: Sequence[int], shape: Sequence[int]) -> Box:
    """The box of the finer level, of this shape, that makes a box of the coarser one."""
    start = tuple(a * s for a, s in zip(box.start, step, strict=True))
    return Box(start, tuple(min(b * s, n) for b, s, n in zip(box.stop, step, shape, strict=True)))


def every_second(values: NDArray, step: Sequence[int]) -> NDArray:
    """(C, \\*box) → (C, \\*coarser box): the first voxel of each step."""
    where: Any = (..., *(slice(None, None, s) for s in step))
    return values[where]


def mean(values: NDArray, step: Sequence[int]) -> NDArray:
    """(C, \\*box) → (C, \\*coarser box), of the same type: the means of what each step holds, rounded for integers."""
    wide = values.astype(np.float64 if values.dtype.itemsize > 4 else np.float32)
    lead = values.ndim - len(step)
    for axis, halve in enumerate(step, lead):
        if halve == 2:
            wide = _mean_of_pairs(np.moveaxis(wide, axis, 0))
            wide = np.moveaxis(wide, 0, axis)
    return (np.rint(wide) if values.dtype.kind in "iu" else wide).astype(values.dtype)


def _mean_of_pairs(values: NDArray) -> NDArray:
    """Along the first axis; the last voxel of an odd number stays as it is."""
    means = values[::2].copy()
    odd = values[1::2]
    means[: len(odd)] = (means[: len(odd)] + odd) / 2
    return means
