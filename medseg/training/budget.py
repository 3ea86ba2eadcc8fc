"""How long a training lasts, and how far it is."""

from __future__ import annotations

import time
from dataclasses import dataclass, field


@dataclass
class Budget:
    """Steps, minutes, or both: whichever ends first ends the training.

    With steps the schedule follows the steps; with minutes alone it follows the time.

    Attributes:
        max_steps: the last step, or None.
        max_minutes: the time from the first step on, validation included, or None.
        spent: seconds that earlier starts of the same run have used.
    """

    max_steps: int | None
    max_minutes: float | None
    spent: float = 0.0
    _since: float = field(default_factory=time.monotonic)

    def start(self) -> None:
        """The clock runs from here."""
        self._since = time.monotonic()

    @property
    def seconds(self) -> float:
        """Time used by all starts of the run."""
        return self.spent + time.monotonic() - self._since

    def progress(self, step: int) -> float:
        """How much of the training lies behind after ``step`` steps: 0 to 1."""
        if self.max_steps is not None:
            return min(step / self.max_steps, 1.0)
        return min(self.seconds / self._limit, 1.0)

    def over(self, step: int) -> bool:
        """Whether the training ends after ``step`` steps."""
        return (self.max_steps is not None and step >= self.max_steps) or self.seconds >= self._limit

    def seconds_left(self, step: int, seconds_per_step: float) -> float:
        """An estimate, for the progress bar."""
        by_time = self._limit - self.seconds
        by_steps = float("inf") if self.max_steps is None else (self.max_steps - step) * seconds_per_step
        return max(min(by_time, by_steps), 0.0)

    @property
    def _limit(self) -> float:
        return float("inf") if self.max_minutes is None else self.max_minutes * 60
