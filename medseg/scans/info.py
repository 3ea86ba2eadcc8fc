"""What a scan is, in a few words and numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

from medseg.scans.blocks import blocks
from medseg.scans.header import FileScan
from medseg.scans.protocol import Scan
from medseg.scans.units import MILLIMETRES


def describe(scan: Scan) -> dict[str, Any]:
    """A scan's properties and the range of its values, which takes one pass through the file; ready for JSON.

    ``spacing`` is in ``unit``, ``spacing_mm`` in millimetres; ``unit_stated`` says whether the file names that unit;
    ``orientation`` gives the directions in which the axes run («RAS»), or None where the file doesn't say how the
    patient lies; ``range`` is that of the finite values, or None where there are none; ``nonfinite`` counts NaN and
    infinite values. ``tilt_deg`` is how far the last axis leans from the normal of the others, as with a tilted gantry;
    None where there are two axes.

    Raises:
        ScanError: where the file is damaged.
    """
    low, high, nonfinite = _range(scan)
    return {
        "name": scan.name,
        "axes": scan.axes,
        "shape": list(scan.shape),
        "channels": scan.channels,
        "spacing": [round(s / MILLIMETRES[scan.unit], 9) for s in scan.spacing_mm],
        "unit": scan.unit,
        "unit_stated": scan.unit != "pixel" and not (isinstance(scan, FileScan) and scan.assumes_unit),
        "spacing_mm": list(scan.spacing_mm),
        "orientation": orientation(scan),
        "tilt_deg": tilt_deg(scan),
        "dtype": str(scan.dtype),
        "range": None if low is None else [low, high],
        "nonfinite": nonfinite,
    }


def orientation(scan: Scan) -> str | None:
    """The direction in which each axis runs, such as «LPS», or None where the file doesn't say."""
    if not scan.anatomical:
        return None
    from nibabel.orientations import aff2axcodes

    return "".join(code or "?" for code in aff2axcodes(scan.affine)[: len(scan.shape)])


def tilt_deg(scan: Scan) -> float | None:
    """The angle between the last of three axes and the normal of the other two, in degrees."""
    if len(scan.shape) != 3:
        return None
    normal = np.cross(scan.affine[:3, 0], scan.affine[:3, 1])
    step = scan.affine[:3, 2]
    sideways = np.linalg.norm(np.cross(normal, step))
    return round(float(np.degrees(np.arctan2(sideways, abs(normal @ step)))), 3)


def _range(scan: Scan) -> tuple[int | float | None, int | float | None, int]:
    low: int | float | None = None
    high: int | float | None = None
    nonfinite = 0
    for box in blocks(scan):
        values = scan.read(box)
        if values.dtype.kind == "f":
            finite = np.isfinite(values)
            nonfinite += values.size - int(np.count_nonzero(finite))
            values = values[finite]
        if values.size:
            least, most = values.min().item(), values.max().item()
            low = least if low is None else min(low, least)
            high = most if high is None else max(high, most)
    return low, high, nonfinite
