"""How far a prediction and a reference agree, counted block by block.

Everything follows from one table: how many voxels the reference gives class r and the prediction class p. Per
class, with true positives tp, false positives fp, false negatives fn, true negatives tn of n voxels:

    Dice = 2 tp / (2 tp + fp + fn)      sensitivity = tp / (tp + fn)      pixel error = (fp + fn) / n
    IoU  =   tp / (tp + fp + fn)        precision   = tp / (tp + fp)      specificity = tn / (tn + fp)
    volume similarity = 1 - |fp - fn| / (2 tp + fp + fn)

Where a class is empty:

    reference   prediction   Dice, IoU, volume similarity   sensitivity   precision
    empty       empty        1                              1             1
    empty       not empty    0                              undefined     0
    not empty   empty        0                              0             undefined
    not empty   missing      0                              0             undefined      pixel error 1, specificity 0

Specificity is undefined where the reference's class fills all. Undefined is NaN (null in JSON, empty in CSV) and left
out of means. Voxels that the reference says to ignore are not counted; a prediction that ignores others is taken for
background there. Legend: K foreground classes, n voxels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from medseg.datasets.check import check_grid
from medseg.datasets.labels import Labels
from medseg.scans.blocks import blocks
from medseg.scans.scan import Scan

PIECE = 1 << 20
"""Voxels that are counted at once."""


@dataclass(frozen=True)
class Scores:
    """The metrics of one class in one case; NaN where one is undefined."""

    dice: float
    iou: float
    sensitivity: float
    precision: float
    specificity: float
    volume_similarity: float
    pixel_error: float

    def __iter__(self) -> Iterator[float]:
        return (getattr(self, metric.name) for metric in fields(self))


MISSING = Scores(
    dice=0.0,
    iou=0.0,
    sensitivity=0.0,
    precision=math.nan,
    specificity=0.0,
    volume_similarity=0.0,
    pixel_error=1.0,
)
"""What a case without a prediction scores in every class."""


@dataclass(frozen=True, eq=False)
class Counts:
    """How often classes meet.

    Attributes:
        table: (K + 1, K + 1): voxels of reference class (row) and predicted class (column); 0 is background.
    """

    table: NDArray[np.int64]

    @classmethod
    def none(cls, classes: int) -> Counts:
        """No voxel yet, of K classes."""
        return cls(np.zeros((classes + 1, classes + 1), np.int64))

    @classmethod
    def of(cls, prediction: NDArray, reference: NDArray, classes: int) -> Counts:
        """The counts of two class maps (*n) with classes 0..K, or below 0 where they are to be ignored.

        Raises:
            ValueError: where the two differ in shape or hold a class above K.
        """
        if prediction.shape != reference.shape:
            raise ValueError(f"prediction {prediction.shape} and reference {reference.shape} differ in shape")
        if prediction.size and max(prediction.max(), reference.max()) > classes:
            raise ValueError(f"a class above {classes}")
        predicted, expected = prediction.ravel(), reference.ravel()
        table = np.zeros((classes + 1) ** 2, np.int64)
        for start in range(0, predicted.size, PIECE):
            piece = slice(start, start + PIECE)
            table += _meetings(predicted[piece], expected[piece], classes + 1)
        return cls(table.reshape(classes + 1, classes + 1))

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.table + other.table)

    @property
    def voxels(self) -> int:
        """n."""
        return int(self.table.sum())

    @property
    def pixel_error(self) -> float:
        """The share of voxels whose class is wrong, whatever the class; NaN where all are to be ignored."""
        return _share(self.voxels - int(np.trace(self.table)), self.voxels)

    def reference_voxels(self, *numbers: int) -> int:
        """How many voxels the reference gives a class, or several."""
        return int(self.table[list(numbers)].sum())

    def predicted_voxels(self, *numbers: int) -> int:
        """How many voxels the prediction gives a class, or several."""
        return int(self.table[:, list(numbers)].sum())

    def scores(self, *numbers: int) -> Scores:
        """The metrics of class 1..K, or of several taken for one, as a region's are."""
        both = int(self.table[np.ix_(numbers, numbers)].sum())
        only_predicted = self.predicted_voxels(*numbers) - both
        only_reference = self.reference_voxels(*numbers) - both
        either = both + only_predicted + only_reference
        neither = self.voxels - either
        if either == 0:
            return Scores(1.0, 1.0, 1.0, 1.0, _share(neither, neither), 1.0, _share(0, neither))
        return Scores(
            dice=2 * both / (either + both),
            iou=both / either,
            sensitivity=_share(both, both + only_reference),
            precision=_share(both, both + only_predicted),
            specificity=_share(neither, neither + only_predicted),
            volume_similarity=1 - abs(only_predicted - only_reference) / (either + both),
            pixel_error=(only_predicted + only_reference) / self.voxels,
        )


def evaluate_pair(prediction: Scan, reference: Scan, labels: Labels) -> Counts:
    """Counts a prediction against its reference, block by block.

    Raises:
        GridError: where the two lie on different grids or are in colour.
        MedsegError: where one holds undeclared values.
    """
    check_grid(prediction, reference)
    counts = Counts.none(labels.classes)
    for box in blocks(reference):
        counts += Counts.of(labels.read(prediction, box), labels.read(reference, box), labels.classes)
    return counts


def _meetings(prediction: NDArray, reference: NDArray, classes: int) -> NDArray[np.int64]:
    """(classes²,): how often classes meet in two flat class maps."""
    if reference.dtype.kind == "i":
        known = reference >= 0
        prediction, reference = np.maximum(prediction[known], 0), reference[known]
    pairs = reference.astype(np.intp) * classes
    pairs += prediction
    return np.bincount(pairs, minlength=classes**2)


def _share(part: int, whole: int) -> float:
    return part / whole if whole else math.nan
