"""MetaImage (.mha, .mhd) and NRRD (.nrrd, .nhdr): what ITK's programs write.

Axes are the file's own (X, Y, Z), X fastest. Plain values are read by position. A compressed stream can only be read
from its front, so the first read copies it, slab by slab, into a Zarr in the cache folder, where later processes find
it; :mod:`medseg.scans.metaimage` and :mod:`medseg.scans.nrrd` say what the headers mean.
"""

from __future__ import annotations

import bz2
import fcntl
import gzip
import io
import logging
import math
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
from numpy.typing import NDArray

from medseg.errors import ScanError
from medseg.files import digest_of, partial_of
from medseg.geometry import Box
from medseg.scans import metaimage, nrrd
from medseg.scans.cache_folder import cache_folder, key_of
from medseg.scans.formats import suffix_of
from medseg.scans.header import FileScan, as_scan_error
from medseg.scans.itk_header import Stored
from medseg.scans.raw import Pread, RawArray, pread_file
from medseg.scans.sink import remove, sync
from medseg.scans.zarr import Chunked

SLAB_BYTES = 32 << 20
"""What a copy holds of a stream at a time."""

DEPTH = 64
CHUNK_BYTES = 1 << 20
"""A copy's chunks: at most so many voxels along a slab's slowest axis, and about so many bytes."""

BLOCK_BYTES = 1 << 20

PARSERS = {".mha": metaimage.parse, ".mhd": metaimage.parse, ".nrrd": nrrd.parse, ".nhdr": nrrd.parse}


class Source(Protocol):
    """A stored array."""

    def read(self, box: Box, out: NDArray) -> None:
        """Fills ``out`` (box.shape) with the values of a box."""


class ItkScan(FileScan):
    """A MetaImage or NRRD. ``roles`` are the letters of the stored axes, slowest first."""

    def __init__(self, stored: Stored) -> None:
        super().__init__(stored.header)
        self._roles = stored.roles
        self._source: Source = _Copied(stored) if stored.compression else _Plain(stored)
        self._data = stored.data

    @property
    def files(self) -> tuple[Path, ...]:
        """The header's, and the voxels' where they are apart."""
        return tuple(dict.fromkeys((Path(self.name), self._data)))

    def _read(self, box: Box) -> NDArray:
        out = np.empty((self.channels, *box.shape), self.dtype)
        letters = "C" + self.axes
        sides = dict(zip(letters, [(0, self.channels), *zip(box.start, box.stop, strict=True)], strict=True))
        stored = Box(tuple(sides[r][0] for r in self._roles), tuple(sides[r][1] for r in self._roles))
        order = [letters.index(role) for role in self._roles]
        view = out.transpose(order) if "C" in self._roles else out[0].transpose([axis - 1 for axis in order])
        self._source.read(stored, view)
        return out


def open_file(path: Path, name: str) -> ItkScan:
    """Opens a MetaImage or NRRD; only its header is read.

    Raises:
        ScanError: where it is damaged, cut short, holds what is no image, or its data file is missing or lies
            elsewhere.
    """
    with as_scan_error(name, "its header is damaged"):
        stored = PARSERS[suffix_of(path)](path, name)
        if not stored.compression:
            _check_size(stored, path)
        return ItkScan(stored)


def _check_size(stored: Stored, path: Path) -> None:
    layout, actual = stored.layout, stored.data.stat().st_size
    name = stored.header.name
    if layout.offset < 0 or layout.end > actual:
        wanted = max(layout.end, layout.nbytes)
        raise ScanError(f"{name}: is cut short: its header announces {wanted} bytes and there are {actual}")
    if stored.data != path and layout.end < actual:
        raise ScanError(
            f"{name}: its header announces {layout.end} bytes and {stored.data.name} holds {actual}; "
            "mend its sizes or type"
        )


class _Plain:
    """Values as they are, read by position."""

    def __init__(self, stored: Stored) -> None:
        self._layout = stored.layout
        self._pread: Pread = pread_file(stored.data)

    def read(self, box: Box, out: NDArray) -> None:
        out[...] = self._layout.read(self._pread, box)


class _Copied:
    """A compressed stream, copied when it is first read."""

    def __init__(self, stored: Stored) -> None:
        self._stored = stored
        self._lock = threading.Lock()
        self._chunked: Chunked | None = None

    def read(self, box: Box, out: NDArray) -> None:
        with self._lock:
            if self._chunked is None:
                self._chunked = Chunked(_copy_of(self._stored))
        self._chunked.read(box, out)


def _copy_of(stored: Stored) -> Any:
    """The array in the cache folder; made where it is not there, by one process at a time."""
    layout = stored.layout
    terms = [key_of(stored.data), layout.shape, layout.dtype.str, layout.offset, stored.stream, stored.compression]
    final = cache_folder() / f"{digest_of(terms)}.zarr"
    with open(final.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = _opened(final, layout)
        if found is not None:
            return found
        logging.getLogger("medseg").info(
            "%s: is one %s stream, which cannot be read by position; it is copied to %s once (%.1f GiB of values)",
            stored.header.name,
            stored.compression,
            final.parent,
            layout.nbytes / 2**30,
        )
        beside = partial_of(final)
        remove(beside)
        remove(final)
        try:
            _copy(stored, beside)
            sync(beside)
            beside.rename(final)
        except BaseException:
            remove(beside)
            raise
        return _opened(final, layout)


def _opened(path: Path, layout: RawArray) -> Any:
    """The array of a copy, or None where there is none of this layout."""
    import zarr

    try:
        array = zarr.open_array(str(path), mode="r")
    except (OSError, ValueError, KeyError):
        return None
    same = (array.shape, array.dtype) == (layout.shape, layout.dtype.newbyteorder("="))
    return array if same else None


def _copy(stored: Stored, path: Path) -> None:
    """Inflates a stream from front to back into a Zarr; holds one slab.

    A slab is as many steps along one axis as :data:`SLAB_BYTES` allow, and all of the axes after it.
    """
    import zarr
    from zarr.codecs import BloscCodec

    shape, dtype, name = stored.layout.shape, stored.layout.dtype, stored.header.name
    axis, depth = _slab(shape, dtype.itemsize)
    with _room(name, path.parent):
        array = zarr.create_array(
            str(path),
            shape=shape,
            chunks=_chunks(shape, axis, depth, dtype.itemsize),
            dtype=dtype.newbyteorder("="),
            compressors=BloscCodec(cname="zstd", clevel=1, shuffle="shuffle"),
        )
    with open(stored.data, "rb") as file:
        file.seek(stored.stream)
        stream = _inflated(file, stored.compression)
        _take(stream, stored.layout.offset, name)
        for outer in product(*map(range, shape[:axis])):
            for start in range(0, shape[axis], depth):
                stop = min(start + depth, shape[axis])
                part = (stop - start, *shape[axis + 1 :])
                values = _take(stream, math.prod(part) * dtype.itemsize, name).view(dtype).reshape(part)
                with _room(name, path.parent):
                    array[(*outer, slice(start, stop))] = values.astype(dtype.newbyteorder("="), copy=False)
        _check_end(stream, name)


def _slab(shape: tuple[int, ...], itemsize: int) -> tuple[int, int]:
    """The axis along which slabs are cut, and how long they are there."""
    for axis in range(len(shape)):
        step = math.prod(shape[axis + 1 :]) * itemsize
        if step <= SLAB_BYTES:
            break
    return axis, max(1, min(shape[axis], DEPTH if axis < len(shape) - 1 else shape[axis], SLAB_BYTES // step))


def _chunks(shape: tuple[int, ...], axis: int, depth: int, itemsize: int) -> tuple[int, ...]:
    """Chunks that a slab fills: one step along the axes before, its depth, and cubes or squares after."""
    after = shape[axis + 1 :]
    side = max(DEPTH, round((CHUNK_BYTES / (depth * itemsize)) ** (1 / max(1, len(after)))))
    return (*(1,) * axis, depth, *(min(side, n) for n in after))


def _take(stream: BinaryIO, size: int, name: str) -> NDArray:
    """The next bytes of a stream."""
    out = np.empty(size, np.uint8)
    done = 0
    with as_scan_error(name, "its compressed voxels are damaged or cut short"):
        while done < size:
            count = stream.readinto(out[done:].data)  # type: ignore[attr-defined]
            if not count:
                raise ScanError(f"{name}: is cut short: its compressed voxels end {size - done} bytes too early")
            done += count
    return out


def _check_end(stream: BinaryIO, name: str) -> None:
    """The stream ends here; reading its end verifies its checksum."""
    with as_scan_error(name, "its compressed voxels are damaged or cut short"):
        if stream.read(1):
            raise ScanError(f"{name}: holds more voxels than its header announces; mend its sizes or type")


@contextmanager
def _room(name: str, folder: Path) -> Iterator[None]:
    with as_scan_error(name, f"cannot be copied to the cache folder {folder}"):
        yield


def _inflated(file: BinaryIO, compression: str) -> BinaryIO:
    """The inflated bytes of the rest of a file."""
    if compression == "gzip":
        return gzip.GzipFile(fileobj=file)  # type: ignore[return-value]
    if compression == "bzip2":
        return bz2.BZ2File(file)  # type: ignore[return-value]
    return io.BufferedReader(_Zlib(file), BLOCK_BYTES)


class _Zlib(io.RawIOBase):
    """A zlib or gzip stream."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__()
        self._file = file
        self._decoder = zlib.decompressobj(wbits=47)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._decoder.eof:
            data = self._decoder.unconsumed_tail or self._file.read(BLOCK_BYTES)
            piece = self._decoder.decompress(data, len(buffer))
            if piece or not data:
                buffer[: len(piece)] = piece
                return len(piece)
        return 0
