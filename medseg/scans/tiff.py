"""TIFF and its kin (ImageJ, OME-TIFF, Aperio SVS, Hamamatsu NDPI), read by tifffile, strip by strip or tile by tile.

What is read is the file's first series at full resolution. Its axes are (Y, X) or (Z, Y, X): pages are slices, unless
the metadata says that they are channels; samples (RGB) are channels. Values are as stored: 1 bit is 0 and 1, a colour
table (ImageJ's look-up tables are such) is not applied, «white is zero» is not inverted.

A strip or tile is decoded whole, once as long as it is kept. So what is held depends on their sides, and a page that is
one compressed strip is held whole, whatever is read of it: store large pages in tiles.

Spacing is what ImageJ, OME or Aperio metadata state. The plain resolution tags count only where they are finer than
0.02 mm, which no screen's, printer's or camera's 72 to 1200 dots per inch are; else the unit is «pixel».
"""

from __future__ import annotations

import logging
import math
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.errors import ScanError
from medseg.geometry import Box
from medseg.scans import note as notes
from medseg.scans.cache import PIECES
from medseg.scans.header import FileScan, Header, as_scan_error, diagonal
from medseg.scans.raw import Pread, RawArray, pread_file
from medseg.scans.tiff_metadata import note_in, stated_spacing
from medseg.scans.units import MILLIMETRES

DEPTH = "ZQI"
"""tifffile's letters for slices: said to be, of an unnamed axis, and of a sequence of pages."""

CHANNELS = "CS"

NEEDED = {256, 257, 258, 270, 273, 278, 279, 282, 283, 324, 325}
"""The tags without which an image would be another: sizes, description, places, resolution."""

VALUES = {1: "B", 2: "B", 3: "H", 4: "I", 5: "2I", 16: "Q"}
"""The types that those tags have."""

logging.getLogger("tifffile").addHandler(logging.NullHandler())


@dataclass(frozen=True, eq=False)
class Page:
    """Where one page's strips or tiles lie: one number each, as arrays, since a slide may have millions of them."""

    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]
    tables: bytes | None = None


class Segments:
    """The pages of a series as one array, of which only the strips or tiles that a box touches are decoded.

    The array's axes are the pages' (``lead``) and then one page's (``shape``): (Y, X), (Y, X, S) or (S, Y, X).
    """

    def __init__(
        self,
        pread: Pread,
        pages: Sequence[Page],
        keyframe: Any,
        lead: tuple[int, ...],
        shape: tuple[int, ...],
    ):
        self._key = object()
        self._pread = pread
        self._pages = pages
        self._lead = lead
        self._shape = shape
        self._planes, _, self._height, self._width, self._samples = keyframe.shaped
        self._tiled = keyframe.is_tiled
        self._side = (keyframe.tilelength, keyframe.tilewidth) if self._tiled else (keyframe.rowsperstrip, self._width)
        self._dtype = keyframe.dtype
        self._nodata = keyframe.nodata
        self._decode = keyframe.decode
        self._jpeg = keyframe.compression in (6, 7, 34892, 33007)
        self._header = keyframe.jpegheader if self._jpeg else None

    def read(self, box: Box) -> NDArray:
        """A box of the array that holds all samples of its pixels."""
        n = len(self._lead)
        parts = []
        for index in product(*(range(a, b) for a, b in zip(box.start[:n], box.stop[:n], strict=True))):
            page = int(np.ravel_multi_index(index, self._lead)) if n else 0
            parts.append(self._page(page, *_rows_and_columns(box, n, self._planes)))
        return np.stack(parts).reshape(box.shape)

    def _page(self, page: int, rows: tuple[int, int], columns: tuple[int, int]) -> NDArray:
        """(planes, height, width, samples) of one page."""
        (top, bottom), (left, right) = rows, columns
        out = np.empty((self._planes, bottom - top, right - left, self._samples), self._dtype)
        for plane, y, x in self._touched(rows, columns):
            segment = self._segment(page, plane, y, x)
            y0, x0 = y * self._side[0], x * self._side[1]
            y1, x1 = min(bottom, y0 + segment.shape[0]), min(right, x0 + segment.shape[1])
            a, b = max(top, y0), max(left, x0)
            out[plane, a - top : y1 - top, b - left : x1 - left] = segment[a - y0 : y1 - y0, b - x0 : x1 - x0]
        return out

    def _touched(self, rows: tuple[int, int], columns: tuple[int, int]) -> Iterator[tuple[int, int, int]]:
        tall, wide = self._side
        down = range(rows[0] // tall, -(-rows[1] // tall))
        across = range(columns[0] // wide, -(-columns[1] // wide))
        yield from product(range(self._planes), down, across)

    def _segment(self, page: int, plane: int, y: int, x: int) -> NDArray:
        """(height, width, samples) of one strip or tile, which at the image's edge may be larger than the image."""
        down, across = (-(-n // side) for n, side in zip((self._height, self._width), self._side, strict=True))
        index = (plane * down + y) * across + x
        return PIECES.get((self._key, page, index), lambda: self._decoded(self._pages[page], index))

    def _decoded(self, page: Page, index: int) -> NDArray:
        offset, size = int(page.offsets[index]), int(page.sizes[index])
        data = bytes(self._pread(size, offset)) if size else None
        if data is not None and len(data) != size:
            raise ScanError(f"the file ends before byte {offset + size}")
        more = {"jpegtables": page.tables, "jpegheader": self._header} if self._jpeg else {}
        segment, _, shape = self._decode(data, index, **more)
        if segment is None:
            segment = np.full(shape, self._nodata, self._dtype)
        return np.asarray(segment, self._dtype)[0]


def _rows_and_columns(box: Box, lead: int, planes: int) -> list[tuple[int, int]]:
    first = lead + (1 if planes > 1 else 0)
    return [(box.start[axis], box.stop[axis]) for axis in (first, first + 1)]


class TiffScan(FileScan):
    """A series of a TIFF file, whose stored axes tifffile calls ``letters``; ``shape`` are their lengths."""

    def __init__(self, header: Header, source: Any, letters: str, shape: tuple[int, ...]) -> None:
        super().__init__(header)
        self._source = source
        self._letters = letters
        self._stored = shape
        self._spatial = _spatial(letters, shape)

    def _read(self, box: Box) -> NDArray:
        wanted = list(zip(box.start, box.stop, strict=True))[-len(self._spatial) :]
        named = dict(zip(self._spatial, wanted, strict=True))
        sides = [named.get(axis, (0, n)) for axis, n in enumerate(self._stored)]
        values = self._source.read(Box(tuple(a for a, _ in sides), tuple(b for _, b in sides)))
        channel_axes = [n for n, letter in enumerate(self._letters) if letter in CHANNELS]
        rest = [n for n in range(len(sides)) if n not in channel_axes and n not in self._spatial]
        values = values.transpose(*rest, *channel_axes, *self._spatial)
        return np.ascontiguousarray(values.reshape(self.channels, *box.shape), dtype=self.dtype)


class Contiguous:
    """A series whose values lie in one uncompressed piece."""

    def __init__(self, layout: RawArray, pread: Pread) -> None:
        self._layout = layout
        self._pread = pread

    def read(self, box: Box) -> NDArray:
        """A box of the stored array."""
        return self._layout.read(self._pread, box)


def open_file(path: Path, name: str) -> TiffScan:
    """Opens a TIFF; the places of its strips or tiles are read, none of them is.

    Raises:
        ScanError: where it is damaged, cut short, or has more axes than an image: several times, angles or positions.
    """
    import tifffile

    with as_scan_error(name, "is damaged or no TIFF file"), tifffile.TiffFile(path, _multifile=False) as file:
        _check_chain(file, name, path.stat().st_size)
        series = file.series[0]
        letters, shape = series.get_axes(squeeze=False), tuple(series.get_shape(squeeze=False))
        spatial = _spatial(letters, shape)
        if not {"Y", "X"} <= set(letters) or math.prod(shape) < 1:
            raise ScanError(f"{name}: its axes {letters} of shape {shape} are no image")
        _check_axes(letters, shape, spatial, name)
        header = _header(file, series, name, letters, shape)
        header = notes.with_note(header, note_in(file), also=(1, *header.shape))
        source = _source(file, series, path, name, letters, shape)
        return TiffScan(header, source, letters, shape)


def _spatial(letters: str, shape: Sequence[int]) -> list[int]:
    """The stored axes that are space, slices first: the first of the depth axes that has more than one slice."""
    depth = [n for n, letter in enumerate(letters) if letter in DEPTH and shape[n] > 1]
    return [*depth[:1], letters.index("Y"), letters.index("X")] if {"Y", "X"} <= set(letters) else []


def _check_axes(letters: str, shape: Sequence[int], spatial: Sequence[int], name: str) -> None:
    for axis, letter in enumerate(letters):
        if axis not in spatial and letter not in CHANNELS and shape[axis] > 1:
            what = {"T": "points in time"}.get(letter, f"positions along an axis «{letter}»")
            raise ScanError(
                f"{name}: holds {shape[axis]} {what} beyond slices and channels ({letters} {tuple(shape)}); "
                "store each as an image of its own"
            )


def _header(file: Any, series: Any, name: str, letters: str, shape: tuple[int, ...]) -> Header:
    spatial = _spatial(letters, shape)
    channels = math.prod(n for letter, n in zip(letters, shape, strict=True) if letter in CHANNELS)
    dtype = np.dtype(np.uint8) if series.dtype.kind == "b" else series.dtype
    if dtype.kind not in "uif":
        raise ScanError(f"{name}: holds values of type {dtype}; only integers and real numbers are images")
    spacing, unit = stated_spacing(file, series.keyframe)
    affine = diagonal(tuple(s * MILLIMETRES[unit] for s in spacing[-len(spatial) :]))
    axes = "ZYX"[-len(spatial) :]
    return Header(name, tuple(shape[n] for n in spatial), channels, dtype, axes, affine, unit)


def _source(file: Any, series: Any, path: Path, name: str, letters: str, shape: tuple[int, ...]) -> Any:
    pread, size = pread_file(path), path.stat().st_size
    if series.dataoffset is not None and series.dtype.kind != "b":
        layout = RawArray(shape, series.dtype.newbyteorder(file.byteorder), int(series.dataoffset))
        _check_size(name, layout.end, size)
        return Contiguous(layout, pread)
    pages = [_page(page, name) for page in series._pages]
    _check_size(name, max(int((page.offsets + page.sizes).max()) for page in pages), size)
    keyframe = series.keyframe
    inner = _page_axes(letters, shape, math.prod(keyframe.shaped))
    lead = shape[: len(shape) - inner]
    if keyframe.shaped[1] != 1 or math.prod(lead) != len(pages) or not inner:
        raise ScanError(f"{name}: its pages are laid out in a way that is not supported; save it as a plain TIFF stack")
    return Segments(pread, pages, keyframe, lead, shape[len(lead) :])


def _page_axes(letters: str, shape: tuple[int, ...], values: int) -> int:
    """How many of the last axes make up one page of so many values, both Y and X among them; 0 for none."""
    for count in range(2, len(shape) + 1):
        if math.prod(shape[-count:]) == values and {"Y", "X"} <= set(letters[-count:]):
            return count
    return 0


def _page(page: Any, name: str) -> Page:
    if page is None:
        raise ScanError(f"{name}: some of its pages are missing: is it one file of several, or cut short?")
    offsets, sizes = (np.array(numbers, np.int64) for numbers in (page.dataoffsets, page.databytecounts))
    return Page(offsets, sizes, page.jpegtables)


def _check_size(name: str, expected: int, actual: int) -> None:
    if actual < expected:
        raise ScanError(
            f"{name}: is cut short: its directory announces {expected} bytes and there are {actual}; fetch it again"
        )


def _check_chain(file: Any, name: str, size: int) -> None:
    """The directories lie within the file: tifffile would leave out those pages and tags that don't."""
    for page in {file.pages[0].offset, file.pages[len(file.pages) - 1].offset}:
        for end in _ends(file, page):
            _check_size(name, end, size)


def _ends(file: Any, offset: int) -> Iterator[int]:
    """The bytes up to which the directory at an offset refers: its needed values, and the directory that follows it."""
    kind, handle = file.tiff, file.filehandle
    handle.seek(offset)
    count = struct.unpack(kind.tagnoformat, handle.read(kind.tagnosize))[0]
    entries = handle.read(count * kind.tagsize)
    following = struct.unpack(kind.offsetformat, handle.read(kind.offsetsize))[0]
    yield following + kind.tagnosize if following else 0
    if kind.is_ndpi:
        return  # its values have their upper halves elsewhere
    for entry in range(0, len(entries), kind.tagsize):
        tag, type_ = struct.unpack(kind.tagformat1, entries[entry : entry + 4])
        number, value = struct.unpack(kind.tagformat2, entries[entry + 4 : entry + kind.tagsize])
        nbytes = number * struct.calcsize(VALUES.get(type_, "0s"))
        if tag in NEEDED and nbytes > kind.tagoffsetthreshold:
            yield struct.unpack(kind.offsetformat, value.ljust(kind.offsetsize, b"\0"))[0] + nbytes
