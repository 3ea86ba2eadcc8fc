"""Small objects, largest objects, holes and instances of a mask of any size.

Each function looks through a mask once and returns it changed; see :mod:`medseg.postprocessing.mask`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medseg.errors import OutputError
from medseg.postprocessing.components import Components, Report, Selection, united
from medseg.postprocessing.mask import Grid, Mask

MOST_INSTANCES = 2**32 - 1


@dataclass(frozen=True, eq=False)
class Mapped:
    """A mask whose components get values of their own.

    Attributes:
        components: of the mask that it is made from.
        table: (N + 1,) the value of each component; entry 0 is not used.
        changed: (N + 1,) which components get it; entry 0 says whether all other voxels become 0.
    """

    components: Components
    table: NDArray
    changed: NDArray[np.bool_]

    @property
    def grid(self) -> Grid:
        """The blocks."""
        return self.components.mask.grid

    @property
    def dtype(self) -> np.dtype:
        """Of the values."""
        return self.table.dtype

    @property
    def account(self) -> dict[str, int]:
        """How many components there are, and how many, of how many voxels, are changed."""
        changed = self.changed[1:]
        voxels = int(self.components.voxels[changed].sum())
        return {"components": len(changed), "changed": int(changed.sum()), "changed_voxels": voxels}

    def block(self, index: int) -> NDArray:
        """The values of a block: (\\*box.shape)."""
        values = self.components.mask.block(index)
        if not self.changed.any():
            return values.astype(self.dtype, copy=False)
        numbers = self.components.block(index, values)
        return np.where(self.changed[numbers], self.table[numbers], values).astype(self.dtype, copy=False)


def remove_small(
    mask: Mask, selection: Selection, connectivity: int, least: int, report: Report | None = None
) -> Mapped:
    """Objects of fewer than ``least`` voxels become background."""
    found = Components.of(mask, selection, connectivity, report)
    return _cleared(found, found.voxels < least)


def keep_largest(
    mask: Mask, selection: Selection, connectivity: int, count: int = 1, report: Report | None = None
) -> Mapped:
    """Of each value the ``count`` largest objects stay, the first in C order where sizes are equal."""
    found = Components.of(mask, selection, connectivity, report)
    groups = np.zeros(len(found), np.int64) if selection.joined else found.values.astype(np.int64)
    order = np.lexsort((-found.voxels, groups))  # stable: of equal ones the first comes first
    ordered = groups[order]
    starts = np.searchsorted(ordered, ordered)
    small = np.empty(len(found), bool)
    small[order] = np.arange(len(found)) - starts >= count
    return _cleared(found, small)


def fill_holes(
    mask: Mask, selection: Selection, connectivity: int, most: int | None = None, report: Report | None = None
) -> Mapped:
    """Background that one of the values encloses becomes that value.

    A hole of a value is a component of everything else that does not reach the mask's border and has at most ``most``
    voxels. Of a hole only the background is filled: other labels in it stay. What several values enclose belongs to
    the innermost, whose hole is the smallest. Of a mask of one value it equals ``scipy.ndimage.binary_fill_holes``.
    """
    found = Components.of(mask, Selection(None), connectivity, report, touching=True)
    empty = found.values == selection.background
    table = np.zeros(len(found) + 1, mask.dtype)
    smallest = np.full(len(found), np.iinfo(np.int64).max)
    for value in np.unique(found.values):
        if value == selection.background or (selection.values is not None and value not in selection.values):
            continue
        size, enclosed = _holes(found, found.values != value)
        filled = empty & enclosed & (size < smallest) & (size <= (size if most is None else most))
        smallest[filled] = size[filled]
        table[1:][filled] = value
    return Mapped(found, table, np.concatenate([[False], smallest < np.iinfo(np.int64).max]))


def _holes(found: Components, outside: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Of each of some components: the voxels of their union that it is part of, and whether that is no border's."""
    pairs = found.touching[:, outside[found.touching].all(axis=0)]
    union, unions = united(pairs, len(found))
    size, at_border = np.zeros(unions, np.int64), np.zeros(unions, bool)
    np.add.at(size, union, found.voxels)
    at_border[union[found.at_border]] = True
    return size[union], outside & ~at_border[union]


def instances(mask: Mask, selection: Selection, connectivity: int, report: Report | None = None) -> Mapped:
    """Each object gets its number, from 1 by its first voxel in C order; everything else 0.

    Raises:
        OutputError: where there are more than uint32 can number.
    """
    found = Components.of(mask, selection, connectivity, report)
    if len(found) > MOST_INSTANCES:
        raise OutputError(
            f"the mask has {len(found)} objects, more than uint32 can number: remove the small ones first"
        )
    numbers = np.arange(len(found) + 1, dtype=np.uint32)
    return Mapped(found, numbers, np.ones(len(found) + 1, bool))


def _cleared(found: Components, small: NDArray[np.bool_]) -> Mapped:
    table = np.full(len(small) + 1, found.selection.background, found.mask.dtype)
    return Mapped(found, table, np.concatenate([[False], small]))
