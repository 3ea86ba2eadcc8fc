"""The bar of ``medseg infer``: tiles, voxels a second, time left, memory."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from medseg.private import public

if TYPE_CHECKING:
    from rich.progress import TaskID

    from medseg.inference.pipeline import Progress


class InferenceBar:
    """One line a scan on a terminal; elsewhere only what must be said. Use it as a context manager."""

    def __init__(self) -> None:
        self._console = Console(file=sys.stderr, soft_wrap=True)
        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[speed]}"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[memory]}"),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._tasks: dict[Path, TaskID] = {}

    def __enter__(self) -> InferenceBar:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def say(self, line: str) -> None:
        """A line that stays."""
        self._console.print(public(line), markup=False, highlight=False)

    def show(self, path: Path, progress: Progress) -> None:
        """How far one scan is."""
        if self._bar.disable:
            return
        from medseg.inference.process_memory import resident_bytes

        if path not in self._tasks:
            self._tasks[path] = self._bar.add_task(Path(public(path)).name, total=None, speed="", memory="")
        self._bar.update(
            self._tasks[path],
            total=progress.tiles,
            completed=progress.done,
            speed=f"{progress.voxels_per_second / 1e6:.2f} Mvoxel/s",
            memory=f"{resident_bytes() / 2**30:.2f} GiB",
        )

    def done(self, path: Path) -> None:
        """Takes a scan's line away."""
        if path in self._tasks:
            self._bar.remove_task(self._tasks.pop(path))
