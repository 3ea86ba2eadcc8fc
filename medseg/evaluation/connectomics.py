"""Do borders part an image into the same segments? The foreground-restricted scores of the ISBI 2012 challenge.

Arganda-Carreras et al. 2015, «Crowdsourcing the creation of image segmentation algorithms for connectomics». A pixel is
drawn from the reference's segments (its borders don't count). p_ij is the chance that it lies in segment i of the
prediction and j of the reference, s_i and t_j are the sums of p_ij. A pixel that the prediction calls border is a
segment of its own.

    V-Rand = Σ p_ij² / (α Σ s_i² + (1 - α) Σ t_j²)       V-Info = I(S; T) / ((1 - α) H(S) + α H(T))

α = 1/2 is the F-score, 0 the split score (low where segments of the reference are split), 1 the merge score.
Thinned: before, the prediction's segments grow into its borders until these are one pixel wide, so that a border's
width hardly matters. Segments are connected by faces (4 neighbours, 6 in three axes).
Legend: m pairs of segments that share pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medseg.evaluation.overlaps import Components, Overlaps, Tally

THIN_VOXELS = 1 << 26
"""The largest scan whose borders are thinned, since that takes the whole of it at once."""


@dataclass(frozen=True)
class Score:
    """One score, and its two parts."""

    f: float
    split: float
    merge: float


PERFECT = Score(1.0, 1.0, 1.0)


@dataclass(frozen=True)
class Segments:
    """How pixels of the reference's segments are shared out.

    Attributes:
        shared: (m,) pixels of each pair of segments; a border pixel of the prediction is a pair of one.
        predicted: pixels of each segment of the prediction, within the reference's segments.
        expected: pixels of each segment of the reference.
    """

    shared: NDArray[np.int64]
    predicted: NDArray[np.int64]
    expected: NDArray[np.int64]

    @classmethod
    def of(cls, overlaps: Overlaps) -> Segments:
        """From overlaps of segments."""
        alone = int(overlaps.reference.sum() - overlaps.shared.sum())
        ones = np.ones(alone, np.int64)
        sizes = np.bincount(overlaps.pairs[:, 1], overlaps.shared, overlaps.prediction.size).astype(np.int64)
        return cls(
            np.concatenate([overlaps.shared, ones]), np.concatenate([sizes[sizes > 0], ones]), overlaps.reference
        )

    @property
    def rand(self) -> Score:
        """V-Rand; perfect where the reference has no segment."""
        if not self.expected.size:
            return PERFECT
        both, predicted, expected = (_squares(sizes) for sizes in (self.shared, self.predicted, self.expected))
        return Score(2 * both / (predicted + expected), both / expected, both / predicted)

    @property
    def info(self) -> Score:
        """V-Info; where there is one segment alone nothing of it can be split or merged, and that part is 1."""
        if not self.expected.size:
            return PERFECT
        both, predicted, expected = (_entropy(sizes) for sizes in (self.shared, self.predicted, self.expected))
        mutual = max(predicted + expected - both, 0.0)
        return Score(*(_ratio(mutual, part) for part in ((predicted + expected) / 2, predicted, expected)))


def segments_of(prediction: NDArray[np.bool_], reference: NDArray[np.bool_]) -> Segments:
    """Of two border masks (*n), true where a border is.

    Raises:
        ValueError: where the two differ in shape.
    """
    return Segments.of(_overlaps(~np.asarray(prediction, bool), ~np.asarray(reference, bool)))


def thinned(border: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(*n) a border mask → the same, one pixel wide where it parts two segments, and gone where it parts none.

    The segments flood the border from their sides (watershed of the distance to them); where two floods meet, a line of
    border is left. No segment is lost, split or joined.
    """
    from skimage.segmentation import watershed

    segments, count = ndimage.label(~border)
    if count == 0 or not border.any():
        return border
    depth = ndimage.distance_transform_edt(border)
    flooded = watershed(depth, segments, connectivity=1, watershed_line=True) > 0
    parts, number = ndimage.label(flooded)
    rooted = np.zeros(number + 1, bool)  # scikit-image's lines can cut a pixel off from the flood that it belongs to
    rooted[parts[~border]] = True
    return ~rooted[parts]


def _overlaps(prediction: NDArray[np.bool_], reference: NDArray[np.bool_]) -> Overlaps:
    if prediction.shape != reference.shape:
        raise ValueError(f"prediction {prediction.shape} and reference {reference.shape} differ in shape")
    counted = Tally(*(Components(reference.ndim, diagonal=False) for _ in range(2)))
    counted.add(reference, prediction)
    return counted.overlaps()


def _squares(sizes: NDArray[np.int64]) -> float:
    return float((sizes.astype(np.float64) ** 2).sum())


def _entropy(sizes: NDArray[np.int64]) -> float:
    """In nats, of a draw from parts of these sizes."""
    shares = sizes / sizes.sum()
    return float(-(shares * np.log(shares)).sum())


def _ratio(mutual: float, entropy: float) -> float:
    return min(mutual / entropy, 1.0) if entropy > 0 else 1.0
