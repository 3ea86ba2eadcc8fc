"""Channels that lie in files of their own, seen as one scan; and a scan seen on another's grid.

    t1.nii.gz    (1, X, Y, Z) --------------------.
    flair.nii.gz (1, X, Y, Z) ---------------------|-- Stacked (3, X, Y, Z), the grid of the first
    dwi.nii.gz   (1, U, V, W) -- OnGrid(of t1) ---'

Legend: C channels, d spatial axes.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.errors import GridError
from medseg.geometry import Box
from medseg.scans.header import FileScan, Header
from medseg.scans.protocol import Scan


class Stacked(FileScan):
    """Scans of one grid as the channels of one scan, in their order; each box is read from every file.

    Name, affine, unit and axes are the first one's; the type holds what every one holds.

    Raises:
        GridError: where the shapes differ, or there is nothing to stack. Whether the grids lie in the same place is for
            :func:`medseg.datasets.check.check_grid` to say.
    """

    def __init__(self, scans: Sequence[Scan]) -> None:
        if not scans:
            raise GridError("there is no scan to stack")
        self.scans = tuple(scans)
        first = self.scans[0]
        for scan in self.scans[1:]:
            if scan.shape != first.shape:
                raise GridError(f"{scan.name} has the shape {scan.shape} and {first.name} {first.shape}")
        dtype = np.result_type(*(scan.dtype for scan in self.scans))
        channels = sum(scan.channels for scan in self.scans)
        about = (dtype, first.axes, first.affine, first.unit, first.anatomical)
        super().__init__(Header(first.name, first.shape, channels, *about))

    @property
    def files(self) -> tuple[Path, ...]:
        """Those of every channel."""
        return tuple(file for scan in self.scans for file in files_of(scan))

    @property
    def modality(self) -> str:
        """Of its channels, «CT, PT» where they are of several."""
        found = [scan.modality for scan in self.scans if isinstance(scan, FileScan) and scan.modality]
        return ", ".join(sorted(set(found)))

    @property
    def assumes_unit(self) -> bool:
        """Of the first, whose grid it is."""
        first = self.scans[0]
        return isinstance(first, FileScan) and first.assumes_unit

    def _read(self, box: Box) -> NDArray:
        voxels = np.empty((self.channels, *box.shape), self.dtype)
        start = 0
        for scan in self.scans:
            voxels[start : start + scan.channels] = scan.read(box)
            start += scan.channels
        return voxels

    def __reduce__(self) -> tuple[Any, ...]:
        return Stacked, (self.scans,)


class OnGrid(FileScan):
    """A scan on the grid of another, wherever both lie in the world: float32, linear between voxels.

    Beyond its border the outermost voxels go on, as in MONAI's ``ResampleToMatch`` with ``padding_mode="border"``.

    Args:
        source: the scan.
        like: whose grid it gets.

    Raises:
        GridError: where either doesn't say where its voxels lie, or they have different numbers of axes.
    """

    def __init__(self, source: Scan, like: Scan) -> None:
        for scan in (source, like):
            if scan.unit == "pixel":
                raise GridError(f"{scan.name} does not say where its voxels lie: it cannot be resampled")
        if len(source.shape) != len(like.shape) or source.anatomical != like.anatomical:
            raise GridError(f"{source.name} and {like.name} do not lie in one space: they cannot be resampled")
        self.source = source
        self.like = like
        self._to_source = np.linalg.solve(source.affine, like.affine)
        about = (np.float32, like.axes, like.affine, like.unit, like.anatomical)
        super().__init__(Header(source.name, like.shape, source.channels, *about))  # type: ignore[arg-type]

    @property
    def files(self) -> tuple[Path, ...]:
        """The source's."""
        return files_of(self.source)

    def _read(self, box: Box) -> NDArray:
        from scipy.ndimage import affine_transform

        axes = box.ndim
        matrix, origin = self._to_source[:axes, :axes], self._to_source[:axes, 3]
        seen = self._seen(box, matrix, origin)
        voxels = self.source.read(seen).astype(np.float32, copy=False)
        offset = matrix @ np.array(box.start) + origin - np.array(seen.start)
        return np.stack(
            [affine_transform(c, matrix, offset, output_shape=box.shape, order=1, mode="nearest") for c in voxels]
        )

    def _seen(self, box: Box, matrix: NDArray, origin: NDArray) -> Box:
        """The box of the source that a box of the grid lies in, at least one voxel of it."""
        ends = [(a, b - 1) for a, b in zip(box.start, box.stop, strict=True)]
        corners = np.array([matrix @ np.array(corner) + origin for corner in product(*ends)])
        last = np.array(self.source.shape) - 1
        start = np.clip(np.floor(corners.min(0)), 0, last).astype(int)
        stop = np.clip(np.ceil(corners.max(0)), 0, last).astype(int) + 1
        return Box(tuple(map(int, start)), tuple(map(int, stop)))

    def __reduce__(self) -> tuple[Any, ...]:
        return OnGrid, (self.source, self.like)


class OnVoxels(FileScan):
    """A scan whose voxels lie where those of another do, whatever its own file says.

    Args:
        source: the scan.
        like: where its voxels lie, of the same shape.
    """

    def __init__(self, source: Scan, like: Scan) -> None:
        self.source = source
        self.like = like
        about = (source.dtype, like.axes, like.affine, like.unit, like.anatomical)
        super().__init__(Header(source.name, source.shape, source.channels, *about))

    @property
    def files(self) -> tuple[Path, ...]:
        """The source's."""
        return files_of(self.source)

    def _read(self, box: Box) -> NDArray:
        return self.source.read(box)

    def __reduce__(self) -> tuple[Any, ...]:
        return OnVoxels, (self.source, self.like)


def files_of(scan: Scan) -> tuple[Path, ...]:
    """The files that a scan was opened from."""
    return scan.files if isinstance(scan, FileScan) else (Path(scan.name),)
