"""Positioned reads of a gzip file."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import threading
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.errors import ScanError
from medseg.scans.cache import PIECES
from medseg.scans.cache_folder import cache_folder, key_of

LEAST_BLOCK_BYTES = 1 << 20
MOST_POINTS = 1024
"""Of the seek index: 32 KiB of window each, so that the index does not grow with the file."""

KEPT_FROM_BYTES = 256 << 20
"""The least uncompressed size whose index is kept for the next process; shorter streams are inflated in a second."""

DIGEST_BYTES = hashlib.sha256().digest_size


class GzipBytes:
    """The uncompressed bytes of a gzip file, by indexed_gzip: the first pass leaves points to start from again.

    Reading from between two points inflates from the point before, so bytes are read in aligned blocks as long as
    the points are apart, and the last blocks are kept. Once the stream's end has been reached, the points go into the
    cache folder, where the next process finds them.
    """

    def __init__(self, path: Path, name: str, size: int) -> None:
        from indexed_gzip import IndexedGzipFile

        self._name = name
        self._size = size
        self._block = max(LEAST_BLOCK_BYTES, -(-size // MOST_POINTS))
        self._lock = threading.Lock()
        self._open = partial(IndexedGzipFile, str(path), spacing=self._block, buffer_size=1 << 14)
        self._file = self._open()
        self._index = KeptIndex(path) if size >= KEPT_FROM_BYTES else None
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
            if self._index and not self._index.tried and not self._index.load(self._file):
                self._file = self._open()
            self._file.seek(start)
            data = self._file.read(wanted) if self._file.tell() == start else b""
            if self._index and start + len(data) == self._size:
                self._index.save(self._file)
        if len(data) < wanted:
            raise ScanError(
                f"{self._name}: the gzip stream is cut short: {self._size} bytes are expected uncompressed, "
                f"and reading stopped before byte {start + wanted}; fetch the file again"
            )
        return np.frombuffer(data, np.uint8)


class KeptIndex:
    """The seek index of one gzip file in the cache folder: a digest, and indexed_gzip's own bytes.

    It goes without, silently, where the folder cannot be written or what lies there is damaged or of another file.

    Attributes:
        tried: whether it has been looked for.
    """

    def __init__(self, path: Path) -> None:
        self.tried = False
        self._path = path
        self._place: Path | None = None

    def load(self, file: Any) -> bool:
        """Takes up a kept index; after False the file must be opened anew."""
        self.tried = True
        with contextlib.suppress(Exception):  # indexed_gzip raises kinds of its own
            self._place = cache_folder() / f"{key_of(self._path)}.gzidx"
            kept = self._place.read_bytes()
            if hashlib.sha256(kept[DIGEST_BYTES:]).digest() == kept[:DIGEST_BYTES]:
                file.import_index(fileobj=io.BytesIO(kept[DIGEST_BYTES:]))
                self._place = None
                return True
        return False

    def save(self, file: Any) -> None:
        """Keeps the points of a file that has been read to its end, unless that is where they come from."""
        place, self._place = self._place, None
        if place is not None:
            with contextlib.suppress(OSError):
                points = io.BytesIO()
                file.export_index(fileobj=points)
                content = points.getvalue()
                beside = place.with_name(f".{place.name}.{os.getpid()}.partial")
                beside.write_bytes(hashlib.sha256(content).digest() + content)
                os.replace(beside, place)
