"""Steps in their order, from a mask's file to another; nothing is held whole."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medseg.datasets.labels import Labels
from medseg.errors import ConfigError
from medseg.postprocessing import islands
from medseg.postprocessing.components import Report, Selection
from medseg.postprocessing.mask import Grid, Mask, ScanMask
from medseg.postprocessing.settings import (
    FillHoles,
    Instances,
    KeepLargest,
    OfObjects,
    RemoveSmall,
    Step,
    check_steps,
)
from medseg.scans.formats import suffix_of
from medseg.scans.lattice import steps_of, volume
from medseg.scans.protocol import MaskSink, Scan

INSTANCE_DTYPE = np.dtype(np.uint32)
ROUNDING = 1e-6
"""The part of itself by which a size in millimetres may miss a whole number of voxels: headers round to float32."""


@dataclass(frozen=True)
class Chain:
    """What is done to masks.

    Attributes:
        steps: in their order.
        labels: what the masks' values mean; None where nobody says, and 0 is background.
    """

    steps: tuple[Step, ...]
    labels: Labels | None = None

    def __post_init__(self) -> None:
        check_steps(self.steps, self.labels)

    @property
    def numbers(self) -> bool:
        """Whether it ends in instances."""
        return any(isinstance(step, Instances) for step in self.steps)

    @property
    def background(self) -> int:
        """The value of what is no object."""
        return 0 if self.labels is None else self.labels.background_value

    def dtype(self, own: np.dtype) -> np.dtype:
        """What the result is stored as, where the mask itself is ``own``."""
        return INSTANCE_DTYPE if self.numbers else own

    @property
    def written(self) -> Labels | None:
        """What the result's values mean; instances of several labels are told apart by number alone."""
        if not self.numbers:
            return self.labels
        names = () if self.labels is None else self.labels.foreground
        return Labels({"background": 0, names[0] if len(names) == 1 else "object": 1}, instances=True)

    def check(self, like: Scan) -> None:
        """Refuses a scan that the steps do not suit.

        Raises:
            ConfigError: for connectivity above its axes, or millimetres where it has none or other axes.
        """
        check_steps(self.steps, self.labels, len(like.shape))
        for step in self.steps:
            _limit(step, like)

    def to_list(self) -> list[dict[str, Any]]:
        """As JSON."""
        return [{"name": step.name} | step.model_dump(mode="json", exclude_none=True) for step in self.steps]

    def selection(self, step: Step) -> Selection:
        """Which voxels a step looks at."""
        joined = isinstance(step, OfObjects) and step.joined
        if step.labels is not None:
            return Selection(self.background, tuple(map(self._value, step.labels)), joined)
        return Selection(self.background, None, joined)

    def _value(self, name: str) -> int:
        return int(name) if self.labels is None else self.labels.values[name]


def raw_of(output: Path) -> Path:
    """Where a mask is until it is processed, in a format that takes boxes in any order."""
    suffix = ".ome.zarr" if suffix_of(output).endswith(".zarr") else ".nii"
    return output.with_name(f".{output.name}.raw{suffix}")


def run_chain(
    source: Scan, sink: MaskSink, chain: Chain, like: Scan, report: Report | None = None
) -> list[dict[str, Any]]:
    """Puts a mask through the steps and writes the result; the sink is not closed.

    Args:
        source: the mask.
        sink: of the same shape, and of the chain's dtype.
        chain: the steps.
        like: the scan whose voxels' size counts; of the mask's shape.
        report: takes how many blocks are done of all passes, and how many these are.

    Returns:
        each step's name, how many components it found, and how many it changed, of how many voxels.

    Raises:
        MedsegError: for steps that don't suit the scan, or a mask that is damaged.
    """
    chain.check(like)
    mask: Mask = ScanMask(source, Grid.of(source))
    passes = _Passes(len(mask.grid), len(chain.steps) + 1, report)
    accounts = []
    for step in chain.steps:
        mapped = _applied(step, mask, chain, like, passes)
        accounts.append({"name": step.name, **mapped.account})
        mask = mapped
        passes.next()
    for index, box in enumerate(mask.grid):
        sink.write(box, mask.block(index))
        passes(index + 1, len(mask.grid))
    return accounts


@dataclass
class _Passes:
    """Several passes over the same blocks as one count."""

    blocks: int
    passes: int
    report: Report | None
    done: int = 0

    def next(self) -> None:
        self.done += self.blocks

    def __call__(self, block: int, blocks: int) -> None:
        if self.report is not None:
            self.report(self.done + block, self.blocks * self.passes)


def _applied(step: Step, mask: Mask, chain: Chain, like: Scan, report: Report) -> islands.Mapped:
    selection, limit = chain.selection(step), _limit(step, like)
    dims = len(like.shape)
    if isinstance(step, FillHoles):
        return islands.fill_holes(mask, selection, step.connectivity or 1, limit, report)
    connectivity = step.connectivity or dims
    if isinstance(step, RemoveSmall):
        return islands.remove_small(mask, selection, connectivity, limit or 1, report)
    if isinstance(step, KeepLargest):
        return islands.keep_largest(mask, selection, connectivity, step.count, report)
    return islands.instances(mask, selection, connectivity, report)


def _limit(step: Step, like: Scan) -> int | None:
    """The size that a step names, in voxels: the least that stays, or the most that is filled."""
    if isinstance(step, RemoveSmall):
        millimetres = step.min_mm2 or step.min_mm3
        return step.min_voxels if millimetres is None else math.ceil(_voxels(step, millimetres, like) * (1 - ROUNDING))
    if isinstance(step, FillHoles):
        millimetres = step.max_mm2 or step.max_mm3
        return step.max_voxels if millimetres is None else math.floor(_voxels(step, millimetres, like) * (1 + ROUNDING))
    return None


def _voxels(step: Step, millimetres: float, like: Scan) -> float:
    if like.unit == "pixel":
        raise ConfigError(f"{like.name} does not say how large its voxels are: give {step.name} a size in voxels")
    return millimetres / volume(steps_of(like))
