"""The summary of an evaluation as a table for the terminal."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from medseg.errors import some
from medseg.evaluation.pair import VOXELS
from medseg.evaluation.report import Report, Spread

if TYPE_CHECKING:
    from rich.table import Table

FEW_LABELS = 5
"""Up to so many labels are shown with everything; of more, the means."""
UNITS = ("mm", "um", "nm", "mm2", "mm3", "um2", "um3", "nm2", "nm3", VOXELS)
_POWERS = {"2": "²", "3": "³"}


def table_of(report: Report) -> Table:
    """One row a metric of each label: mean, SD, median, quartiles, and in how many cases it is defined.

    Of more than :data:`FEW_LABELS` labels one row each, with the means.
    """
    from rich.table import Table

    table = Table(title=_title(report), title_justify="left", caption=_caption(report), caption_justify="left")
    _few(report, table) if len(report.labels.targets) <= FEW_LABELS else _many(report, table)
    return table


def _few(report: Report, table: Table) -> None:
    for column in ("label", "metric"):
        table.add_column(column)
    for column in ("mean", "sd", "median", "q1", "q3", "n"):
        table.add_column(column, justify="right")
    for name, label in report.summary().items():
        for row, (column, spread) in enumerate(label.items()):
            last = row == len(label) - 1
            table.add_row("" if row else name, heading(column), *_spread(spread), end_section=last)
    means = report.mean()
    for row, column in enumerate(report.whole):
        table.add_row("" if row else "case", heading(column.removeprefix("case_")), _number(means[column]))


def _many(report: Report, table: Table) -> None:
    shown = [column for column in report.averaged if not column.startswith("volume_difference")]
    table.add_column("mean")
    for column in shown:
        table.add_column(heading(column), justify="right")
    table.add_column("n", justify="right")
    for name, label in report.summary().items():
        table.add_row(
            name, *(_number(label[column].mean) for column in shown), str(max(s.count for s in label.values()))
        )
    means = report.mean()
    table.add_section()
    table.add_row("all", *(_number(means[column]) for column in shown), style="bold")


def heading(column: str) -> str:
    """A column's name for people: «hd95 (mm)», «volume difference (mm³)»."""
    name, _, unit = column.rpartition("_")
    if unit not in UNITS:
        return column.replace("_", " ")
    return f"{name.replace('_', ' ')} ({''.join(_POWERS.get(letter, letter) for letter in unit)})"


def _title(report: Report) -> str:
    number = len(report.cases)
    return f"{number} case{'' if number == 1 else 's'}"


def _caption(report: Report) -> str | None:
    lines = []
    if report.missing:
        lines.append(f"{len(report.missing)} without a prediction, scored worst: {some(report.missing, 5)}")
    if report.extra:
        lines.append(f"{len(report.extra)} without a reference, left out: {some(report.extra, 5)}")
    if any(column.endswith(f"_{VOXELS}") for column in report.columns):
        lines.append("distances and volumes in voxels: the files state no unit of length")
    tolerances = report.settings.get("tolerance")
    if tolerances:
        lines.append(f"tolerance of nsd: {', '.join(f'{name} = {value:g}' for name, value in tolerances.items())}")
    return "\n".join(lines) or None


def _spread(spread: Spread) -> list[str]:
    values = (spread.mean, spread.sd, spread.median, spread.q1, spread.q3)
    return [*map(_number, values), str(spread.count)]


def _number(value: float) -> str:
    if math.isnan(value):
        return "-"
    return f"{value:.4f}" if abs(value) < 100 else f"{value:.1f}"
