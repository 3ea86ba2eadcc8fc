"""Walking through a scan of any size, block by block."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import product

from medseg.geometry import Box
from medseg.scans.protocol import Scan

BLOCK_VOXELS = 1 << 22
"""The most voxels that are looked at at once."""

STEP = 64
"""Blocks end at multiples of it where they can, as most chunks do."""


def blocks(scan: Scan, voxels: int = BLOCK_VOXELS) -> Iterator[Box]:
    """Boxes that partition a scan, of about so many voxels at most, whole along the axes that its file runs fastest."""
    yield from boxes(scan.shape, _sides(scan, voxels))


def boxes(shape: Sequence[int], block: Sequence[int]) -> Iterator[Box]:
    """Boxes of at most ``block`` voxels an axis that partition a shape."""
    for start in product(*(range(0, n, b) for n, b in zip(shape, block, strict=True))):
        yield Box(start, tuple(a + b for a, b in zip(start, block, strict=True))).clip(shape)


def _sides(scan: Scan, voxels: int) -> list[int]:
    sides = list(scan.shape)
    axes = range(len(sides))
    for axis in reversed(axes) if scan.axes.startswith("X") else axes:
        others = math.prod(sides) // sides[axis]
        fitting = voxels // others
        sides[axis] = min(sides[axis], max(fitting // STEP * STEP, min(fitting, STEP), 1))
        if fitting >= 1:
            break
        sides[axis] = min(scan.shape[axis], STEP)
    return sides
