"""What a scan and a mask are.

Axes are the array order of the file's own format: NIfTI's (X, Y, Z), TIFF's and PNG's ([Z,] Y, X), Zarr's as its
metadata says. The affine maps voxel indices in that order to RAS+ millimetres and is 4 x 4 for two axes too (the
missing index is 0). Legend: C channels, d spatial axes.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from medseg.geometry import Box


@runtime_checkable
class Scan(Protocol):
    """Anything that a box can be read from."""

    @property
    def name(self) -> str:
        """What error messages call it: a file's path as given, or «array»."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Voxels along each spatial axis, in the file's own axis order."""

    @property
    def channels(self) -> int:
        """The number of channels, 1 for grey."""

    @property
    def dtype(self) -> np.dtype:
        """What ``read`` returns."""

    @property
    def axes(self) -> str:
        """The spatial axes' letters in array order: «XYZ», «YX», «ZYX»."""

    @property
    def affine(self) -> NDArray[np.float64]:
        """4 x 4: voxel indices (i, j, k or 0) to RAS+ millimetres."""

    @property
    def spacing_mm(self) -> tuple[float, ...]:
        """Millimetres between voxels along each spatial axis."""

    @property
    def unit(self) -> str:
        """The unit that the file states its spacing in: «mm», «um», «nm» ..., or «pixel» where it states none."""

    @property
    def anatomical(self) -> bool:
        """Whether the affine says how the patient lies (CT, MR); never so for photographs and microscopy."""

    def read(self, box: Box) -> NDArray:
        """The voxels of a box that lies within the scan: (C, *box.shape)."""


@runtime_checkable
class MaskSink(Protocol):
    """Where labels go, box by box; under its final name only once closed."""

    resumed: bool
    """Whether it goes on with what an interrupted sink of the same layout left."""

    @property
    def chunks(self) -> tuple[int, ...]:
        """The boxes that are cheap to write: tiles whose core is a multiple of them never share one."""

    def write(self, box: Box, labels: NDArray) -> None:
        """Writes (*box.shape), or (channels, *box.shape) for a sink with channels."""

    def flush(self) -> None:
        """Returns when what was written would survive the end of this process."""

    def close(self) -> None:
        """Completes the file and gives it its final name."""


def spacing_of(affine: NDArray[np.float64], axes: int) -> tuple[float, ...]:
    """Millimetres between voxels along the first ``axes`` axes of an affine."""
    return tuple(float(s) for s in np.linalg.norm(affine[:3, :axes], axis=0))
