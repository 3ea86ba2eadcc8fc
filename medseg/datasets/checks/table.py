"""What was found, as a table for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from medseg.datasets.checks.finding import Finding, plural
from medseg.datasets.checks.report import Group, Report, Spread

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

SHOWN = 10
"""So many findings of one check are listed one by one where not all are asked for."""
VALUES = 10
"""So many label values are told on the terminal."""
STYLES = {"error": "bold red", "warning": "yellow"}


def table_of(report: Report, every: bool = False) -> Table:
    """One row for each error, and one for each kind of warning.

    Args:
        report: what was found.
        every: a row for each finding, and no end of them.
    """
    from rich.table import Table

    table = Table()
    table.add_column("severity", no_wrap=True)
    table.add_column("case", overflow="fold", ratio=2)
    table.add_column("what", overflow="fold", ratio=4)
    table.add_column("what to do", overflow="fold", ratio=3)
    for group in report.groups:
        for case, what, remedy in _rows(group, every):
            table.add_row(_styled(group.severity), _plain(case), _plain(what), _plain(remedy))
        table.add_section()
    return table


def overview(report: Report) -> Iterator[str]:
    """The set in a few lines."""
    note = f"; {report.note}" if report.note else ""
    yield (
        f"{report.name} ({report.layout} layout{note}): {plural(len(report.cases), 'case')}, {report.complete} with "
        f"image and label; {_patients(report)}"
    )
    kinds = report.kinds()
    shape = " x ".join(_range(axis, 0) for axis in report.shapes())
    spacing = " x ".join(_range(axis, 3) for axis in report.spacings())
    if shape:
        yield (
            f"images: {shape} voxels"
            + (f" of {spacing} mm" if spacing else ", no unit stated")
            + (
                f"; {_counted(kinds['types'])}; {_channels(kinds['channels'])}"
                + (f"; {_counted(kinds['orientations'])}" if kinds["orientations"] else "")
            )
        )
    yield from _labels(report)


def _patients(report: Report) -> str:
    own = all(case.patient == case.name for case in report.cases if not case.held_out)
    return "no patients are named: each case counts as one" if own else plural(report.patients(), "patient")


def _labels(report: Report) -> Iterator[str]:
    rows = [row for row in report.label_rows() if row.voxels or row.name]
    if not rows:
        return
    largest = sorted(sorted(rows, key=lambda row: -row.voxels)[:VALUES], key=lambda row: row.value)
    told = [f"{row.value}{f' {row.name}' if row.name else ''} {_percent(row.part)}" for row in largest]
    more = f", and {len(rows) - VALUES} more values" if len(rows) > VALUES else ""
    known = "" if report.labels is not None else " (not declared: these are the values found)"
    yield f"labels{known}: {', '.join(told)}{more}"


def _rows(group: Group, every: bool) -> Iterator[tuple[str, str, str]]:
    named = every or group.severity == "error"
    if not named and group.findings[0].case is not None:
        yield _folded(group)
        return
    shown = group.findings if every else group.findings[:SHOWN]
    for finding in shown:
        yield _names(finding), finding.what, finding.remedy
    if len(shown) < len(group.findings):
        yield f"{len(group.findings) - len(shown)} more", group.title, "--verbose lists them all"


def _folded(group: Group) -> tuple[str, str, str]:
    first = group.findings[0]
    such_as = f"{group.title}, such as: " if len(group.findings) > 1 else ""
    return plural(len(group.findings), "case"), f"{such_as}{first.what}", first.remedy


def _names(finding: Finding) -> str:
    if finding.case is None:
        return "the set"
    more = [f"and {len(finding.others) - SHOWN} more"] if len(finding.others) > SHOWN else []
    return "\n".join([finding.case, *finding.others[:SHOWN], *more])


def _range(spread: Spread, digits: int) -> str:
    low, high = (
        f"{end:.{digits}f}".rstrip("0").rstrip(".") if digits else f"{end:.0f}" for end in (spread.low, spread.high)
    )
    return low if low == high else f"{low}-{high}"


def _percent(part: float) -> str:
    return f"{part:.1%}" if part >= 0.001 or not part else f"{part:.1g}"


def _counted(counts: Mapping[str, int]) -> str:
    if len(counts) == 1:
        return next(iter(counts))
    return ", ".join(f"{count} {what}" for what, count in sorted(counts.items(), key=lambda item: -item[1]))


def _channels(counts: Mapping[str, int]) -> str:
    numbers = [plural(int(number), "channel") for number in counts]
    return (
        numbers[0]
        if len(numbers) == 1
        else _counted(dict(zip((f"with {n}" for n in numbers), counts.values(), strict=True)))
    )


def _styled(severity: str) -> Text:
    from rich.text import Text

    return Text(severity, STYLES[severity])


def _plain(text: str) -> Text:
    """Text whose brackets are no markup."""
    from rich.text import Text

    return Text(text)
