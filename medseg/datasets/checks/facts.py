"""What one pass through a file tells, block by block, so that memory does not grow with the scan.

Facts name no file and no case: they are kept in the cache folder, by digests.

Legend: C channels, n voxels of a block.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from medseg.datasets.cases import DicomCase
from medseg.datasets.check import open_dicom_label, open_label, open_series
from medseg.datasets.labels import one_channel
from medseg.errors import MedsegError
from medseg.geometry import Box
from medseg.scans.blocks import blocks
from medseg.scans.header import FileScan
from medseg.scans.scan import Scan

Role = Literal["image", "label"]
MOST_VALUES = 4096
"""So many different values of a label file are counted one by one; of more, how many there are at least."""
SAMPLE = 1 << 16
"""About so many voxels of a block and channel are taken for the percentiles."""
BINS = 1 << 16
"""How finely values are counted: the upper half of a float32's bits, 1 part in 128."""
QUANTILES = (0.5, 5.0, 50.0, 95.0, 99.5)
"""The percentiles that a model remembers of its training images."""
NARROW = (np.dtype("<u1"), np.dtype("<i2"), np.dtype("<i4"))
"""The types that whole values are digested as: the first that holds a block's."""


@dataclass(frozen=True)
class Grid:
    """A file's shape and where its voxels lie; see :class:`medseg.scans.protocol.Scan` for the attributes."""

    name: str
    shape: tuple[int, ...]
    channels: int
    dtype: str
    axes: str
    matrix: tuple[tuple[float, ...], ...]
    unit: str
    anatomical: bool

    @classmethod
    def of(cls, scan: Scan, role: Role) -> Grid:
        """A scan's, called by its role."""
        matrix, dtype = _rows(scan.affine), str(scan.dtype)
        return cls(role, scan.shape, scan.channels, dtype, scan.axes, matrix, scan.unit, scan.anatomical)

    @property
    def affine(self) -> NDArray[np.float64]:
        """4 x 4: voxel indices to RAS+ millimetres."""
        return np.array(self.matrix)

    @property
    def spacing_mm(self) -> tuple[float, ...]:
        """Millimetres between voxels along each axis."""
        return tuple(float(s) for s in np.linalg.norm(self.affine[:3, : len(self.shape)], axis=0))

    @property
    def extent_mm(self) -> tuple[float, ...]:
        """What the voxels fill along each axis, in millimetres; in voxels where no unit is stated."""
        return tuple(n * s for n, s in zip(self.shape, self.spacing_mm, strict=True))


@dataclass(frozen=True)
class Channel:
    """The values of one channel of an image.

    Attributes:
        low: the least of the finite values, None where there are none.
        high: the largest.
        percentiles: about the 1st, the 50th and the 99th of the finite values, from a sample.
        quantiles: the :data:`QUANTILES`, likewise.
        nonfinite: how many are NaN or infinite.
        first: the voxel of the first of these, and its value.
    """

    low: float | None
    high: float | None
    percentiles: tuple[float, float, float] | None
    nonfinite: int = 0
    first: tuple[tuple[int, ...], str] | None = None
    quantiles: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Values:
    """The values of a label file.

    Attributes:
        counts: voxels of each whole value, the :data:`MOST_VALUES` least ones.
        distinct: how many there are, at least.
        fractions: voxels whose value is no whole number.
        example: such a value, «0.5» or «nan».
    """

    counts: dict[int, int] = field(default_factory=dict)
    distinct: int = 0
    fractions: int = 0
    example: str = ""


@dataclass(frozen=True)
class Facts:
    """What is known of one file.

    Attributes:
        error: why it cannot be read; then the rest is empty, or ends where it broke off.
        grid: its shape and place.
        voxels: the digest of its decoded voxels, whatever the type and format that they are stored in.
        channels: of an image.
        values: of a label file.
        modality: DICOM's word for what made it, «» where the file does not say.
        unit_assumed: whether the file leaves the unit of its spacing open, and the grid has its format's usual one.
        second: the affine of what the file says beside the grid's; None where it says it once.
    """

    error: str = ""
    grid: Grid | None = None
    voxels: str = ""
    channels: tuple[Channel, ...] = ()
    values: Values | None = None
    modality: str = ""
    unit_assumed: bool = False
    second: tuple[tuple[float, ...], ...] | None = None

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            **vars(self),
            "grid": self.grid and vars(self.grid),
            "channels": [vars(channel) for channel in self.channels],
            "values": self.values and vars(self.values),
        }

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Facts:
        """From what JSON made of :meth:`to_dict`."""
        grid, values = content["grid"], content["values"]
        return cls(
            content["error"],
            grid and Grid(**grid | {"shape": tuple(grid["shape"]), "matrix": tuple(map(tuple, grid["matrix"]))}),
            content["voxels"],
            tuple(_channel_from(channel) for channel in content["channels"]),
            values and Values(**values | {"counts": {int(v): n for v, n in values["counts"].items()}}),
            content["modality"],
            content["unit_assumed"],
            content["second"] and tuple(map(tuple, content["second"])),
        )


def facts_of(path: Path, role: Role, dicom: DicomCase | None = None) -> Facts:
    """Goes through a file once; what is wrong with it is in the facts, and nothing is raised for it."""
    grid = None
    try:
        scan = _opened(path, role, dicom)
        grid = Grid.of(scan, role)
        return _label_facts(scan) if role == "label" else image_facts(scan)
    except MedsegError as error:
        return Facts(_nameless(str(error), path), grid)


def _opened(path: Path, role: Role, dicom: DicomCase | None) -> Scan:
    if role == "image":
        return open_series(path, dicom)
    return open_label(path) if dicom is None else open_dicom_label(path, dicom)


def _label_facts(scan: Scan) -> Facts:
    digest, tally = Digest(scan), _Tally()
    for box in blocks(scan):
        voxels = one_channel(scan.read(box), scan.name)
        digest.add(voxels)
        tally.add(voxels)
    return replace(header_facts(scan, "label"), voxels=digest.hex, values=tally.values())


def header_facts(scan: Scan, role: Role = "image") -> Facts:
    """What the header alone says of a file."""
    grid = Grid.of(scan, role)
    if not isinstance(scan, FileScan):
        return Facts("", grid)
    second = scan.second_affine
    return Facts(
        "",
        grid,
        modality=scan.modality if role == "image" else "",
        unit_assumed=scan.assumes_unit,
        second=None if second is None else _rows(second),
    )


def _rows(affine: NDArray[np.float64]) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(map(float, row)) for row in affine)


def image_facts(scan: Scan) -> Facts:
    """Goes through an opened image once.

    Raises:
        ScanError: where it cannot be read to its end.
    """
    digest, ranges = Digest(scan), [_Range() for _ in range(scan.channels)]
    for box in blocks(scan):
        for values, its in zip(scan.read(box), ranges, strict=True):
            digest.add(values)
            its.add(values, box)
    channels = tuple(its.channel() for its in ranges)
    return replace(header_facts(scan), voxels=digest.hex, channels=channels)


class Digest:
    """SHA-256 of a scan's shape and values. Equal values give equal digests, whatever type they are stored in."""

    def __init__(self, scan: Scan) -> None:
        self._hash = hashlib.sha256(repr((scan.shape, scan.channels)).encode())

    def add(self, values: NDArray) -> None:
        """Adds a block; which blocks a scan is gone through in depends on its shape alone."""
        plain = np.ascontiguousarray(_canonical(values))
        self._hash.update(plain.dtype.str.encode())
        self._hash.update(plain.data)

    @property
    def hex(self) -> str:
        """The digest."""
        return self._hash.hexdigest()


def _canonical(values: NDArray) -> NDArray:
    """The same values in the narrowest type of :data:`NARROW` that holds them, float64 where none does."""
    if values.dtype.kind == "f" and not (np.isfinite(values).all() and (np.rint(values) == values).all()):
        return values.astype("<f8")
    low, high = values.min(), values.max()
    for dtype in NARROW:
        limits = np.iinfo(dtype)
        if limits.min <= low and high <= limits.max:
            return values.astype(dtype, copy=False)
    return values.astype("<f8")


class _Tally:
    """Voxels of each value."""

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()
        self._fractions = 0
        self._example = ""

    def add(self, voxels: NDArray) -> None:
        whole = voxels if voxels.dtype.kind != "f" else self._whole(voxels)
        if whole.size and len(self._counts) <= 2 * MOST_VALUES:
            self._counts.update(_counted(whole))

    def _whole(self, voxels: NDArray) -> NDArray:
        with np.errstate(invalid="ignore"):
            fit = (np.rint(voxels) == voxels) & (np.abs(voxels) < 2.0**53)
        if not fit.all():
            wrong = voxels[~fit]
            self._fractions += wrong.size
            self._example = self._example or f"{wrong[0]:.6g}"
        return voxels[fit].astype(np.int64)

    def values(self) -> Values:
        kept = dict(sorted(self._counts.items())[:MOST_VALUES])
        return Values(kept, len(self._counts), self._fractions, self._example)


def _counted(whole: NDArray) -> dict[int, int]:
    low, high = int(whole.min()), int(whole.max())
    if high - low < BINS:
        counts = np.bincount(whole.ravel().astype(np.int64) - low)
        return {int(v) + low: int(counts[v]) for v in np.flatnonzero(counts)}
    values, counts = np.unique(whole, return_counts=True)
    return dict(zip(values.tolist(), counts.tolist(), strict=True))


class _Range:
    """Least, largest and typical values of one channel, and what is not finite."""

    def __init__(self) -> None:
        self._low: float | None = None
        self._high: float | None = None
        self._bins = np.zeros(BINS, np.int64)
        self._nonfinite = 0
        self._first: tuple[tuple[int, ...], str] | None = None

    def add(self, values: NDArray, box: Box) -> None:
        finite = self._finite(values, box)
        if not finite.size:
            return
        low, high = float(finite.min()), float(finite.max())
        self._low = low if self._low is None else min(self._low, low)
        self._high = high if self._high is None else max(self._high, high)
        step = max(1, finite.size // SAMPLE) | 1  # odd, so that it does not keep to one column of a block
        self._bins += np.bincount(bins_of(finite.ravel()[::step]), minlength=BINS)

    def _finite(self, values: NDArray, box: Box) -> NDArray:
        if values.dtype.kind != "f":
            return values
        fit = np.isfinite(values)
        if fit.all():
            return values
        self._nonfinite += values.size - int(np.count_nonzero(fit))
        if self._first is None:
            inside = np.argwhere(~fit)[0]
            voxel = tuple(int(i) + a for i, a in zip(inside, box.start, strict=True))
            self._first = voxel, str(values[tuple(inside)])
        return values[fit]

    def channel(self) -> Channel:
        if self._low is None or self._high is None:
            return Channel(None, None, None, self._nonfinite, self._first)
        below = self._bins.cumsum()
        ranks = [int(share / 100 * (below[-1] - 1)) for share in (1, 50, 99, *QUANTILES)]
        found = value_of(np.searchsorted(below, ranks, side="right"))
        low, median, high, *quantiles = (float(v) for v in np.clip(found, self._low, self._high))
        percentiles = low, median, high
        return Channel(self._low, self._high, percentiles, self._nonfinite, self._first, tuple(quantiles))


def bins_of(values: NDArray) -> NDArray[np.int64]:
    """The bin of each value: the upper half of its float32's bits, in the order of the values."""
    from medseg.scans.statistics import keys_of

    return (keys_of(values) >> 16).astype(np.int64)


def value_of(bins: NDArray) -> NDArray[np.float32]:
    """The value of each bin that is nearest to 0; whole numbers up to 256 are their bins' own."""
    from medseg.scans.statistics import values_of

    return values_of(np.where(bins < BINS // 2, bins << 16 | 0xFFFF, bins << 16).astype(np.uint32))


def _channel_from(content: dict[str, Any]) -> Channel:
    first = content["first"]
    fitted = {
        "percentiles": content["percentiles"] and tuple(content["percentiles"]),
        "first": first and (tuple(first[0]), first[1]),
        "quantiles": content["quantiles"] and tuple(content["quantiles"]),
    }
    return Channel(**content | fitted)


def _nameless(message: str, path: Path) -> str:
    """A message without the file's name and place."""
    for said in (f"scan {path} ", f"{path}: ", f"{path} ", str(path), f"{path.parent}/"):
        message = message.replace(said, "")
    return message
