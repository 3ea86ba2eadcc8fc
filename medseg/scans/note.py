"""A scan's grid as a note, for formats that have no place of their own for it.

A mask keeps the grid of the scan that it was made from. Where its format cannot say that grid (a PNG has no spacing, an
OME-Zarr no rotation, a NIfTI no nanometres), the sink puts this note beside what the format can say, under the key
«medseg», and the reader believes it if the shape still agrees: a file that was cropped elsewhere loses its note.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from medseg.scans.header import Header
from medseg.scans.protocol import Scan
from medseg.scans.units import MILLIMETRES

KEY = "medseg"


def note_of(like: Scan) -> dict[str, Any]:
    """The grid of a scan, ready for JSON."""
    return {
        "shape": list(like.shape),
        "axes": like.axes,
        "unit": like.unit,
        "anatomical": bool(like.anatomical),
        "affine": np.asarray(like.affine, dtype=np.float64).tolist(),
    }


def with_note(header: Header, note: Any, also: Sequence[int] = ()) -> Header:
    """The header with the note's grid, or as it was where the note is foreign or of another shape.

    ``also`` is a second shape that the note may have: that of a format which has lost or added an axis of length 1.
    """
    if not _is_note(note) or tuple(note["shape"]) not in (header.shape, tuple(also)):
        return header
    return replace(
        header,
        shape=tuple(note["shape"]),
        axes=note["axes"],
        unit=note["unit"],
        anatomical=note["anatomical"],
        affine=np.array(note["affine"], dtype=np.float64),
    )


def dumps(like: Scan) -> str:
    """The note as text that is the same for the same grid, in ASCII."""
    return json.dumps({KEY: note_of(like)}, sort_keys=True)


def loads(text: str) -> Any:
    """The note in a text of :func:`dumps`, or None in any other."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found.get(KEY) if isinstance(found, dict) else None


def says_all(header: Header, like: Scan) -> bool:
    """Whether the format's own words, read back as ``header``, give the same grid."""
    return (
        (header.shape, header.axes, header.unit, header.anatomical)
        == (tuple(like.shape), like.axes, like.unit, like.anatomical)
    ) and np.array_equal(header.affine, like.affine)


def _is_note(note: Any) -> bool:
    if not isinstance(note, dict):
        return False
    shape, axes, affine = note.get("shape"), note.get("axes"), note.get("affine")
    return (
        isinstance(shape, list)
        and 2 <= len(shape) <= 3
        and all(type(n) is int and n > 0 for n in shape)
        and isinstance(axes, str)
        and len(set(axes)) == len(axes) == len(shape)
        and set(axes) <= set("XYZ")
        and isinstance(note.get("unit"), str)
        and note["unit"] in MILLIMETRES
        and isinstance(note.get("anatomical"), bool)
        and isinstance(affine, list)
        and [len(row) for row in affine if isinstance(row, list)] == [4, 4, 4, 4]
        and all(isinstance(x, int | float) for row in affine for x in row)
    )
