"""Instances as three classes: background, the inside of objects, and their border.

A network that tells the insides of touching objects apart from the border between them finds each object; instances are
then the connected components of the insides (Guerrero-Peña et al. 2018, «Multiclass weighted loss for instance
segmentation of cluttered cells»; Caicedo et al. 2019, the three classes of the 2018 Data Science Bowl).

    1 1 1 2 2 2        B B B B B B        width 1: a voxel of an object with another value within ``width`` voxels along
    1 1 1 2 2 2   ->   1 1 B B 1 1        each axis, corners included, is border; where the scan ends nothing is known
    1 1 1 2 2 2        1 1 B B 1 1        of what is beyond, and no border is drawn
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.datasets.labels import BACKGROUND, Border, Labels, one_channel
from medseg.errors import ConfigError
from medseg.geometry import Box
from medseg.scans.header import FileScan, Header
from medseg.scans.protocol import Scan
from medseg.scans.stacked import files_of

OBJECT, BORDER, UNKNOWN = 1, 2, 3
"""What voxels are read as: inside an object, on its border, to be ignored; all else is 0."""


class Bordered(FileScan):
    """Instance numbers as classes, (1, \\*n) uint8.

    Args:
        source: a label file of instance numbers, 0 the background.
        border: what is drawn.

    Raises:
        GridError: where the width is for another number of axes.
    """

    def __init__(self, source: Scan, border: Border) -> None:
        self.source = source
        self.border = border
        self._widths = border.widths(len(source.shape), source.name)
        about = (np.uint8, source.axes, source.affine, source.unit, source.anatomical)
        super().__init__(Header(source.name, source.shape, 1, *about))  # type: ignore[arg-type]

    @property
    def files(self) -> tuple[Path, ...]:
        """The source's."""
        return files_of(self.source)

    def _read(self, box: Box) -> NDArray:
        around = box.grow(self._widths).clip(self.shape)
        numbers = one_channel(self.source.read(around), self.name)
        classes = np.where(beside_others(numbers, self._widths), BORDER, OBJECT).astype(np.uint8)
        classes[numbers == 0] = 0
        classes[np.isin(numbers, self.border.ignored)] = UNKNOWN
        return classes[box.shift([-a for a in around.start]).slices][None]

    def __reduce__(self) -> tuple[Any, ...]:
        return Bordered, (self.source, self.border)


def beside_others(numbers: NDArray, widths: Sequence[int]) -> NDArray[np.bool_]:
    """(\\*n) numbers → (\\*n): whether another one lies within ``widths`` voxels along each axis, corners included."""
    from scipy.ndimage import maximum_filter, minimum_filter

    sides = [2 * width + 1 for width in widths]
    return maximum_filter(numbers, sides, mode="nearest") != minimum_filter(numbers, sides, mode="nearest")


def bordered_labels(labels: Labels, name: str, border: Border) -> Labels:
    """The labels of what :class:`Bordered` gives.

    Args:
        labels: of the instances.
        name: of the border's label.
        border: what is drawn, which they keep.

    Raises:
        ConfigError: where the labels are not of instances, or have the name already.
    """
    if not labels.instances:
        raise ConfigError("data.border is drawn between instances: set data.instances: true, or leave it out")
    if name in labels.values:
        raise ConfigError(f"data.border.name {name!r} is a label already: give the border another name")
    (object_name,) = labels.foreground
    ground = next((n for n in labels.values if n not in (object_name, *labels.ignore)), BACKGROUND)
    ignored = {other: number for number, other in enumerate(labels.ignore, UNKNOWN)}
    values = {ground: 0, object_name: OBJECT, name: BORDER, **ignored}
    return Labels(values, (object_name, name), ignore=labels.ignore, border=border)


def ignored_values(labels: Labels) -> tuple[int, ...]:
    """The values in files of the labels that don't count."""
    return tuple(value for name in labels.ignore for value in (labels.values[name], *labels.merged.get(name, ())))
