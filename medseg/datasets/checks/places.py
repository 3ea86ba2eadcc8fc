"""Files of one case whose voxels do not lie in the same places, and cases with other axes or channels than the rest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from medseg.datasets.checks.finding import CaseFacts, Expected, Finding, most, plural
from medseg.datasets.checks.grids import Difference, by, differences
from medseg.datasets.checks.pairs import files_of


def find(cases: Sequence[CaseFacts], expected: Expected) -> Iterator[Finding]:
    """Of each case: its axes and channels, and how its other files lie to the first one."""
    dims = expected.dims or most([len(case.grid.shape) for case in cases if case.grid is not None])
    channels = expected.channels or most([case.channels for case in cases if case.channels is not None])
    for case in cases:
        if case.grid is not None and len(case.grid.shape) != dims:
            found = f"{len(case.grid.shape)} axes, {by(case.grid.shape)}; {dims} are expected"
            yield Finding("dims", "error", found, "take it out, or set network.dims", case.name)
        if case.channels not in (None, channels):
            found = f"{plural(case.channels or 0, 'channel')}; {channels} expected"
            yield Finding("channels", "error", found, "give all images the same channels", case.name)
        yield from _apart(case)


def _apart(case: CaseFacts) -> Iterator[Finding]:
    placed = [(which, facts.grid) for which, facts in files_of(case) if facts.grid is not None]
    for which, grid in placed[1:]:
        if case.resample_channels and which != "label":
            continue
        for difference in differences(grid, placed[0][1]):
            otherwise = "" if which == "label" else ", or set data.resample_channels: true"
            yield _finding(case.name, f"{which} and {placed[0][0]}", difference, otherwise)


def _finding(name: str, pair: str, difference: Difference, otherwise: str) -> Finding:
    severity = "error" if difference.degree == "different" else "warning"
    numbers = {"degree": difference.degree, **difference.numbers}
    return Finding(
        difference.kind,
        severity,  # type: ignore[arg-type]
        f"{pair} have {difference.text}",
        difference.remedy + otherwise,
        name,
        (),
        numbers,
    )
