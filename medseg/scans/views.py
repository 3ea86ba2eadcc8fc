"""Scans seen through another grid or scale, box by box: what a network sees of a file.

    Oriented    axes permuted and flipped, by index arithmetic       monai.transforms.Orientation
    Resampled   another spacing, axis by axis                        monai.transforms.Spacing
    Normalized  clipped, shifted and scaled, channel by channel      NormalizeIntensity, ScaleIntensityRange
    Cropped     a box of it, where it lies                           SpatialCrop

MONAI's transforms do the same to whole arrays in memory, and each view equals the one beside it on every box.

Legend: C channels, a an axis of the view, n voxels of the source along it, ratio = new / old spacing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import DTypeLike, NDArray

from medseg.errors import ConfigError, GridError, ScanError
from medseg.geometry import Box
from medseg.scans.gridmap import GridMap, grid_map, interpolated, own_scan, shrinking_first
from medseg.scans.header import Header, HeaderScan
from medseg.scans.protocol import Scan

SAME_SPACING = 1e-3
"""Spacings that differ by less than this part of themselves are taken for one: headers round, and resampling blurs."""

DIRECTIONS = ("LR", "PA", "IS")
"""Each axis of a patient and its two ends."""


class ScanView(HeaderScan):
    """A scan made from a scan.

    Attributes:
        source: the scan that it is a view of.
        grid: how its grid lies in the source's.
    """

    def __init__(self, source: Scan, grid: GridMap, shape: Sequence[int], dtype: DTypeLike) -> None:
        self.source = source
        self.grid = grid
        axes = "".join(source.axes[b] for b in grid.axes)
        affine = source.affine @ grid.matrix()
        about = (np.dtype(dtype), axes, affine, source.unit, source.anatomical)
        super().__init__(Header(source.name, tuple(shape), source.channels, *about))


class Oriented(ScanView):
    """A scan whose axes run in the patient's directions ``codes``, as nearly as they can without resampling.

    Args:
        source: an anatomical scan of three axes.
        codes: one letter an axis, where it runs to: R or L, A or P, S or I.

    Raises:
        GridError: where the scan does not say how the patient lies, has not three axes, or the codes are none.
    """

    def __init__(self, source: Scan, codes: str = "RAS") -> None:
        if not source.anatomical or len(source.shape) != 3:
            says = "says" if source.anatomical else "does not say"
            raise GridError(
                f"{source.name} has {len(source.shape)} axes and {says} how a patient lies: "
                f"it cannot be oriented to {codes}"
            )
        _check_codes(codes)
        grid = _turned(source, codes)
        self.codes = codes
        super().__init__(source, grid, [source.shape[b] for b in grid.axes], source.dtype)

    def _read(self, box: Box) -> NDArray:
        start, stop = [0] * box.ndim, [0] * box.ndim
        for a, b in enumerate(self.grid.axes):
            n, flipped = self.shape[a], self.grid.scale[a] < 0
            start[b], stop[b] = (n - box.stop[a], n - box.start[a]) if flipped else (box.start[a], box.stop[a])
        voxels = self.source.read(Box(tuple(start), tuple(stop))).transpose(0, *(1 + b for b in self.grid.axes))
        flips = tuple(slice(None, None, -1 if scale < 0 else 1) for scale in self.grid.scale)
        return np.ascontiguousarray(voxels[(slice(None), *flips)])


class Resampled(ScanView):
    """A scan at another spacing; voxel 0 stays where it is.

    Voxel j lies at ``ratio * j`` of the source, clamped to its last voxel, and there are round((n - 1) / ratio + 1) of
    them (half to even). The affine keeps the directions of the axes, and any shear between them. Axes whose spacing is
    the wanted one already (:data:`SAME_SPACING`, as a part of it; MONAI: 0.001 mm) are left as they are.

    Args:
        source: the scan.
        spacing_mm: millimetres between voxels, one number an axis of the source.
        order: ``linear`` gives float32; ``nearest`` keeps the values and their dtype, and takes the even neighbour
            where two are equally near, as PyTorch does. (On whole arrays MONAI's rounding decides such ties by noise.)

    Raises:
        GridError: for a wrong number of spacings or one that is not above 0.
    """

    def __init__(
        self, source: Scan, spacing_mm: Sequence[float], order: Literal["linear", "nearest"] = "linear"
    ) -> None:
        wanted, found = tuple(map(float, spacing_mm)), source.spacing_mm
        if len(wanted) != len(found) or not all(0 < w < math.inf for w in wanted):
            raise GridError(f"{source.name} has {len(found)} axes; a spacing of {wanted} mm does not fit it")
        ratios = [w / f if abs(w / f - 1) > SAME_SPACING else 1.0 for w, f in zip(wanted, found, strict=True)]
        shape = [round((n - 1) / r + 1) for n, r in zip(source.shape, ratios, strict=True)]
        axes = len(shape)
        grid = GridMap(tuple(range(axes)), tuple(1 / r for r in ratios), (0.0,) * axes)
        self.ratios = tuple(ratios)
        self.order = order
        super().__init__(source, grid, shape, source.dtype if order == "nearest" else np.float32)

    def _read(self, box: Box) -> NDArray:
        coordinates = [self._in_source(a, box.start[a], box.stop[a]) for a in range(box.ndim)]
        if self.order == "nearest":
            coordinates = [np.rint(x) for x in coordinates]
        first = [int(x[0]) for x in coordinates]
        voxels = self.source.read(Box(tuple(first), tuple(math.ceil(x[-1]) + 1 for x in coordinates)))
        if self.order == "linear":
            voxels = voxels.astype(np.float32, copy=False)
        for a in shrinking_first(self.grid.scale)[::-1]:
            x = coordinates[a] - first[a]
            voxels = (
                voxels.take(x.astype(np.intp), a + 1) if self.order == "nearest" else interpolated(voxels, a + 1, x)
            )
        return voxels

    def _in_source(self, axis: int, start: int, stop: int) -> NDArray[np.float64]:
        """Where the voxels ``start:stop`` lie in the source, never descending."""
        return np.minimum(np.arange(start, stop) * self.ratios[axis], self.source.shape[axis] - 1)


@dataclass(frozen=True)
class Rescale:
    """What becomes of a channel's values: clipped to [low, high], then (x - shift) / scale.

    Each is a tuple of one number a channel, or of one for all; ``low`` and ``high`` may be None: nothing is clipped.

    Raises:
        ConfigError: where the numbers are not finite, a scale is 0, or their counts differ.
    """

    low: tuple[float, ...] | None
    high: tuple[float, ...] | None
    shift: tuple[float, ...]
    scale: tuple[float, ...]

    def __post_init__(self) -> None:
        for name in ("low", "high", "shift", "scale"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, _numbers(name, value))
        counts = {len(v) for v in (self.low, self.high, self.shift, self.scale) if v is not None}
        if len(counts) != 1 or 0 in self.scale:
            raise ConfigError(f"{self} needs one number a channel everywhere, and no scale of 0")

    @property
    def channels(self) -> int | None:
        """For how many channels it is, or None: for any number."""
        return len(self.scale) if len(self.scale) > 1 else None

    def __call__(self, voxels: NDArray) -> NDArray:
        """(C, *n) of any type → (C, *n) float32, a new array."""
        # Types whose values float32 cannot hold are shifted before they are rounded.
        wide = np.result_type(voxels.dtype, np.float32)
        values = voxels.astype(wide)
        per_channel = (-1,) + (1,) * (voxels.ndim - 1)
        low, high, shift, scale = (
            None if v is None else np.array(v, wide).reshape(per_channel)
            for v in (self.low, self.high, self.shift, self.scale)
        )
        if low is not None or high is not None:
            np.clip(values, low, high, out=values)
        values -= shift
        values /= scale
        return values.astype(np.float32, copy=False)

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {name: None if value is None else list(value) for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Rescale:
        """What :meth:`to_dict` gave.

        Raises:
            ConfigError: where it is not that.
        """
        keys = {"low", "high", "shift", "scale"}
        if not isinstance(content, Mapping) or set(content) != keys:
            raise ConfigError(f"a rescale has the keys low, high, shift and scale; this one is {content!r}")
        return cls(**content)


class Normalized(ScanView):
    """A scan whose channels are rescaled; float32.

    Args:
        source: the scan.
        rescale: for its channels, or for any.

    Raises:
        GridError: where the rescale is for another number of channels.
    """

    def __init__(self, source: Scan, rescale: Rescale) -> None:
        if rescale.channels not in (None, source.channels):
            raise GridError(
                f"{source.name} has {source.channels} channels; the normalization is for {rescale.channels}"
            )
        self.rescale = rescale
        super().__init__(source, GridMap.same(len(source.shape)), source.shape, np.float32)

    def _read(self, box: Box) -> NDArray:
        voxels = self.source.read(box)
        check_finite(self.source, box, voxels)
        return self.rescale(voxels)


class Cropped(ScanView):
    """A box of a scan as a scan of its own, at its place in the world.

    Args:
        source: the scan.
        box: of its voxels, at least one.

    Raises:
        GridError: where the box is empty or overhangs the scan.
    """

    def __init__(self, source: Scan, box: Box) -> None:
        if box.ndim != len(source.shape) or not box.voxels or not box.within(source.shape):
            raise GridError(f"{source.name} has the shape {source.shape}; the box {box} is no part of it")
        self.box = box
        axes = len(source.shape)
        grid = GridMap(tuple(range(axes)), (1.0,) * axes, tuple(-float(a) for a in box.start))
        super().__init__(source, grid, box.shape, source.dtype)

    def _read(self, box: Box) -> NDArray:
        return self.source.read(box.shift(self.box.start))


def check_finite(scan: Scan, box: Box, voxels: NDArray) -> None:
    """Refuses NaN and inf in what was read from a box of a scan.

    Raises:
        ScanError: with the first one's position in the file's own grid.
    """
    if voxels.dtype.kind != "f" or np.isfinite(voxels).all():
        return
    channel, *inside = (int(i) for i in np.argwhere(~np.isfinite(voxels))[0])
    voxel = tuple(i + a for i, a in zip(inside, box.start, strict=True))
    value, position = _in_file(scan, channel, voxel, float(voxels[(channel, *inside)]))
    raise ScanError(f"scan {scan.name} has {value} at {(channel, *position)}: (channel, *voxel); replace these voxels")


def _in_file(scan: Scan, channel: int, voxel: tuple[int, ...], value: float) -> tuple[float, tuple[int, ...]]:
    """The non-finite value of the file, and its voxel, that made one of a view so."""
    own, grid = own_scan(scan), grid_map(scan)
    there = (grid.matrix() @ [*voxel, *[0] * (3 - len(voxel)), 1])[: len(voxel)]
    around = Box(tuple(np.floor(there - 1e-6)), tuple(np.floor(there + 1e-6) + 2)).clip(own.shape)
    if not around.voxels:
        return value, voxel
    neighbours = own.read(around)[channel]
    for inside in np.argwhere(~np.isfinite(neighbours)):
        return float(neighbours[tuple(inside)]), tuple(int(i) + a for i, a in zip(inside, around.start, strict=True))
    return value, voxel


def _turned(source: Scan, codes: str) -> GridMap:
    """Which axis of the source each axis of the oriented view is, and which way it runs."""
    from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

    turn = ornt_transform(io_orientation(source.affine), axcodes2ornt(codes))
    axes = [int(b) for b in np.argsort(turn[:, 0])]
    scale = tuple(float(turn[b, 1]) for b in axes)
    offset = tuple(source.shape[b] - 1.0 if s < 0 else 0.0 for b, s in zip(axes, scale, strict=True))
    return GridMap(tuple(axes), scale, offset)


def _check_codes(codes: str) -> None:
    named = sorted(i for letter in codes for i, ends in enumerate(DIRECTIONS) if letter in ends)
    if len(codes) != 3 or named != [0, 1, 2]:
        raise GridError(f"orientation {codes!r} must name three directions, one each of R/L, A/P and S/I: such as RAS")


def _numbers(name: str, value: Any) -> tuple[float, ...]:
    try:
        numbers = tuple(float(v) for v in value)
    except (TypeError, ValueError):
        raise ConfigError(f"a rescale's {name} is {value!r}; it must be a list of numbers") from None
    if not numbers or not all(map(math.isfinite, numbers)):
        raise ConfigError(f"a rescale's {name} is {value!r}; it must be a list of finite numbers")
    return numbers
