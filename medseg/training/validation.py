"""Validation: whole scans through the same code as ``medseg infer``, scored as they are segmented.

Legend: K output channels, F foreground classes.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from medseg.datasets.labels import IGNORED, Labels
from medseg.evaluation.metrics import Counts
from medseg.geometry import Box, Tiling
from medseg.inference.decode import Activation, Decoder
from medseg.inference.emit import Output
from medseg.inference.segment import prepare
from medseg.inference.settings import InferenceSettings
from medseg.inference.through import through
from medseg.inference.window import choose_tiling
from medseg.inference.windows import Blending
from medseg.networks.network import Network
from medseg.scans.preprocessing import Preprocessing
from medseg.scans.scan import Scan

PICTURE_SIDE = 1024
"""The largest side of an overlay's region, in voxels."""


@dataclass(frozen=True)
class ValidationCase:
    """A case as its files are: the image on its own grid, and its label."""

    name: str
    image: Scan
    label: Scan


@dataclass(frozen=True)
class CaseScore:
    """What one case scored.

    Attributes:
        name: the case's.
        loss: mean cross-entropy plus mean soft Dice loss of the whole scan's probabilities.
        dice: by foreground label or region; 1 where a label is in neither.
    """

    name: str
    loss: float
    dice: dict[str, float]

    def row(self) -> dict[str, Any]:
        """The case as a row of the validation table."""
        return {"case": self.name, "loss": self.loss, **{f"dice/{k}": v for k, v in self.dice.items()}}


@dataclass(frozen=True)
class Picture:
    """A plane of a case: image (C, h, w), reference and prediction (h, w) as classes."""

    name: str
    image: NDArray
    reference: NDArray
    prediction: NDArray


@dataclass(frozen=True)
class Validation:
    """What one validation found."""

    scores: list[CaseScore]
    pictures: list[Picture]

    def metrics(self) -> dict[str, float]:
        """Means over the cases, by metric name."""
        labels = list(self.scores[0].dice)
        dice = {label: float(np.mean([s.dice[label] for s in self.scores])) for label in labels}
        return {
            "val/loss": float(np.mean([s.loss for s in self.scores])),
            **{f"val/dice/{label}": value for label, value in dice.items()},
            "val/dice_mean": float(np.mean(list(dice.values()))),
        }


@dataclass(frozen=True)
class Validator:
    """Segments the validation cases with the weights of the moment.

    Attributes:
        cases: at least one.
        labels: the data set's.
        preprocessing: the model's views, fitted.
        activation: of the model's channels.
        inference: the way through a scan, resolved for the network.
        device: where the network runs.
        pictures: how many cases are pictured.
    """

    cases: Sequence[ValidationCase]
    labels: Labels
    preprocessing: Preprocessing
    activation: Activation
    inference: InferenceSettings
    device: torch.device
    pictures: int = 0

    def __call__(self, network: Network) -> Validation:
        """Scores every case; the network given is left as it is."""
        still = prepare(copy.deepcopy(network), self.device)
        watched = [self._score(case, still, i < self.pictures) for i, case in enumerate(self.cases)]
        return Validation([w.score() for w in watched], [w.picture() for w in watched if w.plane is not None])

    def _score(self, case: ValidationCase, network: Network, pictured: bool) -> ScoreSink:
        view = self.preprocessing.view(case.image)
        plane = plane_of(case.label, self.labels) if pictured else None
        sink = ScoreSink(case, self.labels, self.activation, plane)
        output = Output(sink, Decoder(self.activation, self.labels.written), None, sink.probabilities)
        through(view, network, self._way(view, network), output)
        return sink

    def _way(self, view: Scan, network: Network) -> Tiling | Blending:
        if self.inference.mode == "sliding-window":
            return self.inference.blending
        return choose_tiling(view, network, whole=self.inference.mode == "whole")


class ScoreSink:
    """Compares boxes with the reference as they arrive; it keeps counts, and one plane for the picture."""

    resumed = False

    def __init__(self, case: ValidationCase, labels: Labels, activation: Activation, plane: Box | None) -> None:
        self.case = case
        self.labels = labels
        self.plane = plane
        self.chunks = case.label.shape
        self.probabilities = LossSink(case, labels, activation)
        self._counts = Counts.none(labels.classes)
        self._kept = None if plane is None else np.zeros(plane.shape, np.uint8)

    def write(self, box: Box, labels: NDArray) -> None:
        """Classes (\\*box.shape) of one box."""
        reference = self.labels.read(self.case.label, box)
        self._counts += Counts.of(labels, reference, self.labels.classes)
        if self.plane is not None and self._kept is not None:
            _copy(labels, box, self._kept, self.plane)

    def flush(self) -> None:
        """Nothing waits."""

    def close(self) -> None:
        """Nothing is open."""

    def score(self) -> CaseScore:
        """What the case scored."""
        dice = {name: self._counts.scores(*classes).dice for name, classes in self.labels.targets.items()}
        return CaseScore(self.case.name, self.probabilities.loss(), dice)

    def picture(self) -> Picture:
        """The plane that was kept, with its image and reference."""
        plane, kept = self.plane, self._kept
        if plane is None or kept is None:
            raise ValueError(f"{self.case.name} is not pictured")
        reference = self.labels.read(self.case.label, plane)
        # What doesn't count is shown as background in both: it is neither right nor wrong.
        reference, kept = (np.where(reference == IGNORED, 0, classes) for classes in (reference, kept))
        image = self.case.image.read(plane)
        thin = tuple(axis for axis, n in enumerate(plane.shape) if n == 1 and plane.ndim == 3)[:1]
        return Picture(
            self.case.name,
            image.squeeze(tuple(axis + 1 for axis in thin)),
            reference.squeeze(thin),
            kept.squeeze(thin),
        )


class LossSink:
    """Sums a scan's loss from its probabilities, box by box: mean cross-entropy + mean soft Dice loss.

    Voxels to ignore don't count; where all are, the loss is 0.
    """

    resumed = False

    def __init__(self, case: ValidationCase, labels: Labels, activation: Activation) -> None:
        self.case = case
        self.labels = labels
        self.activation = activation
        self._entropy = 0.0
        self._values = 0
        self._overlap = np.zeros(len(labels.targets))
        self._mass = np.zeros(len(labels.targets))

    @property
    def chunks(self) -> tuple[int, ...]:
        """Any box will do."""
        return self.case.label.shape

    def write(self, box: Box, labels: NDArray) -> None:
        """Probabilities (K, \\*box.shape) of one box."""
        classes = self.labels.read(self.case.label, box)
        counted = classes != IGNORED
        if not counted.all():
            labels, classes = labels[:, counted], classes[counted]
        foreground = labels if self.activation == "sigmoid" else labels[1:]
        truth = np.stack([np.isin(classes, some) for some in self.labels.targets.values()])
        if self.activation == "sigmoid":
            likely = np.where(truth, labels, 1 - labels)
        else:
            likely = np.take_along_axis(labels, classes[None].astype(np.intp), 0)
        self._entropy -= float(np.log(np.maximum(likely, 1e-7)).sum(dtype=np.float64))
        self._values += likely.size
        axes = tuple(range(1, truth.ndim))
        self._overlap += (foreground * truth).sum(axes, dtype=np.float64)
        self._mass += foreground.sum(axes, dtype=np.float64) + truth.sum(axes)

    def flush(self) -> None:
        """Nothing waits."""

    def close(self) -> None:
        """Nothing is open."""

    def loss(self) -> float:
        """The scan's loss."""
        dice = (2 * self._overlap + 1e-5) / (self._mass + 1e-5)
        return self._entropy / max(self._values, 1) + float(np.mean(1 - dice))


def plane_of(label: Scan, labels: Labels) -> Box:
    """The plane to look at: all of a 2D scan, in 3D the one with most foreground, capped in size around its middle."""
    whole = Box.of(label.shape)
    if whole.ndim == 3:
        axis = across(label)
        where = _fullest(label, labels, axis)
        start, stop = list(whole.start), list(whole.stop)
        start[axis], stop[axis] = where, where + 1
        whole = Box(tuple(start), tuple(stop))
    cut = [max(n - PICTURE_SIDE, 0) // 2 for n in whole.shape]
    return Box(
        tuple(a + c for a, c in zip(whole.start, cut, strict=True)),
        tuple(min(b, a + c + PICTURE_SIDE) for a, b, c in zip(whole.start, whole.stop, cut, strict=True)),
    )


def across(scan: Scan) -> int:
    """The axis across which a reader pages: the one of the thickest spacing; where all agree, the file's slowest."""
    spacing = np.round(scan.spacing_mm, 3)
    if np.allclose(spacing, spacing[0]):
        return len(spacing) - 1 if scan.anatomical else 0
    return int(np.argmax(spacing))


def _fullest(label: Scan, labels: Labels, axis: int) -> int:
    best, where = -1, label.shape[axis] // 2
    for i in range(label.shape[axis]):
        start, stop = [0, 0, 0], list(label.shape)
        start[axis], stop[axis] = i, i + 1
        found = int((labels.read(label, Box(tuple(start), tuple(stop))) > 0).sum())
        if found > max(best, 0):
            best, where = found, i
    return where


def _copy(values: NDArray, box: Box, kept: NDArray, plane: Box) -> None:
    """Copies what a box and the kept plane share."""
    start = tuple(max(a, b) for a, b in zip(box.start, plane.start, strict=True))
    stop = tuple(min(a, b) for a, b in zip(box.stop, plane.stop, strict=True))
    shared = Box(start, stop)
    if shared.voxels:
        back = tuple(-a for a in plane.start)
        away = tuple(-a for a in box.start)
        kept[shared.shift(back).slices] = values[shared.shift(away).slices]
