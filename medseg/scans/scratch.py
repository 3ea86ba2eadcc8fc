"""A mask as a raw array in a partial file, turned into its format when it is complete.

Boxes come in any order, yet a gzip stream, a PNG or a compressed TIFF must be written from front to back. So labels go
to where they belong in a sparse file beside the final one, and closing streams that file through the encoder. An
uncompressed NIfTI is such a file already.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medseg.geometry import Box
from medseg.scans.raw import RawArray, pread_all, pwrite_all
from medseg.scans.sink import Request, as_output_error, fitted, not_there, publish, remove, sync


class Scratch:
    """The partial file as its encoder sees it."""

    def __init__(self, fd: int, layout: RawArray) -> None:
        self.fd = fd
        self.layout = layout

    def pread(self, size: int, offset: int) -> bytes:
        """Positioned bytes."""
        return pread_all(self.fd, size, offset)

    def read(self, box: Box) -> NDArray:
        """A box of the layout's array."""
        return self.layout.read(self.pread, box)


Encode = Callable[[Scratch, Path], None]

HEAD_BYTES = 8192
"""What a file of any format takes at most beyond its voxels, their compression and the tables of their places."""


def deflated_bytes(nbytes: int) -> int:
    """The most that zlib makes of so many bytes: a little more than they are."""
    return nbytes + nbytes // 1000 + 64


class ScratchSink:
    """A mask sink over a partial file.

    Args:
        request: what is asked for.
        head: the bytes that the file begins with; they tell one layout from another when a run is resumed.
        dtype: as stored, with its byte order.
        order: the file's axes, slowest first, as indices into the array that is written (channels in front).
        encode: writes the final file from the scratch; None where the scratch is the final file.

    Attributes:
        resumed: whether it goes on with what an interrupted sink left.
    """

    def __init__(
        self,
        request: Request,
        head: bytes,
        dtype: np.dtype,
        order: Sequence[int],
        encode: Encode | None = None,
    ) -> None:
        self.request = request
        self.order = tuple(order)
        shape = tuple(request.array_shape[axis] for axis in self.order)
        self.layout = RawArray(shape, dtype, len(head))
        self._encode = encode
        with as_output_error(request.path):
            self._fd, self.resumed = _open_partial(request, head, self.layout)
        self._finalizer = weakref.finalize(self, os.close, self._fd)

    @property
    def chunks(self) -> tuple[int, ...]:
        """Any box is cheap."""
        return (1,) * len(self.request.shape)

    def write(self, box: Box, labels: NDArray) -> None:
        """Writes the labels of a box."""
        values = fitted(self.request, box, labels).transpose(self.order)
        lead = len(self.request.array_shape) - box.ndim
        start = (0,) * lead + box.start
        stop = self.request.array_shape[:lead] + box.stop
        stored = Box(tuple(start[a] for a in self.order), tuple(stop[a] for a in self.order))
        if box.voxels:
            with as_output_error(self.request.path):
                self.layout.write(self._fd, stored, values)

    def flush(self) -> None:
        """Every write has reached the operating system already, and so outlives this process."""

    def close(self) -> None:
        """Encodes the mask and gives it its final name; a mask that was joined is left to its creator."""
        if not self._finalizer.alive:
            return
        if not self.request.join:
            with as_output_error(self.request.path):
                self._complete()
        self._finalizer()

    def _complete(self) -> None:
        request = self.request
        if self._encode is None:
            os.fsync(self._fd)
            publish(request.partial, request.path)
            return
        finished = request.path.with_name(f".{request.path.name}.closing")
        try:
            self._encode(Scratch(self._fd, self.layout), finished)
            sync(finished)
        except BaseException:
            remove(finished)
            raise
        publish(finished, request.path)
        remove(request.partial)


def _open_partial(request: Request, head: bytes, layout: RawArray) -> tuple[int, bool]:
    """A file of the layout that begins with ``head``: the one that is there (True), if it may be, or all zeros."""
    path = request.partial
    if (request.resume or request.join) and path.is_file() and path.stat().st_size == layout.end:
        fd = os.open(path, os.O_RDWR)
        if pread_all(fd, len(head), 0) == head:
            return fd, True
        os.close(fd)
    if request.join:
        raise not_there(request)
    remove(path)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        os.ftruncate(fd, layout.end)
        pwrite_all(fd, memoryview(head), 0)
    except OSError:
        os.close(fd)
        raise
    return fd, False
