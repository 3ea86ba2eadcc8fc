"""How far two grids lie apart, and whether that is rounding.

relative difference    0 ... 1e-6 ... 1e-5 ... 1e-3 of the spacing, 0.1 voxel at a corner ...
                       float32     rounding   small                                         different
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

STORED = 1e-6
"""The relative difference that goes unnoticed: what storing a number as float32 does."""
ROUNDING = 1e-5
"""The relative difference up to which it is rounding: what writing a number with few digits, or a quaternion, does."""
SPACING_TOLERANCE = 1e-3
"""The relative difference of spacings up to which voxels still meet."""
QUATERNION = 1e-3
"""How far, in voxels, corners may lie apart where one affine is a quaternion's of 32 bits."""
CORNER_TOLERANCE = 0.1
"""How far, in voxels, the corners of two grids may lie apart for voxels still to meet."""

Kind = Literal["shape", "spacing", "orientation", "affine"]
Degree = Literal["rounding", "small", "different"]


class Placed(Protocol):
    """What says where its voxels lie: a scan, or the facts of one."""

    @property
    def name(self) -> str:
        """What messages call it."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Voxels along each axis."""

    @property
    def spacing_mm(self) -> tuple[float, ...]:
        """Millimetres between voxels along each axis."""

    @property
    def affine(self) -> NDArray[np.float64]:
        """4 x 4: voxel indices to RAS+ millimetres."""

    @property
    def unit(self) -> str:
        """The unit of the spacing, «pixel» where none is stated."""

    @property
    def anatomical(self) -> bool:
        """Whether the affine says how the patient lies."""


@dataclass(frozen=True)
class Difference:
    """One way in which two grids differ.

    Attributes:
        kind: in what.
        degree: ``rounding``; ``small``, where voxels still meet; ``different``, where they don't.
        text: the two values and how far they are apart: «different spacings, 1 x 1 x 2.75 and 1 x 1 x 2.5 mm».
        remedy: what to do.
        numbers: the same for JSON.
    """

    kind: Kind
    degree: Degree
    text: str
    remedy: str
    numbers: dict[str, Any]


@dataclass(frozen=True)
class Second:
    """A place that a header gives beside the one that counts.

    Attributes:
        apart_mm: how far the same corner lies away, at most.
        voxels: the same, of the shortest side of a voxel.
        mirrored: whether it is the other's mirror image.
    """

    apart_mm: float
    voxels: float
    mirrored: bool


def second_place(grid: Placed, second: NDArray[np.float64]) -> Second | None:
    """How a second affine of a grid differs from its own; None up to rounding."""
    corners = _corners_of(grid)
    apart = float(np.linalg.norm(corners - _corners(grid.shape, second), axis=1).max())
    extent, finest = float(np.linalg.norm(np.ptp(corners, axis=0))), min(grid.spacing_mm)
    if apart <= max(ROUNDING * extent, QUATERNION * finest):
        return None
    mirrored = np.linalg.det(grid.affine[:3, :3]) * np.linalg.det(second[:3, :3]) < 0
    return Second(apart, apart / finest, bool(mirrored))


def differences(one: Placed, other: Placed) -> Iterator[Difference]:
    """In what two grids differ, as far as both say where their voxels lie; nothing where they agree."""
    if one.shape != other.shape:
        yield _shapes(one, other)
        return
    if "pixel" in (one.unit, other.unit) or np.array_equal(one.affine, other.affine):
        return
    spacing = _spacings(one, other)
    if spacing is not None:
        yield spacing
    if not (one.anatomical and other.anatomical) or (spacing is not None and spacing.degree == "different"):
        return
    placed = _orientations(one, other) or _affines(one, other)
    # A spacing that is a little off moves the corners as little: that is told once.
    if placed is not None and (spacing is None or placed.degree != spacing.degree):
        yield placed


def orientation_of(affine: NDArray[np.float64], axes: int) -> str:
    """The direction in which each axis runs, such as «LPS»."""
    from nibabel.orientations import aff2axcodes

    return "".join(code or "?" for code in aff2axcodes(affine)[:axes])


def by(numbers: tuple[int, ...]) -> str:
    """«5 x 4 x 3»."""
    return " x ".join(map(str, numbers))


def spacing_text(spacing: tuple[float, ...]) -> str:
    """«1 x 1 x 2.5»."""
    return " x ".join(f"{s:.6g}" for s in spacing)


def _shapes(one: Placed, other: Placed) -> Difference:
    swapped = len(one.shape) > 1 and sorted(one.shape) == sorted(other.shape)
    text = f"different shapes, {by(one.shape)} and {by(other.shape)}"
    remedy = (
        "the axes seem to be in another order: put both in one"
        if swapped
        else "they must match voxel by voxel: resample one onto the other's grid"
    )
    return Difference("shape", "different", text, remedy, {"shapes": [list(one.shape), list(other.shape)]})


def _spacings(one: Placed, other: Placed) -> Difference | None:
    ours, theirs = np.array(one.spacing_mm), np.array(other.spacing_mm)
    relative = float((np.abs(ours - theirs) / theirs).max())
    if relative <= STORED:
        return None
    text = (
        f"different spacings, {spacing_text(one.spacing_mm)} and {spacing_text(other.spacing_mm)} mm, "
        f"{_part(relative)} apart"
    )
    numbers = {"spacings_mm": [ours.tolist(), theirs.tolist()], "relative": relative}
    degree = _degree(relative, relative <= SPACING_TOLERANCE)
    return Difference("spacing", degree, text, _remedy(degree, "resample one of them"), numbers)


def _orientations(one: Placed, other: Placed) -> Difference | None:
    ours, theirs = (orientation_of(grid.affine, len(grid.shape)) for grid in (one, other))
    if ours == theirs:
        return None
    apart = _apart(one, other)[0]
    text = f"different orientations, {ours} and {theirs}; their grids lie up to {apart:.3g} mm apart"
    same_place = _same_place(one, other)
    remedy = (
        "both fill the same place: turn one into the other's orientation"
        if same_place
        else "put both on one grid; if their voxels match as they are, copy one header to the other"
    )
    numbers = {"orientations": [ours, theirs], "apart_mm": apart, "same_place": same_place}
    return Difference("orientation", "different", text, remedy, numbers)


def _affines(one: Placed, other: Placed) -> Difference | None:
    apart, relative = _apart(one, other)
    if relative <= STORED:
        return None
    voxels = apart / min(other.spacing_mm)
    text = f"different affines: their grids lie up to {apart:.3g} mm ({voxels:.2g} voxels) apart"
    degree = _degree(relative, voxels <= CORNER_TOLERANCE)
    numbers = {"apart_mm": apart, "apart_voxels": voxels, "relative": relative}
    return Difference("affine", degree, text, _remedy(degree, "put both on one grid"), numbers)


def _degree(relative: float, meet: bool) -> Degree:
    if relative <= ROUNDING:
        return "rounding"
    return "small" if meet else "different"


def _remedy(degree: Degree, remedy: str) -> str:
    return {
        "rounding": "it is rounding: nothing to do",
        "small": "more than rounding, yet voxels still meet: see where it comes from",
        "different": remedy,
    }[degree]


def _part(relative: float) -> str:
    return f"{100 * relative:.2g} %" if relative > ROUNDING else f"{relative:.1e} of it"


def _apart(one: Placed, other: Placed) -> tuple[float, float]:
    """The largest distance between the same corner voxels, in mm, and as a part of the largest coordinate."""
    ours, theirs = (_corners_of(grid) for grid in (one, other))
    apart = float(np.linalg.norm(ours - theirs, axis=1).max())
    return apart, apart / max(float(np.abs(theirs).max()), 1e-300)


def _corners_of(grid: Placed) -> NDArray[np.float64]:
    """(8 or 4, 3): where the corner voxels lie."""
    return _corners(grid.shape, grid.affine)


def _corners(shape: tuple[int, ...], affine: NDArray[np.float64]) -> NDArray[np.float64]:
    ends = [(0, n - 1) for n in shape] + [(0,)] * (3 - len(shape))
    corners = np.array([(*corner, 1) for corner in product(*ends)], np.float64)
    return (corners @ affine.T)[:, :3]


def _same_place(one: Placed, other: Placed) -> bool:
    """Whether the corners are the same, in whatever order."""
    ours, theirs = (_corners_of(grid) for grid in (one, other))
    nearest = np.linalg.norm(ours[:, None] - theirs[None], axis=2).min(1)
    return bool(nearest.max() <= CORNER_TOLERANCE * min(other.spacing_mm))
