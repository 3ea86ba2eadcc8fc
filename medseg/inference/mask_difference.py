"""How a mask differs from another of the same scan: in voxels, and label by label.

Legend: K foreground classes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medseg.datasets.check import check_grid, open_label
from medseg.datasets.labels import Labels, one_channel
from medseg.errors import MedsegError
from medseg.evaluation.metrics import Counts
from medseg.scans.blocks import blocks
from medseg.scans.lattice import steps_of, volume
from medseg.scans.scan import Scan


@dataclass(frozen=True)
class LabelChange:
    """One label in the recorded mask and in the new one.

    Attributes:
        dice: of the two; 1 where neither has it.
        before, after: its volume.
        unit: of the volumes: ml of three axes, mm2 of two, voxels where the scan states no unit.
    """

    dice: float
    before: float
    after: float
    unit: str


@dataclass(frozen=True)
class Difference:
    """How a new mask differs from the recorded one.

    Attributes:
        voxels: whose values differ.
        of: voxels in all.
        labels: by name.
    """

    voxels: int
    of: int
    labels: dict[str, LabelChange]


def difference(before: Path, after: Path, labels: Labels) -> Difference | None:
    """Holds two masks against each other, block by block; None where they do not lie on one grid."""
    one, other = open_label(before), open_label(after)
    try:
        check_grid(one, other)
    except MedsegError:
        return None
    differing, counts = 0, Counts.none(labels.classes)
    for box in blocks(one):
        was, now = (one_channel(scan.read(box), scan.name) for scan in (one, other))
        differing += int(np.count_nonzero(was != now))
        counts += Counts.of(labels.encode(now, other.name), labels.encode(was, one.name), labels.classes)
    return Difference(differing, math.prod(one.shape), dict(_label_changes(counts, labels, one)))


def _label_changes(counts: Counts, labels: Labels, scan: Scan) -> Iterator[tuple[str, LabelChange]]:
    voxel, unit = volume(steps_of(scan)), "mm2"
    if scan.unit == "pixel":
        voxel, unit = 1.0, "voxels"
    elif len(scan.shape) == 3:
        voxel, unit = voxel / 1000, "ml"
    for name, classes in labels.targets.items():
        before, after = counts.reference_voxels(*classes) * voxel, counts.predicted_voxels(*classes) * voxel
        yield name, LabelChange(counts.scores(*classes).dice, before, after, unit)
