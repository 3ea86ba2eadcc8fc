"""A comparison as tables for the terminal: the contrasts, and the cases that differ most."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from medseg.evaluation.comparison import Comparison, Contrast
from medseg.evaluation.paired import ALPHA
from medseg.evaluation.score_table import WHOLE
from medseg.evaluation.table import heading

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

MOST_CASES = 10
"""Rows of the table of cases."""
MOST_EACH = 3
"""Of which one contrast has up to so many."""
COLUMNS = (
    *("metric", "label", "n", "first", "second", "difference", f"{1 - ALPHA:.0%} interval"),
    *("p", "p (Holm)", "r", "dz", "w/t/l", "claim"),
)
BRIEF = tuple(column for column in COLUMNS if column not in ("first", "second", "p", "r", "dz"))
WIDE = 130
"""The least width of a terminal that has room for :data:`COLUMNS`."""
CLOSE: dict[str, Any] = {"padding": (0, 1, 0, 0), "pad_edge": False}


def table_of(comparison: Comparison, width: int = WIDE) -> Group:
    """What was found: a table for each pair, one row a contrast, and what must be known to read it.

    Args:
        comparison: what was found.
        width: of the terminal, in characters; fewer than :data:`WIDE` leave out what can be spared.
    """
    from rich.console import Group
    from rich.text import Text

    pairs = dict.fromkeys((contrast.first, contrast.second) for contrast in comparison.contrasts)
    columns = COLUMNS if width >= WIDE else BRIEF
    tables = [_table(pair, [c for c in comparison.contrasts if (c.first, c.second) == pair], columns) for pair in pairs]
    return Group(Text(headline(comparison)), *tables, *map(Text, _explanation(comparison)))


def _table(pair: tuple[str, str], contrasts: list[Contrast], columns: tuple[str, ...]) -> Table:
    from rich.box import SIMPLE
    from rich.table import Table
    from rich.text import Text

    title = Text(f"{pair[1]} (second) against {pair[0]} (first)")
    table = Table(title=title, title_justify="left", box=SIMPLE, **CLOSE)
    for column in columns:
        words = column in ("metric", "label")
        table.add_column(column, justify="left" if words else "right", no_wrap=not words, overflow="fold")
    several = len(contrasts) > len({contrast.measure.column for contrast in contrasts})
    for row, contrast in enumerate(contrasts):
        last = row + 1 == len(contrasts) or contrasts[row + 1].measure != contrast.measure
        cells = dict(zip(COLUMNS, _cells(contrast), strict=True))
        style = "bold" if contrast.claimed else ""
        table.add_row(*(Text(cells[column]) for column in columns), style=style, end_section=last and several)
    return table


def cases_of(comparison: Comparison) -> Table:
    """The cases that differ most, of each contrast as many as there is room for."""
    from rich.box import SIMPLE
    from rich.table import Table
    from rich.text import Text

    table = Table(title="Cases that differ most", title_justify="left", box=SIMPLE, **CLOSE)
    for column in ("second", "first", "metric", "label", "case"):
        table.add_column(column, overflow="fold")
    for column in ("first's", "second's", "difference"):
        table.add_column(column, justify="right")
    for contrast, (case, first, second) in most_different(comparison):
        words = (contrast.second, contrast.first, title_of(contrast), label_of(contrast), case)
        values = (_number(first), _number(second), _number(second - first, "+"))
        table.add_row(*map(Text, words), *values)
    return table


def most_different(comparison: Comparison) -> list[tuple[Contrast, tuple[str, float, float]]]:
    """The cases that differ most, with both scores; :data:`MOST_CASES`, equally many of each contrast."""
    each = max(1, min(MOST_EACH, MOST_CASES // max(1, len(comparison.contrasts))))
    return [(c, case) for c in comparison.contrasts[:MOST_CASES] for case in c.differ_most(each)]


def headline(comparison: Comparison) -> str:
    """What was found, in one line."""
    claimed = [contrast for contrast in comparison.contrasts if contrast.claimed]
    first, *others = (scores.name for scores in comparison.compared)
    who = f"{others[0]} (second) against {first} (first)" if len(others) == 1 else f"{len(others) + 1} compared"
    return f"{who}, {len(comparison.cases)} cases: {len(claimed)} of {comparison.made} comparisons claim a difference"


def sentence_of(contrast: Contrast) -> str:
    """What one contrast claims."""
    found = contrast.paired
    what = title_of(contrast) + (f" of {contrast.label}" if contrast.label != WHOLE else "")
    return (
        f"{contrast.second} is {contrast.verdict or 'not shown to differ'} in {what}: {found.mean:+.4g} "
        f"[{found.low:.4g}, {found.high:.4g}], p = {contrast.p_holm:.2g} (Holm)"
    )


def title_of(contrast: Contrast) -> str:
    """A contrast's metric for people; of a signed one, its magnitude."""
    name = heading(contrast.measure.column)
    return f"|{name}|" if contrast.measure.better == "zero" else name


def column_of(contrast: Contrast) -> str:
    """A contrast's column for programs; of a signed metric marked as a magnitude."""
    column = contrast.measure.column
    return f"|{column}|" if contrast.measure.better == "zero" else column


def label_of(contrast: Contrast) -> str:
    """A contrast's label for people."""
    return contrast.label if contrast.label != WHOLE else "whole case"


def _cells(contrast: Contrast) -> list[str]:
    found = contrast.paired
    first, second = (float(values.mean()) if values.size else math.nan for values in contrast.values)
    return [
        title_of(contrast),
        label_of(contrast),
        str(found.n),
        _number(first),
        _number(second),
        _number(found.mean, "+"),
        f"{_number(found.low, '+')} to {_number(found.high, '+')}",
        _chance(found.p),
        _chance(contrast.p_holm),
        _effect(contrast.rank_biserial),
        _effect(contrast.dz),
        f"{contrast.wins}/{found.zero}/{contrast.losses}",
        contrast.verdict,
    ]


def _explanation(comparison: Comparison) -> list[str]:
    return [
        "difference: second less first; r (rank-biserial) and dz (Cohen's) are above 0, and wins are cases, where the "
        "second is better",
        f"a claim: p of Wilcoxon's signed-rank test, corrected for {comparison.made} comparisons (Holm), is at most "
        f"{ALPHA}",
        *(f"note: {note}" for note in comparison.notes),
    ]


def _number(value: float, sign: str = "") -> str:
    """With four decimals, fewer of large numbers."""
    if math.isnan(value):
        return "-"
    digits = 4 if abs(value) < 10 else 2 if abs(value) < 100 else 1
    return f"{value:{sign}.{digits}f}"


def _effect(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:+.2f}"


def _chance(p: float) -> str:
    if math.isnan(p):
        return "-"
    return f"{p:.4f}" if p >= 0.0001 else "<0.0001"
