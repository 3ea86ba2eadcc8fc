"""Boxes of a plain C-order array in a file, by positioned reads and writes.

No memory map: what is mapped counts as resident memory, and grows with the file. NIfTI's arrays, whose first axis
runs fastest, are C-order arrays with their axes reversed.

    row      what a box takes of the fastest axis: one contiguous run of bytes
    slab     the rows of one step along the axes before the last two; read in one go with what lies between them
             where that is little, else row by row
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medseg.errors import ScanError
from medseg.geometry import Box

Pread = Callable[[int, int], bytes | NDArray]
"""(size, offset) -> that many bytes, or fewer at the end of the file."""

BLOCK_BYTES = 4 << 20
"""The most that is read at once beyond a single row."""


@dataclass(frozen=True)
class RawArray:
    """A C-order array of ``shape`` and ``dtype`` that begins ``offset`` bytes into a file.

    ``gap`` is how many bytes between two rows are read and dropped rather than jumped over.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    offset: int = 0
    gap: int = 4096

    @property
    def nbytes(self) -> int:
        """The bytes of the whole array."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def end(self) -> int:
        """The least size of a file that holds the array."""
        return self.offset + self.nbytes

    def read(self, pread: Pread, box: Box) -> NDArray:
        """The voxels of a box within the array, a new array of the stored dtype.

        Raises:
            ScanError: where the file ends too early.
        """
        out = np.empty(box.shape, self.dtype)
        for index, rows, pitch, start in self._slabs(box):
            _read_rows(pread, out[index].reshape(rows, -1), pitch, start, self.gap)
        return out

    def write(self, fd: int, box: Box, values: NDArray) -> None:
        """Writes the voxels of a box within the array; raises OSError where the disk refuses."""
        values = np.ascontiguousarray(values, dtype=self.dtype)
        for index, rows, pitch, start in self._slabs(box):
            for row, run in enumerate(values[index].reshape(rows, -1)):
                pwrite_all(fd, run.view(np.uint8).data, start + row * pitch)

    def _slabs(self, box: Box) -> Iterator[tuple[tuple[int, ...], int, int, int]]:
        """(index into the outer axes, number of rows, bytes from row to row, offset of the first) of each slab."""
        shape, start, stop = _merged(self.shape, box)
        pitch = shape[-1] * self.dtype.itemsize
        outer = [range(a, b) for a, b in zip(start[:-2], stop[:-2], strict=True)]
        sizes = [math.prod(shape[axis + 1 : -1]) for axis in range(len(shape) - 1)]
        inner = start[-2] * pitch + start[-1] * self.dtype.itemsize
        for index in product(*outer):
            rows_before = sum(i * n for i, n in zip(index, sizes, strict=False))
            position = self.offset + rows_before * pitch + inner
            here = tuple(i - a for i, a in zip(index, start[:-2], strict=True))
            yield here, stop[-2] - start[-2], pitch, position


def _merged(shape: Sequence[int], box: Box) -> tuple[list[int], list[int], list[int]]:
    """Shape, start and stop with the fastest axes that the box spans wholly merged, and at least two axes."""
    n, a, b = list(shape), list(box.start), list(box.stop)
    while len(n) > 2 and (a[-1], b[-1]) == (0, n[-1]):
        width = n.pop()
        a.pop()
        b.pop()
        n[-1], a[-1], b[-1] = n[-1] * width, a[-1] * width, b[-1] * width
    while len(n) < 2:
        n, a, b = [1, *n], [0, *a], [1, *b]
    return n, a, b


def _read_rows(pread: Pread, out: NDArray, pitch: int, start: int, gap: int) -> None:
    """Fills ``out`` (rows, width): several rows at once where the gap between them is small."""
    width = out.shape[1] * out.itemsize
    step = max(1, BLOCK_BYTES // pitch) if pitch - width <= gap else 1
    for first in range(0, len(out), step):
        rows = out[first : first + step]
        data = _exactly(pread, (len(rows) - 1) * pitch + width, start + first * pitch)
        if len(rows) == 1 or pitch == width:
            rows.reshape(-1).view(np.uint8)[:] = data
        else:
            strided = np.lib.stride_tricks.as_strided(data, (len(rows), width), (pitch, 1), writeable=False)
            rows.view(np.uint8)[:] = strided


def _exactly(pread: Pread, size: int, offset: int) -> NDArray:
    data = np.frombuffer(pread(size, offset), np.uint8)
    if data.size != size:
        raise ScanError(f"the file ends at byte {offset + data.size}, {size - data.size} bytes too early")
    return data


def pread_file(path: Path) -> Pread:
    """Positioned reads of a file that is opened anew each time: no handle is held, shared or inherited."""

    def pread(size: int, offset: int) -> bytes:
        fd = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        try:
            return pread_all(fd, size, offset)
        finally:
            os.close(fd)

    return pread


def pread_all(fd: int, size: int, offset: int) -> bytes:
    """As ``os.pread``, which may return less than asked: fewer bytes than ``size`` only at the end of the file."""
    data = os.pread(fd, size, offset)
    while 0 < len(data) < size:
        more = os.pread(fd, size - len(data), offset + len(data))
        if not more:
            break
        data += more
    return data


def pwrite_all(fd: int, data: memoryview, offset: int) -> None:
    """As ``os.pwrite``, which may write less than asked."""
    while len(data):
        written = os.pwrite(fd, data, offset)
        data, offset = data[written:], offset + written
