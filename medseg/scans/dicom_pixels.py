"""The pixels of one DICOM file: where they lie, and how a part of one frame is read.

Grey values that are stored as they are, are read by position. A compressed or coloured frame is decoded whole by
pydicom's decoders, and the last ones are kept (:mod:`medseg.scans.cache`).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from medseg.errors import ScanError
from medseg.geometry import Box
from medseg.scans.cache import PIECES
from medseg.scans.contents import opened
from medseg.scans.dicom_format import PixelFormat
from medseg.scans.gz import GzipBytes
from medseg.scans.raw import Pread, RawArray, pread_file

PLUGINS = {"1.2.840.10008.1.2.5": "pydicom"}
"""Decoders that are preferred to whichever is installed: pylibjpeg-rle ends in a Rust panic on damaged frames."""

UNDEFINED_LENGTH = 0xFFFFFFFF


@dataclass(frozen=True)
class StoredPixels:
    """The pixel data of one file.

    Attributes:
        path: the file.
        format: how its frames are stored.
        offset: where the element's value begins, in the file once it is unzipped.
        zipped: whether the file is a gzip stream.
    """

    path: Path
    format: PixelFormat
    offset: int
    zipped: bool

    def reader(self, name: str) -> Callable[[int, slice, slice], NDArray]:
        """(frame, rows, columns) → (C, rows, columns): the file's values before any rescaling.

        The unused high bits are dropped, the sign is extended, and values whose smallest is white are turned round.
        """
        if self.format.by_position:
            return _Positioned(self, name).read
        return _Decoded(self, name).read


def check_length(file: BinaryIO, pixels: StoredPixels, length: int, name: str) -> None:
    """Refuses pixel data that are cut short, by the lengths of the parts alone; ``file`` is the unzipped file.

    Raises:
        ScanError: with what is announced and what is there.
    """
    found = pixels.format
    if found.order is None:
        _check_fragments(file, pixels.offset, found.frames, name)
        return
    wanted = found.nbytes
    if length != UNDEFINED_LENGTH and length < wanted:
        raise ScanError(
            f"{name}: its header announces {wanted} bytes of pixels and its pixel data have {length}; mend the header"
        )
    if pixels.zipped:
        return  # the end of a stream is only found by inflating all of it, which reading does
    actual = file.seek(0, os.SEEK_END)
    if actual < pixels.offset + wanted:
        there = max(0, actual - pixels.offset)
        raise ScanError(f"{name}: is cut short: {wanted} bytes of pixels are announced and there are {there}")


def _check_fragments(file: BinaryIO, offset: int, frames: int, name: str) -> None:
    """The items of encapsulated pixel data (PS3.5 A.4): an offset table, then at least one a frame."""
    count, position = -1, offset
    end = file.seek(0, os.SEEK_END)
    while position + 8 <= end:
        file.seek(position)
        tag, length = struct.unpack("<II", file.read(8))
        if tag == 0xE0DDFFFE:
            break
        if tag != 0xE000FFFE or position + 8 + length > end:
            raise ScanError(f"{name}: its compressed pixels are damaged or cut short, after {max(count, 0)} pieces")
        count, position = count + 1, position + 8 + length
    if count < frames:
        raise ScanError(
            f"{name}: announces {frames} frames and holds {max(count, 0)} compressed pieces: it is cut short"
        )


class _Positioned:
    """Grey values that are stored as they are."""

    def __init__(self, pixels: StoredPixels, name: str) -> None:
        self._format, self._name, self._pixels = pixels.format, name, pixels
        stored = pixels.format.dtype.newbyteorder(pixels.format.order or "=")
        self._layout = RawArray(
            (pixels.format.frames, pixels.format.rows, pixels.format.columns), stored, pixels.offset
        )
        self._pread: Pread | None = None if pixels.zipped else pread_file(pixels.path)

    def read(self, frame: int, rows: slice, columns: slice) -> NDArray:
        if self._pread is None:
            self._pread = GzipBytes(self._pixels.path, self._name, self._layout.end).pread
        box = Box((frame, rows.start, columns.start), (frame + 1, rows.stop, columns.stop))
        return _upright(_without_spare_bits(self._layout.read(self._pread, box), self._format), self._format)


class _Decoded:
    """Frames that are decoded whole."""

    def __init__(self, pixels: StoredPixels, name: str) -> None:
        self._pixels, self._name = pixels, name
        self._key = object()

    def read(self, frame: int, rows: slice, columns: slice) -> NDArray:
        whole = PIECES.get((self._key, frame), lambda: self._decode(frame))
        return whole[:, rows, columns]

    def _decode(self, frame: int) -> NDArray:
        from pydicom.pixels.decoders.base import get_decoder
        from pydicom.uid import UID

        found = self._pixels.format
        plugin = PLUGINS.get(found.syntax, "")
        with opened(self._pixels.path, self._pixels.zipped) as file:
            file.seek(self._pixels.offset)
            values, _ = get_decoder(UID(found.syntax)).as_array(
                file, index=frame, decoding_plugin=plugin, **_options(found)
            )
        shape = (found.rows, found.columns, found.samples)
        if values.dtype.itemsize * 8 != found.allocated or values.size != np.prod(shape):
            raise ScanError(f"{self._name}: its compressed pixels are others than its header announces")
        planes = np.moveaxis(values.reshape(shape), -1, 0)
        return np.ascontiguousarray(_upright(planes, found))


def _options(found: PixelFormat) -> dict[str, Any]:
    return {
        "rows": found.rows,
        "columns": found.columns,
        "number_of_frames": found.frames,
        "samples_per_pixel": found.samples,
        "photometric_interpretation": found.photometric,
        "bits_allocated": found.allocated,
        "bits_stored": found.stored,
        "pixel_representation": int(found.signed),
        "planar_configuration": found.planar,
        "pixel_keyword": "PixelData",
        "pixel_vr": found.type,
    }


def _without_spare_bits(values: NDArray, found: PixelFormat) -> NDArray:
    """The stored bits alone, their sign extended: what the others hold is undefined (PS3.5 section 8.1.1)."""
    values = values.astype(found.dtype, copy=False)
    if found.stored == found.allocated:
        return values
    above = found.allocated - 1 - found.high
    return np.right_shift(np.left_shift(values, above), found.allocated - found.stored)


def _upright(values: NDArray, found: PixelFormat) -> NDArray:
    """Values of which a larger one is brighter."""
    if not found.inverted:
        return values
    low, high = found.limits
    return (np.asarray(low + high, found.dtype) - values) if found.signed else np.asarray(high, found.dtype) - values
