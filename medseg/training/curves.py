"""``metrics.csv``: every point of a run's curves, one row a step that has any."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from medseg.files import write_text


class Curves:
    """Rows of metrics by step; a resumed run drops what came after the checkpoint that it goes on from.

    Args:
        path: the CSV file.
        columns: the metrics' names, in order.
        step: rows after this step are dropped.
    """

    def __init__(self, path: Path, columns: Sequence[str], step: int) -> None:
        self.path = path
        self.columns = ["step", *columns]
        kept = [row for row in _rows(path) if int(row["step"]) <= step]
        head = ",".join(self.columns) + "\n"
        write_text(path, head + "".join(self._line(row) for row in kept))

    def add(self, step: int, values: dict[str, float]) -> None:
        """Appends one row."""
        row = {"step": str(step), **{key: f"{value:.6g}" for key, value in values.items()}}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(self._line(row))

    def _line(self, row: dict[str, str]) -> str:
        return ",".join(row.get(column, "") or "" for column in self.columns) + "\n"


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return [row for row in csv.DictReader(file) if (row.get("step") or "").isdigit()]
