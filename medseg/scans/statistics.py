"""Statistics of scans that are never in memory as a whole: one box after the other, the same result every time.

Mean and SD take one pass (:class:`Moments`, merged as Chan, Golub & LeVeque 1979 do). Percentiles are exact: values are
numbered in their order (:func:`keys_of`), a first pass counts the upper half of the number's bits and a second pass
counts the lower half where the percentile turned out to lie (radix selection), so memory does not grow with the scans.

Legend: C channels, n voxels of a box.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medseg.errors import ConfigError, GridError
from medseg.scans.blocks import blocks
from medseg.scans.protocol import Scan
from medseg.scans.views import Rescale, check_finite

HALF = 1 << 16
"""How many values half the bits of a float32 can have."""


@dataclass
class Moments:
    """Count, mean and sum of squared deviations of one channel, to which values are added piece by piece."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0

    def add(self, values: NDArray, times: NDArray | None = None) -> None:
        """Adds values, each as often as ``times`` says (once where it is silent)."""
        count = values.size if times is None else int(times.sum())
        if not count:
            return
        wide = values.astype(np.float64)
        # Deviations from a value that occurs keep a constant channel's sum of squares at exactly 0.
        pivot = float(wide.flat[0])
        wide -= pivot
        weights = np.ones(1) if times is None else times
        shift = float((wide * weights).sum()) / count
        wide -= shift
        self.merge(Moments(count, pivot + shift, float((wide * wide * weights).sum())))

    def merge(self, other: Moments) -> None:
        """Adds what another has counted."""
        count = self.count + other.count
        if not count:
            return
        apart = other.mean - self.mean
        self.mean += apart * other.count / count
        self.squares += other.squares + apart * apart * self.count * other.count / count
        self.count = count

    @property
    def scale(self) -> float:
        """The SD (of the population, as MONAI's); 1 for a constant channel, which then becomes 0."""
        return math.sqrt(self.squares / self.count) or 1.0


def zscore(scan: Scan) -> Rescale:
    """(x - mean) / SD of each channel of the scan.

    Raises:
        ScanError: where the scan has NaN or inf.
    """
    moments = [Moments() for _ in range(scan.channels)]
    for voxels in boxes_of(scan):
        for channel, values in zip(moments, voxels, strict=True):
            channel.add(values)
    return Rescale(None, None, tuple(m.mean for m in moments), tuple(m.scale for m in moments))


def fixed_range(low: float, high: float) -> Rescale:
    """[low, high] to [0, 1], clipped: a CT window, or the range of a dtype.

    Raises:
        ConfigError: where low is not below high.
    """
    if not low < high:
        raise ConfigError(f"a range of [{low}, {high}] has no width: the first number must be below the second")
    return Rescale((low,), (high,), (low,), (high - low,))


def dataset_statistics(scans: Sequence[Scan], percentiles: tuple[float, float] = (0.5, 99.5)) -> Rescale:
    """Each channel clipped to percentiles of all voxels of all scans, then (x - mean) / SD of the clipped values.

    Percentiles are NumPy's, linear between neighbouring values; values that float32 cannot hold count as rounded to it.

    Raises:
        ConfigError: where the percentiles are not 0 <= low < high <= 100, or there are no scans.
        GridError: where the scans have different numbers of channels.
        ScanError: where a scan has NaN or inf.
    """
    if not scans or not 0 <= percentiles[0] < percentiles[1] <= 100:
        raise ConfigError(
            f"percentiles {percentiles} of {len(scans)} scans: give a low and a high one of 1 scan or more"
        )
    channels = {scan.channels for scan in scans}
    if len(channels) > 1:
        raise GridError(f"the scans of one data set have {' and '.join(map(str, sorted(channels)))} channels")
    histograms = _Histograms(channels.pop())
    for voxels in _all_boxes(scans):
        histograms.count_upper(voxels)
    histograms.seek(percentiles)
    for voxels in _all_boxes(scans):
        histograms.count_lower(voxels)
    found = [histograms.clipped(channel, percentiles) for channel in range(histograms.channels)]
    low, high, moments = zip(*found, strict=True)
    return Rescale(low, high, tuple(m.mean for m in moments), tuple(m.scale for m in moments))


def boxes_of(scan: Scan) -> Iterator[NDArray]:
    """The scan's voxels (C, *n), box after box.

    Raises:
        ScanError: where there is NaN or inf.
    """
    for box in blocks(scan):
        voxels = scan.read(box)
        check_finite(scan, box, voxels)
        yield voxels


def _all_boxes(scans: Sequence[Scan]) -> Iterator[NDArray]:
    for scan in scans:
        yield from boxes_of(scan)


def keys_of(values: NDArray) -> NDArray[np.uint32]:
    """Float32 values as whole numbers of the same order: the bits, with the sign's order mended.

    >>> keys_of(np.array([-1, 0, 1], np.float32)).argsort()
    array([0, 1, 2])
    """
    # Adding 0 makes the negative zero positive, which is the same number with other bits.
    bits = (values.astype(np.float32) + np.float32(0)).view(np.uint32)
    return np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))


def values_of(keys: NDArray[np.uint32]) -> NDArray[np.float32]:
    """The inverse of :func:`keys_of`."""
    bits = np.where(keys >> 31, keys & np.uint32((1 << 31) - 1), ~keys)
    return bits.astype(np.uint32).view(np.float32)


class _Histograms:
    """For each channel: how often the upper halves of its keys occur, then the lower halves of a few upper ones.

    Of the values strictly between the sought ones' upper halves the second pass keeps the moments alone.
    """

    def __init__(self, channels: int) -> None:
        self.channels = channels
        self.upper = np.zeros((channels, HALF), np.int64)
        self.lower: list[dict[int, NDArray[np.int64]]] = [{} for _ in range(channels)]
        self.between = [Moments() for _ in range(channels)]

    def count_upper(self, voxels: NDArray) -> None:
        """The first pass."""
        for counts, values in zip(self.upper, voxels, strict=True):
            counts += np.bincount((keys_of(values) >> 16).ravel(), minlength=HALF)

    def seek(self, percentiles: Sequence[float]) -> None:
        """Between the passes: the upper halves in which the percentiles' neighbours lie."""
        for counts, lower in zip(self.upper, self.lower, strict=True):
            below = counts.cumsum()
            for percentile in percentiles:
                for rank in _neighbours(percentile, int(below[-1]))[:2]:
                    lower[int(np.searchsorted(below, rank, side="right"))] = np.zeros(HALF, np.int64)

    def count_lower(self, voxels: NDArray) -> None:
        """The second pass."""
        for lower, between, values in zip(self.lower, self.between, voxels, strict=True):
            keys = keys_of(values)
            upper = keys >> 16
            inside = (upper > min(lower)) & (upper < max(lower))
            for half, counts in lower.items():
                sought = upper == half
                counts += np.bincount(keys[sought] & (HALF - 1), minlength=HALF)
                inside &= ~sought
            between.add(values[inside])

    def clipped(self, channel: int, percentiles: tuple[float, float]) -> tuple[float, float, Moments]:
        """After both passes: the channel's two percentiles, and the moments of its values clipped to them."""
        low, high = (self._percentile(channel, p) for p in percentiles)
        counts, lower = self.upper[channel], self.lower[channel]
        moments = Moments()
        moments.merge(self.between[channel])
        for half, fine in lower.items():
            occurring = np.flatnonzero(fine)
            values = values_of((occurring + half * HALF).astype(np.uint32)).astype(np.float64)
            moments.add(values.clip(low, high), fine[occurring])
        outside = np.array([counts[: min(lower)].sum(), counts[max(lower) + 1 :].sum()])
        moments.add(np.array([low, high]), outside)
        return low, high, moments

    def _percentile(self, channel: int, percentile: float) -> float:
        total = int(self.upper[channel].sum())
        first, second, weight = _neighbours(percentile, total)
        a, b = self._value(channel, first), self._value(channel, second)
        return a + (b - a) * weight

    def _value(self, channel: int, rank: int) -> float:
        """The value at a place in the sorted channel."""
        below = self.upper[channel].cumsum()
        half = int(np.searchsorted(below, rank, side="right"))
        within = rank - (int(below[half - 1]) if half else 0)
        fine = int(np.searchsorted(self.lower[channel][half].cumsum(), within, side="right"))
        return float(values_of(np.array([half * HALF + fine], np.uint32))[0])


def _neighbours(percentile: float, count: int) -> tuple[int, int, float]:
    """The places, in the sorted values, between which a percentile lies, and how far it is from the first."""
    place = percentile / 100 * (count - 1)
    first = min(int(place), count - 1)
    return first, min(first + 1, count - 1), place - first
