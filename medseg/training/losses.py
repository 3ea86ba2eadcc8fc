"""Losses on logits: means over pixels, never sums, computed in float32 whatever the network computes in.

Legend: N samples, K output channels, F foreground classes. Targets are class maps (N, \\*core): 0 background, 1..F
foreground. Soft Dice of one class over its pixels, p probabilities and g reference (Milletari et al. 2016, §3, without
squares): 1 - (2 Σ p·g + s) / (Σ p + Σ g + s), which lies in [0, 1] and is defined where the reference is empty.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from monai.losses import DiceLoss
from torch import Tensor, nn
from torch.nn import functional

from medseg.errors import ConfigError, nearest


class SegmentationLoss(nn.Module):
    """The base: what a loss says about the network's channels.

    Attributes:
        activation: what turns its logits into probabilities.
        needs_weight_map: whether ``forward`` takes a weight for each pixel.
    """

    activation: ClassVar[Literal["sigmoid", "softmax"]]
    needs_weight_map: ClassVar[bool] = False

    def __init__(self) -> None:
        super().__init__()

    @staticmethod
    def channels(foreground: int) -> int:
        """The output channels that a network needs for so many foreground classes."""
        raise NotImplementedError

    def forward(self, logits: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
        """(N, K, \\*core), (N, \\*core)[, (N, \\*core)] → a scalar, never negative."""
        raise NotImplementedError


class DiceBCELoss(SegmentationLoss):
    """Mean binary cross-entropy + mean soft Dice loss, one sigmoid channel for each foreground class (K = F).

    Args:
        batch: whether Dice is taken over all samples of a batch together, or over each and then averaged.
        smooth: s of the Dice, in pixels.
    """

    activation = "sigmoid"

    def __init__(self, batch: bool = True, smooth: float = 1e-5) -> None:
        super().__init__()
        self.dice = DiceLoss(sigmoid=True, batch=batch, smooth_nr=smooth, smooth_dr=smooth)

    @staticmethod
    def channels(foreground: int) -> int:
        """F: background is where no channel is sure."""
        return foreground

    def forward(self, logits: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
        """(N, F, \\*core), (N, \\*core) → scalar; ``weights`` are not used."""
        logits = logits.float()
        reference = one_channel_each(target, 1, logits.shape[1])
        entropy = functional.binary_cross_entropy_with_logits(logits, reference)
        dice: Tensor = self.dice(logits, reference)
        return entropy + dice


class DiceCELoss(SegmentationLoss):
    """Mean cross-entropy + mean soft Dice loss of the foreground classes, on softmax channels (K = F + 1).

    Background is left out of the Dice, where it would drown small structures; cross-entropy counts it.

    Args:
        batch: whether Dice is taken over all samples of a batch together, or over each and then averaged.
        smooth: s of the Dice, in pixels.
    """

    activation = "softmax"

    def __init__(self, batch: bool = True, smooth: float = 1e-5) -> None:
        super().__init__()
        self.dice = DiceLoss(batch=batch, smooth_nr=smooth, smooth_dr=smooth)

    @staticmethod
    def channels(foreground: int) -> int:
        """F + 1: background is channel 0."""
        return foreground + 1

    def forward(self, logits: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
        """(N, F + 1, \\*core), (N, \\*core) → scalar; ``weights`` are not used."""
        logits = logits.float()
        entropy = functional.cross_entropy(logits, target.long())
        reference = one_channel_each(target, 1, logits.shape[1] - 1)
        dice: Tensor = self.dice(logits.softmax(1)[:, 1:], reference)
        return entropy + dice


class WeightedCELoss(SegmentationLoss):
    """The U-Net paper's pixel-weighted cross-entropy (Ronneberger et al. 2015, eq. 1) on softmax channels (K = F + 1).

    The paper sums w(x) · CE(x); here it is the mean over pixels, divided by their number and not by the sum of the
    weights, so that a border pixel of weight 10 pulls ten times as hard however many of them a sample has.
    """

    activation = "softmax"
    needs_weight_map = True

    @staticmethod
    def channels(foreground: int) -> int:
        """F + 1: background is channel 0."""
        return foreground + 1

    def forward(self, logits: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
        """(N, F + 1, \\*core), (N, \\*core), weights (N, \\*core) → scalar; no weights count as ones."""
        entropy = functional.cross_entropy(logits.float(), target.long(), reduction="none")
        return entropy.mean() if weights is None else (weights.float() * entropy).mean()


LOSSES: dict[str, type[SegmentationLoss]] = {
    "dice_bce": DiceBCELoss,
    "dice_ce": DiceCELoss,
    "weighted_ce": WeightedCELoss,
}
"""Every loss that a config can name."""


def build_loss(spec: Mapping[str, Any]) -> SegmentationLoss:
    """A loss from ``{"name": ..., argument: value, ...}``, the arguments being those of its class.

    Raises:
        ConfigError: for a name that is not in :data:`LOSSES`, or an argument that the loss does not have.
    """
    arguments = dict(spec)
    name = arguments.pop("name", None)
    if name not in LOSSES:
        hint = nearest(str(name), LOSSES)
        raise ConfigError(f"loss.name is {name!r}{hint}; it must be one of {', '.join(LOSSES)}")
    chosen = LOSSES[name]
    allowed = list(inspect.signature(chosen).parameters)
    for key, value in arguments.items():
        if key not in allowed:
            takes = ", ".join(allowed) or "no arguments"
            raise ConfigError(f"loss.{key} is no argument of {name}{nearest(key, allowed)}; it takes {takes}")
        _check_value(key, value)
    return chosen(**arguments)


def _check_value(key: str, value: Any) -> None:
    if key == "batch" and not isinstance(value, bool):
        raise ConfigError(f"loss.batch is {value!r}; it must be true or false")
    if key == "smooth" and (isinstance(value, bool) or not isinstance(value, (int, float)) or value <= 0):
        raise ConfigError(f"loss.smooth is {value!r}; it must be a number above 0")


def one_channel_each(target: Tensor, first: int, classes: int) -> Tensor:
    """A class map (N, \\*core) as float channels (N, classes, \\*core) of 0 and 1, from class ``first`` on."""
    values = torch.arange(first, first + classes, device=target.device, dtype=target.dtype)
    shape = (1, classes) + (1,) * (target.ndim - 1)
    return (target.unsqueeze(1) == values.view(shape)).float()
