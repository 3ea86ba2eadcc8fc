"""The parts of a page that need no script, as HTML; whatever comes from files or configs is escaped."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from medseg.evaluation.metrics import Counts
from medseg.evaluation.report import Report
from medseg.evaluation.table import heading

if TYPE_CHECKING:
    from PIL.Image import Image

SHADES = 5
"""Of a confusion matrix's cells; the page's style names them c0, c1, ..."""
MOST_LABELS = 40
"""A confusion matrix of more is left out."""
FIGURES = ("mean", "sd", "median", "q1", "q3")


def about_html(about: Mapping[str, str]) -> str:
    """Words and what they are, beside each other."""
    return f"<dl>{''.join(f'<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>' for k, v in about.items())}</dl>"


def summary_html(report: Report) -> str:
    """Per label and metric, what is known of it over the cases."""
    rows = [
        (name, heading(column), *(number(getattr(spread, figure)) for figure in FIGURES), str(spread.count))
        for name, label in report.summary().items()
        for column, spread in label.items()
    ]
    return _counts(report) + _table(("label", "metric", *FIGURES, "n"), rows)


def _counts(report: Report) -> str:
    cases = len(report.cases)
    words = [f"{cases} case{'' if cases == 1 else 's'}"]
    words += [f"{len(report.missing)} without a prediction, scored worst"] * bool(report.missing)
    words += [f"{len(report.extra)} predictions without a reference, left out"] * bool(report.extra)
    return f'<p class="note">{"; ".join(words)}.</p>'


def confusion_of(report: Report) -> Counts | None:
    """The voxels of all cases that were predicted, by the reference's label and the prediction's; None without any."""
    counted = [case.counts for case in report.cases if case.counts is not None]
    return sum(counted, Counts.none(report.labels.classes)) if counted else None


def confusion_html(report: Report) -> str:
    """The share of each reference label's voxels that each label was predicted for, with the voxels."""
    counts = confusion_of(report)
    if counts is None or report.labels.classes > MOST_LABELS:
        return ""
    names = ("background", *report.labels.foreground)
    shares = shares_of(counts)
    body = "".join(
        f'<tr><th scope="row">{escape(name)}</th>'
        + "".join(_cell(float(share), int(voxels)) for share, voxels in zip(line, row, strict=True))
        + "</tr>"
        for name, line, row in zip(names, shares, counts.table, strict=True)
    )
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in names)
    return (
        '<section aria-labelledby="confusion-heading"><h2 id="confusion-heading">Confusion matrix</h2>'
        '<p class="note">Rows are the reference, columns the prediction: the share of the row, and voxels, of all '
        'cases that were predicted.</p><div class="scroll" tabindex="0" role="region" aria-label="Confusion matrix">'
        f'<table class="confusion"><thead><tr><th></th>{head}</tr></thead><tbody>{body}</tbody></table></div></section>'
    )


def shares_of(counts: Counts) -> np.ndarray:
    """(K + 1, K + 1): each row of a table divided by its sum; NaN where the reference has no such voxel."""
    sums = counts.table.sum(1, keepdims=True)
    return np.divide(counts.table, sums, out=np.full(counts.table.shape, math.nan), where=sums > 0)


def pictures_html(pictures: Sequence[tuple[str, Image]]) -> str:
    """Pictures, each with its title, kept in the page itself."""
    return "".join(
        f"<section><h2>{escape(title)}</h2><figure>"
        f'<img alt="{escape(title)}" width="{picture.width}" height="{picture.height}" src="{_address(picture)}">'
        "</figure></section>"
        for title, picture in pictures
    )


def number(value: float) -> str:
    """As the table for the terminal has it; a dash where it is undefined."""
    if math.isnan(value):
        return "–"
    return f"{value:.4f}" if abs(value) < 100 else f"{value:.1f}"


def _cell(share: float, voxels: int) -> str:
    if math.isnan(share):
        return "<td>–</td>"
    shade = math.ceil(share * (SHADES - 1) - 1e-9)
    return f'<td class="c{shade}">{share:.3f} <small>{voxels}</small></td>'


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    titles = "".join(f'<th scope="col"{_kind(i)}>{escape(title)}</th>' for i, title in enumerate(head))
    body = "".join(
        "<tr>" + "".join(f"<td{_kind(i)}>{escape(cell)}</td>" for i, cell in enumerate(row)) + "</tr>" for row in rows
    )
    table = f"<table><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="scroll" tabindex="0" role="region" aria-label="Summary">{table}</div>'


def _kind(column: int) -> str:
    return ' class="text"' if column < 2 else ""


def _address(picture: Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
