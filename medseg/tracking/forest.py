"""The forest plot of a comparison: every mean difference with its interval, one panel a metric."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medseg.evaluation.comparison import Comparison, Contrast
from medseg.evaluation.comparison_table import label_of, title_of
from medseg.evaluation.paired import ALPHA
from medseg.files import partial_of
from medseg.tracking.pictures import PALETTE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_ROWS = 60
"""Rows of one panel; of more, those of the smallest p are shown."""
INCHES = 9.5
ROW_INCHES = 0.27
PANEL_INCHES = 0.95
"""What a panel needs beside its rows: its heading and its axis."""
DOTS_PER_INCH = 110
POINTS = 8
LONGEST = 44
"""Of a row's name, in characters."""

_CLAIMED = {"better": PALETTE[4], "worse": PALETTE[6], "differs": PALETTE[2], "": (130, 130, 130)}


def plot_forest(comparison: Comparison, path: Path) -> None:
    """Writes a PNG: one panel a metric, one row a contrast; claimed differences are coloured.

    Args:
        comparison: at least one contrast.
        path: the file; written whole or not at all.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    panels = _panels(comparison)
    sizes = [ROW_INCHES * len(rows) + PANEL_INCHES for rows in panels.values()]
    figure = Figure((INCHES, sum(sizes) + 0.5), layout=ConstrainedLayoutEngine(w_pad=0.1))
    FigureCanvasAgg(figure)
    figure.suptitle(_title(comparison), fontsize=POINTS + 2)
    axes: Any = figure.subplots(len(panels), 1, squeeze=False, gridspec_kw={"height_ratios": sizes})
    for panel, rows in zip(axes[:, 0], panels.values(), strict=True):
        _panel(panel, rows, _names(comparison, rows))
    beside = partial_of(path)
    figure.savefig(beside, dpi=DOTS_PER_INCH, format="png")
    beside.replace(path)


def _panels(comparison: Comparison) -> dict[str, list[Contrast]]:
    """By column, those that could be compared, by label; of too many those of the smallest p."""
    panels: dict[str, list[Contrast]] = {}
    for contrast in comparison.contrasts:
        panels.setdefault(contrast.measure.column, []).append(contrast)
    defined = {column: [c for c in rows if c.paired.n] for column, rows in panels.items()}
    return {column: _fewer(rows) for column, rows in defined.items() if rows}


def _fewer(rows: list[Contrast]) -> list[Contrast]:
    kept = sorted(rows, key=lambda row: row.paired.p)[:MOST_ROWS]
    order = list(dict.fromkeys(row.label for row in rows))
    return sorted((row for row in rows if row in kept), key=lambda row: order.index(row.label))


def _title(comparison: Comparison) -> str:
    first, *others = (scores.name for scores in comparison.compared)
    what = f"{_cut(others[0])} less {_cut(first)}" if len(others) == 1 else f"{len(others) + 1} compared"
    about = f"mean differences with {1 - ALPHA:.0%} intervals, {len(comparison.cases)} cases"
    return f"{what}\n{about}; blue: claimed to be better, orange: to be worse, grey: no claim"


def _names(comparison: Comparison, rows: Sequence[Contrast]) -> list[str]:
    """What each row is about: its label, and its pair where there are several."""
    if len(comparison.compared) == 2:
        return [_cut(label_of(row)) for row in rows]
    several = len({row.label for row in rows}) > 1
    pairs = [f"{row.second} - {row.first}" for row in rows]
    return [_cut(f"{row.label}: {pair}" if several else pair) for row, pair in zip(rows, pairs, strict=True)]


def _cut(name: str) -> str:
    """As long as there is room for; a dollar sign begins no formula."""
    return (name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…").replace("$", r"\$")


def _panel(axes: Axes, rows: Sequence[Contrast], names: Sequence[str]) -> None:
    axes.axvline(0, color="black", linewidth=0.8)
    for place, row in enumerate(rows):
        _row(axes, place, row)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_yticks(range(len(rows)), names, fontsize=POINTS)
    axes.tick_params(axis="x", labelsize=POINTS)
    axes.grid(True, axis="x", alpha=0.3)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.tick_params(axis="y", length=0)
    towards = "right: better" if rows[0].sign > 0 else "left: better"
    axes.set_xlabel(f"difference of {title_of(rows[0])} ({towards})", fontsize=POINTS)
    axes.text(1.02, 1, HEAD, transform=axes.transAxes, fontsize=POINTS - 1, va="bottom", family="monospace")


HEAD = f"{'difference [interval]':>30}  {'p (Holm)':>8}  won/tied/lost"


def _row(axes: Axes, place: int, row: Contrast) -> None:
    found = row.paired
    colour = tuple(value / 255 for value in _CLAIMED[row.verdict])
    if found.low == found.low:
        axes.plot([found.low, found.high], [place, place], color=colour, linewidth=1.6, solid_capstyle="butt")
    axes.plot([found.mean], [place], marker="s", markersize=5, color=colour)
    weight = "bold" if row.claimed else "normal"
    transform = axes.get_yaxis_transform()
    axes.text(
        1.02,
        place,
        _numbers(row),
        transform=transform,
        fontsize=POINTS - 1,
        va="center",
        family="monospace",
        weight=weight,
    )


def _numbers(row: Contrast) -> str:
    found = row.paired
    interval = f"{found.mean:+.3g} [{found.low:+.3g}, {found.high:+.3g}]"
    return f"{interval:>30}  {row.p_holm:8.2g}  {row.wins}/{found.zero}/{row.losses}"
