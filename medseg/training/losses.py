"""The losses that a config can name, put together from those of voxels and of regions.

| loss | channels | what it is |
|---|---|---|
| ``ce`` ``bce`` | softmax, sigmoid | cross-entropy |
| ``weighted_ce`` | softmax | U-Net's border weights |
| ``focal`` | either | easy voxels count little |
| ``ohem`` | either | the hardest voxels alone |
| ``dice_ce`` ``dice_bce`` ``dice_focal`` | softmax, sigmoid, either | Dice beside one of them |
| ``generalized_dice`` | either | classes weigh by the inverse square of their volume |
| ``tversky`` | either | Dice that tells false positives from false negatives |
| ``boundary`` | either | generalized Dice, and more and more the distance between borders |
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from medseg.errors import ConfigError, nearest
from medseg.inference.decode import Activation
from medseg.training.class_weights import WeightRule
from medseg.training.pixel_losses import BorderWeightedCrossEntropy, CrossEntropy, Focal, HardPixels
from medseg.training.region_losses import Boundary, Dice, GeneralizedDice, Tversky
from medseg.training.segmentation_loss import SegmentationLoss, Sum

SMOOTH = 1e-5


def ce(weights: WeightRule = None) -> SegmentationLoss:
    """Cross-entropy."""
    return CrossEntropy("softmax", weights)


def bce(weights: WeightRule = None) -> SegmentationLoss:
    """Binary cross-entropy of each foreground class."""
    return CrossEntropy("sigmoid", weights)


def weighted_ce(weights: WeightRule = None) -> SegmentationLoss:
    """Cross-entropy with U-Net's border weights."""
    return BorderWeightedCrossEntropy("softmax", weights)


def focal(activation: Activation = "softmax", gamma: float = 2.0, weights: WeightRule = None) -> SegmentationLoss:
    """Focal loss."""
    return Focal(activation, gamma, weights)


def ohem(
    activation: Activation = "softmax", threshold: float = 0.7, min_kept: float = 1 / 16, weights: WeightRule = None
) -> SegmentationLoss:
    """Cross-entropy of the hardest voxels."""
    return HardPixels(activation, threshold, min_kept, weights)


def dice_ce(batch: bool = True, smooth: float = SMOOTH, weights: WeightRule = None) -> SegmentationLoss:
    """Cross-entropy + Dice."""
    return Sum(CrossEntropy("softmax", weights), Dice("softmax", batch, smooth))


def dice_bce(batch: bool = True, smooth: float = SMOOTH, weights: WeightRule = None) -> SegmentationLoss:
    """Binary cross-entropy + Dice."""
    return Sum(CrossEntropy("sigmoid", weights), Dice("sigmoid", batch, smooth))


def dice_focal(
    activation: Activation = "softmax",
    gamma: float = 2.0,
    batch: bool = True,
    smooth: float = SMOOTH,
    weights: WeightRule = None,
) -> SegmentationLoss:
    """Focal loss + Dice."""
    return Sum(Focal(activation, gamma, weights), Dice(activation, batch, smooth))


def generalized_dice(activation: Activation = "softmax", batch: bool = True) -> SegmentationLoss:
    """Generalized Dice."""
    return GeneralizedDice(activation, batch)


def tversky(
    activation: Activation = "softmax",
    alpha: float = 0.3,
    beta: float = 0.7,
    batch: bool = True,
    smooth: float = SMOOTH,
) -> SegmentationLoss:
    """Tversky loss; the paper's best for small lesions by default."""
    return Tversky(activation, alpha, beta, batch, smooth)


def boundary(
    activation: Activation = "softmax", alphas: tuple[float, float] = (0.01, 0.99), batch: bool = True
) -> SegmentationLoss:
    """Generalized Dice and boundary loss, whose share goes from the first of ``alphas`` to the second."""
    return Boundary(activation, (alphas[0], alphas[1]), batch)


LOSSES: dict[str, Callable[..., SegmentationLoss]] = {
    "dice_bce": dice_bce,
    "dice_ce": dice_ce,
    "dice_focal": dice_focal,
    "ce": ce,
    "bce": bce,
    "weighted_ce": weighted_ce,
    "focal": focal,
    "ohem": ohem,
    "generalized_dice": generalized_dice,
    "tversky": tversky,
    "boundary": boundary,
}
"""Every loss that a config can name."""


def arguments_of(name: str) -> dict[str, Any]:
    """A loss's arguments and their defaults."""
    return {key: value.default for key, value in inspect.signature(LOSSES[name]).parameters.items()}


def build_loss(spec: Mapping[str, Any]) -> SegmentationLoss:
    """A loss from ``{"name": ..., argument: value, ...}``, the arguments being those of its builder.

    Raises:
        ConfigError: for a name that is not in :data:`LOSSES`, an argument that the loss does not have, or a value that
            it does not take.
    """
    arguments = dict(spec)
    name = arguments.pop("name", None)
    if name not in LOSSES:
        hint = nearest(str(name), LOSSES)
        raise ConfigError(f"loss.name is {name!r}{hint}; it must be one of {', '.join(LOSSES)}")
    allowed = arguments_of(name)
    for key, value in arguments.items():
        if key not in allowed:
            hint = nearest(key, allowed)
            raise ConfigError(f"loss.{key} is no argument of {name}{hint}; it takes {', '.join(allowed)}")
        check = _CHECKS.get(key)
        if check is not None and not check.holds(value):
            raise ConfigError(f"loss.{key} is {value!r}; it must be {check.wanted}")
    return LOSSES[name](**arguments)


class _Check(NamedTuple):
    holds: Callable[[Any], bool]
    wanted: str


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf")


def _shares(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) == 2 and all(_number(v) and 0 <= v <= 1 for v in value)


_ABOVE_ZERO = _Check(lambda value: _number(value) and value > 0, "a number above 0")
_CHECKS = {
    "batch": _Check(lambda value: isinstance(value, bool), "true or false"),
    "smooth": _ABOVE_ZERO,
    "alpha": _ABOVE_ZERO,
    "beta": _ABOVE_ZERO,
    "gamma": _Check(lambda value: _number(value) and (value == 0 or value >= 1), "0, or a number of 1 or more"),
    "threshold": _Check(lambda value: _number(value) and 0 <= value < 1, "a probability under 1"),
    "min_kept": _Check(lambda value: _number(value) and 0 < value <= 1, "a share above 0 and up to 1"),
    "alphas": _Check(_shares, "two numbers from 0 to 1, for the first and the last step"),
}
"""What each argument must be; activations and weights are checked where they are used."""
