"""Labels that lie in planes and may overlap, as DICOM SEG and RTSTRUCT have them, seen as a scan of one value a voxel.

    plane k:  liver  ####....        a layer a segment; where none is: 0, where one is: its value,
              tumour ..##....        where several are: the value that this set of segments has, or an error

Layers are read when a box is.

Legend: n, m voxels along the two axes of a plane.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.errors import ScanError, some
from medseg.geometry import Box
from medseg.scans.contents import is_dicom
from medseg.scans.dicom_header import Instance
from medseg.scans.header import FileScan, Header
from medseg.scans.protocol import Scan

Key = str | int
"""What a segment is called: its name, or its number where names don't matter."""
Table = tuple[tuple[tuple[str, ...], int], ...]
"""The value of each set of segments, their names in order; the empty set's is 0."""
Mask = Callable[[slice, slice], NDArray[np.bool_]]
"""The voxels of a plane: (n, m) of two ranges along its axes, in their order."""
MEETS = 0.1
"""How far, in voxels, a plane or its corners may lie from the grid's voxels."""


@dataclass(frozen=True)
class Layer:
    """One segment in one plane."""

    key: Key
    mask: Mask


@dataclass(frozen=True)
class Planes:
    """All layers of an object on a grid.

    Attributes:
        axis: that the planes are stacked along; None for a grid of two axes, whose plane is 0.
        layers: of each plane that has some.
        keys: of all segments.
    """

    axis: int | None
    layers: Mapping[int, Sequence[Layer]]
    keys: tuple[Key, ...]


class Sets:
    """Sets of segments, numbered as they come; 0 is the empty one."""

    def __init__(self) -> None:
        self.known: list[frozenset[Key]] = [frozenset()]
        self._numbers: dict[frozenset[Key], int] = {self.known[0]: 0}

    def number(self, of: frozenset[Key]) -> int:
        """The number of a set."""
        if of not in self._numbers:
            self._numbers[of] = len(self.known)
            self.known.append(of)
        return self._numbers[of]

    def joined(self, numbers: NDArray, key: Key) -> NDArray:
        """(v,) numbers of sets → those of the sets with one more member."""
        found, where = np.unique(numbers, return_inverse=True)
        return np.array([self.number(self.known[n] | {key}) for n in found], np.int32)[where]

    def paint(self, layers: Sequence[Layer], first: slice, second: slice) -> NDArray[np.int32]:
        """(n, m) the set of each voxel of a part of a plane."""
        sets = np.zeros((first.stop - first.start, second.stop - second.start), np.int32)
        for layer in layers:
            mask = layer.mask(first, second)
            sets[mask] = self.joined(sets[mask], layer.key)
        return sets


class PlanarLabels(FileScan):
    """Labels in planes, on the grid of a header.

    Args:
        header: its dtype is chosen here.
        planes: the layers.
        table: the value of each set of segments; without one a segment's value is its number, and none may overlap.
        remake: what opens it again in another process.

    Raises:
        ScanError: where a segment has no value.
    """

    def __init__(self, header: Header, planes: Planes, table: Table, remake: tuple[Any, ...]) -> None:
        self.planes = planes
        self._values = values_of(planes.keys, table, header.name)
        self._remake = remake
        self._sets = Sets()
        dtype = np.min_scalar_type(max(self._values.values(), default=0))
        about = (header.axes, header.affine, header.unit, header.anatomical)
        super().__init__(Header(header.name, header.shape, 1, dtype, *about))

    def __reduce__(self) -> tuple[Any, ...]:
        return self._remake

    def _read(self, box: Box) -> NDArray:
        out = np.zeros((1, *box.shape), self.dtype)
        axis = self.planes.axis
        ranges = [s for a, s in enumerate(box.slices) if a != axis]
        if axis is None:
            out[0] = self._plane(0, *ranges)
            return out
        for k in range(box.start[axis], box.stop[axis]):
            if self.planes.layers.get(k):
                np.moveaxis(out[0], axis, 0)[k - box.start[axis]] = self._plane(k, *ranges)
        return out

    def _plane(self, k: int, first: slice, second: slice) -> NDArray:
        sets = self._sets.paint(self.planes.layers.get(k, ()), first, second)
        return np.array([self._value(n) for n in range(len(self._sets.known))], self.dtype)[sets]

    def _value(self, number: int) -> int:
        members = self._sets.known[number]
        if members not in self._values:
            called = " and ".join(repr(m) if isinstance(m, str) else str(m) for m in sorted(members, key=str))
            raise ScanError(
                f"{self.name}: its segments {called} overlap, and no value is declared for that: make it a case of a "
                "dicom_tree data set, which reads overlapping segments as regions"
            )
        return self._values[members]


def values_of(keys: Sequence[Key], table: Table, name: str) -> dict[frozenset[Key], int]:
    """The value of each set of segments.

    Raises:
        ScanError: where a segment's name is not in the table.
    """
    if not table:
        return {frozenset(): 0} | {frozenset({key}): int(key) for key in keys}
    known = {member for names, _ in table for member in names}
    lost = [repr(key) for key in keys if key not in known]
    if lost:
        raise ScanError(
            f"{name}: its segments {some(lost)} are none of {some(sorted(known), 8)}: name the labels as the segments "
            "are"
        )
    return {frozenset(): 0} | {frozenset(names): value for names, value in table}


def sets_of(planes: Planes, shape: Sequence[int]) -> set[frozenset[Key]]:
    """Every set of segments that some voxel has; each plane is read once."""
    sets = Sets()
    sides = [slice(0, n) for axis, n in enumerate(shape) if axis != planes.axis]
    for layers in planes.layers.values():
        sets.paint(layers, *sides)
    return set(sets.known[1:])


def check_world(instance: Instance, stated: str, like: Scan) -> None:
    """Refuses an object of another frame of reference than the image's.

    Raises:
        ScanError: saying so.
    """
    from medseg.scans.dicom import DicomScan

    if not isinstance(like, DicomScan) or not stated:
        return
    own = next(iter(like.frames[0].facts.get("FrameOfReferenceUID", ())), "")
    if own and own != stated:
        raise ScanError(
            f"{instance.name}: lies in another frame of reference than {like.name}: it belongs to another series"
        )


def is_label_object(path: Path) -> bool:
    """Whether a file is DICOM's own kind of labels: SEG or RTSTRUCT."""
    return path.is_file() and is_dicom(path) and kind_of(path) is not None


def kind_of(path: Path) -> str | None:
    """«SEG», «RTSTRUCT», or None for any other DICOM file."""
    from medseg.scans.dicom_header import read_instance

    sop_class = read_instance(path, str(path)).attributes.word("SOPClassUID")
    return LABEL_CLASSES.get(sop_class)


LABEL_CLASSES = {
    "1.2.840.10008.5.1.4.1.1.66.4": "SEG",
    "1.2.840.10008.5.1.4.1.1.66.7": "SEG",
    "1.2.840.10008.5.1.4.1.1.481.3": "RTSTRUCT",
}
"""The SOP classes of labels (PS3.4 B.5)."""


def open_file(path: Path, name: str, like: Scan | None = None, table: Table = ()) -> PlanarLabels:
    """A SEG or RTSTRUCT as labels on the grid of its image.

    Args:
        path: the file.
        name: what complaints call it.
        like: the image; without it a SEG has the grid of its own planes, and an RTSTRUCT has none.
        table: the value of each set of segments.

    Raises:
        ScanError: where it is damaged, or does not lie on the image's voxels.
    """
    from medseg.scans import dicom_seg, rtstruct

    if kind_of(path) == "RTSTRUCT":
        return rtstruct.open_file(path, name, like, table)
    return dicom_seg.open_file(path, name, like, table)
