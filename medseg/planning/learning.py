"""Loss, augmentation and schedule: how a network is trained on what was found."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from medseg.planning.choice import Choice, Item
from medseg.planning.evidence import Evidence
from medseg.planning.network import Sized

RARE = 0.005
"""Foreground of less than this part of a scan is hardly met by windows that are drawn anywhere."""
OVERSAMPLING, RARE_OVERSAMPLING = 0.33, 0.67
"""nnU-Net's share of samples that are centred on foreground, and what it is where foreground is rare."""
UNLIKE = 100.0
"""Classes whose sizes differ by more than this are told."""
AVERAGES = (0.98, 0.99, 0.995, 0.998, 0.999)
"""Decays of the weights' moving average: it reaches back 1 / (1 - decay) steps."""
VALIDATION_SHARE = 0.05
"""Of the time, what validations may take."""
MOST_VALIDATIONS = 10
FORWARD_SHARE = 3
"""A training step's operations are so many times those of its forward pass."""
RATES = {"dynunet": 2e-3, "unet": 2e-3}
"""Learning rates of AdamW that were tried; of other networks, a careful one."""
CAREFUL_RATE = 5e-4


def loss(evidence: Evidence, whole: bool) -> Choice:
    """The loss; ``whole`` is whether a window holds about all of a scan."""
    labels = evidence.labels
    if labels.regions:
        return Choice(
            "loss",
            {"name": "dice_bce", "batch": not whole},
            "regions overlap: a sigmoid channel for each; " + _both(whole),
        )
    if labels.classes == 1:
        return Choice(
            "loss", {"name": "dice_bce", "batch": not whole}, "one class: one sigmoid channel; " + _both(whole)
        )
    why = f"{labels.classes} classes that exclude each other: softmax; " + _both(whole) + _unlike(evidence)
    return Choice("loss", {"name": "dice_ce", "batch": not whole}, why)


def _both(whole: bool) -> str:
    over = (
        "Dice of each sample, which holds about all of a scan"
        if whole
        else "Dice over the batch, since a sample may hold little or nothing of a class"
    )
    return f"Dice weighs large and small objects alike, cross-entropy has a gradient everywhere (nnU-Net's); {over}"


def _unlike(evidence: Evidence) -> str:
    medians = [float(np.median(parts)) for k in range(1, evidence.labels.classes + 1) if (parts := evidence.parts(k))]
    if len(medians) < 2 or max(medians) < UNLIKE * min(medians):
        return ""
    return (
        f"; classes differ {max(medians) / min(medians):.0f}-fold in size: Dice needs no class weights, and samples "
        "are centred on each class as often"
    )


def augmentation(evidence: Evidence, coarse: int | None, window: Sequence[int]) -> Choice:
    """What training samples are varied by."""
    plane = [axis for axis in range(evidence.dims) if axis != coarse]
    scale: dict[str, Any] = {"name": "scale", "range": [0.85, 1.2], "probability": 0.2}
    if coarse is not None:
        scale["axes"] = plane
    items = [
        *_flips(evidence),
        *_turns(evidence, coarse, plane, window),
        Item(scale, "objects come in sizes" + (", within the slices" if coarse is not None else "")),
        *_intensities(evidence),
    ]
    why = "light, since time is short: a few samples are changed, each in a few ways, by one resampling at most"
    return Choice("augmentation", items, why + _unmirrored(evidence))


def _unmirrored(evidence: Evidence) -> str:
    """Why nothing is mirrored; empty where something is."""
    if _flips(evidence):
        return ""
    names = next(iter(evidence.sided.values()))
    return f"; nothing is mirrored, since labels tell sides apart ({', '.join(names[:4])}), and would be the wrong ones"


def _flips(evidence: Evidence) -> list[Item]:
    if not evidence.oriented:
        if evidence.sided:
            return []
        return [Item({"name": "flip"}, "nothing says which way is up: mirrored images are as likely")]
    if 0 in evidence.sided:
        return []
    why = (
        "left and right alone: patients lie one way, so that front and back, head and feet are never exchanged; no "
        "label's name tells left from right"
    )
    return [Item({"name": "flip", "axes": [0]}, why)]


def _turns(evidence: Evidence, coarse: int | None, plane: list[int], window: Sequence[int]) -> list[Item]:
    if coarse is not None:
        why = f"within the slices alone: across them (axis {coarse}) voxels are too long to be turned into the plane"
        return [Item({"name": "rotate", "degrees": 15, "axes": plane, "probability": 0.2}, why)]
    if evidence.dims == 3:
        why = "in every plane, voxels being about as long along each axis; patients lie within a few degrees"
        return [Item({"name": "rotate", "degrees": 15, "axes": "all", "probability": 0.2}, why)]
    items = [Item({"name": "rotate", "degrees": 15, "probability": 0.2}, "objects lie at any small angle")]
    if window[0] == window[1] and not evidence.sided:
        items.insert(0, Item({"name": "rotate90"}, "quarter turns cost nothing and blur nothing"))
    return items


def _intensities(evidence: Evidence) -> list[Item]:
    fixed = evidence.modality in ("CT", "RGB")
    unit = "of the range" if evidence.modality == "RGB" else "of the SD"
    noise = 0.05 if evidence.modality == "RGB" else 0.1
    items = [
        Item({"name": "gaussian_noise", "std": noise, "probability": 0.1}, f"up to {noise:g} {unit}: scanners differ"),
        Item({"name": "multiply", "range": [0.85, 1.15], "probability": 0.15}, "so do gains"),
        Item({"name": "contrast", "range": [0.8, 1.25], "probability": 0.15}, "and contrasts"),
    ]
    if not fixed:
        gamma = {"name": "gamma", "range": [0.7, 1.5], "retain_stats": True, "probability": 0.2}
        items.append(
            Item(gamma, "and what a tissue's intensity is relative to the others, which has no fixed scale here")
        )
    return items


def training(evidence: Evidence, sized: Sized, whole: bool, scan_voxels: float) -> list[Choice]:
    """Window, batch and schedule.

    Args:
        evidence: the data set.
        sized: network, window and batch.
        whole: whether a window holds about all of a scan.
        scan_voxels: of the median scan, on the model's grid.
    """
    means = sized.means
    steps = sized.steps
    per_step = f"{sized.cost.flops / 1e9:.0f} GFLOP a step on {means.words} (nominally)"
    rate = RATES.get(sized.spec["name"], CAREFUL_RATE)
    average = _average(steps)
    choices = [
        Choice(
            "training.max_minutes",
            _number(means.minutes),
            f"as asked for: about {rounded_steps(steps)} steps, {per_step}",
        ),
        Choice("training.optimizer", "adamw", "within minutes it comes farther than nnU-Net's SGD with momentum 0.99"),
        Choice("training.learning_rate", rate, _rate_words(sized.spec["name"])),
        Choice("training.schedule", "poly", "falls with the time from the first minute to the last, to 0 (nnU-Net's)"),
        Choice(
            "training.ema",
            average,
            f"the weights' average over the last {1 / (1 - average):.0f} steps is validated and kept: it is smoother "
            "than the weights",
        ),
        _oversampling(evidence, whole),
        _validations(evidence, sized, scan_voxels),
    ]
    if means.half and "cores" in means.words:
        why = "this machine's processors multiply bf16, at twice the speed: training.precision=32 where they don't"
        choices.append(Choice("training.precision", "bf16", why))
    return choices


def _rate_words(name: str) -> str:
    if name in RATES:
        return "AdamW's for a U-Net that is trained for minutes (nnU-Net's 0.01 is for SGD)"
    return f"careful, since nothing is known of {name} here"


def _average(steps: float) -> float:
    """The longest memory that is no more than a fortieth of the run."""
    return max((decay for decay in AVERAGES if 1 / (1 - decay) <= steps / 40), default=AVERAGES[0])


def _oversampling(evidence: Evidence, whole: bool) -> Choice:
    part = float(np.median([case.foreground for case in evidence.cases]))
    told = f"foreground is {part:.2%} of the median scan"
    if whole:
        return Choice(
            "training.foreground_oversampling", OVERSAMPLING, f"{told}, and a window holds about all of it: nnU-Net's"
        )
    if part < RARE:
        return Choice(
            "training.foreground_oversampling",
            RARE_OVERSAMPLING,
            f"{told}: windows drawn anywhere would hardly meet it",
        )
    return Choice(
        "training.foreground_oversampling", OVERSAMPLING, f"{told}: a third of the windows is centred on it (nnU-Net's)"
    )


def _validations(evidence: Evidence, sized: Sized, scan_voxels: float) -> Choice:
    """As many as :data:`VALIDATION_SHARE` of the time allows; a fifth of the cases is validated on."""
    per_voxel = sized.cost.flops / FORWARD_SHARE / sized.batch / math.prod(sized.core)
    overlap = (
        1 if all(n <= w for n, w in zip(_shape(scan_voxels, sized), sized.core, strict=True)) else 2**evidence.dims
    )
    seconds = max(len(evidence.cases) / 5, 1) * scan_voxels * per_voxel * overlap / (sized.means.flops_a_second / 2)
    number = min(max(int(VALIDATION_SHARE * sized.means.seconds / seconds), 2), MOST_VALIDATIONS)
    share = f"no more than {VALIDATION_SHARE:.0%} of the time, and at least twice"
    why = f"a fifth of the cases takes about {_seconds(seconds)}: {share}"
    return Choice("training.validations", number, why)


def _shape(voxels: float, sized: Sized) -> list[float]:
    side = voxels ** (1 / len(sized.core))
    return [side] * len(sized.core)


def _seconds(seconds: float) -> str:
    return f"{max(seconds, 1):.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def rounded_steps(steps: float) -> int:
    """To two digits."""
    digits = max(len(str(int(steps))) - 2, 0)
    return round(steps / 10**digits) * 10**digits


def _number(value: float) -> float | int:
    return int(value) if value == int(value) else value
