"""Training samples: windows of the same geometry as inference.

    read   |<------------- window ------------->|     image, mirrored where it overhangs the scan
    write         |<------- core ------->|            label: the valid-convolution crop is which box is read

Sample number s of a run belongs to epoch ``s // cases`` and is a function of (seed, epoch, index within it) alone: how
many workers draw it, and whether the run was interrupted before it, changes nothing.

Legend: C channels; a padded network's core is its window, read = write.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from medseg.datasets.labels import Labels, one_channel
from medseg.geometry import Box
from medseg.networks.network import Network
from medseg.scans.memory import ArrayScan
from medseg.scans.mirror import read_mirrored
from medseg.scans.scan import Scan
from medseg.training.augment import Augmentation
from medseg.training.census import CaseCensus
from medseg.training.segmentation_loss import SegmentationLoss


class Sample(TypedDict):
    """What a worker hands over: image (C, \\*window), label (\\*core), and the loss's maps of it or an empty tensor.

    ``seconds`` (2) are those of reading and of augmentation.
    """

    image: Tensor
    label: Tensor
    maps: Tensor
    seconds: Tensor


@dataclass(frozen=True)
class SampleGeometry:
    """The window that goes in and the core that is learned from, per axis."""

    window: tuple[int, ...]
    core: tuple[int, ...]

    @classmethod
    def of(cls, network: Network, window: Sequence[int]) -> SampleGeometry:
        """For a network: what its output covers, so a padded network's whole window.

        Raises:
            TileError: where the network cannot take the window.
        """
        network.check_window(window)
        trims = [field.trim for field in network.fields]
        return cls(tuple(window), tuple(n - t for n, t in zip(window, trims, strict=True)))

    @property
    def halo(self) -> tuple[int, ...]:
        """What the window reads before the core."""
        return tuple((n - c) // 2 for n, c in zip(self.window, self.core, strict=True))


@dataclass(frozen=True)
class TrainingCase:
    """A case as the network sees it: both on the model's grid.

    Attributes:
        census: what the label holds, where that is known already.
    """

    name: str
    image: Scan
    label: Scan
    census: CaseCensus | None = None

    def cached(self) -> TrainingCase:
        """With its voxels in memory."""
        return TrainingCase(self.name, _cached(self.image), _cached(self.label), self.census)

    @property
    def nbytes(self) -> int:
        """What the case takes in memory."""
        voxels = int(np.prod(self.image.shape))
        return voxels * (self.image.channels * self.image.dtype.itemsize + self.label.dtype.itemsize)


class TileSamples(Dataset[Sample]):
    """The samples of a run by their number.

    Args:
        cases: at least one.
        labels: how the label files' values become classes.
        geometry: window and core.
        augmentation: what happens to a sample.
        seed: the experiment's.
        foreground: the share of samples that are centred on a foreground voxel. Where labels are ignored, the rest are
            centred on voxels that count: of a volume with a few annotated slices, most of it teaches nothing.
        loss: whose maps come with the samples; None for none.
    """

    def __init__(
        self,
        cases: Sequence[TrainingCase],
        labels: Labels,
        geometry: SampleGeometry,
        augmentation: Augmentation,
        seed: int,
        foreground: float = 0.33,
        loss: SegmentationLoss | None = None,
    ) -> None:
        self.cases = list(cases)
        self.labels = labels
        self.geometry = geometry
        self.augmentation = augmentation
        self.seed = seed
        self.foreground = foreground
        # A copy: the loss that trains may live on a device, where workers must not follow.
        self.loss = copy.deepcopy(loss)

    @cached_property
    def census(self) -> list[CaseCensus]:
        """What each case holds: known since it was prepared, or from one pass over its label."""
        return [case.census or CaseCensus.of(case.label, self.labels) for case in self.cases]

    def __getitem__(self, number: int) -> Sample:
        epoch, index = divmod(number, len(self.cases))
        which = int(np.random.default_rng([self.seed, epoch]).permutation(len(self.cases))[index])
        rng = np.random.default_rng([self.seed, epoch, index])
        case = self.cases[which]
        core = self._core_box(which, rng)
        image, label, seconds = self._augmented(case, core, int(rng.integers(2**31)))
        return {
            "image": torch.from_numpy(image),
            "label": torch.from_numpy(label.astype(np.int64)),
            "maps": self._maps(label),
            "seconds": torch.tensor(seconds),
        }

    def _core_box(self, which: int, rng: np.random.Generator) -> Box:
        """Where the sample is learned from: anywhere in the scan, or around a voxel that is remembered."""
        extent, core = self.cases[which].image.shape, self.geometry.core
        room = [max(n - c, 0) for n, c in zip(extent, core, strict=True)]
        start = [int(rng.integers(r + 1)) for r in room]
        found = self.census[which]
        classes = found.foreground if rng.random() < self.foreground else []
        voxels = classes[int(rng.integers(len(classes)))] if classes else found.labelled
        if len(voxels):
            voxel = voxels[int(rng.integers(len(voxels)))]
            start = [min(max(int(v) - c // 2, 0), r) for v, c, r in zip(voxel, core, room, strict=True)]
        # A scan smaller than the core lies in its middle, with the mirror on both sides.
        start = [s - max(c - n, 0) // 2 for s, c, n in zip(start, core, extent, strict=True)]
        return Box.of(core).shift(start)

    def _augmented(self, case: TrainingCase, core: Box, seed: int) -> tuple[NDArray, NDArray, tuple[float, float]]:
        """Image (C, \\*window) and class map (\\*core), read with all the border that the augmentation may need.

        With the seconds of reading and of augmentation.
        """
        begun = time.perf_counter()
        geometry = self.geometry
        draw = self.augmentation.draw(geometry.window, seed)
        read = draw.read_shape
        margin = [h + (r - n) // 2 for h, r, n in zip(geometry.halo, read, geometry.window, strict=True)]
        box = Box.of(read).shift(tuple(a - m for a, m in zip(core.start, margin, strict=True)))
        image = read_mirrored(case.image, box).astype(np.float32, copy=False)
        classes = self.labels.encode(one_channel(read_mirrored(case.label, box), case.label.name), case.label.name)
        read_at = time.perf_counter()
        image, label = self.augmentation(image, classes, draw, geometry.core)
        image, label = np.ascontiguousarray(image), np.ascontiguousarray(label)
        return image, label, (read_at - begun, time.perf_counter() - read_at)

    def _maps(self, label: NDArray) -> Tensor:
        maps = None if self.loss is None else self.loss.maps(label, self.labels.classes)
        return torch.empty(0) if maps is None else torch.from_numpy(maps)


class ConsecutiveSamples(Sampler[int]):
    """Sample numbers from those of ``step`` on, without an end."""

    def __init__(self, batch: int, step: int = 0) -> None:
        self.batch = batch
        self.step = step

    def __iter__(self) -> Iterator[int]:
        number = self.step * self.batch
        while True:
            yield number
            number += 1


def _cached(scan: Scan) -> Scan:
    return ArrayScan(scan.read(Box.of(scan.shape)), name=scan.name)
