"""The learning rate of each step.

poly       (1 - progress) ^ power          DeepLab (Chen et al. 2017, §4.1.1) with a power of 0.9, PSPNet, nnU-Net
cosine     (1 + cos(π progress)) / 2       Loshchilov & Hutter 2017, eq. 5, without restarts
step       factor ^ (marks passed)         DeepLab v1 and FCN's kind: divided by ten now and then
constant   1
"""

from __future__ import annotations

import math
from collections.abc import Callable

from medseg.training.settings import TrainingSettings


def _poly(settings: TrainingSettings, progress: float) -> float:
    return float((1.0 - progress) ** settings.poly_power)


def _cosine(settings: TrainingSettings, progress: float) -> float:
    return (1 + math.cos(math.pi * progress)) / 2


def _step(settings: TrainingSettings, progress: float) -> float:
    return float(settings.step_factor ** sum(progress >= at for at in settings.step_at))


def _constant(settings: TrainingSettings, progress: float) -> float:
    return 1.0


SCHEDULES: dict[str, Callable[[TrainingSettings, float], float]] = {
    "poly": _poly,
    "cosine": _cosine,
    "step": _step,
    "constant": _constant,
}
"""Every schedule that a config can name."""


def learning_rate(settings: TrainingSettings, step: int, progress: float) -> float:
    """The rate of one step, counted from 0: linear warm-up over the first steps, times the schedule.

    Args:
        settings: of the training.
        step: the step.
        progress: how much of the training lies behind, 0 to 1.
    """
    warm = min((step + 1) / (settings.warmup_steps + 1), 1.0)
    return settings.learning_rate * warm * SCHEDULES[settings.schedule](settings, progress)
