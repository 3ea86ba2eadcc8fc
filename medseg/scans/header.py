"""What every scan knows of itself, and the base of those that live in files."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.errors import GridError, MedsegError, ScanError
from medseg.geometry import Box


@dataclass(frozen=True, eq=False)
class Header:
    """The answers to a scan's properties; see :class:`medseg.scans.scan.Scan` for their meaning."""

    name: str
    shape: tuple[int, ...]
    channels: int
    dtype: np.dtype
    axes: str
    affine: NDArray[np.float64]
    unit: str
    anatomical: bool = False

    def __post_init__(self) -> None:
        affine = np.array(self.affine, dtype=np.float64)
        affine.flags.writeable = False
        object.__setattr__(self, "affine", affine)
        object.__setattr__(self, "shape", tuple(map(int, self.shape)))
        object.__setattr__(self, "dtype", np.dtype(self.dtype).newbyteorder("="))
        if min(*self.shape, self.channels) < 1:
            raise ScanError(f"{self.name}: has no voxels (shape {self.shape}, {self.channels} channels)")
        _check_affine(self.name, affine, len(self.shape))


class HeaderScan:
    """A scan whose properties come from a header; a backend adds ``_read``."""

    header: Header

    def __init__(self, header: Header) -> None:
        self.header = header

    @property
    def name(self) -> str:
        """The path as given, or «array»."""
        return self.header.name

    @property
    def shape(self) -> tuple[int, ...]:
        """Voxels along each spatial axis."""
        return self.header.shape

    @property
    def channels(self) -> int:
        """The number of channels."""
        return self.header.channels

    @property
    def dtype(self) -> np.dtype:
        """What ``read`` returns, in the machine's byte order."""
        return self.header.dtype

    @property
    def axes(self) -> str:
        """The spatial axes' letters in array order."""
        return self.header.axes

    @property
    def affine(self) -> NDArray[np.float64]:
        """4 x 4: voxel indices to RAS+ millimetres; not writeable."""
        return self.header.affine

    @property
    def spacing_mm(self) -> tuple[float, ...]:
        """Millimetres between voxels along each spatial axis."""
        columns = self.affine[:3, : len(self.shape)]
        return tuple(float(s) for s in np.linalg.norm(columns, axis=0))

    @property
    def unit(self) -> str:
        """The unit that the file states, or «pixel»."""
        return self.header.unit

    @property
    def anatomical(self) -> bool:
        """Whether the affine says how the patient lies."""
        return self.header.anatomical

    def read(self, box: Box) -> NDArray:
        """The voxels of a box that lies within the scan: (C, *box.shape), a new array.

        Raises:
            GridError: where the box overhangs the scan or has other axes.
            ScanError: where the file is damaged, cut short or gone.
        """
        if box.ndim != len(self.shape):
            raise GridError(f"{self.name}: the box {box} has {box.ndim} axes, the scan {len(self.shape)}")
        if not box.within(self.shape):
            raise GridError(f"{self.name}: the box {box} overhangs the scan {self.shape}; use read_mirrored")
        if not box.voxels:
            return np.empty((self.channels, *box.shape), self.dtype)
        with as_scan_error(self.name, f"the box {box} cannot be read: the file is damaged or cut short"):
            return self._read(box)

    def _read(self, box: Box) -> NDArray:
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, shape={self.shape}, channels={self.channels})"


class FileScan(HeaderScan):
    """A scan in a file. It keeps no file open, and its copy in another process opens the file anew."""

    @property
    def files(self) -> tuple[Path, ...]:
        """The file or folder, and the one beside it that holds the voxels of a header on its own."""
        return (Path(self.name),)

    @property
    def modality(self) -> str:
        """DICOM's word for what made it, such as CT or MR; «» where the file does not say."""
        return ""

    @property
    def assumes_unit(self) -> bool:
        """Whether the file leaves the unit of its spacing open, so that its format's usual one is taken."""
        return False

    @property
    def second_affine(self) -> NDArray[np.float64] | None:
        """Where the voxels lie by what the file says of it beside ``affine``; None where it says it once."""
        return None

    def __reduce__(self) -> tuple[Any, ...]:
        backend = sys.modules[type(self).__module__]
        return backend.open_file, (Path(self.name), self.name)


@contextmanager
def as_scan_error(name: str, complaint: str) -> Iterator[None]:
    """Turns whatever a library raises on foreign bytes into one :class:`ScanError`.

    Libraries raise nearly anything on damaged files. Their own words are kept as the cause and not shown: they
    may quote a header, and headers hold patients' names.
    """
    try:
        yield
    except MedsegError:
        raise
    except Exception as error:
        raise ScanError(f"{name}: {complaint} ({reason(error)})") from error


def reason(error: Exception) -> str:
    """The operating system's words for its errors, the bare kind for any other."""
    return (isinstance(error, OSError) and error.strerror) or type(error).__name__


def diagonal(spacing_mm: tuple[float, ...], origin_mm: tuple[float, ...] = ()) -> NDArray[np.float64]:
    """The 4 x 4 affine of a file that doesn't say how its axes lie: array axis n is world axis n."""
    affine = np.eye(4)
    for axis, spacing in enumerate(spacing_mm):
        affine[axis, axis] = spacing
    affine[: len(origin_mm), 3] = origin_mm
    return affine


def _check_affine(name: str, affine: NDArray[np.float64], axes: int) -> None:
    if affine.shape != (4, 4) or not np.isfinite(affine).all():
        raise ScanError(f"{name}: its affine or voxel spacing is not finite; mend the header")
    columns = affine[:3, :axes]
    lengths = np.linalg.norm(columns, axis=0)
    if not lengths.all() or np.linalg.matrix_rank(columns / lengths, tol=1e-6) < axes:
        raise ScanError(f"{name}: its affine is singular (two axes point the same way, or a spacing is 0)")
