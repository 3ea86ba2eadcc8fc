"""A box that overhangs its scan, filled by mirror extrapolation.

The mirror is index arithmetic on scan coordinates, one axis at a time: along n voxels the indices run

    ...  2  1 | 0  1  2 ... n-2  n-1 | n-2 ...  1  0  1 ...

with period 2(n - 1), without repeating the edge, as often as needed: a halo may be larger than the scan, and an
axis of one voxel repeats it. Padding a cropped block instead would mirror at the block's edge, not at the scan's.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from medseg.geometry import Box
from medseg.scans.protocol import Scan


def mirrored(start: int, stop: int, n: int) -> NDArray[np.intp]:
    """Where each index of ``start:stop`` lies in ``[0, n)`` once mirrored.

    >>> mirrored(-2, 5, 3)
    array([2, 1, 0, 1, 2, 1, 0])
    """
    if n == 1:
        return np.zeros(max(stop - start, 0), dtype=np.intp)
    index = np.arange(start, stop, dtype=np.intp) % (2 * (n - 1))
    return np.minimum(index, 2 * (n - 1) - index)


def read_mirrored(scan: Scan, box: Box) -> NDArray:
    """The voxels of a box that may overhang the scan: (C, *box.shape).

    The smallest box within the scan that holds all that is needed is read once. Equals
    ``np.pad(whole, ..., mode="reflect")`` at the box.

    Raises:
        GridError: where the box has other axes than the scan.
        ScanError: where the file is damaged.
    """
    if box.ndim != len(scan.shape) or box.within(scan.shape):
        return scan.read(box)
    if not box.voxels:
        return np.empty((scan.channels, *box.shape), scan.dtype)
    indices = [mirrored(a, b, n) for a, b, n in zip(box.start, box.stop, scan.shape, strict=True)]
    first = [int(i.min()) for i in indices]
    source = Box(tuple(first), tuple(int(i.max()) + 1 for i in indices))
    voxels = scan.read(source)
    for axis, index in enumerate(indices):
        if box.start[axis] < 0 or box.stop[axis] > scan.shape[axis]:
            voxels = np.take(voxels, index - first[axis], axis=axis + 1)
    return voxels
