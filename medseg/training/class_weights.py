"""What the voxels of a class count, so that rare classes are not drowned by frequent ones.

    median_frequency   w_c = median(f) / f_c      Eigen & Fergus 2015, §6.3.2
    inverse            w_c = n / (K n_c)          every class weighs the same

Legend: f_c the share of class c in the cases that have it; K classes, the background first; n voxels that count, n_c
those of class c.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from medseg.errors import ConfigError, nearest

WeightRule = Literal["median_frequency", "inverse"] | Sequence[float] | None
"""How classes are weighted: a rule of :data:`RULES`, a weight for each class (the background first), or not at all."""


def median_frequency(counts: NDArray) -> NDArray[np.float64]:
    """Voxels (cases, K) of each class → (K,): 1 for the class of median frequency, and for one that no case has.

    SegNet's class balancing (Badrinarayanan et al. 2017, §4.1); what the papers count in images is counted in cases.
    """
    present = counts > 0
    around = (present * counts.sum(1, keepdims=True)).sum(0)
    found = around > 0
    frequency = counts.sum(0)[found] / around[found]
    weights = np.ones(counts.shape[1])
    if found.any():
        weights[found] = np.median(frequency) / frequency
    return weights


def inverse_frequency(counts: NDArray) -> NDArray[np.float64]:
    """Voxels (cases, K) of each class → (K,), of mean 1 over the voxels; 1 for a class that no case has."""
    total = counts.sum(0)
    found = total > 0
    weights = np.ones(counts.shape[1])
    weights[found] = total.sum() / (found.sum() * total[found])
    return weights


RULES: dict[str, Callable[[NDArray], NDArray[np.float64]]] = {
    "median_frequency": median_frequency,
    "inverse": inverse_frequency,
}
"""Every rule that a config can name."""


class ClassWeights(nn.Module):
    """A weight for each voxel by its class in the reference.

    Args:
        rule: see :data:`WeightRule`; a rule of :data:`RULES` must be :meth:`fit` before the first call.

    Raises:
        ConfigError: for an unknown rule, or a weight that is negative or no number.
    """

    table: Tensor | None

    def __init__(self, rule: WeightRule) -> None:
        super().__init__()
        self.rule = rule
        self.register_buffer("table", None, persistent=False)
        if isinstance(rule, str):
            if rule not in RULES:
                hint = nearest(rule, RULES)
                raise ConfigError(f"loss.weights is {rule!r}{hint}; it must be {', '.join(RULES)}, a list, or null")
        elif rule is not None:
            self._set(_checked(rule))

    def fit(self, classes: int, counts: Callable[[], NDArray]) -> None:
        """Makes the weights of K ``classes``; ``counts`` is called where the rule counts: voxels (cases, K).

        Raises:
            ConfigError: where the list has another length.
        """
        if isinstance(self.rule, str):
            self._set(RULES[self.rule](counts()))
        elif self.table is not None and len(self.table) != classes:
            raise ConfigError(
                f"loss.weights is {self.rule!r} and there are {classes} classes, the background first: "
                "give each a number"
            )

    def forward(self, target: Tensor) -> Tensor | None:
        """(N, \\*core) → (N, \\*core), whatever where a voxel doesn't count; None where all classes count the same."""
        if self.table is None:
            if self.rule is not None:
                raise RuntimeError(f"the class weights {self.rule} have not been fitted to the training labels")
            return None
        return self.table[target.clamp(min=0)]

    def _set(self, weights: Any) -> None:
        self.table = torch.as_tensor(weights, dtype=torch.float32)


def fit_class_weights(loss: nn.Module, classes: int, counts: Callable[[], NDArray]) -> None:
    """Makes the class weights of every part of a loss; see :meth:`ClassWeights.fit`."""
    for part in loss.modules():
        if isinstance(part, ClassWeights):
            part.fit(classes, counts)


def _checked(weights: Any) -> list[float]:
    numbers = list(weights) if isinstance(weights, list | tuple) else []
    fit = all(isinstance(w, int | float) and not isinstance(w, bool) and 0 <= w < float("inf") for w in numbers)
    if not numbers or not fit or not any(numbers):
        raise ConfigError(
            f"loss.weights is {weights!r}; it must be {', '.join(RULES)}, null, or a list of numbers of 0 or more, one "
            "for each class, the background first"
        )
    return numbers
