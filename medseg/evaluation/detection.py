"""Objects found, missed and invented: lesions matched by overlap, instances matched by IoU.

Legend: r objects of the reference, p objects of the prediction, m pairs that share voxels; TP matched, FP predicted
alone, FN in the reference alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from medseg.evaluation.overlaps import Overlaps

THRESHOLDS_PERCENT = tuple(range(50, 100, 5))
"""The IoU above which two instances are one: 0.50, 0.55 ... 0.95, in hundredths, so that comparing is exact."""
PQ_PERCENT = 50


@dataclass(frozen=True)
class Found:
    """How many objects were found.

    Attributes:
        tp: objects of the reference that were found.
        fp: objects of the prediction that are none.
        fn: objects of the reference that were not found.
    """

    tp: int
    fp: int
    fn: int

    @property
    def f1(self) -> float:
        """2 TP / (2 TP + FP + FN); 1 where there is nothing to find and nothing was found."""
        return _share(2 * self.tp, 2 * self.tp + self.fp + self.fn, 1.0)

    @property
    def jaccard(self) -> float:
        """TP / (TP + FP + FN); 1 where there is nothing to find and nothing was found."""
        return _share(self.tp, self.tp + self.fp + self.fn, 1.0)

    @property
    def sensitivity(self) -> float:
        """TP / (TP + FN); without an object in the reference 1 where none was predicted, else undefined."""
        return _share(self.tp, self.tp + self.fn, math.nan if self.fp else 1.0)

    @property
    def precision(self) -> float:
        """TP / (TP + FP); without a predicted object 1 where there is none to find, else undefined."""
        return _share(self.tp, self.tp + self.fp, math.nan if self.fn else 1.0)


def lesions(overlaps: Overlaps, iou: float = 0.0) -> tuple[Found, float]:
    """Lesion-wise detection.

    With ``iou`` 0 a lesion is found if any of its voxels is predicted, and a predicted object is false if none of its
    voxels is of a lesion: one predicted object can find several lesions, several can find one. With ``iou`` above 0,
    pairs of a larger IoU are matched one to one, as many as possible, and among those the matching of largest IoU.

    Returns:
        The counts, and the lesion-wise Dice: the Dice of each match (with ``iou`` 0, of each lesion found and of all
        predicted objects that touch it, together), summed, over TP + FP + FN.
    """
    if iou > 0:
        chosen = match(overlaps, iou)
        shared, pairs = overlaps.shared[chosen], overlaps.pairs[chosen]
        dice = 2 * shared / (overlaps.reference[pairs[:, 0]] + overlaps.prediction[pairs[:, 1]])
        found = Found(len(chosen), overlaps.prediction.size - len(chosen), overlaps.reference.size - len(chosen))
    else:
        rows, columns = overlaps.pairs[:, 0], overlaps.pairs[:, 1]
        hit = np.unique(rows)
        shared = np.bincount(rows, overlaps.shared, overlaps.reference.size)[hit]
        touching = np.bincount(rows, overlaps.prediction[columns], overlaps.reference.size)[hit]
        dice = 2 * shared / (overlaps.reference[hit] + touching)
        false = overlaps.prediction.size - np.unique(columns).size
        found = Found(hit.size, false, overlaps.reference.size - hit.size)
    return found, _share(float(dice.sum()), found.tp + found.fp + found.fn, 1.0)


def match(overlaps: Overlaps, iou: float) -> NDArray[np.int64]:
    """Which pairs to match one to one among those whose IoU is above a threshold: as many as can be, then the best.

    Returns:
        (n,) indices into the pairs.
    """
    share = overlaps.shared / overlaps.union
    able = np.flatnonzero(share > iou)
    if iou >= 0.5 or not able.size:
        return able
    rows, columns = overlaps.pairs[able].T
    size = overlaps.reference.size + overlaps.prediction.size
    graph = coo_array((np.ones(able.size), (rows, columns + overlaps.reference.size)), shape=(size, size))
    group = connected_components(graph, directed=False)[1][rows]
    order = np.argsort(group, kind="stable")
    ends = np.flatnonzero(np.diff(group[order])) + 1
    chosen = [_assigned(able[part], overlaps.pairs, share) for part in np.split(order, ends)]
    return np.sort(np.concatenate(chosen))


@dataclass(frozen=True)
class InstanceScores:
    """How well instances agree.

    Attributes:
        found: the counts at each of :data:`THRESHOLDS_PERCENT`.
        sq: segmentation quality, the mean IoU of matches above IoU 0.5; undefined without one.
    """

    found: tuple[Found, ...]
    sq: float

    @classmethod
    def of(cls, overlaps: Overlaps) -> InstanceScores:
        """Of all instances of a scan; above IoU 0.5 no instance has two matches (Kirillov et al. 2019, Theorem 1)."""
        shared, union = overlaps.shared, overlaps.union
        hits = [int((100 * shared > percent * union).sum()) for percent in THRESHOLDS_PERCENT]
        sizes = overlaps.reference.size, overlaps.prediction.size
        matched = 100 * shared > PQ_PERCENT * union
        sq = float((shared[matched] / union[matched]).mean()) if matched.any() else math.nan
        return cls(tuple(Found(tp, sizes[1] - tp, sizes[0] - tp) for tp in hits), sq)

    @property
    def rq(self) -> float:
        """Recognition quality: F1 above IoU 0.5."""
        return self.found[THRESHOLDS_PERCENT.index(PQ_PERCENT)].f1

    @property
    def pq(self) -> float:
        """Panoptic quality: SQ · RQ; 0 without a match, 1 where there is nothing to find and nothing was found."""
        return self.rq if math.isnan(self.sq) else self.sq * self.rq

    def ap_at(self, percent: int) -> float:
        """TP / (TP + FP + FN) above one IoU."""
        return self.found[THRESHOLDS_PERCENT.index(percent)].jaccard

    @property
    def ap(self) -> float:
        """Its mean over all thresholds."""
        return float(np.mean([found.jaccard for found in self.found]))


def _assigned(able: NDArray[np.int64], pairs: NDArray[np.int64], share: NDArray[np.float64]) -> NDArray[np.int64]:
    """The best one-to-one matching of pairs that hang together: a match more is worth more than all IoU."""
    rows, row = np.unique(pairs[able, 0], return_inverse=True)
    columns, column = np.unique(pairs[able, 1], return_inverse=True)
    worth = np.zeros((rows.size, columns.size))
    worth[row, column] = min(worth.shape) + share[able]
    which = np.full(worth.shape, -1)
    which[row, column] = able
    chosen = which[linear_sum_assignment(worth, maximize=True)]
    return chosen[chosen >= 0]


def _share(part: float, whole: int, otherwise: float) -> float:
    return part / whole if whole else otherwise
