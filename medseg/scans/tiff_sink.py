"""TIFF masks: tiled, deflated, one page a slice, streamed from the scratch file."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.errors import OutputError
from medseg.geometry import Box
from medseg.scans import note as notes
from medseg.scans.scratch import Scratch, ScratchSink
from medseg.scans.sink import Request
from medseg.scans.units import MILLIMETRES

TILE = 256
BIG_BYTES = 2**32 - 2**25
"""From here on a file may outgrow TIFF's 32-bit offsets."""

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


def _is_ome(path: Path) -> bool:
    return path.name.lower().endswith((".ome.tif", ".ome.tiff"))


def _encode(request: Request, scratch: Scratch, path: Path) -> None:
    import tifffile

    sides = tuple(min(TILE, -(-n // 16) * 16) for n in request.shape[-2:])
    ome = _is_ome(request.path)
    with tifffile.TiffWriter(path, bigtiff=scratch.layout.nbytes > BIG_BYTES, ome=ome) as writer:
        writer.write(
            _tiles(scratch, sides),
            shape=request.array_shape,
            dtype=request.dtype,
            tile=sides,
            photometric="minisblack",
            compression="zlib",
            maxworkers=1,
            software=False,
            metadata=_ome_metadata(request) if ome else None,
            description=None if ome else _description(request),
            **_resolution(request),
        )


def _tiles(scratch: Scratch, sides: tuple[int, ...]) -> Iterator[NDArray]:
    """The tiles of every page, in the order of the file; those at the edge are filled up with 0."""
    *lead, height, width = scratch.layout.shape
    for index in np.ndindex(*lead):
        for top in range(0, height, sides[0]):
            bottom = min(top + sides[0], height)
            box = Box((*index, top, 0), (*(i + 1 for i in index), bottom, width))
            rows = scratch.read(box).reshape(bottom - top, width)
            for left in range(0, width, sides[1]):
                tile = np.zeros(sides, rows.dtype)
                part = rows[:, left : left + sides[1]]
                tile[: part.shape[0], : part.shape[1]] = part
                yield tile


def _letters(request: Request) -> str:
    """TIFF's own axes."""
    return ("" if request.channels is None else "C") + "ZYX"[-len(request.shape) :]


def _description(request: Request) -> str:
    """The shape and axes as tifffile itself writes them, which would take a width of 1 for samples, and the note."""
    said = {"shape": list(request.array_shape), "axes": _letters(request), notes.KEY: notes.note_of(request.like)}
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


def _resolution(request: Request) -> dict[str, Any]:
    """The resolution tags, pixels a centimetre, for other programs: medseg itself reads the note."""
    like = request.like
    if like.unit == "pixel":
        return {}
    y, x = like.spacing_mm[-2:]
    return {"resolution": (10 / x, 10 / y), "resolutionunit": "CENTIMETER"}
