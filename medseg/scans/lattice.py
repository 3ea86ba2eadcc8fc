"""Where a scan's voxels lie to each other: in rows at right angles, or askew where a tilted gantry shears the slices.

        . . . .              . . . .
        . . . .                . . . .
        . . . .                  . . . .
    steps (d,): what lies    steps (d, d): column j leads from a voxel to the next along axis j; turned so that the
    between voxels           matrix is upper triangular, for distances don't depend on how a scan lies

Legend: d axes, n points. A place is the steps times a voxel index; places and steps have the same unit of length.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product

import numpy as np
from numpy.typing import NDArray

from medseg.scans.protocol import Scan

ROUNDING = 1e-5
"""The cosine of the angle between two axes up to which it is a right one: headers round to few digits."""


def steps_of(scan: Scan) -> NDArray[np.float64]:
    """The steps between a scan's voxels in mm: (d,) where its axes are at right angles, else (d, d)."""
    columns, spacing = scan.affine[:3, : len(scan.shape)], np.array(scan.spacing_mm, np.float64)
    askew = np.abs(columns.T @ columns) > ROUNDING * np.outer(spacing, spacing)
    return np.linalg.qr(columns).R if np.triu(askew, 1).any() else spacing


def places(indices: NDArray, steps: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, d) voxel indices → (n, d) where they lie."""
    return indices * steps if steps.ndim == 1 else indices @ steps.T


def bounds(low: NDArray, high: NDArray, steps: NDArray[np.float64]) -> tuple[NDArray, NDArray]:
    """(n, d) the least and largest voxel indices of n boxes → (n, d) those of the boxes around their places."""
    if steps.ndim == 1:
        return low * steps, high * steps
    up, down = np.maximum(steps, 0).T, np.minimum(steps, 0).T
    return low @ up + high @ down, high @ up + low @ down


def volume(steps: NDArray[np.float64]) -> float:
    """The volume (in two axes the area) of a voxel."""
    return float(math.prod(steps) if steps.ndim == 1 else abs(np.linalg.det(steps)))


def diagonal(shape: Sequence[int], steps: NDArray[np.float64] | Sequence[float]) -> float:
    """The largest distance between two voxels of a scan, which are two of its corners."""
    lengths, across = np.array(shape) - 1, np.asarray(steps, np.float64)
    if across.ndim == 1:
        return math.hypot(*(lengths * across))
    return max(math.hypot(*(across @ (lengths * signs))) for signs in product((-1, 1), repeat=lengths.size))
