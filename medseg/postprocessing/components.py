"""Connected components of a mask of any size: block by block, then joined across blocks.

    1. each block is labelled on its own (SciPy or scikit-image); its components get numbers after those before it,
       which are provisional
    2. where blocks meet, provisional numbers that touch and have one value are noted as a pair
    3. the pairs are joined (SciPy's union of a graph's nodes) and the components numbered from 1, by their first voxel
       in C order: exactly as ``scipy.ndimage.label`` numbers the whole of a mask of one value

Held are a block, the layers of :mod:`medseg.postprocessing.frontier`, and a few integers for each provisional
number and pair. Labels of the whole are held nowhere: a block is labelled again when it is asked for.

Legend: P provisional numbers, N components.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product

import numpy as np
from numpy.typing import NDArray

from medseg.geometry import Box
from medseg.postprocessing.frontier import Frontier, Touching
from medseg.postprocessing.mask import Mask

Report = Callable[[int, int], None]
"""Takes how many blocks are done, and of how many."""


@dataclass(frozen=True)
class Selection:
    """Which voxels are looked at, and which of them belong together.

    Attributes:
        background: the value of what is no object; None where there is no such value and every voxel is looked at.
        values: the values to look at; None takes all but the background.
        joined: whether different values that touch are one component.
    """

    background: int | None
    values: tuple[int, ...] | None = None
    joined: bool = False

    def labelled(self, values: NDArray, connectivity: int) -> NDArray[np.integer]:
        """(\\*n) values → (\\*n) components of the block alone, numbered from 1; 0 where none is.

        SciPy's labelling is several times faster, and knows one value alone.
        """
        none = int(values.max()) + 1 if self.background is None else self.background
        chosen = values != none if self.values is None else np.isin(values, self.values)
        looked_at = values[chosen]
        if not looked_at.size:
            return np.zeros(values.shape, np.int32)
        if self.joined or looked_at.min() == looked_at.max():
            from scipy.ndimage import generate_binary_structure
            from scipy.ndimage import label as label_one

            return label_one(chosen, generate_binary_structure(values.ndim, connectivity))[0]
        from skimage.measure import label

        return label(np.where(chosen, values, none), background=none, connectivity=connectivity)


@dataclass(frozen=True, eq=False)
class Components:
    """The components of a mask, numbered from 1 by their first voxel in C order.

    Attributes:
        number: (P + 1,) of each provisional number; 0 of 0.
        offsets: what a block's own numbers are added to.
        voxels: (N,) the size of each component.
        values: (N,) the value of its first voxel.
        at_border: (N,) whether it reaches the mask's border.
        touching: (2, E) pairs of components that touch, from 0, where these were looked at.
    """

    mask: Mask
    selection: Selection
    connectivity: int
    number: NDArray[np.int64]
    offsets: NDArray[np.int64]
    voxels: NDArray[np.int64]
    values: NDArray
    at_border: NDArray[np.bool_]
    touching: NDArray[np.int64]

    @classmethod
    def of(
        cls,
        mask: Mask,
        selection: Selection,
        connectivity: int,
        report: Report | None = None,
        *,
        touching: bool = False,
    ) -> Components:
        """Looks through a mask once.

        Args:
            mask: the mask.
            selection: what counts as an object.
            connectivity: along how many axes at once two voxels may be apart and touch, 1 to the number of axes.
            report: called after each block.
            touching: whether to note which components touch each other.
        """
        census = _Census(mask, selection, connectivity, touching)
        blocks = len(mask.grid)
        for index in range(blocks):
            census.count(index)
            if report is not None:
                report(index + 1, blocks)
        return census.components()

    def __len__(self) -> int:
        return len(self.voxels)

    def block(self, index: int, values: NDArray) -> NDArray[np.int64]:
        """(\\*n) values of a block → (\\*n) the numbers of its components, 0 where there is none."""
        own = self.selection.labelled(values, self.connectivity)
        return self.number[_provisional(own, int(self.offsets[index]))]


@dataclass
class _Census:
    """What is known of the blocks that were looked through."""

    mask: Mask
    selection: Selection
    connectivity: int
    look_around: bool
    total: int = 0
    offsets: list[int] = field(default_factory=list)
    voxels: list[NDArray] = field(default_factory=list)
    firsts: list[NDArray] = field(default_factory=list)
    values: list[NDArray] = field(default_factory=list)
    at_border: list[NDArray] = field(default_factory=list)
    pairs: list[NDArray] = field(default_factory=list)
    contacts: list[NDArray] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._frontier = Frontier(self.mask.grid, self.connectivity, self.mask.dtype)

    def count(self, index: int) -> None:
        """Looks through one block; blocks come in their order."""
        box, values = self.mask.grid.box(index), self.mask.block(index)
        own = self.selection.labelled(values, self.connectivity)
        count = int(own.max())
        first = _first_places(own, count)
        self.offsets.append(self.total)
        self.voxels.append(np.bincount(own.ravel(), minlength=count + 1)[1:])
        self.firsts.append(_in_whole(first, box, self.mask.grid.shape))
        self.values.append(values.ravel()[first])
        self.at_border.append(_at_border(own, count, box, self.mask.grid.shape))
        numbers = _provisional(own, self.total)
        self.total += count
        if self.look_around:
            for near, far in _within(box.ndim, self.connectivity):
                self._note(Touching((numbers[near], numbers[far]), (values[near], values[far])))
        for touching in self._frontier.meet(index, numbers, values):
            self._join(touching)
            if self.look_around:
                self._note(touching)

    def _join(self, touching: Touching) -> None:
        """Notes which provisional numbers are one component."""
        (near, far), (ours, theirs) = touching.numbers, touching.values
        same = (near > 0) & (far > 0)
        if not self.selection.joined:
            same &= ours == theirs
        if same.any():
            self.pairs.append(np.unique(np.stack([near[same], far[same]]), axis=1))

    def _note(self, touching: Touching) -> None:
        """Notes which components touch."""
        (near, far), (ours, theirs) = touching.numbers, touching.values
        apart = (near > 0) & (far > 0) & (ours != theirs)
        if apart.any():
            self.contacts.append(np.unique(np.stack([near[apart], far[apart]]), axis=1))

    def components(self) -> Components:
        """The components of all blocks."""
        root, count = self._roots()
        first = np.full(count, np.iinfo(np.int64).max)
        np.minimum.at(first, root, _flat(self.firsts))
        order = np.argsort(first)
        rank = np.empty(count, np.int64)
        rank[order] = np.arange(count)
        component = rank[root]
        voxels = np.zeros(count, np.int64)
        np.add.at(voxels, component, _flat(self.voxels))
        at_border = np.zeros(count, bool)
        at_border[component[_flat(self.at_border).astype(bool)]] = True
        values = np.zeros(count, self.mask.dtype)
        firsts = _flat(self.firsts)
        lead = firsts == first[root]
        values[component[lead]] = _flat(self.values)[lead]
        return Components(
            self.mask,
            self.selection,
            self.connectivity,
            np.concatenate([[0], component + 1]),
            np.array(self.offsets, np.int64),
            voxels,
            values,
            at_border,
            self._contacts(component),
        )

    def _roots(self) -> tuple[NDArray[np.int64], int]:
        """(P,) which provisional numbers belong together, and how many components that makes."""
        pairs = np.concatenate(self.pairs, axis=1) - 1 if self.pairs else np.zeros((2, 0), np.int64)
        return united(pairs, self.total)

    def _contacts(self, component: NDArray[np.int64]) -> NDArray[np.int64]:
        if not self.contacts:
            return np.zeros((2, 0), np.int64)
        return np.unique(np.sort(component[np.concatenate(self.contacts, axis=1) - 1], axis=0), axis=1)


def united(pairs: NDArray[np.int64], count: int) -> tuple[NDArray[np.int64], int]:
    """The union of things that are paired.

    Args:
        pairs: (2, E), numbers from 0.
        count: of things.

    Returns:
        (count,) the number of each thing's union, from 0, and how many there are.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(pairs.shape[1], np.int8), tuple(pairs)), shape=(count, count))
    unions, union = connected_components(graph, directed=False)
    return union.astype(np.int64), int(unions)


def _provisional(own: NDArray[np.integer], offset: int) -> NDArray[np.int64]:
    return np.where(own > 0, own.astype(np.int64) + offset, 0)


def _flat(parts: Sequence[NDArray]) -> NDArray:
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)


def _first_places(own: NDArray[np.integer], count: int) -> NDArray[np.int64]:
    """(count,) where, in C order, each of the numbers 1.. occurs first."""
    flat = own.ravel()
    places = np.flatnonzero(flat)[::-1]
    first = np.zeros(count + 1, np.int64)
    first[flat[places]] = places  # of several places the last one counts, which is the first in C order
    return first[1:]


def _in_whole(places: NDArray[np.int64], box: Box, shape: Sequence[int]) -> NDArray[np.int64]:
    """Places in a box as places in the whole, both in C order."""
    within = np.unravel_index(places, box.shape)
    return np.ravel_multi_index(tuple(i + a for i, a in zip(within, box.start, strict=True)), tuple(shape))


def _at_border(own: NDArray[np.integer], count: int, box: Box, shape: Sequence[int]) -> NDArray[np.bool_]:
    """(count,) which of the numbers 1.. reach the whole's border."""
    found = np.zeros(count + 1, bool)
    for axis, size in enumerate(shape):
        if box.start[axis] == 0:
            found[own.take(0, axis)] = True
        if box.stop[axis] == size:
            found[own.take(-1, axis)] = True
    return found[1:]


def _within(dims: int, connectivity: int) -> Iterator[tuple[tuple[slice, ...], tuple[slice, ...]]]:
    """The two parts of a block whose voxels lie a step apart, for each way in which voxels can touch."""
    for offset in product((-1, 0, 1), repeat=dims):
        if (0,) * dims < offset and np.count_nonzero(offset) <= connectivity:
            near = tuple(slice(max(0, -s), min(0, -s) or None) for s in offset)
            far = tuple(slice(max(0, s), min(0, s) or None) for s in offset)
            yield near, far
