"""Kernels and strides of a U-Net's levels: as deep as its window has room for, coarse axes later (nnU-Net's rule)."""

from __future__ import annotations

from collections.abc import Sequence

LEAST_MAP = 4
"""Voxels along each axis that the coarsest maps have at least (nnU-Net's)."""
LEAST_DEPTH, MOST_DEPTH = 2, {2: 8, 3: 6}
"""Halvings: what DynUNet has at least, and what the largest windows of nnU-Net's published plans have."""


def levels_of(shape: Sequence[int], spacing_mm: Sequence[float]) -> tuple[list[list[int]], list[list[int]]]:
    """Strides between the levels of a U-Net and kernels of each level, one number an axis, as nnU-Net has them.

    An axis is halved while it keeps :data:`LEAST_MAP` voxels and its voxels are less than twice as long as the
    shortest of those that are; it is convolved along from the level on where that is so.
    """
    size, spacing = list(shape), list(spacing_mm)
    kernel = [1] * len(size)
    strides: list[list[int]] = []
    kernels: list[list[int]] = []
    while len(strides) < MOST_DEPTH[len(size)]:
        kernel = [3 if k == 3 or s < 2 * min(spacing) else 1 for k, s in zip(kernel, spacing, strict=True)]
        halved = _halved_next(size, spacing)
        if not halved:
            break
        kernels.append(kernel)
        strides.append([2 if axis in halved else 1 for axis in range(len(size))])
        for axis in halved:
            size[axis], spacing[axis] = -(-size[axis] // 2), 2 * spacing[axis]
    while len(strides) < LEAST_DEPTH:
        kernels.append([3] * len(size))
        strides.append([2] * len(size))
    return strides, [*kernels, [3] * len(size)]


def _halved_next(size: Sequence[int], spacing: Sequence[float]) -> list[int]:
    able = [axis for axis, n in enumerate(size) if n >= 2 * LEAST_MAP]
    finest = min((spacing[axis] for axis in able), default=0.0)
    able = [axis for axis in able if spacing[axis] < 2 * finest]
    return [] if len(able) == 1 and size[able[0]] < 3 * LEAST_MAP else able
