"""Sets of border voxels of any size: kept in chunks, in memory while they are few and in a temporary file beyond.

Legend: n points, d axes.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO

import numpy as np
from numpy.typing import NDArray

CHUNK = 1 << 19
"""Points of a chunk at most: what one tree holds."""
KEPT = 1 << 22
"""Points of a set that stay in memory; the others wait in a file."""


@dataclass(frozen=True)
class Chunk:
    """Points that lie near each other.

    Attributes:
        count: how many.
        low: (d,) the least voxel index on each axis.
        high: (d,) the largest.
        codes: (count,) the points, or None where they are in the file.
        place: where in the file they begin, in bytes.
    """

    count: int
    low: NDArray[np.int64]
    high: NDArray[np.int64]
    codes: NDArray[np.int64] | None
    place: int


class Points:
    """The border voxels of one class in one mask, in the order in which they were found.

    A point is one integer: twice its index in the scan (C order), plus 1 where the other mask has the same border
    voxel.

    Args:
        shape: (d,) of the scan.
    """

    def __init__(self, shape: Sequence[int]) -> None:
        self.shape = tuple(shape)
        self.chunks: list[Chunk] = []
        self.count = 0
        self._waiting: list[NDArray[np.int64]] = []
        self._file: IO[bytes] | None = None

    def add(self, codes: NDArray[np.int64]) -> None:
        """Takes (n,) points."""
        self.count += codes.size
        self._waiting.append(codes)
        if sum(part.size for part in self._waiting) >= CHUNK:
            self._close_chunks()

    def finish(self) -> Points:
        """All points have come; returns itself."""
        self._close_chunks()
        return self

    def read(self, chunk: Chunk) -> NDArray[np.int64]:
        """(count,) the points of a chunk."""
        if chunk.codes is not None:
            return chunk.codes
        if self._file is None:
            raise ValueError("this chunk is not of these points")
        self._file.seek(chunk.place)
        return np.frombuffer(self._file.read(8 * chunk.count), np.int64)

    def indices(self, codes: NDArray[np.int64]) -> NDArray[np.int64]:
        """(n, d) voxel indices of points."""
        return np.stack(np.unravel_index(codes >> 1, self.shape), axis=1)

    def _close_chunks(self) -> None:
        if not self._waiting:
            return
        together = self._waiting[0] if len(self._waiting) == 1 else np.concatenate(self._waiting)
        self._waiting = []
        for start in range(0, together.size, CHUNK):
            self.chunks.append(self._chunk(together[start : start + CHUNK]))

    def _chunk(self, codes: NDArray[np.int64]) -> Chunk:
        where = self.indices(codes)
        low, high = where.min(0), where.max(0)
        if sum(chunk.count for chunk in self.chunks if chunk.codes is not None) < KEPT:
            return Chunk(codes.size, low, high, codes.copy(), 0)
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="medseg-points-")  # noqa: SIM115 - lives as long as the points
        place = self._file.seek(0, 2)
        self._file.write(codes.tobytes())
        return Chunk(codes.size, low, high, None, place)
