"""What one pass over the training labels finds: how often each class occurs, and where.

Legend: d axes, K classes, the background first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medseg.datasets.labels import IGNORED, Labels
from medseg.geometry import Box
from medseg.scans.blocks import blocks
from medseg.scans.scan import Scan

REMEMBERED = 2048
"""Voxels that are remembered for each case and class to centre samples on."""


@dataclass(frozen=True, eq=False)
class CaseCensus:
    """One case's: a function of its label alone, whatever seed it is trained with and however it is read.

    Attributes:
        counts: (K,), the voxels of each class.
        foreground: up to :data:`REMEMBERED` voxels (n, d) of each foreground class that it has, all equally likely.
        labelled: as many of all that count; empty where the data set has no label to ignore, and every voxel counts.
    """

    counts: NDArray[np.int64]
    foreground: list[NDArray]
    labelled: NDArray

    @classmethod
    def of(cls, label: Scan, labels: Labels) -> CaseCensus:
        """Of a label scan, block by block."""
        counts = np.zeros(labels.classes + 1, np.int64)
        kept: dict[int, Remembered] = {}
        for box in blocks(label):
            classes = labels.read(label, box)
            counted = classes != IGNORED
            counts += np.bincount(classes[counted].ravel(), minlength=len(counts))
            for value in np.unique(classes[classes > 0]):
                kept.setdefault(int(value), Remembered(label.shape)).add(classes == value, box)
            if labels.ignore:
                kept.setdefault(0, Remembered(label.shape)).add(counted, box)
        voxels = {value: kept[value].voxels for value in sorted(kept)}
        labelled = voxels.pop(0, np.empty((0, len(label.shape)), np.int64))
        return cls(counts, list(voxels.values()), labelled)


class Remembered:
    """Some of the voxels of a set that is seen box by box: those whose number, hashed, is least.

    So they are drawn evenly from the whole set, and the same whatever the boxes.
    """

    def __init__(self, shape: Sequence[int]) -> None:
        self._shape = tuple(shape)
        self._numbers = np.empty(0, np.int64)

    def add(self, mask: NDArray, box: Box) -> None:
        """Adds the voxels of a box (\\*box.shape) that are in the set."""
        inside = np.nonzero(mask)
        places = tuple(i + a for i, a in zip(inside, box.start, strict=True))
        self._numbers = _least(np.concatenate([self._numbers, np.ravel_multi_index(places, self._shape)]))

    @property
    def voxels(self) -> NDArray[np.int64]:
        """(n, d), in the order of their hashes."""
        ordered = self._numbers[np.argsort(_hashed(self._numbers))]
        return np.stack(np.unravel_index(ordered, self._shape), axis=1).astype(np.int64)


def counts_of(cases: Sequence[CaseCensus]) -> NDArray[np.int64]:
    """(cases, K)."""
    return np.stack([case.counts for case in cases])


def _least(numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    if len(numbers) <= REMEMBERED:
        return numbers
    return numbers[np.argpartition(_hashed(numbers), REMEMBERED)[:REMEMBERED]]


def _hashed(numbers: NDArray[np.int64]) -> NDArray[np.uint64]:
    """SplitMix64's mixing (Steele, Lea & Flood 2014, fig. 12): other numbers give other hashes."""
    mixed = numbers.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
