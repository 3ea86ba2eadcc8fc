"""The optimiser that a config names, and which parts of a network it moves faster or slower."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from medseg.errors import ConfigError, nearest
from medseg.networks.names import within
from medseg.training.settings import TrainingSettings

FACTOR = "factor"
"""A group's key: how many times the learning rate it has."""


def _adamw(groups: list[dict[str, Any]], settings: TrainingSettings) -> Optimizer:
    return AdamW(groups, lr=settings.learning_rate, weight_decay=settings.weight_decay)


def _adam(groups: list[dict[str, Any]], settings: TrainingSettings) -> Optimizer:
    return Adam(groups, lr=settings.learning_rate, weight_decay=settings.weight_decay)


def _sgd(groups: list[dict[str, Any]], settings: TrainingSettings) -> Optimizer:
    return SGD(
        groups,
        lr=settings.learning_rate,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
        nesterov=settings.nesterov,
    )


OPTIMIZERS: dict[str, Callable[[list[dict[str, Any]], TrainingSettings], Optimizer]] = {
    "adamw": _adamw,
    "adam": _adam,
    "sgd": _sgd,
}
"""AdamW (Loshchilov & Hutter 2019), Adam (Kingma & Ba 2015), and gradient descent with momentum."""


def build_optimizer(network: nn.Module, settings: TrainingSettings) -> Optimizer:
    """An optimiser of the parameters that want a gradient, in groups by their factor; the rate is set step by step.

    Raises:
        ConfigError: where a factor's part is none of the network's.
    """
    return OPTIMIZERS[settings.optimizer](_groups(network, settings.rate_factors), settings)


def check_rate_factors(network: nn.Module, factors: Mapping[str, float]) -> None:
    """Refuses factors of parts that the network doesn't have.

    Raises:
        ConfigError: with the nearest name.
    """
    names = [name for name, _ in network.named_parameters()]
    for part in factors:
        if not any(within(name, part) for name in names):
            parts = list(dict.fromkeys(name.split(".")[0] for name in names))
            shown = ", ".join(parts[:12]) + (" ..." if len(parts) > 12 else "")
            raise ConfigError(
                f"training.rate_factors names {part!r}, which is no part of the network{nearest(part, parts)}; "
                f"it has {shown}, and what is within them, as in PART.0.weight"
            )


def _groups(network: nn.Module, factors: Mapping[str, float]) -> list[dict[str, Any]]:
    check_rate_factors(network, factors)
    groups: dict[float, list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            groups.setdefault(_factor(name, factors), []).append(parameter)
    return [{"params": parameters, FACTOR: factor} for factor, parameters in groups.items()]


def _factor(name: str, factors: Mapping[str, float]) -> float:
    """Of the longest part that a parameter belongs to; 1 for the others."""
    fitting: Iterable[str] = (part for part in factors if within(name, part))
    return factors.get(max(fitting, key=len, default=""), 1.0)
