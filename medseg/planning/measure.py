"""What one pass through a case tells a plan: where its objects lie and how large they are, and their intensities.

Memory does not grow with the scan: counts and intensities are taken block by block; objects are looked at in a map of
classes that is thinned out where a scan has more than :data:`MAP_VOXELS`.

Legend: d axes, C channels, n values kept of each channel.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import repeat

import numpy as np
from numpy.typing import NDArray

from medseg.datasets.cases import Case
from medseg.datasets.check import open_image, open_placed_label
from medseg.datasets.labels import Labels, one_channel
from medseg.processes import process_pool, usable_processors
from medseg.scans.blocks import blocks
from medseg.scans.preprocessing import Preprocessing

Watch = Callable[[int, int], None]
"""Takes how many cases are done, and of how many."""

MAP_VOXELS = 1 << 24
"""The most voxels of the map of classes that objects are looked at in."""
KEPT = 4096
"""Intensities of the foreground that are kept of each case (nnU-Net: 10 000)."""
LARGEST = 32
"""So many objects of a class, the largest ones, are told of each case."""
LEAST_OBJECT = 8
"""Objects of fewer voxels are taken for noise of the drawing."""
FEW_CASES = 8
"""Fewer are gone through sooner than processes are started."""


@dataclass(frozen=True)
class ClassMeasure:
    """One class in one case, in the scan's millimetres (in voxels where it states no unit).

    Attributes:
        voxels: how many it has.
        objects: connected parts of it.
        extents_mm: the sides of the largest ones' boxes.
        thickness_mm: twice the largest distance from a voxel of it to its border: how thick it is at its thickest.
    """

    voxels: int
    objects: int
    extents_mm: tuple[tuple[float, ...], ...]
    thickness_mm: float


@dataclass(frozen=True, eq=False)
class CaseMeasure:
    """One case, its axes in the model's order.

    Attributes:
        shape: voxels along each axis.
        spacing_mm: between them.
        classes: of each foreground class.
        intensities: (C, n) of the foreground, drawn alike from all of it.
    """

    shape: tuple[int, ...]
    spacing_mm: tuple[float, ...]
    classes: tuple[ClassMeasure, ...]
    intensities: NDArray[np.float32]

    @property
    def foreground(self) -> float:
        """What part of the voxels is foreground."""
        return sum(own.voxels for own in self.classes) / math.prod(self.shape)


def measure_cases(
    cases: Sequence[Case], labels: Labels, orientation: str | None, workers: int = 0, watch: Watch | None = None
) -> list[CaseMeasure]:
    """Goes through cases, several at a time; the result does not depend on how many.

    Raises:
        MedsegError: for the first case that cannot be read, or whose label holds what is not declared.
    """
    count = min(workers or usable_processors(), len(cases))
    if count < 2 or len(cases) < FEW_CASES:
        alone = map(measure_case, cases, repeat(labels), repeat(orientation))
        return [_told(case, number, len(cases), watch) for number, case in enumerate(alone, 1)]
    with process_pool(count) as pool:
        done = pool.map(measure_case, cases, repeat(labels), repeat(orientation), chunksize=4)
        return [_told(case, number, len(cases), watch) for number, case in enumerate(done, 1)]


def _told(case: CaseMeasure, number: int, of: int, watch: Watch | None) -> CaseMeasure:
    if watch is not None:
        watch(number, of)
    return case


def measure_case(case: Case, labels: Labels, orientation: str | None) -> CaseMeasure:
    """Goes through one case.

    Raises:
        MedsegError: where it cannot be read, or its label holds what is not declared.
    """
    views = Preprocessing(orientation=orientation)
    scan = open_image(case)
    image, label = views.grid(scan), views.grid(open_placed_label(case, scan), "nearest")
    step = max(1, math.ceil((math.prod(label.shape) / MAP_VOXELS) ** (1 / len(label.shape))))
    objects = np.zeros([-(-n // step) for n in label.shape], np.int32)
    counts, kept = np.zeros(labels.classes + 1, np.int64), _Kept(image.channels)
    for box in blocks(label):
        raw = one_channel(label.read(box), label.name)
        classes = labels.encode(raw, label.name)
        counts += np.bincount(classes[classes >= 0].ravel(), minlength=len(counts))
        if (classes > 0).any():
            kept.add(image.read(box)[:, classes > 0])
        first = [-start % step for start in box.start]
        thinned = tuple(slice(a, None, step) for a in first)
        place = tuple(
            slice((s + a) // step, (s + a) // step + n)
            for s, a, n in zip(box.start, first, classes[thinned].shape, strict=True)
        )
        objects[place] = (raw if labels.instances else classes)[thinned].clip(0)
    spacing = tuple(float(s) for s in label.spacing_mm)
    coarse = np.array(spacing) * step
    classes_of = [_class_measure(objects, k, int(counts[k]), coarse, labels) for k in range(1, labels.classes + 1)]
    return CaseMeasure(tuple(label.shape), spacing, tuple(classes_of), kept.values)


class _Kept:
    """Of values that come block by block, :data:`KEPT` voxels that were drawn alike from all."""

    def __init__(self, channels: int) -> None:
        self._draws = np.random.default_rng(0)
        self._keys = np.empty(0)
        self.values = np.empty((channels, 0), np.float32)

    def add(self, values: NDArray) -> None:
        """(C, n) more; those with the least keys stay."""
        keys = np.concatenate([self._keys, self._draws.random(values.shape[1])])
        chosen = np.sort(np.argsort(keys, kind="stable")[:KEPT])
        both = np.concatenate([self.values, values.astype(np.float32)], axis=1)
        finite = np.isfinite(both[:, chosen]).all(0)
        self._keys, self.values = keys[chosen][finite], both[:, chosen[finite]]


def _class_measure(
    objects: NDArray[np.int32], number: int, voxels: int, spacing: NDArray, labels: Labels
) -> ClassMeasure:
    from scipy import ndimage

    own = objects > 0 if labels.instances else objects == number
    found = ndimage.find_objects(own.astype(np.uint8))
    if not found or found[0] is None:
        return ClassMeasure(voxels, 0, (), 0.0)
    crop = own[found[0]]
    numbered = objects[found[0]] if labels.instances else ndimage.label(crop, np.ones((3,) * crop.ndim))[0]
    return ClassMeasure(voxels, *_objects(numbered, spacing), _thickness(crop, spacing))


def _objects(numbered: NDArray, spacing: NDArray) -> tuple[int, tuple[tuple[float, ...], ...]]:
    """How many objects there are, and the largest ones' sides."""
    from scipy import ndimage

    _, places = np.unique(numbered, return_inverse=True)
    numbers = places.reshape(numbered.shape) + (numbered.min() > 0)
    sizes = np.bincount(numbers.ravel())[1:]
    boxes = ndimage.find_objects(numbers)
    by_size = [(int(n), [s.stop - s.start for s in box]) for n, box in zip(sizes, boxes, strict=True) if box]
    whole = [pair for pair in by_size if pair[0] >= LEAST_OBJECT] or by_size
    largest = sorted(whole, key=lambda pair: (-pair[0], pair[1]))[:LARGEST]
    return len(whole), tuple(tuple(float(v) for v in np.array(sides) * spacing) for _, sides in largest)


def _thickness(crop: NDArray[np.bool_], spacing: NDArray) -> float:
    """Twice the largest distance to the border, which is half a voxel beyond the last one; the crop's edge is one."""
    from scipy.ndimage import distance_transform_edt

    step = max(1, math.ceil((crop.size / (MAP_VOXELS // 8)) ** (1 / crop.ndim)))
    thinned = np.pad(crop[(slice(None, None, step),) * crop.ndim], 1)
    within = distance_transform_edt(thinned, sampling=spacing * step)
    return float(max(2 * within.max() - float(min(spacing)) * step, 0.0))
