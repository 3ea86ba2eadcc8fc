"""A plot of quality against cost, with those that nothing beats in both joined by a line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medseg.files import partial_of
from medseg.tracking.pictures import PALETTE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INCHES = (6.4, 6.0)
"""Of one panel."""
DOTS_PER_INCH = 110
LABEL_POINTS = 8
ROOM = 1.5
"""By what factor the axis of costs goes on beyond the first and the last, for their labels."""
AROUND = ((5, 5), (5, -11), (-5, 5), (-5, -11), (0, 9), (0, -16), (12, 14), (-12, 14), (12, -20), (-12, -20))
"""Where a label may stand about its point, in points, the first choice first."""


@dataclass(frozen=True)
class Point:
    """One model.

    Attributes:
        name: its label.
        quality: the larger the better, such as the mean Dice.
        spread: half the length of its bar.
        costs: above 0, one for each panel.
    """

    name: str
    quality: float
    spread: float
    costs: tuple[float, ...]


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Which (cost, quality) no other one beats, the cheapest first.

    A point is beaten by one that costs no more and is no worse, and differs; of equal points each stays.
    """
    order = sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1]))
    front: list[int] = []
    for i in order:
        best = front[-1] if front else None
        if best is None or points[i][1] > points[best][1] or points[i] == points[best]:
            front.append(i)
    return front


def plot_tradeoff(points: Sequence[Point], quality: str, costs: Sequence[str], title: str, path: Path) -> None:
    """Writes a PNG with one panel a cost, on a logarithmic axis.

    Args:
        points: at least one.
        quality: what the common axis shows.
        costs: what each panel's axis shows, with its unit.
        title: above all.
        path: the file; written whole or not at all.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure((INCHES[0] * len(costs), INCHES[1]), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    panels: Any = figure.subplots(1, len(costs), sharey=True, squeeze=False)[0]
    figure.suptitle(title)
    for number, (panel, name) in enumerate(zip(panels, costs, strict=True)):
        _panel(panel, [(p.costs[number], p.quality) for p in points], [p.spread for p in points])
        panel.set_xlabel(name)
    panels[0].set_ylabel(quality)
    panels[0].legend(loc="best", fontsize=LABEL_POINTS)
    canvas.draw()  # type: ignore[no-untyped-call]
    for number, panel in enumerate(panels):
        _name(panel, [(p.costs[number], p.quality) for p in points], [p.name for p in points])
    beside = partial_of(path)
    figure.savefig(beside, dpi=DOTS_PER_INCH, format="png")
    beside.replace(path)


def _panel(axes: Axes, places: list[tuple[float, float]], spreads: list[float]) -> None:
    from matplotlib.ticker import EngFormatter, FuncFormatter, LogLocator

    thousands = EngFormatter(sep="")

    axes.grid(True, which="major", alpha=0.3)
    for i, ((cost, quality), spread) in enumerate(zip(places, spreads, strict=True)):
        axes.errorbar(cost, quality, spread, fmt="o", markersize=5, color=_colour(i), elinewidth=0.8, alpha=0.9)
    front = [places[i] for i in pareto_front(places)]
    mark: dict[str, Any] = {"marker": "o", "markersize": 10, "markerfacecolor": "none", "markeredgewidth": 0.9}
    axes.plot(*zip(*front, strict=True), color="black", linewidth=0.9, linestyle="--", label="Pareto front", **mark)
    costs = [cost for cost, _ in places]
    axes.set_xscale("log")
    axes.set_xlim(min(costs) / ROOM, max(costs) * ROOM)
    axes.margins(y=0.08)
    for where in (axes.xaxis.set_major_formatter, axes.xaxis.set_minor_formatter):
        where(FuncFormatter(lambda cost, _: f"{cost:g}" if cost < 1 else thousands(cost)))
    axes.xaxis.set_minor_locator(LogLocator(subs=(2, 5)))


def _name(axes: Axes, places: list[tuple[float, float]], names: list[str]) -> None:
    """Labels each point where it stays inside and covers no other label and no point, as far as there is room."""
    dots = [tuple(axes.transData.transform(place)) for place in places]
    taken = [(x - 4, y - 4, x + 4, y + 4) for x, y in dots]
    scale = axes.figure.dpi / 72
    inside = axes.bbox.x0, axes.bbox.y0, axes.bbox.x1, axes.bbox.y1
    for i, name in enumerate(names):
        size = (0.62 * LABEL_POINTS * len(name) * scale, 1.25 * LABEL_POINTS * scale)
        boxes = [_box(dots[i], (dx * scale, dy * scale), size) for dx, dy in AROUND]
        crossings = [round(sum(_overlap(box, other) for other in taken) - _overlap(box, inside)) for box in boxes]
        best = min(range(len(boxes)), key=crossings.__getitem__)
        taken.append(boxes[best])
        dx, dy = AROUND[best]
        axes.annotate(
            name,
            places[i],
            (dx, dy),
            textcoords="offset points",
            fontsize=LABEL_POINTS,
            color="0.15",
            ha="left" if dx > 0 else "right" if dx < 0 else "center",
            arrowprops={"arrowstyle": "-", "linewidth": 0.4, "color": _colour(i)} if abs(dx) > 5 else None,
        )


def _box(
    dot: tuple[float, ...], offset: tuple[float, float], size: tuple[float, float]
) -> tuple[float, float, float, float]:
    left = dot[0] + offset[0] - (0 if offset[0] > 0 else size[0] if offset[0] < 0 else size[0] / 2)
    bottom = dot[1] + offset[1]
    return left, bottom, left + size[0], bottom + size[1]


def _overlap(box: tuple[float, float, float, float], other: tuple[float, float, float, float]) -> float:
    """The area that two boxes (left, bottom, right, top) share."""
    width = min(box[2], other[2]) - max(box[0], other[0])
    height = min(box[3], other[3]) - max(box[1], other[1])
    return max(width, 0.0) * max(height, 0.0)


def _colour(number: int) -> tuple[float, float, float]:
    red, green, blue = PALETTE[number % len(PALETTE)]
    return red / 300, green / 300, blue / 300
