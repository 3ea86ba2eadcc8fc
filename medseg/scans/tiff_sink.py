"""TIFF masks: tiled, deflated, one page a slice, streamed from the scratch file; BigTIFF where that is needed.

A large mask of one page also gets coarser levels (as SubIFDs) of every second pixel, which viewers ask for.
"""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.errors import OutputError
from medseg.geometry import Box
from medseg.scans import note as notes
from medseg.scans.pyramid import Level, levels_of, source_of
from medseg.scans.raw import BLOCK_BYTES
from medseg.scans.scratch import HEAD_BYTES, Scratch, ScratchSink, deflated_bytes
from medseg.scans.sink import Request
from medseg.scans.units import MILLIMETRES

TILE = 256
BIG_BYTES = 2**32 - 2**25
"""From here on a file may outgrow TIFF's 32-bit offsets."""

LARGE = 4096
"""A page with a side beyond this gets coarser levels."""

PAGE_BYTES = 4096
"""What a page's directory takes at most beyond the table of its tiles."""

TILE_BYTES = 16
"""A tile's place in that table."""

OME_TYPES = ("int8", "int16", "int32", "uint8", "uint16", "uint32", "float32", "float64")
OME_UNITS = {
    "m": "m",
    "cm": "cm",
    "mm": "mm",
    "um": "µm",
    "nm": "nm",
    "angstrom": "Å",
    "inch": "in",
    "pixel": "pixel",
}


def create(request: Request) -> ScratchSink:
    """A sink for .tif, or .ome.tif; the last two array axes are a page's rows and columns, whatever their letters.

    Raises:
        OutputError: for a type that OME-TIFF doesn't know.
    """
    ome = _is_ome(request.path)
    request = request.without_half if ome else request
    if ome and request.dtype.name not in OME_TYPES:
        raise OutputError(f"{request.path}: OME-TIFF has no type {request.dtype}; use {' '.join(OME_TYPES)}")
    if request.dtype.itemsize > 8:
        raise OutputError(f"{request.path}: TIFF has no type {request.dtype}; use float32")
    layout = {"format": "ome" if ome else "tif", "dtype": request.dtype.name, "shape": request.array_shape}
    head = json.dumps([layout, notes.note_of(request.like)], sort_keys=True).encode("ascii").ljust(1024, b" ")

    def encode(scratch: Scratch, path: Path) -> None:
        _encode(request, scratch, path)

    order = range(len(request.array_shape))
    return ScratchSink(request, head, request.dtype.newbyteorder("="), order, encode)


def peak_bytes(request: Request) -> int:
    """The scratch file's bytes and the most that the pages and levels take; tiles are stored whole at the edge too."""
    stored = request.without_half if _is_ome(request.path) else request
    pages = math.prod(stored.array_shape[:-2])
    total = stored.nbytes + 2 * HEAD_BYTES
    for level in _levels(stored):
        sides = _sides(level.shape)
        tiles = math.prod(-(-n // side) for n, side in zip(level.shape, sides, strict=True))
        tile = deflated_bytes(math.prod(sides) * stored.dtype.itemsize)
        total += pages * (PAGE_BYTES + tiles * (tile + TILE_BYTES))
    return total


def _levels(request: Request) -> list[Level]:
    """The page at full size, and the coarser ones of a large single page of labels."""
    page = request.shape[-2:]
    single = math.prod(request.array_shape[:-2]) == 1 and request.channels is None and request.dtype.kind != "f"
    return levels_of(page, (1.0, 1.0)) if single and max(page) > LARGE else [Level(page, (1, 1))]


def _sides(page: Sequence[int]) -> tuple[int, int]:
    """The tiles' sides, multiples of 16."""
    height, width = (min(TILE, -(-n // 16) * 16) for n in page)
    return height, width


def _is_ome(path: Path) -> bool:
    return path.name.lower().endswith((".ome.tif", ".ome.tiff"))


def _encode(request: Request, scratch: Scratch, path: Path) -> None:
    import tifffile

    ome, levels = _is_ome(request.path), _levels(request)
    big = scratch.layout.nbytes * 4 // 3 > BIG_BYTES  # a third for the coarser levels
    with tifffile.TiffWriter(path, bigtiff=big, ome=ome) as writer:
        for number, level in enumerate(levels):
            coarser: dict[str, Any] = {"subifds": len(levels) - 1} if number == 0 else {"subfiletype": 1}
            shape = (*request.array_shape[:-2], *level.shape)
            sides = _sides(level.shape)
            writer.write(
                _tiles(scratch, sides, level),
                shape=shape,
                dtype=request.dtype,
                tile=sides,
                photometric="minisblack",
                compression="zlib",
                maxworkers=1,
                software=False,
                metadata=_ome_metadata(request) if ome and number == 0 else None,
                description=None if ome else _description(request, shape),
                **_resolution(request, level),
                **coarser,
            )


def _tiles(scratch: Scratch, sides: tuple[int, int], level: Level) -> Iterator[NDArray]:
    """The tiles of every page, in the order of the file; those at the edge are filled up with 0."""
    *lead, height, width = *scratch.layout.shape[:-2], *level.shape
    across = max(1, BLOCK_BYTES // (sides[0] * sides[1] * scratch.layout.dtype.itemsize)) * sides[1]
    for index in np.ndindex(*lead):
        for top, first in product(range(0, height, sides[0]), range(0, width, across)):
            part = Box((top, first), (top + sides[0], first + across)).clip((height, width))
            rows = _rows(scratch, index, part, level.factor)
            for left in range(0, rows.shape[1], sides[1]):
                tile = np.zeros(sides, rows.dtype)
                cut = rows[:, left : left + sides[1]]
                tile[: cut.shape[0], : cut.shape[1]] = cut
                yield tile


def _rows(scratch: Scratch, index: tuple[int, ...], part: Box, factor: tuple[int, ...]) -> NDArray:
    """A box of one page's level: every so many pixels of its rows, of which only those that are needed are read."""
    source = source_of(part, factor, scratch.layout.shape[-2:])
    (top, left), (bottom, right) = source.start, source.stop
    after = tuple(i + 1 for i in index)
    step = factor[0]
    if step == 1:
        return scratch.read(Box((*index, top, left), (*after, bottom, right))).reshape(part.shape)
    lines = (scratch.read(Box((*index, y, left), (*after, y + 1, right))) for y in range(top, bottom, step))
    return np.stack([line.reshape(-1)[:: factor[1]] for line in lines])


def _letters(request: Request) -> str:
    """TIFF's own axes."""
    return ("" if request.channels is None else "C") + "ZYX"[-len(request.shape) :]


def _description(request: Request, shape: tuple[int, ...]) -> str:
    """The shape and axes as tifffile itself writes them, which would take a width of 1 for samples, and the note."""
    said = {"shape": list(shape), "axes": _letters(request), notes.KEY: notes.note_of(request.like)}
    return json.dumps(said)


def _ome_metadata(request: Request) -> dict[str, Any]:
    like = request.like
    note = notes.dumps(like)
    sizes: dict[str, Any] = {}
    for letter, spacing in zip("ZYX"[-len(request.shape) :], like.spacing_mm, strict=True):
        sizes[f"PhysicalSize{letter}"] = spacing / MILLIMETRES[like.unit]
        sizes[f"PhysicalSize{letter}Unit"] = OME_UNITS[like.unit]
    return {
        "axes": _letters(request),
        "Creator": "medseg",
        "UUID": str(uuid.uuid5(uuid.NAMESPACE_OID, f"medseg {request.dtype} {request.channels} {note}")),
        "CommentAnnotation": {"Namespace": notes.KEY, "Value": note},
        **sizes,
    }


def _resolution(request: Request, level: Level) -> dict[str, Any]:
    """The resolution tags, pixels a centimetre, for other programs: medseg itself reads the note."""
    like = request.like
    if like.unit == "pixel":
        return {}
    y, x = (s * f for s, f in zip(like.spacing_mm[-2:], level.factor, strict=True))
    return {"resolution": (10 / x, 10 / y), "resolutionunit": "CENTIMETER"}
