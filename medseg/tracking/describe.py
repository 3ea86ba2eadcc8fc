"""A run's description: what MLflow shows at the top of it, in Markdown."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from medseg.errors import some
from medseg.evaluation.report import Report, Spread
from medseg.evaluation.table import heading

MOST_LABELS = 12
"""Labels of the table; of more, the first ones are shown."""
MOST_COLUMNS = 5
GAP = "&nbsp;&nbsp;"
"""Between columns, which MLflow draws without any."""
CASES = ("worst", "median", "best")


def headline(report: Report) -> str:
    """The first averaged metric's mean, and over how many cases: «Dice 0.873, mean of 2 labels in 8 cases»."""
    column = report.averaged[0]
    labels, cases = len(report.labels.targets), len(report.cases)
    over = f"{labels} labels in " if labels > 1 else ""
    return f"**{heading(column)} {_number(report.mean()[column])}**, mean of {over}{cases} case{'s' * (cases != 1)}"


def describe(report: Report, about: Mapping[str, str], pictures: Mapping[str, str], page: str | None) -> str:
    """The headline figures, a table of labels, what it is of, and pictures.

    Args:
        report: the scores.
        about: words and what they are.
        pictures: places among the run's artifacts, by name (:meth:`medseg.tracking.review.Review.log`).
        page: the place of ``report.html``; None where there is none.
    """
    link = f" · [all cases](page:{page})" if page else ""
    parts = [f"{headline(report)}{link}", table_of(report), facts_of(about), _pictures(pictures)]
    return "\n\n".join(part for part in parts if part)


def table_of(report: Report) -> str:
    """A row a label: mean ± SD of the first metrics over the cases in which they are defined."""
    columns = report.averaged[:MOST_COLUMNS]
    rows = [
        [_escaped(name), *(_spread(label.get(column)) for column in columns)]
        for name, label in list(report.summary().items())[:MOST_LABELS]
    ]
    more = len(report.labels.targets) - MOST_LABELS
    head, *spaced = (
        "| " + f"{GAP} | ".join(row) + " |" for row in [["label", *(heading(column) for column in columns)], *rows]
    )
    text = "\n".join([head, f"| --- |{' ---: |' * len(columns)}", *spaced])
    return text + (f"\n\n… and {more} more labels" if more > 0 else "")


def facts_of(about: Mapping[str, str]) -> str:
    """Words and what they are, a line each."""
    return "\n".join(f"- {word}: {_escaped(text)}" for word, text in about.items())


def shares(seconds: Mapping[str, float], total: float) -> str:
    """Where the time went, the longest first: «42 min: 61 % forward and backward, 30 % validation, 9 % other»."""
    known = sorted(((value, name) for name, value in seconds.items() if value > 0), reverse=True)
    parts = [f"{value / total:.0%} {name.replace('_', ' ')}" for value, name in known if value >= 0.01 * total]
    return f"{_duration(total)}" + (f": {', '.join(parts)}" if parts else "")


def question_of(dataset: str, labels: Sequence[str]) -> str:
    """The name of an experiment: the data set, and what is looked for in it."""
    return f"{dataset}: {some(labels)}"


def _pictures(places: Mapping[str, str]) -> str:
    cases = [
        f"**{word} case**\n\n![{word} case](artifact:{places[name]})"
        for word in CASES
        if (name := f"cases/{word}") in places
    ]
    charts = [
        f"![{name.partition('/')[2]}](artifact:{place})"
        for name, place in places.items()
        if name.startswith("charts/curves")
    ]
    return "\n\n".join([*charts, *cases])


def _spread(spread: Spread | None) -> str:
    if spread is None or math.isnan(spread.mean):
        return "-"
    return _number(spread.mean) + ("" if math.isnan(spread.sd) else f" ± {spread.sd:.2g}")


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4g}"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _escaped(text: str) -> str:
    """Plain words, whatever Markdown would make of them."""
    return "".join(f"\\{letter}" if letter in "\\`*_{}[]()#+!|<>" else letter for letter in text)
