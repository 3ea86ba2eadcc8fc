"""What one pass over the training labels finds: how often each class occurs, and where.

Legend: d axes, K classes, the background first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medseg.datasets.labels import IGNORED, Labels
from medseg.scans.blocks import blocks
from medseg.scans.scan import Scan

REMEMBERED = 2048
"""Voxels that are remembered for each case and class to centre samples on."""


@dataclass(frozen=True, eq=False)
class CaseCensus:
    """One case's.

    Attributes:
        counts: (K,), the voxels of each class.
        foreground: up to :data:`REMEMBERED` voxels (n, d) of each foreground class that it has.
        labelled: as many of all that count; empty where the data set has no label to ignore, and every voxel counts.
    """

    counts: NDArray[np.int64]
    foreground: list[NDArray]
    labelled: NDArray

    @classmethod
    def of(cls, label: Scan, labels: Labels, rng: np.random.Generator) -> CaseCensus:
        """Of a label scan, block by block."""
        counts = np.zeros(labels.classes + 1, np.int64)
        kept: dict[int, list[NDArray]] = {}
        for box in blocks(label):
            classes = labels.read(label, box)
            counted = classes != IGNORED
            counts += np.bincount(classes[counted].ravel(), minlength=len(counts))
            for value in np.unique(classes[classes > 0]):
                kept.setdefault(int(value), []).append(_some(classes == value, box.start, rng))
            if labels.ignore:
                kept.setdefault(0, []).append(_some(counted, box.start, rng))
        few = {value: _few(np.concatenate(kept[value]), rng) for value in sorted(kept)}
        labelled = few.pop(0, np.empty((0, len(label.shape)), np.int64))
        return cls(counts, list(few.values()), labelled)


def counts_of(cases: Sequence[CaseCensus]) -> NDArray[np.int64]:
    """(cases, K)."""
    return np.stack([case.counts for case in cases])


def _some(mask: NDArray, start: Sequence[int], rng: np.random.Generator) -> NDArray:
    return _few(np.argwhere(mask), rng) + np.array(start)


def _few(voxels: NDArray, rng: np.random.Generator) -> NDArray:
    return voxels[rng.permutation(len(voxels))[:REMEMBERED]]
