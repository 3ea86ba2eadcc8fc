"""What was found, as one HTML file that needs no other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from html import escape

from medseg.datasets.checks.report import Group, Report
from medseg.datasets.checks.table import overview

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; max-width: 75rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; width: 100%; margin: .6rem 0 1.6rem; }
th, td { text-align: left; vertical-align: top; padding: .3rem .6rem; border-bottom: 1px solid #ddd; }
th { border-bottom: 2px solid #999; } td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
.error { color: #b00020; font-weight: 600; } .warning { color: #8a5a00; font-weight: 600; }
.fine { color: #1b6e3c; font-weight: 600; }
details { margin: .8rem 0; } summary { cursor: pointer; font-size: 1.05rem; }
.bar { display: inline-block; height: .7rem; background: #7a9cc6; vertical-align: middle; margin-right: .4rem; }
@media (prefers-color-scheme: dark) { body { background: #16181c; color: #ddd; } th, td { border-color: #444; }
  .error { color: #ff7a8a; } .warning { color: #e0b050; } .fine { color: #6fcf97; } }
"""


def page_of(report: Report) -> str:
    """The whole page."""
    title = escape(f"{report.name}: data check")
    body = "\n".join([f"<h1>{title}</h1>", *_head(report), *_findings(report), *_labels(report), *_intensities(report)])
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_STYLE}</style></head>\n'
        f"<body>\n{body}\n</body></html>\n"
    )


def _head(report: Report) -> Iterator[str]:
    yield from (f"<p>{escape(line)}</p>" for line in overview(report))
    if not report.findings:
        yield '<p class="fine">Nothing was found wrong.</p>'
        return
    counted = ((len(report.errors), "error"), (len(report.warnings), "warning"))
    said = (f'<span class="{kind}">{number} {kind}{"" if number == 1 else "s"}</span>' for number, kind in counted)
    yield f"<p>{', '.join(said)}</p>"


def _findings(report: Report) -> Iterator[str]:
    for group in report.groups:
        opened = " open" if group.severity == "error" else ""
        yield f"<details{opened}><summary>{_title(group)}</summary>"
        rows = (
            ["<br>".join(map(escape, (f.case or "the set", *f.others))), escape(f.what), escape(f.remedy)]
            for f in group.findings
        )
        yield from _table(["case", "what", "what to do"], rows)
        yield "</details>"


def _title(group: Group) -> str:
    return f'<span class="{group.severity}">{group.severity}</span> {escape(group.title)} ({len(group.findings)})'


def _labels(report: Report) -> Iterator[str]:
    rows = report.label_rows()
    if not rows:
        return
    yield "<h2>Labels</h2>"
    cells = (
        [
            str(row.value),
            escape(row.name or "-"),
            f"{row.voxels:,}",
            f'<span class="bar" style="width: {12 * row.part:.2f}rem"></span>{row.part:.3%}',
            str(row.cases),
        ]
        for row in rows
    )
    yield from _table(["value", "label", "voxels", "part", "cases"], cells, {0, 2, 4})


def _intensities(report: Report) -> Iterator[str]:
    rows = [
        [str(number), name, *(f"{value:.5g}" for value in (spread.low, spread.median, spread.high))]
        for number, channel in enumerate(report.intensities())
        for name, spread in (
            ("least value", channel["low"]),
            ("largest value", channel["high"]),
            ("1st to 99th percentile", channel["width"]),
        )
    ]
    if rows:
        yield "<h2>Intensities over the images</h2>"
        yield from _table(["channel", "of each image", "least", "median", "largest"], rows, {0, 2, 3, 4})


def _table(head: list[str], rows: Iterable[list[str]], numbers: Iterable[int] = ()) -> Iterator[str]:
    kinds = [' class="number"' if column in set(numbers) else "" for column in range(len(head))]
    yield "<table><tr>" + "".join(f"<th{kind}>{name}</th>" for kind, name in zip(kinds, head, strict=True)) + "</tr>"
    for row in rows:
        yield "<tr>" + "".join(f"<td{kind}>{cell}</td>" for kind, cell in zip(kinds, row, strict=True)) + "</tr>"
    yield "</table>"
