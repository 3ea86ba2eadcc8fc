"""How far a prediction and a reference agree, counted block by block.

Everything follows from one table: how many voxels the reference gives class r and the prediction class p. Per
class, with true positives tp, false positives fp, false negatives fn of n voxels:

    Dice = 2 tp / (2 tp + fp + fn)      sensitivity = tp / (tp + fn)      pixel error = (fp + fn) / n
    IoU  =   tp / (tp + fp + fn)        precision   = tp / (tp + fp)

Where a class is empty:

    reference   prediction   Dice, IoU   sensitivity   precision
    empty       empty        1           1             1
    empty       not empty    0           undefined     0
    not empty   empty        0           0             undefined
    not empty   missing      0           0             undefined      pixel error 1

Undefined is NaN (null in JSON, empty in CSV) and left out of means. Legend: K foreground classes, n voxels.
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

METRICS = ("dice", "iou", "sensitivity", "precision", "pixel_error")


@dataclass(frozen=True)
class Scores:
    """The metrics of one class in one case; NaN where one is undefined."""

    dice: float
    iou: float
    sensitivity: float
    precision: float
    pixel_error: float

    def __iter__(self) -> Iterator[float]:
        return (getattr(self, metric.name) for metric in fields(self))


MISSING = Scores(dice=0.0, iou=0.0, sensitivity=0.0, precision=math.nan, pixel_error=1.0)
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
        """The counts of two class maps (*n) with classes 0..K.

        Raises:
            ValueError: where the two differ in shape or hold a class above K.
        """
        if prediction.shape != reference.shape:
            raise ValueError(f"prediction {prediction.shape} and reference {reference.shape} differ in shape")
        if prediction.size and max(prediction.max(), reference.max()) > classes:
            raise ValueError(f"a class above {classes}")
        pairs = reference.ravel().astype(np.intp) * (classes + 1) + prediction.ravel()
        return cls(np.bincount(pairs, minlength=(classes + 1) ** 2).reshape(classes + 1, classes + 1))

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.table + other.table)

    @property
    def voxels(self) -> int:
        """n."""
        return int(self.table.sum())

    @property
    def pixel_error(self) -> float:
        """The share of voxels whose class is wrong, whatever the class."""
        return 1 - int(np.trace(self.table)) / self.voxels

    def reference_voxels(self, number: int) -> int:
        """How many voxels the reference gives a class."""
        return int(self.table[number].sum())

    def predicted_voxels(self, number: int) -> int:
        """How many voxels the prediction gives a class."""
        return int(self.table[:, number].sum())

    def scores(self, number: int) -> Scores:
        """The metrics of class 1..K."""
        both = int(self.table[number, number])
        only_predicted = self.predicted_voxels(number) - both
        only_reference = self.reference_voxels(number) - both
        either = both + only_predicted + only_reference
        if either == 0:
            return Scores(1.0, 1.0, 1.0, 1.0, 0.0)
        return Scores(
            dice=2 * both / (either + both),
            iou=both / either,
            sensitivity=_share(both, both + only_reference),
            precision=_share(both, both + only_predicted),
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


def foreground_rand(prediction: NDArray, reference: NDArray) -> float:
    """The foreground-restricted Rand F-score of two membrane masks, 1 where they cut the plane alike.

    As in the ISBI 2012 challenge (Arganda-Carreras et al. 2015, V-Rand): the segments are the 4-connected
    (6-connected) components of what is no membrane, and only pixels that are no membrane in the reference
    count. scikit-image's ``adapted_rand_error`` compares them; what the prediction calls membrane there is
    one more segment of it.

    Args:
        prediction: true where membrane is predicted: two or three axes.
        reference: true where membrane is.

    Raises:
        ValueError: where the two differ in shape.
    """
    from skimage.measure import label
    from skimage.metrics import adapted_rand_error

    truth, test = (label(~np.asarray(mask, bool), connectivity=1) for mask in (reference, prediction))
    if truth.shape != test.shape:
        raise ValueError(f"prediction {test.shape} and reference {truth.shape} differ in shape")
    if not truth.any():
        return 1.0 if not test.any() else 0.0
    with np.errstate(invalid="ignore", divide="ignore"):
        error, _, _ = adapted_rand_error(truth, test, ignore_labels=(0,))
    return 1.0 if math.isnan(error) else 1.0 - float(error)  # NaN: neither side has a pair of pixels to agree on


def _share(part: int, whole: int) -> float:
    return part / whole if whole else math.nan
