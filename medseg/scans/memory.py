"""Scans and masks that are arrays in memory."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.errors import ScanError
from medseg.geometry import Box
from medseg.scans.header import Header, HeaderScan
from medseg.scans.sink import Request, fitted

AXES = {2: "YX", 3: "ZYX"}
"""What the axes of arrays are called, which say nothing of themselves: as in a picture or a stack of pictures."""


class ArrayScan(HeaderScan):
    """An array (C, *spatial) as a scan: identity affine, unit «pixel».

    Raises:
        ScanError: for another number of axes than 3 or 4, no voxels, or values that are no real numbers.
    """

    def __init__(self, array: NDArray, name: str = "array") -> None:
        if array.ndim - 1 not in AXES:
            raise ScanError(f"{name}: an array must be (channels, *spatial) of 3 or 4 axes; its shape is {array.shape}")
        if array.dtype.kind not in "buif":
            raise ScanError(f"{name}: values of type {array.dtype} are not real numbers")
        dtype = np.dtype(np.uint8) if array.dtype.kind == "b" else array.dtype
        channels, *shape = array.shape
        super().__init__(Header(name, tuple(shape), channels, dtype, AXES[len(shape)], np.eye(4), "pixel"))
        self._array = array

    def _read(self, box: Box) -> NDArray:
        return np.array(self._array[(slice(None), *box.slices)], dtype=self.dtype, order="C")


class MemorySink:
    """A mask that is written into ``array``: (*shape), or (K, *shape) with channels."""

    resumed = False

    def __init__(self, request: Request) -> None:
        self.request = request
        self.array: NDArray = np.zeros(request.array_shape, request.dtype)

    @property
    def chunks(self) -> tuple[int, ...]:
        """Any box is cheap."""
        return (1,) * len(self.request.shape)

    def write(self, box: Box, labels: NDArray) -> None:
        """Writes the labels of a box."""
        where: Any = (..., *box.slices)
        self.array[where] = fitted(self.request, box, labels)

    def flush(self) -> None:
        """Memory does not outlive its process: nothing to do."""

    def close(self) -> None:
        """Nothing to complete."""
