"""The bar of the cases that are being prepared."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class PreparingBar:
    """One line on a terminal, nothing elsewhere. Use it as a context manager; call it with done and total."""

    def __init__(self) -> None:
        console = Console(file=sys.stderr)
        columns = (TextColumn("preparing"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._task = self._bar.add_task("cases", total=None)

    def __enter__(self) -> PreparingBar:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def __call__(self, done: int, total: int) -> None:
        """How far it is."""
        self._bar.update(self._task, completed=done, total=total)
