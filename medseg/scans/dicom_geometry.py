"""How the slices of a series lie, told by their positions and orientations alone.

      normal n = row × column                     a slice's place along the normal: d = n · position
          ^        tilted gantry:                 slices are sorted by d
          |            ______  p2                 voxel (i, j, k) lies at
          |          ______  p1                       p0 + i · row · Δx + j · column · Δy + k · (p_last - p0) / (K - 1)
          |        ______  p0
          +----------> row, column                so that a tilt is a shear of the affine, and nothing is resampled

Slices must lie on such a grid, each within :func:`tolerance_mm` of its place; otherwise no affine is true, and the
series is refused with the positions. (PS3.3 C.7.6.2; SimpleITK lays the slices along the normal at their average
distance, which moves those of a tilted gantry sideways.)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from medseg.errors import ScanError
from medseg.scans.dicom_facts import SPLITTING
from medseg.scans.dicom_frames import Frame
from medseg.scans.header import diagonal

RELATIVE_TOLERANCE = 0.01
"""How far a slice may lie from its place on the grid, as a part of the distance of two slices."""

ROUNDING_MM = 0.01
"""What headers that give two decimals are off by; tolerated up to a tenth of the distance of two slices."""

SAME_DIRECTION = 1e-4
SAME_SPACING = 1e-4
ORTHONORMAL = 1e-3

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def tolerance_mm(step_mm: float) -> float:
    """How far a slice may lie from its place, for slices so far apart."""
    return max(RELATIVE_TOLERANCE * step_mm, min(ROUNDING_MM, step_mm / 10))


def single(frame: Frame, name: str) -> tuple[NDArray[np.float64], str, bool]:
    """The affine of one slice with axes YX, its unit, and whether it says how the patient lies.

    Raises:
        ScanError: where its directions are no directions.
    """
    if frame.place is None:
        if frame.spacing_mm is None:
            return np.eye(4), "pixel", False
        return diagonal(frame.spacing_mm), "mm", False
    position, directions, (rows_mm, columns_mm) = frame.place
    _check_directions([frame], name)
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = directions[1] * rows_mm, directions[0] * columns_mm
    affine[:3, 2], affine[:3, 3] = _normal(directions), position
    return LPS_TO_RAS @ affine, "mm", True


def stacked(frames: Sequence[Frame], name: str) -> tuple[list[Frame], NDArray[np.float64]]:
    """Two or more slices in the order in which they lie along their normal, and their affine with axes XYZ, RAS+.

    Raises:
        ScanError: where a slice does not say its place, or sizes, orientations, spacings or distances differ, slices
            are missing, or two lie at one place; with the positions along the normal in millimetres.
    """
    _check_alike(frames, name)
    positions = np.array([frame.position_mm for frame in frames])
    _, directions, (rows_mm, columns_mm) = _place(frames[0])
    along = positions @ _normal(directions)
    order = np.argsort(along, kind="stable")
    positions, along = positions[order], along[order]
    _check_distances(frames, along, name)
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = directions[0] * columns_mm, directions[1] * rows_mm
    affine[:3, 2] = (positions[-1] - positions[0]) / (len(frames) - 1)
    affine[:3, 3] = positions[0]
    _check_grid(positions, along, affine[:3, 2], name)
    return [frames[i] for i in order], LPS_TO_RAS @ affine


def _normal(directions: NDArray[np.float64]) -> NDArray[np.float64]:
    normal = np.cross(directions[0], directions[1])
    return np.asarray(normal / np.linalg.norm(normal))


def _place(frame: Frame) -> tuple[NDArray[np.float64], NDArray[np.float64], tuple[float, float]]:
    if frame.place is None:
        raise ScanError("a slice does not say where it lies")
    return frame.place


def _check_alike(frames: Sequence[Frame], name: str) -> None:
    lost = sum(frame.place is None for frame in frames)
    if lost:
        raise ScanError(
            f"{name}: {lost} of its {len(frames)} slices do not say where they lie (ImagePositionPatient, "
            "ImageOrientationPatient and PixelSpacing): they are no volume; give single files"
        )
    _check_directions(frames, name)
    sizes = [f"{frame.pixels.format.rows} x {frame.pixels.format.columns}" for frame in frames]
    _check_one(sizes, "sizes", frames, name)
    turns = [np.ravel(_place(frame)[1]) for frame in frames]
    _check_one(_nearly(turns, SAME_DIRECTION, 3), "orientations", frames, name)
    spacings = [np.array(_place(frame)[2]) for frame in frames]
    _check_one(_nearly(spacings, SAME_SPACING * float(spacings[0].min()), 4), "pixel spacings", frames, name)
    _check_one([str(frame.pixels.format.samples) for frame in frames], "numbers of channels", frames, name)
    worlds = [frame.facts.get("FrameOfReferenceUID") for frame in frames]
    if len(set(worlds)) > 1:
        raise ScanError(
            f"{name}: its {len(frames)} slices lie in {len(set(worlds))} frames of reference, whose positions cannot "
            f"be compared{_remedy(frames)}"
        )


def _check_directions(frames: Sequence[Frame], name: str) -> None:
    directions = np.array([_place(frame)[1] for frame in frames])
    products = directions @ directions.transpose(0, 2, 1)
    wrong = int((np.abs(products - np.eye(2)).max(axis=(1, 2)) > ORTHONORMAL).sum())
    if wrong:
        raise ScanError(
            f"{name}: the ImageOrientationPatient of {wrong} of its {len(frames)} slices is no pair of perpendicular "
            "unit vectors; mend the header"
        )


def _nearly(values: Sequence[NDArray], tolerance: float, digits: int) -> list[str]:
    """One word a value, the same for those within the tolerance of one another's first."""
    firsts: list[NDArray] = []
    words = []
    for value in values:
        same = [first for first in firsts if np.abs(first - value).max() <= tolerance]
        if not same:
            firsts.append(value)
        words.append("(" + ", ".join(f"{x:.{digits}g}" for x in (same or [value])[0]) + ")")
    return words


def _check_one(words: Sequence[str], what: str, frames: Sequence[Frame], name: str) -> None:
    counts = Counter(words).most_common()
    if len(counts) == 1:
        return
    said = ", ".join(f"{count} of {word}" for word, count in counts[:4]) + (" ..." if len(counts) > 4 else "")
    odd = [i for i, word in enumerate(words) if word != counts[0][0]]
    where = ", ".join(f"({', '.join(f'{x:.5g}' for x in _place(frames[i])[0])})" for i in odd[:4])
    raise ScanError(
        f"{name}: its {len(frames)} slices have {len(counts)} {what}, {said}: several volumes or a localiser in one "
        f"series; the odd ones lie at {where}{' ...' if len(odd) > 4 else ''} mm{_remedy(frames)}"
    )


def _check_distances(frames: Sequence[Frame], along: NDArray[np.float64], name: str) -> None:
    """Refuses slices at one place, missing slices, and uneven distances."""
    gaps = np.diff(along)
    typical = float(np.median(gaps[gaps > gaps.max() / 1000])) if gaps.max() > 0 else 0.0
    same = gaps <= typical / 100
    if same.any():
        twice = int(same.sum())
        raise ScanError(
            f"{name}: {twice} of its {len(along)} slices {'lies' if twice == 1 else 'lie'} where another does: several "
            f"volumes or copies in one series; along the normal, from {along[0]:.6g} to {along[-1]:.6g} mm, at "
            f"{_listed(along[1:][same])} mm{_remedy(frames)}"
        )
    odd = np.abs(gaps - typical) > 2 * tolerance_mm(typical)
    if not odd.any():
        return
    told = _each(f"{gap:.4g} mm after {at:.6g}" for gap, at in zip(gaps[odd], along[:-1][odd], strict=True))
    steps = gaps / typical
    whole = np.rint(steps)
    if (np.abs(steps - whole) <= 0.05).all():
        count = int((whole - 1).sum())
        raise ScanError(
            f"{name}: {count} {'slice is' if count == 1 else 'slices are'} missing: they are {typical:.6g} mm apart, "
            f"but {told} mm along the normal; fetch {'it' if count == 1 else 'them'} again{_or_filter(frames)}"
        )
    counts = Counter(f"{gap:.4g}" for gap in gaps).most_common()
    said = ", ".join(f"{count} x {gap}" for gap, count in counts[:5]) + (" ..." if len(counts) > 5 else "")
    raise ScanError(
        f"{name}: its {len(along)} slices are not evenly spaced ({gaps.min():.4g} to {gaps.max():.4g} mm: {said}), so "
        f"that no affine is true: {told} mm along the normal{_remedy(frames)}"
    )


def _check_grid(positions: NDArray, along: NDArray, step: NDArray[np.float64], name: str) -> None:
    """Refuses slices off the line from the first to the last, sideways or along it."""
    length = float(np.linalg.norm(step))
    off = np.linalg.norm(positions - positions[0] - np.arange(len(positions))[:, None] * step, axis=1)
    odd = off > tolerance_mm((along[-1] - along[0]) / (len(along) - 1))
    if odd.any():
        count = int(odd.sum())
        told = _each(f"{far:.4g} mm off at {at:.6g}" for far, at in zip(off[odd], along[odd], strict=True))
        raise ScanError(
            f"{name}: {count} of its {len(positions)} slices {'lies' if count == 1 else 'lie'} up to {off.max():.4g} "
            f"mm off an even step of {length:.6g} mm, so that no affine is true: {told} mm along the normal; mend "
            "their positions, or take them out of the folder"
        )


def _each(words: Iterable[str], most: int = 4) -> str:
    """The first few of what is told."""
    every = list(words)
    return ", ".join(every[:most]) + (" ..." if len(every) > most else "")


def _listed(along: NDArray[np.float64], most: int = 12) -> str:
    """Positions, the middle ones of many left out."""
    words = [f"{x:.6g}" for x in along]
    return " ".join(words if len(words) <= most else [*words[: most // 2], "...", *words[-most // 2 :]])


def _remedy(frames: Sequence[Frame]) -> str:
    """The filter that keeps the most slices of those that tell some of them apart."""
    kept, option = _best_filter(frames)
    if not option:
        return "; take the others out of the folder"
    return f"; {kept} of the slices are told apart by {option}"


def _or_filter(frames: Sequence[Frame]) -> str:
    kept, option = _best_filter(frames)
    return f", or keep {kept} of the slices by {option}" if option else ""


def _best_filter(frames: Sequence[Frame]) -> tuple[int, str]:
    """How many slices it keeps, and the option; «» where nothing tells some of them apart."""
    best: tuple[int, str] = (1, "")
    for key in SPLITTING:
        counts = Counter(value for frame in frames for value in set(frame.facts.get(key, ())) if value)
        kept = [(count, f"--series-filter '{key}={value}'") for value, count in counts.items() if count < len(frames)]
        best = max([best, *kept], key=lambda pair: pair[0])
    return best
