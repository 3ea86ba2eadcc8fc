"""Whether a prediction finds the objects of a reference, large and small, whole, and with their boundary.

    reference          prediction         object   voxels   covered   fragments   components
    1 1 1 . 2 2        # . # . . .        1        6        4         2           2
    1 1 1 . 2 2        # . # . # #        2        4        2         1           1

An object is a connected component of the reference (voxels that share a face), or one of its instance numbers. It is
recalled where at least half of it is covered, whatever else is. By quartile of size this tells what Noh et al. (2015,
section 1 and figure 1) hold against FCN: it breaks large objects into fragments, and loses small ones. Where objects
touch, one that is merged with its neighbours is covered and whole all the same; so it is matched only where one
component is much like it (intersection over union of a half or more), and how many share a component is counted too.

The boundary F1 is the measure of Csurka et al. (2013, section 3.2), and F of Perazzi et al. (2016, section 3): what
share of the predicted boundary lies within a tolerance of the true one, the other way round, and their harmonic mean.

Legend: m objects, n voxels. Arrays are held whole, with a few numbers a voxel beside them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from medseg.datasets.check import check_grid
from medseg.datasets.labels import Labels, one_channel
from medseg.errors import ConfigError, nearest
from medseg.geometry import Box
from medseg.scans.lattice import places, steps_of
from medseg.scans.scan import Scan

QUARTILES = 4
RECALLED = 0.5
"""The share of an object that must be covered."""
MATCHED = 0.5
"""The intersection over union of an object and the component that it is matched with."""
LEAST_OVERLAP = 10
"""Voxels that a predicted component and an object share at least; the whole object where it is smaller."""


@dataclass(frozen=True, eq=False)
class Objects:
    """The objects of one or more references, and what predictions made of them.

    Attributes:
        voxels: (m,) of each object.
        covered: (m,) of them, those that the prediction gives to the object's class.
        fragments: (m,) predicted components that overlap it.
        shared: (m,) the most objects that one of these components overlaps, this one included; 0 where there is none.
        iou: (m,) the largest intersection over union with one component.
    """

    voxels: NDArray[np.int64]
    covered: NDArray[np.int64]
    fragments: NDArray[np.int64]
    shared: NDArray[np.int64]
    iou: NDArray[np.float64]

    @classmethod
    def of(
        cls,
        prediction: NDArray,
        reference: NDArray,
        *,
        ignored: NDArray | None = None,
        least: int = 1,
        overlap: int = LEAST_OVERLAP,
    ) -> Objects:
        """The objects of one reference.

        Args:
            prediction: (\\*n) true where the class is predicted; its connected components may be fragments.
            reference: (\\*n) true where the class is, or instance numbers from 1, 0 being none.
            ignored: (\\*n) true where nothing counts.
            least: voxels that an object has at least; smaller ones are none.
            overlap: voxels that a component and an object share at least, for :attr:`fragments`.

        Raises:
            ValueError: where shapes differ.
        """
        from scipy.ndimage import label

        if prediction.shape != reference.shape:
            raise ValueError(f"prediction {prediction.shape} and reference {reference.shape} differ in shape")
        if ignored is not None:
            prediction, reference = prediction * ~ignored, reference * ~ignored
        numbers = label(reference)[0] if reference.dtype == bool else reference
        components = label(np.asarray(prediction, bool))[0]
        known, place = np.unique(numbers, return_inverse=True)
        place, voxels = place.ravel(), np.bincount(place.ravel(), minlength=known.size)
        wanted = (known > 0) & (voxels >= least)
        objects, pieces, common = _meetings(place, components.ravel(), wanted)
        union = voxels[objects] + np.bincount(components.ravel())[pieces] - common
        iou = np.zeros(known.size)
        np.maximum.at(iou, objects, common / union)
        covered = np.bincount(objects, common, known.size).astype(np.int64)
        large = common >= np.minimum(overlap, voxels[objects])
        fragments, shared = _crossings(objects[large], pieces[large], known.size)
        return cls(voxels[wanted], covered[wanted], fragments[wanted], shared[wanted], iou[wanted])

    @classmethod
    def pooled(cls, parts: Iterable[Objects]) -> Objects:
        """Those of several references together."""
        several = list(parts)
        none = [np.zeros(0, np.int64)]
        return cls(*(np.concatenate([vars(part)[key.name] for part in several] or none) for key in fields(cls)))

    @property
    def recalled(self) -> NDArray[np.bool_]:
        """(m,): whether at least half of each is covered."""
        return self.covered >= RECALLED * self.voxels

    @property
    def recall(self) -> float:
        """The share of objects that are recalled; NaN where there are none."""
        return _mean(self.recalled)

    @property
    def matched(self) -> NDArray[np.bool_]:
        """(m,): whether one component is much like each."""
        return self.iou >= MATCHED

    @property
    def quartile(self) -> NDArray[np.int64]:
        """(m,): 0 for the smallest to 3 for the largest, divided at the quartiles of :attr:`voxels`."""
        if not self.voxels.size:
            return np.zeros(0, np.int64)
        edges = np.quantile(self.voxels, np.arange(1, QUARTILES) / QUARTILES)
        return np.searchsorted(edges, self.voxels, side="left")

    @property
    def recall_by_size(self) -> tuple[float, ...]:
        """The recall in each quartile of size, the smallest objects first; NaN in one that equal sizes leave empty."""
        return self._by_size(self.recalled)

    @property
    def matched_by_size(self) -> tuple[float, ...]:
        """The share of objects that are matched in each quartile of size, as :attr:`recall_by_size`."""
        return self._by_size(self.matched)

    def _by_size(self, values: NDArray) -> tuple[float, ...]:
        return tuple(_mean(values[self.quartile == quartile]) for quartile in range(QUARTILES))

    @property
    def fragments_per_object(self) -> float:
        """The mean over the objects that were found at all: 1 where none is broken; NaN where none is found."""
        return _mean(self.fragments[self.fragments > 0])

    @property
    def objects_per_component(self) -> float:
        """The mean of :attr:`shared` over the objects that were found at all: 1 where none are merged."""
        return _mean(self.shared[self.fragments > 0])


@dataclass(frozen=True)
class ObjectScores:
    """One case: its objects, and the mean boundary F1 of their labels."""

    objects: Objects
    boundary_f1: float


def compare_objects(
    prediction: Scan,
    reference: Scan,
    labels: Labels,
    names: Sequence[str] | None = None,
    tolerance: float = 2.0,
    least: int = 1,
) -> ObjectScores:
    """Looks for the objects of a reference in a prediction.

    Args:
        prediction: on the reference's grid.
        reference: label values; instance numbers where the labels say so.
        labels: what the values mean.
        names: the labels whose objects are meant, the background's among them if named; None for the foreground.
        tolerance: of boundaries, in voxels of the finest spacing.
        least: voxels that an object has at least.

    Raises:
        GridError: where the two lie on different grids.
        ConfigError: for a name that is no class.
        MedsegError: where one holds undeclared values.
    """
    check_grid(prediction, reference)
    whole = Box.of(reference.shape)
    predicted, expected = (labels.read(scan, whole) for scan in (prediction, reference))
    steps = steps_of(reference) / min(reference.spacing_mm)
    ignored = expected < 0
    scores, objects = [], []
    for number in _classes(labels, names):
        found, there = predicted == number, expected == number
        scores.append(boundary_scores(found, there, tolerance, steps, ignored).f1)
        numbers = one_channel(reference.read(whole), reference.name) if labels.instances and number else there
        objects.append(Objects.of(found, numbers, ignored=ignored, least=least))
    return ObjectScores(Objects.pooled(objects), float(np.mean(scores)))


def _classes(labels: Labels, names: Sequence[str] | None) -> list[int]:
    numbers = {name: 0 for name, value in labels.values.items() if value == labels.background_value}
    numbers |= {name: number for number, name in enumerate(labels.foreground, 1)}
    for name in names or ():
        if name not in numbers:
            known = ", ".join(numbers)
            raise ConfigError(f"objects of the label {name!r} are wanted{nearest(name, numbers)}; classes are {known}")
    return [numbers[name] for name in names or labels.foreground]


@dataclass(frozen=True)
class BoundaryScores:
    """How well boundaries agree; NaN where one is undefined.

    Attributes:
        precision: the share of the predicted boundary within the tolerance of the reference's; undefined without one.
        recall: the share of the reference's boundary within the tolerance of the predicted one; undefined without one.
    """

    precision: float
    recall: float

    @property
    def f1(self) -> float:
        """Their harmonic mean: 1 where neither mask has a boundary, 0 where only one has."""
        if math.isnan(self.precision) or math.isnan(self.recall):
            return float(math.isnan(self.precision) and math.isnan(self.recall))
        both = self.precision + self.recall
        return 2 * self.precision * self.recall / both if both else 0.0


def boundary_scores(
    prediction: NDArray,
    reference: NDArray,
    tolerance: float,
    steps: NDArray[np.float64] | Sequence[float] | None = None,
    ignored: NDArray | None = None,
) -> BoundaryScores:
    """Compares the boundaries of two masks.

    A boundary voxel is one of the mask with a face neighbour outside it. The image's edge is no boundary, and neither
    is the edge of what is ignored: what lies beyond is not known.

    Args:
        prediction: (\\*n) true inside.
        reference: (\\*n) true inside.
        tolerance: the distance between voxels' centres that passes, in the steps' unit (else in voxels).
        steps: (d,) or (d, d) between voxels, see :mod:`medseg.scans.lattice`; None takes 1 along each axis.
        ignored: (\\*n) true where nothing counts.

    Raises:
        ValueError: where shapes differ.
    """
    if prediction.shape != reference.shape:
        raise ValueError(f"prediction {prediction.shape} and reference {reference.shape} differ in shape")
    predicted, expected = boundary(prediction, ignored), boundary(reference, ignored)
    apart = np.ones(reference.ndim) if steps is None else np.asarray(steps, np.float64)
    return BoundaryScores(
        _share_near(predicted, expected, tolerance, apart), _share_near(expected, predicted, tolerance, apart)
    )


def boundary(mask: NDArray, ignored: NDArray | None = None) -> NDArray[np.bool_]:
    """(\\*n) → (\\*n): the voxels of a mask with a face neighbour outside it, within the image."""
    from scipy.ndimage import binary_erosion

    inside = np.asarray(mask, bool)
    if ignored is None:
        return inside & ~binary_erosion(inside, border_value=1)
    return inside & ~ignored & ~binary_erosion(inside | ignored, border_value=1)


def _share_near(these: NDArray, others: NDArray, tolerance: float, steps: NDArray[np.float64]) -> float:
    from scipy.ndimage import distance_transform_edt
    from scipy.spatial import cKDTree

    if not these.any():
        return math.nan
    if not others.any():
        return 0.0
    if steps.ndim == 1:
        return _mean(distance_transform_edt(~others, sampling=steps)[these] <= tolerance)
    asked, tree = places(np.argwhere(these), steps), cKDTree(places(np.argwhere(others), steps))
    return _mean(tree.query(asked)[0] <= tolerance)


def _meetings(objects: NDArray, components: NDArray, wanted: NDArray) -> tuple[NDArray, NDArray, NDArray]:
    """Which objects and components meet, and in how many voxels, (m',) each; component 0 is none."""
    both = wanted[objects] & (components > 0)
    width = int(components.max(initial=0)) + 1
    codes, common = np.unique(objects[both].astype(np.int64) * width + components[both], return_counts=True)
    return codes // width, codes % width, common


def _crossings(objects: NDArray, components: NDArray, size: int) -> tuple[NDArray, NDArray]:
    """(size,): how many components cross each object, and the most objects that one of these crosses."""
    shared = np.zeros(size, np.int64)
    np.maximum.at(shared, objects, np.bincount(components, minlength=1)[components])
    return np.bincount(objects, minlength=size), shared


def _mean(values: NDArray) -> float:
    return float(np.mean(values)) if values.size else math.nan
