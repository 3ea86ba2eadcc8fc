"""A table of results in the forms in which it is kept: CSV and JSON for programs, Markdown for readers."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Row = Mapping[str, Any]
"""Values by key; None or NaN where one is not known."""


@dataclass(frozen=True)
class Column:
    """One column of a table, or several that readers see as one.

    Attributes:
        heading: over it.
        form: how each value is written, as ``str.format`` takes it.
        keys: of the values; several are written beside each other.
        between: what stands between several.
    """

    heading: str
    form: str
    keys: tuple[str, ...]
    between: str = " / "

    def cell(self, row: Row) -> str:
        """The column's values in a row; «-» for one that is not known, nothing for the last ones that are not."""
        values = [row.get(key) for key in self.keys]
        while len(values) > 1 and unknown(values[-1]):
            values.pop()
        return self.between.join("-" if unknown(value) else self.form.format(value) for value in values)


def as_csv(rows: Sequence[Row], columns: Sequence[Column]) -> str:
    """One line a row, one field a key; empty where a value is not known."""
    text = io.StringIO()
    keys = [key for column in columns for key in column.keys]
    table = csv.DictWriter(text, keys, lineterminator="\n", extrasaction="ignore")
    table.writeheader()
    table.writerows({key: "" if unknown(row.get(key)) else row[key] for key in keys} for row in rows)
    return text.getvalue()


def as_json(rows: Sequence[Row], about: Mapping[str, Any]) -> str:
    """An object: what ``about`` says, and the rows; null where a value is not known."""
    known = [{key: None if unknown(value) else value for key, value in row.items()} for row in rows]
    return json.dumps({**about, "rows": known}, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def as_markdown(rows: Sequence[Row], columns: Sequence[Column]) -> str:
    """A table as GitHub shows it, numbers to the right."""
    lines = [[column.heading for column in columns], ["---", *["---:"] * (len(columns) - 1)]]
    lines += [[column.cell(row).replace("|", "\\|") for column in columns] for row in rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def unknown(value: Any) -> bool:
    """Whether a value is None or NaN."""
    return value is None or (isinstance(value, float) and math.isnan(value))
