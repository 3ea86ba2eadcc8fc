"""How the frames of a DICOM object lie on the voxels of a grid: turned and flipped, never resampled.

    frame (rows, columns)        grid (i, j, k)
    column c  ->  i = i0 ± c     any two axes of the grid, either way round; the third is the plane's
    row r     ->  j = j0 ± r

Legend: n, m voxels along the two axes of a plane.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medseg.errors import ScanError
from medseg.geometry import Box
from medseg.scans.dicom_frames import Frame
from medseg.scans.dicom_geometry import LPS_TO_RAS
from medseg.scans.dicom_labels import MEETS
from medseg.scans.header import Header

Read = Callable[[slice, slice], NDArray[np.bool_]]
"""The pixels of ranges of rows and columns of a frame."""


@dataclass(frozen=True)
class Side:
    """One axis of a frame on an axis of the grid: pixel p is voxel ``origin + sign · p``."""

    axis: int
    sign: int
    origin: int
    pixels: int

    @property
    def ends(self) -> tuple[int, int]:
        """The first and the last voxel."""
        far = self.origin + self.sign * (self.pixels - 1)
        return min(self.origin, far), max(self.origin, far)

    def window(self, wanted: slice) -> tuple[slice, slice]:
        """The pixels of a range of voxels, and where these lie in the range."""
        low, high = self.ends
        start = min(max(wanted.start, low), wanted.stop)
        stop = max(min(wanted.stop, high + 1), start)
        inside = slice(start - wanted.start, stop - wanted.start)
        if start == stop:
            return slice(0, 0), inside
        if self.sign > 0:
            return slice(start - self.origin, stop - self.origin), inside
        return slice(self.origin - stop + 1, self.origin - start + 1), inside


@dataclass(frozen=True)
class Turn:
    """How a frame lies on a grid."""

    plane: int
    rows: Side
    columns: Side

    def read(self, read: Read, first: slice, second: slice) -> NDArray[np.bool_]:
        """(n, m) along the plane's axes, False where the frame does not reach."""
        swapped = self.columns.axis < self.rows.axis
        ranges = (second, first) if swapped else (first, second)
        (rows, at_rows), (columns, at_columns) = self.rows.window(ranges[0]), self.columns.window(ranges[1])
        out = np.zeros([r.stop - r.start for r in ranges], bool)
        if rows.stop > rows.start and columns.stop > columns.start:
            out[at_rows, at_columns] = read(rows, columns)[:: self.rows.sign, :: self.columns.sign]
        return out.T if swapped else out


def turn_of(frame: Frame, header: Header, name: str) -> Turn:
    """How a frame lies on a grid.

    Raises:
        ScanError: where its pixels are not the grid's voxels.
    """
    rows, columns = frame.pixels.format.rows, frame.pixels.format.columns
    if not header.anatomical or frame.place is None:
        if header.shape != (rows, columns):
            raise ScanError(
                f"{name}: its frames of {rows} x {columns} do not say where they lie, and the image has the shape "
                f"{header.shape}: it belongs to another one"
            )
        return Turn(0, Side(0, 1, 0, rows), Side(1, 1, 0, columns))
    there = np.linalg.solve(header.affine, LPS_TO_RAS @ frame_affine(frame))
    across, down, origin = there[:3, 0], there[:3, 1], there[:3, 3]
    steps = np.rint(np.stack([across, down]))
    off = np.abs(np.stack([across, down]) - steps).max(axis=1) * (columns, rows)
    place = np.rint(origin).astype(int)
    along = np.abs(steps).argmax(axis=1)
    straight = (np.abs(steps).sum(axis=1) == 1).all() and along[0] != along[1]
    if not straight or off.max() + np.abs(origin - place).max() > MEETS:
        raise ScanError(
            f"{name}: frame {frame.number} does not lie on the image's voxels (its first pixel is at "
            f"{_told(origin)}, a step along its row is {_told(across)}): it belongs to another series, or was resampled"
        )
    sides = (
        Side(along[1], int(steps[1, along[1]]), place[along[1]], rows),
        Side(along[0], int(steps[0, along[0]]), place[along[0]], columns),
    )
    plane = 3 - int(along[0]) - int(along[1])
    _check_inside(header, sides, plane, place, name, frame)
    return Turn(int(place[plane]) if len(header.shape) == 3 else 0, *sides)


def _check_inside(
    header: Header, sides: tuple[Side, Side], plane: int, place: NDArray, name: str, frame: Frame
) -> None:
    extent = (*header.shape, 1)[:3]
    low, high = [0, 0, 0], [0, 0, 0]
    for side in sides:
        low[side.axis], high[side.axis] = side.ends
    low[plane] = high[plane] = int(place[plane])
    if not Box(tuple(low), tuple(n + 1 for n in high)).within(extent):
        raise ScanError(
            f"{name}: frame {frame.number} lies at {tuple(low)} to {tuple(high)}, out of the image's "
            f"{header.shape} voxels: it belongs to another series"
        )


def frame_affine(frame: Frame) -> NDArray[np.float64]:
    """4 x 4, (column, row, normal in mm) to LPS+ millimetres."""
    if frame.place is None:
        raise ScanError("a frame does not say where it lies")
    position, directions, (rows_mm, columns_mm) = frame.place
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = directions[0] * columns_mm, directions[1] * rows_mm
    affine[:3, 2], affine[:3, 3] = np.cross(directions[0], directions[1]), position
    return affine


def _told(numbers: NDArray) -> str:
    return "(" + ", ".join(f"{x:.4g}" for x in numbers) + ")"
