"""The live line of a training: step, loss, Dice, time left. It goes to stderr."""

from __future__ import annotations

import sys
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn


class TrainingBar:
    """A bar on a terminal; a line now and then where stderr is a file."""

    def __init__(self) -> None:
        self.console = Console(file=sys.stderr)
        self.live = self.console.is_terminal
        self._bar = Progress(
            TextColumn("step {task.fields[step]}"),
            BarColumn(),
            TextColumn("loss {task.fields[loss]:.4f}  Dice {task.fields[dice]:.3f}  {task.fields[left]} left"),
            console=self.console,
        )
        self._task = self._bar.add_task("training", total=1.0, step=0, loss=0.0, dice=0.0, left="?")

    def __enter__(self) -> TrainingBar:
        if self.live:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.live:
            self._bar.stop()

    def update(self, progress: float, step: int, loss: float, dice: float, seconds_left: float) -> None:
        """Moves the bar."""
        self._bar.update(self._task, completed=progress, step=step, loss=loss, dice=dice, left=clock(seconds_left))

    def say(self, text: str) -> None:
        """One line that stays."""
        self._bar.console.print(text, highlight=False, soft_wrap=True)


def clock(seconds: float) -> str:
    """Minutes and seconds, or hours and minutes."""
    if seconds == float("inf"):
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d} h" if minutes >= 60 else f"{minutes}:{rest:02d}"
