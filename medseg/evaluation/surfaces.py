"""Distances between the borders of a prediction and a reference, exact, in memory that the scan's size does not set.

A border voxel of a class is a voxel of it with a face neighbour that is not of it; what lies beyond the scan is not of
it. (That is MONAI's and Metrics Reloaded's border; axes of one voxel, along which nothing has a face, are passed over.)
Ignored voxels are of no class, and make no border where they begin: nobody knows what is there.

       . . . . . .          . . . . . .
       . # # # # .          . b b b b .
       . # # # # .   ->     . b     b .     d(a, B): from a voxel's centre to the nearest centre in B, in mm
       . # # # ? .          . b b b   .     (? is ignored)
       . . . . . .          . . . . . .

Borders are found block by block. Voxels that are border in both masks have distance 0 and ask nothing; the others ask
k-d trees of the other border, chunk by chunk, nearest chunk first, passing over those that cannot be nearer than what
was found: the result is the same whatever the chunks.
Legend: d axes, n points, A the prediction's border, B the reference's.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from medseg.evaluation.points import Points
from medseg.geometry import Box
from medseg.scans.lattice import bounds, places

TREES = 3
"""Trees that are kept for the next chunk of points."""
SEVERAL = 1 << 14
"""Points for which it pays to ask on all processors."""
ROUNDING = 1e-6
"""What a distance may lie above a tolerance, relatively: files keep spacings in single precision."""


@dataclass(frozen=True)
class Distances:
    """How often each distance was found.

    Attributes:
        values: (n,) ascending, each once.
        counts: (n,) how many border voxels have it.
    """

    values: NDArray[np.float64]
    counts: NDArray[np.int64]

    @classmethod
    def of(cls, parts: Sequence[tuple[NDArray[np.float64], NDArray[np.int64]]]) -> Distances:
        """Of parts that may share values."""
        values, where = np.unique(np.concatenate([part[0] for part in parts]), return_inverse=True)
        counts = np.bincount(where, np.concatenate([part[1] for part in parts]), values.size)
        return cls(values, counts.astype(np.int64))

    @property
    def total(self) -> int:
        """How many border voxels there are."""
        return int(self.counts.sum())

    @property
    def sum(self) -> float:
        """Of all distances."""
        return float(self.values @ self.counts)

    def quantile(self, share: float) -> float:
        """The distance that a share of the voxels does not exceed, linear between neighbours (NumPy's «linear»)."""
        place = share * (self.total - 1)
        below, above = (self._ranked(rank) for rank in (math.floor(place), math.ceil(place)))
        return below + (above - below) * (place - math.floor(place))

    def within(self, tolerance: float) -> int:
        """How many voxels lie within a tolerance."""
        return int(self.counts[self.values <= tolerance * (1 + ROUNDING)].sum())

    def _ranked(self, rank: int) -> float:
        return float(self.values[np.searchsorted(np.cumsum(self.counts), rank, side="right")])


@dataclass(frozen=True)
class SurfaceDistances:
    """From each border voxel of one mask to the other's border, both ways.

    Attributes:
        to_reference: of the prediction's border voxels.
        to_prediction: of the reference's.
    """

    to_reference: Distances
    to_prediction: Distances

    @property
    def both(self) -> tuple[Distances, Distances]:
        """Both ways."""
        return self.to_reference, self.to_prediction

    def hausdorff(self, share: float = 1.0) -> float:
        """The larger of both ways' quantiles: 1 is Hausdorff's distance, 0.95 is HD95."""
        return max(way.quantile(share) for way in self.both)

    @property
    def mean(self) -> float:
        """The average symmetric surface distance: over the voxels of both borders together."""
        return sum(way.sum for way in self.both) / sum(way.total for way in self.both)

    def within(self, tolerance: float) -> float:
        """The normalised surface Dice: the share of both borders' voxels that lie within a tolerance of the other."""
        return sum(way.within(tolerance) for way in self.both) / sum(way.total for way in self.both)


class Borders:
    """Collects the border voxels of every class of a prediction and its reference.

    Args:
        shape: (d,) of the scan.
    """

    def __init__(self, shape: Sequence[int]) -> None:
        self.shape = tuple(shape)
        self._found: dict[int, tuple[Points, Points]] = {}

    def add(self, box: Box, near: Box, prediction: NDArray, reference: NDArray) -> None:
        """Takes one block.

        Args:
            box: whose border voxels are meant; the boxes of all calls partition the scan.
            near: what is given of the scan: the box, grown by one voxel as far as there are voxels.
            prediction: (*near.shape) classes; below 0 is background.
            reference: the same; below 0 is to be ignored.
        """
        part = _occupied(prediction, reference, box.shift([-a for a in near.start]))
        if part is None:
            return
        around = part.grow(1)
        masks = [_cut(mask, around) for mask in (prediction, reference)]
        ignored = masks[1] < 0 if reference.dtype.kind == "i" else None
        if ignored is not None:
            masks[0] = np.where(ignored, -1, np.maximum(masks[0], 0))
        cores, borders = zip(*(self._border(mask, ignored) for mask in masks), strict=True)
        shared = borders[0] & borders[1] & (cores[0] == cores[1])
        start = tuple(a + b for a, b in zip(part.start, near.start, strict=True))
        for which, (core, border) in enumerate(zip(cores, borders, strict=True)):
            self._keep(which, core, border, shared, start)

    def distances(self, steps: NDArray[np.float64] | Sequence[float]) -> Mapping[int, SurfaceDistances]:
        """By class, of those that have a border in both masks.

        Args:
            steps: (d,) or (d, d) between voxels, see :mod:`medseg.scans.lattice`; distances are in their unit.
        """
        apart = np.asarray(steps, np.float64)
        return {
            number: SurfaceDistances(_nearest(a.finish(), b.finish(), apart), _nearest(b, a, apart))
            for number, (a, b) in sorted(self._found.items())
            if a.count and b.count
        }

    def sizes(self, number: int) -> tuple[int, int]:
        """How many border voxels of a class the prediction and the reference have."""
        if number not in self._found:
            return 0, 0
        return self._found[number][0].count, self._found[number][1].count

    def _border(self, mask: NDArray, ignored: NDArray | None) -> tuple[NDArray, NDArray]:
        """The mask without its rim, and which of its voxels are border."""
        inner = tuple(slice(1, -1) for _ in self.shape)
        core = mask[inner]
        border = np.zeros(core.shape, bool)
        for axis, length in enumerate(self.shape):
            for step in (0, 2) if length > 1 else ():
                beside = tuple(
                    slice(step, n - 2 + step) if a == axis else slice(1, -1) for a, n in enumerate(mask.shape)
                )
                differs = mask[beside] != core
                if ignored is not None:
                    differs &= ~ignored[beside]
                border |= differs
        border &= core > 0
        return core, border

    def _keep(self, which: int, core: NDArray, border: NDArray, shared: NDArray, start: Sequence[int]) -> None:
        local = np.flatnonzero(border)
        if not local.size:
            return
        where = np.unravel_index(local, core.shape)
        index = np.ravel_multi_index(tuple(w + s for w, s in zip(where, start, strict=True)), self.shape)
        codes = 2 * index + shared.ravel()[local]
        classes = core.ravel()[local]
        for number in np.flatnonzero(np.bincount(classes)):
            pair = self._found.setdefault(int(number), (Points(self.shape), Points(self.shape)))
            pair[which].add(codes[classes == number])


def _occupied(prediction: NDArray, reference: NDArray, inner: Box) -> Box | None:
    """The least box around all foreground of either mask within a box; None where there is none."""
    some = (prediction[inner.slices] > 0) | (reference[inner.slices] > 0)
    start, stop = [], []
    for axis, offset in enumerate(inner.start):
        filled = np.flatnonzero(some.any(axis=tuple(a for a in range(some.ndim) if a != axis)))
        if not filled.size:
            return None
        start.append(offset + int(filled[0]))
        stop.append(offset + int(filled[-1]) + 1)
    return Box(tuple(start), tuple(stop))


def _cut(mask: NDArray, box: Box) -> NDArray:
    """A box of a mask, 0 where it overhangs."""
    inside = box.clip(mask.shape)
    cut = np.zeros(box.shape, mask.dtype)
    cut[inside.shift([-a for a in box.start]).slices] = mask[inside.slices]
    return cut


def _nearest(these: Points, others: Points, steps: NDArray[np.float64]) -> Distances:
    """From each of these points to the nearest of the others."""
    forest = _Forest(others, steps)
    parts = []
    for chunk in these.chunks:
        codes = these.read(chunk)
        alone = codes[codes & 1 == 0]
        values, counts = np.unique(forest.nearest(places(these.indices(alone), steps)), return_counts=True)
        parts += [(values, counts), (np.zeros(1), np.array([codes.size - alone.size]))]
    found = Distances.of(parts)
    some = found.counts > 0
    return Distances(found.values[some], found.counts[some])


class _Forest:
    """One tree for each chunk of points, made when it is asked."""

    def __init__(self, points: Points, steps: NDArray[np.float64]) -> None:
        self.points = points
        self.steps = steps
        lows = np.array([chunk.low for chunk in points.chunks])
        highs = np.array([chunk.high for chunk in points.chunks])
        self._low, self._high = bounds(lows, highs, steps)
        self._trees: OrderedDict[int, cKDTree] = OrderedDict()

    def nearest(self, asked: NDArray[np.float64]) -> NDArray[np.float64]:
        """(n, d) places in mm → (n,) the distance from each to the nearest point."""
        best = np.full(len(asked), np.inf)
        if not len(asked):
            return best
        apart = _gap(self._low, self._high, asked.min(0), asked.max(0))
        for number in np.argsort(apart, kind="stable"):
            if apart[number] >= best.max():
                break
            near = np.flatnonzero(_gap(asked, asked, self._low[number], self._high[number]) < best)
            if near.size:
                bound = best[near].max() * (1 + ROUNDING)
                workers = -1 if near.size >= SEVERAL else 1
                found, _ = self._tree(int(number)).query(asked[near], distance_upper_bound=bound, workers=workers)
                best[near] = np.minimum(best[near], found)
        return best

    def _tree(self, number: int) -> cKDTree:
        if number in self._trees:
            self._trees.move_to_end(number)
            return self._trees[number]
        indices = self.points.indices(self.points.read(self.points.chunks[number]))
        tree = cKDTree(places(indices, self.steps), leafsize=32, compact_nodes=False, balanced_tree=False)
        self._trees[number] = tree
        if len(self._trees) > TREES:
            self._trees.popitem(last=False)
        return tree


def _gap(low: NDArray, high: NDArray, other_low: NDArray, other_high: NDArray) -> NDArray[np.float64]:
    """(n, d) boxes and another box → (n,) how far they are apart; 0 where they touch."""
    beyond = np.maximum(np.maximum(other_low - high, low - other_high), 0)
    return np.sqrt((beyond**2).sum(-1))
