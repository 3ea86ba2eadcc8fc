"""Which objects of a prediction share voxels with which of a reference, counted slab by slab.

Objects are connected components of a mask, or the numbers of an instance file. A slab is a few whole cross-sections,
along the axis that the file runs slowest; components that go on in the next slab are joined by the last cross-section,
so that one cross-section and one number for each object is all that is kept.

Legend: r objects of the reference, p objects of the prediction, m pairs that share voxels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from medseg.geometry import Box
from medseg.scans.blocks import boxes
from medseg.scans.scan import Scan

SLAB_VOXELS = 1 << 22
"""Voxels of a slab, as far as one cross-section allows."""
DENSE = 1 << 22
"""Pairs of numbers that are counted in a table; more are sorted."""

Objects = tuple[NDArray[np.integer], NDArray[np.int64]]
"""(*n) local numbers, 0 where no object is; and (highest + 1,) the number in the whole scan of each."""


@dataclass(frozen=True)
class Overlaps:
    """Two sets of objects, and the voxels that they share.

    Attributes:
        reference: (r,) voxels of each object.
        prediction: (p,) voxels of each object.
        pairs: (m, 2) indices of objects of the reference and the prediction that share voxels.
        shared: (m,) how many.
    """

    reference: NDArray[np.int64]
    prediction: NDArray[np.int64]
    pairs: NDArray[np.int64]
    shared: NDArray[np.int64]

    @property
    def union(self) -> NDArray[np.int64]:
        """(m,) voxels that either object of a pair has."""
        return self.reference[self.pairs[:, 0]] + self.prediction[self.pairs[:, 1]] - self.shared


class Components:
    """Numbers the connected components of a mask that comes slab by slab.

    Args:
        axes: of the scan.
        diagonal: whether voxels that touch at an edge or corner are connected (8 and 26 neighbours), or those alone
            that share a face (4 and 6).
    """

    def __init__(self, axes: int, diagonal: bool) -> None:
        self._structure = ndimage.generate_binary_structure(axes, axes if diagonal else 1)
        self._last: NDArray[np.int64] | None = None
        self._count = 0
        self._joined: list[NDArray[np.int64]] = []

    def __call__(self, mask: NDArray[np.bool_]) -> Objects:
        """The objects of the next slab, (t, ...) along axis 0; numbers are final after :meth:`final`."""
        before = self._last
        stacked = mask if before is None else np.concatenate([before[None] > 0, mask])
        local, highest = ndimage.label(stacked, self._structure)
        names = np.concatenate([[0], np.arange(highest) + self._count + 1])
        self._count += highest
        if before is not None:
            touching = before > 0
            self._joined.append(_unique_rows(before[touching], names[local[0][touching]]))
            local = local[1:]
        self._last = names[local[-1]]
        return local, names

    def final(self) -> NDArray[np.int64]:
        """(count + 1,) the component of each number that was given, from 1; 0 for 0."""
        edges = np.concatenate([*self._joined, np.empty((0, 2), np.int64)])
        size = self._count + 1
        graph = coo_array((np.ones(len(edges), np.int8), (edges[:, 0], edges[:, 1])), shape=(size, size))
        return connected_components(graph, directed=False)[1].astype(np.int64)


class Numbers:
    """The objects of a file whose values are their numbers."""

    def __call__(self, values: NDArray[np.integer]) -> Objects:
        """The objects of the next slab."""
        if values.size and values.min() >= 0 and values.max() < DENSE:
            return values, np.arange(int(values.max()) + 1)
        names, local = np.unique(np.append(values.ravel(), 0), return_inverse=True)
        zero = int(np.searchsorted(names, 0))
        order = np.concatenate([[zero], np.delete(np.arange(names.size), zero)])
        place = np.empty(names.size, np.int64)
        place[order] = np.arange(names.size)
        return place[local[:-1]].reshape(values.shape), names[order].astype(np.int64)

    def final(self) -> None:
        """Numbers are final."""
        return


Numbering = Components | Numbers


class Tally:
    """Counts the voxels of objects and of their overlaps.

    Args:
        reference: numbers the reference's objects.
        prediction: numbers the prediction's.
    """

    def __init__(self, reference: Numbering, prediction: Numbering) -> None:
        self._numbering = reference, prediction
        self._sizes: tuple[list[NDArray], list[NDArray]] = ([], [])
        self._pairs: list[NDArray] = []

    def add(self, reference: NDArray, prediction: NDArray) -> None:
        """Takes the next slab of both: what the numbering of each takes."""
        found = [number(part) for number, part in zip(self._numbering, (reference, prediction), strict=True)]
        for sizes, (local, names) in zip(self._sizes, found, strict=True):
            counts = np.bincount(local.ravel(), minlength=names.size)
            present = np.flatnonzero(counts[1:]) + 1
            sizes.append(np.stack([names[present], counts[present]]))
        self._pairs.append(_meet(*found))

    def overlaps(self) -> Overlaps:
        """Of all slabs."""
        merged = [number.final() for number in self._numbering]
        (reference, r_sizes), (prediction, p_sizes) = (
            _summed(parts, mapping) for parts, mapping in zip(self._sizes, merged, strict=True)
        )
        rows, columns, shared = np.concatenate([*self._pairs, np.empty((3, 0), np.int64)], axis=1)
        rows, columns = (
            np.searchsorted(known, ids if mapping is None else mapping[ids])
            for known, ids, mapping in zip((reference, prediction), (rows, columns), merged, strict=True)
        )
        table = coo_array((shared, (rows, columns)), shape=(reference.size, prediction.size)).tocsr().tocoo()
        return Overlaps(r_sizes, p_sizes, np.stack([table.row, table.col], 1).astype(np.int64), table.data)


def tally(
    scan: Scan,
    read: Callable[[Box], tuple[NDArray, NDArray]],
    reference: Numbering,
    prediction: Numbering,
    voxels: int = SLAB_VOXELS,
) -> Overlaps:
    """The overlaps of a whole scan.

    Args:
        scan: whose shape and axis order it goes by.
        read: of a box, what the numbering of the reference and of the prediction takes.
        reference: numbers the reference's objects.
        prediction: numbers the prediction's.
        voxels: of a slab.
    """
    counted = Tally(reference, prediction)
    axis = slow_axis(scan)
    for box in slabs(scan, voxels):
        counted.add(*(np.moveaxis(part, axis, 0) for part in read(box)))
    return counted.overlaps()


def slabs(scan: Scan, voxels: int = SLAB_VOXELS) -> Iterator[Box]:
    """Boxes of whole cross-sections that partition a scan, in order along its slowest axis."""
    axis = slow_axis(scan)
    sides = list(scan.shape)
    sides[axis] = max(1, min(sides[axis], voxels // (math.prod(sides) // sides[axis])))
    yield from boxes(scan.shape, sides)


def slow_axis(scan: Scan) -> int:
    """The axis that the file runs slowest."""
    return len(scan.shape) - 1 if scan.axes.startswith("X") else 0


def _meet(reference: Objects, prediction: Objects) -> NDArray[np.int64]:
    """(3, m): numbers of objects that share voxels in a slab, and how many."""
    (r_local, r_names), (p_local, p_names) = reference, prediction
    both = (r_local > 0) & (p_local > 0)
    keys = r_local[both].astype(np.int64) * p_names.size + p_local[both]
    if r_names.size * p_names.size <= DENSE:
        counts = np.bincount(keys)
        found = np.flatnonzero(counts)
        counts = counts[found]
    else:
        found, counts = np.unique(keys, return_counts=True)
    return np.stack([r_names[found // p_names.size], p_names[found % p_names.size], counts]).astype(np.int64)


def _summed(parts: list[NDArray], mapping: NDArray[np.int64] | None) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(count,) the final numbers, ascending, and the voxels of each."""
    ids, counts = np.concatenate([*parts, np.empty((2, 0), np.int64)], axis=1)
    known, where = np.unique(ids if mapping is None else mapping[ids], return_inverse=True)
    return known, np.bincount(where, counts, known.size).astype(np.int64)


def _unique_rows(first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.int64]:
    """(n,) and (n,) → (m, 2) the pairs that occur, each once."""
    return np.unique(np.stack([first, second], axis=1), axis=0) if first.size else np.empty((0, 2), np.int64)
