"""Where a training's time goes."""

from __future__ import annotations

import time
from collections.abc import Mapping

import torch
from torch import Tensor

WORKERS = ("reading", "augmentation")
"""What workers do beside the training: their seconds are summed over all of them."""
ALONE = ("waiting", "forward_backward", "validation", "logging", "checkpoints")
"""What the training itself does, one after the other; ``waiting`` is for samples."""


class Phases:
    """Seconds by phase, over all starts of a run.

    A step's seconds on a GPU are those until the next moment at which something waits for it; their sum is right.
    """

    def __init__(self) -> None:
        self._seconds = dict.fromkeys(ALONE, 0.0)
        self._workers = torch.zeros(len(WORKERS))
        self._left = time.perf_counter()

    @property
    def seconds(self) -> dict[str, float]:
        """By phase; asking waits for the device."""
        return {**dict(zip(WORKERS, self._workers.tolist(), strict=True)), **self._seconds}

    def begin(self) -> None:
        """Begins to wait for a sample."""
        self._left = time.perf_counter()

    def to(self, phase: str) -> None:
        """Counts what has passed since the last call, or :meth:`begin`, as a phase."""
        now = time.perf_counter()
        self._seconds[phase] += now - self._left
        self._left = now

    def add_samples(self, seconds: Tensor) -> None:
        """Adds what a batch took: (N, 2) seconds of reading and augmentation; nothing waits for the device."""
        self._workers = self._workers.to(seconds.device) + seconds.sum(0)

    def restore(self, seconds: Mapping[str, float]) -> None:
        """Goes on from what an earlier start took."""
        self._seconds = {name: seconds.get(name, 0.0) for name in ALONE}
        self._workers = torch.tensor([seconds.get(name, 0.0) for name in WORKERS])
