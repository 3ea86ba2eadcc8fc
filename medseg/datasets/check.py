"""Whether a case is what a network can be trained on or judged by; every voxel is looked at, block by block."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medseg.datasets.cases import Case
from medseg.datasets.labels import Labels
from medseg.errors import GridError
from medseg.scans.blocks import blocks
from medseg.scans.scan import Scan, open_scan
from medseg.scans.views import check_finite

SPACING_TOLERANCE = 1e-3
"""The relative difference of spacings that passes for rounding."""
CORNER_TOLERANCE = 0.1
"""How far, in voxels, the corners of two grids may lie apart: what rounding in headers does."""


def open_label(path: str | Path) -> Scan:
    """A label file as a scan."""
    return open_scan(path, labels=True)


def check_case(case: Case, labels: Labels, channels: int, dims: int) -> None:
    """Refuses a case that is not fit.

    Args:
        case: the case; without a label only its image is checked.
        labels: what the label file may hold.
        channels: the image's.
        dims: the number of spatial axes, 2 or 3.

    Raises:
        GridError: for a wrong number of axes or channels, or an image and a label on different grids.
        ScanError: for an image with NaN or inf, with the place of the first.
        MedsegError: for undeclared label values.
    """
    image = open_scan(case.image)
    check_kind(image, channels, dims)
    if case.label is not None:
        label = open_label(case.label)
        check_grid(label, image)
        for box in blocks(label):
            labels.read(label, box)
    if image.dtype.kind == "f":
        for box in blocks(image):
            check_finite(image, box, image.read(box))


def check_kind(image: Scan, channels: int, dims: int) -> None:
    """Refuses a scan with another number of axes or channels.

    Raises:
        GridError: with both numbers.
    """
    if len(image.shape) != dims:
        raise GridError(f"{image.name} has {len(image.shape)} axes, {_by(image.shape)}; {dims} are expected")
    if image.channels != channels:
        raise GridError(f"{image.name} has {_plural(image.channels, 'channel')}; {channels} expected")


def check_grid(label: Scan, image: Scan) -> None:
    """Refuses two scans whose voxels do not lie in the same places, as far as both files say where they lie.

    Raises:
        GridError: with the two shapes, spacings, or the distance between the grids' corners.
    """
    pair = f"{label.name} and {image.name}"
    if label.shape != image.shape:
        raise GridError(
            f"{pair} have different shapes, {_by(label.shape)} and {_by(image.shape)}: they must match voxel by voxel"
        )
    if "pixel" in (label.unit, image.unit):
        return
    ours, theirs = np.array(label.spacing_mm), np.array(image.spacing_mm)
    if (np.abs(ours - theirs) > SPACING_TOLERANCE * theirs).any():
        raise GridError(
            f"{pair} have different spacings, {_spacing(ours)} and {_spacing(theirs)} mm: resample one of them"
        )
    if label.anatomical and image.anatomical:
        apart = _corner_distance(label.affine, image.affine, image.shape)
        if apart > CORNER_TOLERANCE * theirs.min():
            raise GridError(
                f"{pair} have different affines: their grids lie up to {apart:.3g} mm apart; put both on one grid"
            )


def _corner_distance(ours: NDArray, theirs: NDArray, shape: tuple[int, ...]) -> float:
    """The largest distance between the same corner voxels of two grids, in millimetres."""
    ends = [(0, n - 1) for n in shape] + [(0,)] * (3 - len(shape))
    corners = np.array([(*corner, 1) for corner in product(*ends)], np.float64)
    return float(np.linalg.norm((corners @ (ours - theirs).T)[:, :3], axis=1).max())


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _spacing(spacing: NDArray) -> str:
    return " x ".join(f"{s:.6g}" for s in spacing)


def _plural(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")
