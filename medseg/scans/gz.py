"""Positioned reads of a gzip file."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medseg.errors import ScanError
from medseg.scans.cache import PIECES

LEAST_BLOCK_BYTES = 1 << 20
MOST_POINTS = 1024
"""Of the seek index: 32 KiB of window each, so that the index does not grow with the file."""


class GzipBytes:
    """The uncompressed bytes of a gzip file, by indexed_gzip: the first pass leaves points to start from again.

    Reading from between two points inflates from the point before, so bytes are read in aligned blocks as long as
    the points are apart, and the last blocks are kept.
    """

    def __init__(self, path: Path, name: str, size: int) -> None:
        from indexed_gzip import IndexedGzipFile

        self._name = name
        self._size = size
        self._block = max(LEAST_BLOCK_BYTES, -(-size // MOST_POINTS))
        self._lock = threading.Lock()
        self._file = IndexedGzipFile(str(path), spacing=self._block, buffer_size=1 << 14)
        self._key = object()

    def pread(self, size: int, offset: int) -> NDArray:
        """``size`` bytes at ``offset``.

        Raises:
            ScanError: where the stream is damaged or ends before its ``size``.
        """
        out = np.empty(size, np.uint8)
        done = 0
        while done < size:
            number, within = divmod(offset + done, self._block)
            block = PIECES.get((self._key, number), lambda n=number: self._inflate(n))  # type: ignore[misc]
            piece = block[within : within + size - done]
            out[done : done + piece.size] = piece
            done += piece.size
        return out

    def _inflate(self, number: int) -> NDArray:
        start = number * self._block
        wanted = min(self._block, self._size - start)
        with self._lock:
            self._file.seek(start)
            data = self._file.read(wanted) if self._file.tell() == start else b""
        if len(data) < wanted:
            raise ScanError(
                f"{self._name}: the gzip stream is cut short: {self._size} bytes are expected uncompressed, "
                f"and reading stopped before byte {start + wanted}; fetch the file again"
            )
        return np.frombuffer(data, np.uint8)
