"""Charts of one run, as pictures: learning curves, the spread of metrics over cases, the confusion matrix."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from medseg.evaluation.metrics import Counts
from medseg.evaluation.report import Report
from medseg.evaluation.table import heading
from medseg.tracking.pictures import PALETTE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DOTS_PER_INCH = 100
MOST_STRIPS = 40
"""Labels of a strip plot; of more, the first ones are shown."""
MOST_NUMBERS = 12
"""A confusion matrix of more labels shows shades alone."""
PANEL = 2.9
"""Inches across a panel of curves: three of them are as wide as MLflow shows beside its account of a run."""
MOST_CURVES = 12
"""Curves of one panel; of more, the first ones are shown."""
RATIO = 0.618034
"""The golden ratio, whose multiples spread evenly: where dots stand within a strip."""

Rows = Sequence[Mapping[str, float]]


def read_curves(path: Path) -> Rows:
    """The rows of a run's ``metrics.csv``: the step, and the values known at it."""
    with path.open(encoding="utf-8", newline="") as file:
        return [{key: float(value) for key, value in row.items() if key and value} for row in csv.DictReader(file)]


def curves_chart(rows: Rows) -> Image.Image | None:
    """Learning curves over the steps: losses, Dice by label, and the learning rate; None where nothing is known.

    Args:
        rows: as :func:`read_curves` gives them.
    """
    known = list(dict.fromkeys(key for row in rows for key in row if key != "step"))
    panels = {
        "loss": [key for key in known if key.endswith("/loss")],
        "Dice": [key for key in known if "dice" in key][:MOST_CURVES],
        "learning rate": [key for key in known if key == "lr"],
    }
    panels = {title: keys for title, keys in panels.items() if keys}
    if not panels:
        return None
    figure = _figure(PANEL * len(panels), 3.4)
    for axes, (title, keys) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        for number, key in enumerate(keys):
            points = [(row["step"], row[key]) for row in rows if key in row]
            marker = "." if len(points) < 30 else ""
            axes.plot(
                *zip(*points, strict=True), label=_plain(key), color=_colour(number), marker=marker, linewidth=1.2
            )
        _name_curves(axes, title)
    return _drawn(figure)


def strips_chart(report: Report, column: str) -> Image.Image:
    """A strip a label: each case a dot, the box from the first quartile to the third, the median a line.

    Args:
        report: the evaluation.
        column: of it, such as ``dice``.
    """
    names = list(report.labels.targets)[:MOST_STRIPS]
    figure = _figure(7.5, 1.2 + 0.42 * len(names))
    axes = figure.subplots()
    for number, name in enumerate(names):
        values = [case.values[name].get(column, math.nan) for case in report.cases]
        points = [(value, number + ((i * RATIO) % 1 - 0.5) * 0.5) for i, value in enumerate(values) if value == value]
        if points:
            x, y = zip(*points, strict=True)
            _box(axes, x, number)
            axes.scatter(x, y, s=14, color=_colour(number), alpha=0.75, linewidths=0, zorder=3)
    axes.set_yticks(range(len(names)), [_plain(name) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlabel(_plain(heading(column)))
    axes.grid(True, axis="x", alpha=0.3)
    return _drawn(figure)


def confusion_chart(counts: Counts, names: Sequence[str]) -> Image.Image:
    """The share of each reference label's voxels that each label was predicted for.

    Args:
        counts: the table of voxels.
        names: of its K + 1 rows.
    """
    sums = counts.table.sum(1, keepdims=True)
    shares = np.divide(counts.table, sums, out=np.full(counts.table.shape, math.nan), where=sums > 0)
    side = min(1.8 + 0.62 * len(names), 14.0)
    figure = _figure(side + 0.8, side)
    axes = figure.subplots()
    shades = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(shades, ax=axes, shrink=0.8)
    plain = [_plain(name) for name in names]
    axes.set_xticks(range(len(names)), plain, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(names)), plain)
    axes.set(xlabel="prediction", ylabel="reference", title="share of the reference's voxels")
    if len(names) <= MOST_NUMBERS:
        for (row, column), share in np.ndenumerate(shares):
            text = "-" if math.isnan(share) else f"{share:.2f}"
            axes.text(
                column, row, text, ha="center", va="center", fontsize=8, color="white" if share > 0.55 else "black"
            )
    return _drawn(figure)


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure((width, height), dpi=DOTS_PER_INCH, layout="constrained")


def _drawn(figure: Figure) -> Image.Image:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")  # type: ignore[no-untyped-call]


def _name_curves(axes: Axes, title: str) -> None:
    axes.set(xlabel="step", title=title)
    axes.grid(True, alpha=0.3)
    axes.legend(fontsize=8)


def _box(axes: Axes, values: Sequence[float], place: int) -> None:
    style: dict[str, Any] = {"boxprops": {"color": "0.5"}, "medianprops": {"color": "black", "linewidth": 1.6}}
    style |= {"whiskerprops": {"color": "0.6"}, "capprops": {"color": "0.6"}}
    axes.boxplot([list(values)], positions=[place], orientation="horizontal", widths=0.6, showfliers=False, **style)


def _plain(text: str) -> str:
    """As it is: matplotlib would set what stands between dollars as a formula."""
    return text.replace("$", r"\$")


def _colour(number: int) -> tuple[float, float, float]:
    red, green, blue = PALETTE[number % len(PALETTE)]
    return red / 300, green / 300, blue / 300
