"""A case in the order in which people look at it, read box by box.

    anatomical volume      z to the head, y to the back, x to the patient's left, as radiologists read
    other volume           z, y, x as the file names its axes
    two axes               one plane: (1, y, x)

Legend: (z, y, x) the displayed axes; C channels; K foreground classes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from medseg.datasets.check import check_grid
from medseg.datasets.labels import Labels
from medseg.geometry import Box
from medseg.scans.blocks import blocks, boxes
from medseg.scans.scan import Scan
from medseg.scans.views import Oriented

RADIOLOGICAL = "LPS"
LETTERS = "ZYX"


@dataclass(frozen=True)
class CaseScans:
    """A case, opened; the headers are read, no voxel yet.

    Attributes:
        name: the case's.
        reference: the label file.
        prediction: the mask, or None where there is none.
        image: what both were drawn on, or None where it is not known.

    Raises:
        GridError: where they lie on different grids.
    """

    name: str
    reference: Scan
    prediction: Scan | None = None
    image: Scan | None = None

    def __post_init__(self) -> None:
        for other in (self.prediction, self.image):
            if other is not None:
                check_grid(self.reference, other)


@dataclass(frozen=True)
class Voxels:
    """What a box holds.

    Attributes:
        image: (C, z, y, x), of one channel or of three colours; None without an image.
        reference: (z, y, x) classes 0..K, or K + 1 where voxels are to be ignored.
        prediction: as the reference; None without a prediction.
    """

    image: NDArray | None
    reference: NDArray
    prediction: NDArray | None

    @property
    def wrong(self) -> NDArray[np.bool_]:
        """(z, y, x): where both differ; nowhere without a prediction."""
        if self.prediction is None:
            return np.zeros(self.reference.shape, np.bool_)
        return np.asarray(self.reference != self.prediction)


class Display:
    """A case in display order.

    Args:
        scans: the case.
        labels: what the values of its masks mean.
    """

    def __init__(self, scans: CaseScans, labels: Labels) -> None:
        self.scans = scans
        self.labels = labels
        self.ignored = labels.classes + 1
        self.dtype = np.dtype(np.uint8 if self.ignored <= 255 else np.uint16)
        reference = scans.reference
        self.anatomical = reference.anatomical and len(reference.shape) == 3
        if self.anatomical:
            grid = Oriented(reference, RADIOLOGICAL).grid
            self._axes, self._flips = grid.axes[::-1], tuple(scale < 0 for scale in grid.scale[::-1])
        else:
            letters = reference.axes
            self._axes = tuple(sorted(range(len(letters)), key=lambda a: LETTERS.find(letters[a])))
            self._flips = (False,) * len(letters)

    @property
    def flat(self) -> bool:
        """Whether the case has two axes."""
        return len(self._axes) == 2

    @property
    def shape(self) -> tuple[int, int, int]:
        """(z, y, x) voxels."""
        z, y, x = (1, 1, *(self.scans.reference.shape[a] for a in self._axes))[-3:]
        return z, y, x

    @property
    def spacing(self) -> tuple[float, float, float]:
        """(z, y, x) millimetres between voxels, or voxels where no file says."""
        scans = (self.scans.reference, self.scans.prediction, self.scans.image)
        stated = next((scan for scan in scans if scan is not None and scan.unit != "pixel"), self.scans.reference)
        z, y, x = (1.0, 1.0, *(stated.spacing_mm[a] for a in self._axes))[-3:]
        return z, y, x

    @cached_property
    def colour(self) -> bool:
        """Whether the image is a picture in colours; of other images the first channel is shown."""
        image = self.scans.image
        return image is not None and image.dtype == np.uint8 and image.channels in (3, 4)

    def read(self, box: Box) -> Voxels:
        """The voxels of a box (z, y, x) within :attr:`shape`."""
        image, prediction = self.scans.image, self.scans.prediction
        truth = self._classes(self.scans.reference, box)
        found = None if prediction is None else self._classes(prediction, box)
        ignored = truth < 0
        if found is not None:
            found = self._codes(np.maximum(found, 0), ignored)
        truth = self._codes(truth, ignored)
        shown = None if image is None else self._turned(image.read(self._in_file(box))[: 3 if self.colour else 1])
        return Voxels(shown, truth, found)

    def blocks(self, step: Sequence[int]) -> Iterator[Box]:
        """Boxes (z, y, x) that partition the case, of a block at most; each begins at a multiple of the step."""
        first = next(blocks(self.scans.reference))
        found = (1, *(first.shape[a] for a in self._axes))[-3:]
        sides = [max(n // s * s, s) for n, s in zip(found, step, strict=True)]
        while math.prod(sides) > max(first.voxels, math.prod(step)):
            longest = max(range(3), key=lambda a: sides[a] / step[a])
            sides[longest] = sides[longest] // step[longest] // 2 * step[longest]
        yield from boxes(self.shape, sides)

    def _classes(self, scan: Scan, box: Box) -> NDArray:
        return self._turned(self.labels.read(scan, self._in_file(box))[None])[0]

    def _codes(self, classes: NDArray, ignored: NDArray[np.bool_]) -> NDArray:
        codes = classes.astype(self.dtype)
        codes[ignored] = self.ignored
        return codes

    def _in_file(self, box: Box) -> Box:
        shape = self.scans.reference.shape
        start, stop = [0] * len(shape), [0] * len(shape)
        for d, (a, flipped) in enumerate(zip(self._axes, self._flips, strict=True), 3 - len(shape)):
            n = shape[a]
            start[a], stop[a] = (n - box.stop[d], n - box.start[d]) if flipped else (box.start[d], box.stop[d])
        return Box(tuple(start), tuple(stop))

    def _turned(self, voxels: NDArray) -> NDArray:
        """(C, *file) → (C, z, y, x)."""
        turned = voxels.transpose(0, *(1 + a for a in self._axes))
        turned = turned[(slice(None), *(slice(None, None, -1 if flip else 1) for flip in self._flips))]
        return np.ascontiguousarray(turned if turned.ndim == 4 else turned[:, None])
