"""A prediction and its reference, opened: the classes of a box of both, and in what lengths are measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medseg.datasets.check import check_grid
from medseg.datasets.labels import Labels
from medseg.evaluation.catalogue import Family, Metric
from medseg.evaluation.metrics import Counts
from medseg.evaluation.surfaces import Borders
from medseg.geometry import Box
from medseg.scans.blocks import blocks
from medseg.scans.lattice import steps_of, volume
from medseg.scans.scan import Scan
from medseg.scans.units import MILLIMETRES

VOXELS = "voxels"
SHOWN_UNITS = {"um": "um", "nm": "nm", "angstrom": "nm"}
"""The unit of lengths for files in these; for all others that state one it is mm."""
OUTLINED_VOXELS = 1 << 23
"""Voxels of a block in which borders are sought; its neighbours are read too."""


@dataclass(frozen=True)
class Options:
    """What is to be computed, and how.

    Attributes:
        metrics: of the catalogue.
        tolerance: of nsd by label name, in the unit of the case's lengths.
        overlap: the IoU above which lesions match one to one; 0 where any shared voxel does.
        numbered: whether the references are known to hold instance numbers; otherwise their values tell.
        objects: whether a label's components are the segments of v_rand and v_info; otherwise the label is the border
            between them.
    """

    metrics: tuple[Metric, ...]
    tolerance: Mapping[str, float]
    overlap: float = 0.0
    numbered: bool = False
    objects: bool = False

    def wants(self, *families: Family) -> bool:
        """Whether any metric of these families is asked for."""
        return any(metric.family in families for metric in self.metrics)


@dataclass(frozen=True, eq=False)
class Lengths:
    """In what a case's distances and volumes are measured.

    Attributes:
        unit: «mm», «um», «nm», or «voxels» where neither file states one.
        steps: (d,) or (d, d) between voxels, see :mod:`medseg.scans.lattice`.
    """

    unit: str
    steps: NDArray[np.float64]

    @classmethod
    def of(cls, reference: Scan, prediction: Scan | None) -> Lengths:
        """Of the reference; of the prediction where only that states a unit."""
        stated = next((scan for scan in (reference, prediction) if scan is not None and scan.unit != "pixel"), None)
        if stated is None:
            return cls(VOXELS, np.ones(len(reference.shape)))
        unit = SHOWN_UNITS.get(stated.unit, "mm")
        return cls(unit, steps_of(stated) / MILLIMETRES[unit])

    @property
    def voxel(self) -> float:
        """The volume (in two axes the area) of a voxel."""
        return volume(self.steps)


class Pair:
    """A prediction and its reference, opened."""

    def __init__(self, prediction: Scan, reference: Scan, labels: Labels, options: Options) -> None:
        check_grid(prediction, reference)
        self.prediction = prediction
        self.reference = reference
        self.labels = labels
        self.options = options
        self.lengths = Lengths.of(reference, prediction)

    @property
    def numbered(self) -> list[tuple[int, str]]:
        """Class and name of the foreground labels."""
        return list(enumerate(self.labels.foreground, 1))

    def read(self, box: Box) -> tuple[NDArray, NDArray]:
        """The classes of a box of the prediction and the reference; below 0 in both where they are to be ignored."""
        found, truth = (self.labels.read(scan, box) for scan in (self.prediction, self.reference))
        return (np.where(truth < 0, truth, np.maximum(found, 0)), truth) if truth.dtype.kind == "i" else (found, truth)

    def count(self) -> tuple[Counts, Borders]:
        """The table of voxels and, where they are asked for, the borders: each block is read once."""
        counts, borders = Counts.none(self.labels.classes), Borders(self.reference.shape)
        outlined = self.options.wants("surfaces")
        for box in blocks(self.reference, *([OUTLINED_VOXELS] if outlined else [])):
            near = box.grow(1).clip(self.reference.shape) if outlined else box
            found, truth = self.read(near)
            inner = box.shift([-a for a in near.start]).slices
            counts += Counts.of(found[inner], truth[inner], self.labels.classes)
            if outlined:
                borders.add(box, near, found, truth)
        return counts, borders

    def class_slabs(self, number: int) -> Callable[[Box], tuple[NDArray, NDArray]]:
        """Of a box, where the reference and the prediction have a class."""

        def read(box: Box) -> tuple[NDArray, NDArray]:
            found, truth = self.read(box)
            return truth == number, found == number

        return read

    def rest_slabs(self, number: int) -> Callable[[Box], tuple[NDArray, NDArray]]:
        """Of a box, where the reference and the prediction have another class, or background."""

        def read(box: Box) -> tuple[NDArray, NDArray]:
            found, truth = self.read(box)
            return (truth >= 0) & (truth != number), (found >= 0) & (found != number)

        return read
