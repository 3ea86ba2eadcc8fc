"""Cases that are unlike the others: robustly, by the median and the median absolute deviation (MAD).

Sizes, spacings and ranges of intensity are compared as logarithms, so that ten times and a tenth weigh alike. A case is
unusual where it is beyond :data:`DEVIATIONS` robust standard deviations, 1.4826 MAD (Leys et al. 2013, Journal of
Experimental Social Psychology 49, 764-766), and by more than a factor that matters: many sets have a MAD of 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from medseg.datasets.checks.facts import Channel, Grid
from medseg.datasets.checks.finding import CaseFacts, Expected, Finding, most, plural
from medseg.datasets.checks.grids import by, spacing_text

LEAST_CASES = 5
"""Of fewer cases nothing is usual."""
DEVIATIONS = 6.0
"""Robust standard deviations beyond which a case is unusual."""
COMMON = 0.2
"""What more than this part of the cases does is no exception."""
SPACING_FACTOR = 2.0
EXTENT_FACTOR = 2.0
KIND_FACTOR = 4.0
"""A scan that is so many times larger or smaller along every axis than most is of another kind."""
SCALE_FACTOR = 3.0
SHIFT = 0.3
"""By how much of the set's range of intensities a case's may be shifted."""
SET_FACTOR = 10.0
"""Ranges of intensity that differ by more than so much within nine tenths of the cases are a property of the set."""
TINY = 8
"""Voxels along an axis of which fewer are tiny."""
_SAME = "see whether it belongs to the set; data.exclude leaves it out"


def find(cases: Sequence[CaseFacts], expected: Expected) -> Iterator[Finding]:
    """Of the cases that can be read."""
    placed = {case.name: case.grid for case in cases if case.grid is not None}
    dims = most([len(grid.shape) for grid in placed.values()]) or 0
    alike = {name: grid for name, grid in placed.items() if len(grid.shape) == dims}
    if len(alike) >= LEAST_CASES:
        extents = list(_extents(alike, dims))
        foreign = {finding.case for finding in extents if finding.check == "another_kind"}
        yield from extents
        own = {name: grid for name, grid in alike.items() if name not in foreign}
        yield from _spacings(own, expected.resampled)
        yield from _intensities([case for case in cases if case.name not in foreign], expected.normalised)
    yield from _tiny(placed)


def unusual(values: NDArray[np.float64], least: float) -> NDArray[np.bool_]:
    """Which values lie away from the median by more than :data:`DEVIATIONS` robust SDs and by more than ``least``."""
    away = np.abs(values - np.median(values))
    return away > max(DEVIATIONS * 1.4826 * float(np.median(away)), least)


def _extents(grids: Mapping[str, Grid], dims: int) -> Iterator[Finding]:
    sizes = np.array([math.log(math.prod(grid.extent_mm)) for grid in grids.values()])
    middle = float(np.median(sizes))
    typical = list(grids.values())[int(np.argmin(np.abs(sizes - middle)))]
    kind = unusual(sizes, dims * math.log(KIND_FACTOR))
    odd = unusual(sizes, dims * math.log(EXTENT_FACTOR))
    if odd.mean() > COMMON:
        return
    for (name, grid), size, other, far in zip(grids.items(), sizes, kind, odd, strict=True):
        if not far:
            continue
        what = f"{grid.name} of {_place(grid)}; {_place(typical)} is usual: {_times(size - middle)} as large"
        numbers = {"extent_mm": list(grid.extent_mm), "usual_mm": list(typical.extent_mm)}
        if other:
            yield Finding("another_kind", "error", f"of another kind: {what}", _SAME, name, (), numbers)
        else:
            yield Finding("field_of_view", "warning", f"unusual field of view: {what}", _SAME, name, (), numbers)


def _spacings(grids: Mapping[str, Grid], resampled: bool) -> Iterator[Finding]:
    # Sorted, since files of one set may hold their axes in different orders.
    logs = np.log([sorted(grid.spacing_mm) for grid in grids.values()])
    odd = np.logical_or.reduce([unusual(axis, math.log(SPACING_FACTOR)) for axis in logs.T])
    if odd.mean() > COMMON:
        if resampled:
            return
        low, high = np.exp(logs.min(0)), np.exp(logs.max(0))
        what = f"spacings vary over the set, {spacing_text(tuple(low))} to {spacing_text(tuple(high))} mm"
        yield Finding("unusual_spacing", "warning", what, "resample all to one, with preprocessing.spacing_mm")
        return
    usual = tuple(np.exp(np.median(logs, 0)))
    for (name, grid), far in zip(grids.items(), odd, strict=True):
        if far:
            what = f"unusual spacing of {spacing_text(grid.spacing_mm)} mm; {spacing_text(usual)} is usual"
            numbers = {"spacing_mm": list(grid.spacing_mm), "usual_mm": list(usual)}
            remedy = "see whether the header is right, or resample with preprocessing.spacing_mm"
            yield Finding("unusual_spacing", "warning", what, remedy, name, (), numbers)


def _intensities(cases: Sequence[CaseFacts], normalised: bool) -> Iterator[Finding]:
    known = {case.name: case.values for case in cases if case.readable}
    count = most([len(channels) for channels in known.values()]) or 0
    for number in range(count):
        rows = {name: channels[number] for name, channels in known.items() if len(channels) == count}
        usable = {name: c for name, c in rows.items() if c.percentiles is not None and width(c) > 0}
        if len(usable) >= LEAST_CASES:
            yield from _of_channel(f"channel {number}: " if count > 1 else "", usable, normalised)


def width(channel: Channel) -> float:
    """From the 1st to the 99th percentile; from the least to the largest value where these are one."""
    if channel.percentiles is None or channel.low is None or channel.high is None:
        return 0.0
    return (channel.percentiles[2] - channel.percentiles[0]) or (channel.high - channel.low)


def _of_channel(which: str, channels: Mapping[str, Channel], normalised: bool) -> Iterator[Finding]:
    widths = np.array([width(c) for c in channels.values()])
    low, high = np.percentile(widths, [5, 95])
    if high > SET_FACTOR * low:
        if normalised:
            return
        what = (
            f"{which}intensities are on different scales: ranges from {widths.min():.3g} to {widths.max():.3g}, "
            f"{widths.max() / widths.min():,.0f}-fold"
        )
        remedy = "scale each scan by itself, with preprocessing.normalize.kind: zscore (the default)"
        yield Finding("intensity_scale", "warning", what, remedy, None, (), {"least": low, "largest": high})
        return
    ends = np.array([c.percentiles for c in channels.values()])
    typical = float(np.median(widths))
    odd = unusual(np.log(widths), math.log(SCALE_FACTOR))
    for end in ends.T[[0, 2]]:
        odd |= unusual(end / typical, SHIFT)
    if odd.mean() > COMMON:
        return
    usual = np.median(ends, 0)
    for name, own, far in zip(channels, ends, odd, strict=True):
        if far:
            what = f"{which}unusual intensities: 1st, 50th and 99th percentile {_three(own)}; {_three(usual)} are usual"
            numbers = {"percentiles": own.tolist(), "usual": usual.tolist()}
            remedy = "see whether its rescaling, window or modality is another one"
            yield Finding("intensity", "warning", what, remedy, name, (), numbers)


def _tiny(grids: Mapping[str, Grid]) -> Iterator[Finding]:
    small = {name: grid for name, grid in grids.items() if min(grid.shape) < TINY}
    if len(small) > COMMON * len(grids) and len(grids) >= LEAST_CASES:
        sizes = sorted(min(grid.shape) for grid in small.values())
        what = (
            f"{plural(len(small), 'scan')} of {len(grids)} have under {TINY} voxels along an axis, down to {sizes[0]}"
        )
        yield Finding("tiny", "warning", what, "choose a network that keeps that axis, or a 2D one")
        return
    for name, grid in small.items():
        what = f"tiny: {grid.name} of {by(grid.shape)} voxels"
        yield Finding("tiny", "warning", what, _SAME, name, (), {"shape": list(grid.shape)})


def _place(grid: Grid) -> str:
    unit = f" voxels of {spacing_text(grid.spacing_mm)} mm" if grid.unit != "pixel" else " voxels"
    return f"{by(grid.shape)}{unit}"


def _times(log: float) -> str:
    times = math.exp(log)
    return f"{times:,.0f} times" if times >= 10 else f"{times:.2g} times"


def _three(values: NDArray[np.float64]) -> str:
    return ", ".join(f"{v:.3g}" for v in values)
