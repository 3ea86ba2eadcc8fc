"""Tables of cases that grow from step to step, as MLflow shows them."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medseg.tracking.names import clean

TABLE_ROWS = 10_000
"""Rows that a table keeps; the oldest leave."""

Row = Mapping[str, Any]


def table_path(name: str) -> str:
    """A table's place among the artifacts."""
    plain = re.sub(r"[^\w.\- ]", "_", clean(name))
    return f"tables/{plain}.json"


class Tables:
    """The tables of a run, as its folder keeps them.

    Args:
        folder: of their files, by their places among the artifacts.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._rows: dict[str, list[Row]] = {}

    def grown(self, path: str, rows: Sequence[Row], step: int | None) -> bytes:
        """A table's file with the rows of a step, which replace what it had of that step and later ones.

        Args:
            path: see :func:`table_path`.
            rows: one mapping of column -> value a row.
            step: their first column; None for a table without steps, which is replaced whole.
        """
        head = {} if step is None else {"step": step}
        earlier = [row for row in self._known(path) if step is not None and row.get("step", step) < step]
        kept = [*earlier, *({**head, **row} for row in rows)][-TABLE_ROWS:]
        self._rows[path] = kept
        columns = list(dict.fromkeys(key for row in kept for key in row))
        data = [[_cell(row.get(column)) for column in columns] for row in kept]
        return json.dumps({"columns": columns, "data": data}).encode()

    def _known(self, path: str) -> list[Row]:
        if path not in self._rows:
            place = self._folder / path
            content = json.loads(place.read_text("utf-8")) if place.exists() else {"columns": [], "data": []}
            self._rows[path] = [dict(zip(content["columns"], row, strict=True)) for row in content["data"]]
        return self._rows[path]


def _cell(value: Any) -> Any:
    """A JSON value of a table's cell: null where there is no finite number."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | int | bool) else str(value)
