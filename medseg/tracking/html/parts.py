"""What of a case goes into a page: all of it where it is small, else two parts of bounded size.

    small case     [whole]
    large case     [overview: the means of cells, the label in the middle of each]  [detail: a box at full resolution,
                   there where most voxels are wrong; without any, where most are foreground]

A large case is read block by block, and its detail once more. Legend: as in :mod:`medseg.tracking.html.display`;
s voxels of a cell along each axis.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter

from medseg.geometry import Box
from medseg.tracking.html.display import Display, Voxels

LEVELS = 4095
"""The largest stored grey value; whole numbers of a smaller range are stored as they are."""
WINDOW = (0.5, 99.5)
"""The percentiles between which grey is stretched at first."""
TAILS = (0.02, 99.98)
"""The percentiles beyond which a range of more than LEVELS + 1 numbers is cut."""
SAMPLE = 1 << 20
"""Voxels that percentiles are taken of."""


@dataclass(frozen=True, eq=False)
class Grey:
    """An image in few levels: value = low + step * code.

    Attributes:
        codes: (C, z, y, x) of uint8 or uint16.
        low: the value of code 0.
        step: between codes.
        window: the values that are black and white at first.
    """

    codes: NDArray
    low: float
    step: float
    window: tuple[float, float]

    @classmethod
    def of(cls, image: NDArray) -> Grey:
        """Of an image (C, z, y, x) of any real type; what is not finite becomes the lowest value."""
        sample = _sample(image)
        if not sample.size:
            return cls(np.zeros(image.shape, np.uint8), 0.0, 1.0, (0.0, 1.0))
        low, high = _range(image, sample)
        step = 1.0 if image.dtype.kind in "bui" and high - low <= LEVELS else (high - low) / LEVELS or 1.0
        with np.errstate(invalid="ignore"):
            codes = np.clip(np.rint((image.astype(np.float64) - low) / step), 0, LEVELS)
        codes = np.nan_to_num(codes, nan=0.0)
        dtype = np.uint8 if codes.max() <= 255 else np.uint16
        return cls(codes.astype(dtype), low, step, _window(sample))

    def values(self) -> NDArray[np.float64]:
        """(C, z, y, x)."""
        return self.low + self.step * self.codes


@dataclass(frozen=True, eq=False)
class Part:
    """A box of a case.

    Attributes:
        title: what it is, in words.
        image: of it, or None.
        reference: (z, y, x) classes 0..K, or K + 1 where voxels are to be ignored.
        prediction: as the reference, or None.
        spacing: (z, y, x) between its own voxels.
        offset: (z, y, x) of its first voxel, in voxels of the case.
        step: (z, y, x) voxels of the case that make one of its own.
    """

    title: str
    image: Grey | None
    reference: NDArray
    prediction: NDArray | None
    spacing: tuple[float, ...]
    offset: tuple[int, ...]
    step: tuple[int, ...]

    @property
    def wrong(self) -> NDArray[np.bool_]:
        """(z, y, x): where both differ."""
        return Voxels(None, self.reference, self.prediction).wrong

    def focus(self) -> tuple[int, int, int]:
        """(z, y, x): a voxel through which its planes tell most.

        It is in the plane of most errors, and of these nearest to their middle; without errors it goes by the
        foreground, and without that it is the part's middle.
        """
        for mask in (self.wrong, self.reference > 0):
            if mask.any():
                z = int(mask.sum((1, 2)).argmax())
                places = np.argwhere(mask[z])
                y, x = places[((places - places.mean(0)) ** 2).sum(1).argmin()]
                return z, int(y), int(x)
        z, y, x = (n // 2 for n in self.reference.shape)
        return z, y, x


def parts_of(display: Display, voxels: int) -> list[Part]:
    """The parts of a case that are shown, together of at most so many voxels (at least 8 a part)."""
    shape, spacing = display.shape, display.spacing
    if math.prod(shape) <= voxels:
        return [_detail(display, Box.of(shape), "whole")]
    step = step_for(shape, spacing, voxels // 2)
    overview, weight = _overview(display, step)
    sides = sides_for(shape, voxels // 2)
    box = busiest(weight, step, shape, sides)
    return [overview, _detail(display, box, "full resolution, where most is wrong")]


def step_for(shape: Sequence[int], spacing: Sequence[float], voxels: int) -> tuple[int, ...]:
    """The cells that leave at most so many: the axis whose cells are shortest grows until they do."""
    step = [1] * len(shape)
    while math.prod(-(-n // s) for n, s in zip(shape, step, strict=True)) > max(voxels, 8):
        growing = [a for a, n in enumerate(shape) if step[a] < n]
        step[min(growing, key=lambda a: spacing[a] * step[a])] += 1
    return tuple(step)


def sides_for(shape: Sequence[int], voxels: int) -> tuple[int, ...]:
    """The sides of the largest box of at most so many voxels that is as much of a cube as the shape allows."""
    sides, left = [0] * len(shape), max(voxels, 8)
    for done, axis in enumerate(sorted(range(len(shape)), key=lambda a: shape[a])):
        even = int(left ** (1 / (len(shape) - done)) + 1e-9)
        sides[axis] = max(1, min(shape[axis], even))
        left //= sides[axis]
    return tuple(sides)


def busiest(weight: NDArray, step: Sequence[int], shape: Sequence[int], sides: Sequence[int]) -> Box:
    """The box of these sides, in a case of this shape, around the cells that weigh most together.

    Args:
        weight: (z, y, x) of each cell.
        step: voxels of a cell.
        shape: of the case.
        sides: of the box.
    """
    window = [-(-n // s) for n, s in zip(sides, step, strict=True)]
    sums = uniform_filter(weight.astype(np.float64), window, mode="constant")
    middle = np.unravel_index(int(sums.argmax()), sums.shape)
    start = [
        min(max(int(m) * s + s // 2 - side // 2, 0), n - side)
        for m, s, side, n in zip(middle, step, sides, shape, strict=True)
    ]
    return Box(tuple(start), tuple(a + side for a, side in zip(start, sides, strict=True)))


def _detail(display: Display, box: Box, title: str) -> Part:
    voxels = display.read(box)
    image = None if voxels.image is None else Grey.of(voxels.image)
    return Part(title, image, voxels.reference, voxels.prediction, display.spacing, box.start, (1, 1, 1))


def _overview(display: Display, step: tuple[int, ...]) -> tuple[Part, NDArray]:
    """The case in cells, and in each how many voxels are wrong; where none is, how many are foreground."""
    cells = tuple(-(-n // s) for n, s in zip(display.shape, step, strict=True))
    reference, prediction = np.zeros((2, *cells), display.dtype)
    wrong, foreground = np.zeros((2, *cells), np.int64)
    image: NDArray | None = None
    for box in display.blocks(step):
        voxels = display.read(box)
        there = tuple(slice(a // s, -(-b // s)) for a, b, s in zip(box.start, box.stop, step, strict=True))
        reference[there] = _middles(voxels.reference, step)
        wrong[there] = _sums(voxels.wrong, step)
        foreground[there] = _sums(voxels.reference > 0, step)
        if voxels.prediction is not None:
            prediction[there] = _middles(voxels.prediction, step)
        if voxels.image is not None:
            if image is None:
                image = np.zeros((len(voxels.image), *cells), np.float32)
            image[(slice(None), *there)] = [_sums(channel, step) for channel in voxels.image]
            image[(slice(None), *there)] /= _sums(np.ones(box.shape, np.float32), step)
    grey = None if image is None else Grey.of(_as_read(image, display))
    spacing = tuple(mm * s for mm, s in zip(display.spacing, step, strict=True))
    found = None if display.scans.prediction is None else prediction
    title = f"all, {_by(step[1:] if display.flat else step)} voxels as one"
    return Part(title, grey, reference, found, spacing, (0, 0, 0), step), wrong if wrong.any() else foreground


def _as_read(means: NDArray, display: Display) -> NDArray:
    """Means of whole numbers are rounded to such."""
    dtype = display.scans.image.dtype if display.scans.image is not None else means.dtype
    return np.rint(means).astype(dtype) if dtype.kind in "iu" else means


def _sums(values: NDArray, step: Sequence[int]) -> NDArray:
    """(z, y, x) → the sum of each cell."""
    summed = values.astype(np.float32 if values.dtype.kind == "f" else np.int64)
    for axis, s in enumerate(step):
        if s > 1:
            summed = np.add.reduceat(summed, np.arange(0, summed.shape[axis], s), axis)
    return summed


def _middles(values: NDArray, step: Sequence[int]) -> NDArray:
    """(z, y, x) → the voxel in the middle of each cell."""
    places = [np.minimum(np.arange(0, n, s) + s // 2, n - 1) for n, s in zip(values.shape, step, strict=True)]
    return values[np.ix_(*places)]


def _sample(image: NDArray) -> NDArray[np.float64]:
    """Finite values from all over an image, at most about SAMPLE of them."""
    flat = image.reshape(-1)[:: max(1, image.size // SAMPLE)].astype(np.float64)
    return np.asarray(flat[np.isfinite(flat)])


def _range(image: NDArray, sample: NDArray[np.float64]) -> tuple[float, float]:
    """The values of the lowest and the highest code."""
    if image.dtype == np.uint8:
        return 0.0, 255.0
    if image.dtype.kind in "bui" and int(image.max()) - int(image.min()) <= LEVELS:
        return float(image.min()), float(image.max())
    low, high = np.percentile(sample, TAILS)
    return float(low), float(high)


def _window(sample: NDArray[np.float64]) -> tuple[float, float]:
    low, high = (float(v) for v in np.percentile(sample, WINDOW))
    half = max(0.5, 2 * abs(float(np.spacing(low))))  # of a float so large that half a unit is lost in it
    return (low, high) if high > low else (low - half, low + half)


def _by(step: Sequence[int]) -> str:
    return " x ".join(map(str, step))
