"""What is known of a data set when it is planned for: its fingerprint.

Legend: d axes, C channels.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from medseg.datasets.checks.finding import CaseFacts
from medseg.datasets.fingerprint import Image
from medseg.datasets.labels import Labels
from medseg.planning.measure import CaseMeasure

Modality = Literal["CT", "RGB", "other"]
AIR_HU, BONE_HU, LEAST_HU = -900.0, 150.0, -4100.0
"""What a CT reaches below, and above, and what no scanner writes."""
MOST_CASES = 0.8
"""Of the cases, how many must look like a modality."""
SIDES = {0: ("left", "right"), 1: ("anterior", "posterior", "ventral", "dorsal"), 2: ("superior", "inferior")}
"""Words that tell the two ends of an axis apart, by the axis of a volume that lies in RAS."""
FURTHER = {0: ("l", "r", "lt", "rt", "lh", "rh"), 1: ("ant", "post"), 2: ("sup", "inf", "upper", "lower")}
"""Their short forms, and those that other things are called too; as words of their own alone."""


@dataclass(frozen=True, eq=False)
class Evidence:
    """A data set, measured.

    Attributes:
        name: the data set's.
        path: what opens it.
        layout: how its files lie.
        cases: those that are planned with.
        labels: what its files hold.
        declared: whether the data set or the user says so; else they are the values that were found.
        channels: C.
        dtypes: of the images, with how many there are.
        modality: what the images are, and
        told: why they are taken for that.
        oriented: whether all are volumes that say how the patient lies; then their axes run R, A, S.
        millimetres: whether all state a unit.
        left_out: broken cases, and why.
        notes: what else is to be said of the set.
    """

    name: str
    path: str
    layout: str
    cases: tuple[CaseMeasure, ...]
    labels: Labels
    declared: bool
    channels: int
    dtypes: Mapping[str, int]
    modality: Modality
    told: str
    oriented: bool
    millimetres: bool
    left_out: Mapping[str, str]
    notes: tuple[str, ...] = ()

    @property
    def dims(self) -> int:
        """d."""
        return len(self.cases[0].shape)

    @cached_property
    def spacings(self) -> NDArray[np.float64]:
        """(cases, d), millimetres."""
        return np.array([case.spacing_mm for case in self.cases])

    @cached_property
    def shapes(self) -> NDArray[np.int64]:
        """(cases, d), voxels as the files have them."""
        return np.array([case.shape for case in self.cases])

    def shapes_at(self, spacing_mm: Sequence[float] | None) -> NDArray[np.float64]:
        """(cases, d), voxels at a spacing; as the files have them where it is None."""
        if spacing_mm is None:
            return self.shapes.astype(float)
        return np.maximum(np.round((self.shapes - 1) * self.spacings / np.array(spacing_mm) + 1), 1)

    @cached_property
    def intensities(self) -> NDArray[np.float32]:
        """(C, n) of the foreground, over all cases."""
        return np.concatenate([case.intensities for case in self.cases], axis=1)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the foreground classes."""
        return self.labels.foreground

    def parts(self, number: int) -> list[float]:
        """What part of its case's voxels a class is, from 1 on, where it occurs."""
        found = [(case.classes[number - 1].voxels, math.prod(case.shape)) for case in self.cases]
        return [voxels / all_of for voxels, all_of in found if voxels]

    def objects(self, number: int) -> list[int]:
        """How many objects of a class each case has."""
        return [case.classes[number - 1].objects for case in self.cases]

    def extents_mm(self, number: int | None = None) -> NDArray[np.float64]:
        """(objects, d) sides of the boxes around objects of a class, or of all."""
        chosen = [own for case in self.cases for k, own in enumerate(case.classes, 1) if number in (None, k)]
        rows = [row for own in chosen for row in own.extents_mm]
        return np.array(rows).reshape(-1, self.dims)

    def thicknesses_mm(self, number: int | None = None) -> list[float]:
        """Of a class, or of all, in each case where it occurs."""
        chosen = [own for case in self.cases for k, own in enumerate(case.classes, 1) if number in (None, k)]
        return [own.thickness_mm for own in chosen if own.voxels]

    @cached_property
    def sided(self) -> dict[int, tuple[str, ...]]:
        """Axes whose two ends the labels' names tell apart, with those names; by the axes of RAS."""
        named = {
            axis: tuple(n for n in self.labels.values if _has_word(n, SIDES[axis], FURTHER[axis])) for axis in SIDES
        }
        return {axis: names for axis, names in named.items() if names}


def _has_word(name: str, long: Sequence[str], short: Sequence[str]) -> bool:
    words = [word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", name)]
    return any(word in long or word in short for word in words) or any(part in name.lower() for part in long)


def modality_of(
    cases: Sequence[CaseFacts], dims: int, channels: int, channel_names: Sequence[str] | None
) -> tuple[Modality, str]:
    """What the images are, and why they are taken for that.

    Args:
        cases: what is known of the images.
        dims: axes.
        channels: of each.
        channel_names: what the data set calls them, where it does.
    """
    if channel_names and all(name.strip().upper() == "CT" for name in channel_names):
        return "CT", "its dataset.json says CT"
    dtypes = {facts.grid.dtype for case in cases for facts in case.images if facts.grid is not None}
    if dims == 2 and channels in (3, 4) and dtypes == {"uint8"}:
        return "RGB", f"{channels} channels of 8 bits"
    stated = _stated(cases)
    if stated:
        return _of_dicom(cases, stated)
    if channels == 1 and not channel_names and _hounsfield(cases):
        return "CT", f"values reach below {AIR_HU:g} (air) and above {BONE_HU:g}, as Hounsfield units do"
    return "other", ", ".join(channel_names) if channel_names else "no CT by its values, no 8-bit colours"


def _stated(cases: Sequence[CaseFacts]) -> dict[str, str]:
    """The modality that DICOM files state, by the names of the cases that have such files."""
    images = {case.name: Image.of(case.images) for case in cases}
    return {name: image.modality for name, image in images.items() if image is not None and image.modality}


def _of_dicom(cases: Sequence[CaseFacts], stated: Mapping[str, str]) -> tuple[Modality, str]:
    """What the images are where DICOM says it of some; the others must look like CT for all to be that."""
    others = [case for case in cases if case.name not in stated]
    some = f" of {len(stated)} of {len(cases)} cases" if others else ""
    told = f"{' and '.join(sorted(set(stated.values())))} by the DICOM files{some}"
    if set(stated.values()) != {"CT"}:
        return "other", told
    if others and not _hounsfield(others):
        return "other", f"{told}, no CT by the values of the others"
    return "CT", told


def _hounsfield(cases: Sequence[CaseFacts]) -> bool:
    fits = [
        LEAST_HU <= channel.low <= AIR_HU and channel.high >= BONE_HU
        for case in cases
        for channel in case.values
        if channel.low is not None and channel.high is not None
    ]
    volumes = all(len(case.grid.shape) == 3 for case in cases if case.grid is not None)
    return volumes and bool(fits) and sum(fits) >= MOST_CASES * len(fits)
