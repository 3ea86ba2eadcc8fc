"""Whether probabilities mean what they say: expected calibration error and Brier score, block by block.

Per class, of n voxels with probability p and truth y (1 where the reference has the class):

    ECE = Σ_b (n_b / n) |mean of p - share of y| over the bins b that p falls into       (Naeini et al. 2015)
    Brier = mean of (p - y)²                                                             (Brier 1950)

Of a whole case, where the classes exclude each other (softmax), ECE is that of the most probable class and of whether
it is right (Guo et al. 2017), and Brier sums over the classes and background. Bins are of equal width, [a, b), the last
one closed. Ignored voxels don't count. Legend: K foreground classes, C channels, B bins.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from medseg.datasets.check import check_grid
from medseg.datasets.labels import Labels
from medseg.errors import GridError
from medseg.scans.blocks import BLOCK_VOXELS, blocks
from medseg.scans.scan import Scan

BINS = 15
"""As Guo et al. 2017."""


class Reliability:
    """What is counted of one class: voxels, probability and truth by bin.

    Args:
        bins: B.
    """

    def __init__(self, bins: int = BINS) -> None:
        self.voxels = np.zeros(bins, np.int64)
        self.probability = np.zeros(bins)
        self.truth = np.zeros(bins, np.int64)
        self.squared = 0.0

    def add(self, probability: NDArray[np.float64], truth: NDArray[np.bool_]) -> None:
        """Takes (n,) probabilities from 0 to 1, and whether each came true."""
        bins = self.voxels.size
        which = np.minimum((probability * bins).astype(np.intp), bins - 1)
        self.voxels += np.bincount(which, minlength=bins)
        self.probability += np.bincount(which, probability, bins)
        self.truth += np.bincount(which[truth], minlength=bins)
        self.squared += float(((probability - truth) ** 2).sum())

    @property
    def ece(self) -> float:
        """Expected calibration error; undefined without a voxel."""
        total = int(self.voxels.sum())
        return float(np.abs(self.probability - self.truth).sum()) / total if total else math.nan

    @property
    def brier(self) -> float:
        """Brier score; undefined without a voxel."""
        total = int(self.voxels.sum())
        return self.squared / total if total else math.nan


class Calibration:
    """Of all classes of a case.

    Args:
        classes: K.
        softmax: whether background has a channel too, the first.
        bins: B.

    Attributes:
        classes: K entries, class 1 first.
        top: of the most probable class and whether it is right; None for sigmoid channels.
    """

    def __init__(self, classes: int, softmax: bool, bins: int = BINS) -> None:
        self.classes = [Reliability(bins) for _ in range(classes)]
        self.top = Reliability(bins) if softmax else None
        self._squared = 0.0

    def add(self, probabilities: NDArray[np.float64], reference: NDArray) -> None:
        """Takes (C, n) probabilities and (n,) classes."""
        known = reference >= 0
        shares, truth = probabilities[:, known], reference[known]
        first = 0 if self.top is None else 1
        for number, reliability in enumerate(self.classes, 1):
            reliability.add(shares[number - 1 + first], truth == number)
        if self.top is not None:
            self.top.add(shares.max(0), shares.argmax(0) == truth)
            self._squared += float(((shares[0] - (truth == 0)) ** 2).sum())

    @property
    def brier(self) -> float:
        """The case's Brier score, summed over background and classes; undefined for sigmoid channels."""
        total = 0 if self.top is None else int(self.top.voxels.sum())
        return (self._squared + sum(part.squared for part in self.classes)) / total if total else math.nan


def calibration_of(probabilities: Scan, reference: Scan, labels: Labels, bins: int = BINS) -> Calibration:
    """Compares probabilities with a reference, block by block.

    Args:
        probabilities: one channel for each foreground class (sigmoid), or one more, background first (softmax).
            Integers are 255 times the probability, as ``medseg infer --probabilities`` writes them.
        reference: on the same grid.
        labels: of the reference.
        bins: B.

    Raises:
        GridError: where the grids differ, or the number of channels is neither.
    """
    check_grid(probabilities, reference)
    extra = probabilities.channels - labels.classes
    if extra not in (0, 1):
        raise GridError(
            f"{probabilities.name} has {probabilities.channels} channels, and {labels.classes} foreground labels need "
            f"{labels.classes} (sigmoid) or {labels.classes + 1} (softmax, background first)"
        )
    found = Calibration(labels.classes, softmax=extra == 1, bins=bins)
    for box in blocks(reference, BLOCK_VOXELS // (4 * probabilities.channels)):
        shares = _shares(probabilities.read(box), probabilities.name)
        found.add(shares.reshape(len(shares), -1), labels.read(reference, box).ravel())
    return found


def _shares(raw: NDArray, name: str) -> NDArray[np.float64]:
    shares = raw / 255.0 if raw.dtype.kind in "iu" else raw.astype(np.float64)
    if not ((shares >= -1e-6) & (shares <= 1 + 1e-6)).all():
        raise GridError(f"{name} holds values outside 0 to 1: these are no probabilities")
    return shares.clip(0, 1)
