"""What the checks of a data set found, and the set in a few numbers."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from medseg import __version__
from medseg.datasets.checks.facts import Grid, Values
from medseg.datasets.checks.finding import CHECKS, CaseFacts, Finding, plural
from medseg.datasets.checks.grids import orientation_of
from medseg.datasets.checks.outliers import width
from medseg.datasets.checks.values import called
from medseg.datasets.labels import Labels
from medseg.errors import MedsegError
from medseg.files import write_json, write_text

JSON = "check.json"
HTML = "check.html"


@dataclass(frozen=True)
class Spread:
    """The least, the middle and the largest of some numbers."""

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, numbers: Sequence[float]) -> Spread:
        """Of at least one number."""
        return cls(float(min(numbers)), float(np.median(numbers)), float(max(numbers)))


@dataclass(frozen=True)
class LabelRow:
    """One value of the label files: its name, where it has one, its voxels, and in how many cases it occurs."""

    value: int
    name: str | None
    voxels: int
    part: float
    cases: int


@dataclass(frozen=True)
class Group:
    """The findings of one check and severity."""

    findings: tuple[Finding, ...]

    @property
    def severity(self) -> str:
        """Of all of them."""
        return self.findings[0].severity

    @property
    def title(self) -> str:
        """What the check finds."""
        return CHECKS[self.findings[0].check]


@dataclass(frozen=True)
class Report:
    """The result of all checks.

    Attributes:
        name: the data set's.
        layout: how its files lie.
        cases: in natural order of the names.
        findings: errors first.
        labels: what label files may hold, where it is known.
        note: what else of its files' names is to be said.
    """

    name: str
    layout: str
    cases: tuple[CaseFacts, ...]
    findings: tuple[Finding, ...]
    labels: Labels | None = None
    note: str = ""

    @cached_property
    def errors(self) -> tuple[Finding, ...]:
        """What is to be mended."""
        return tuple(finding for finding in self.findings if finding.severity == "error")

    @cached_property
    def warnings(self) -> tuple[Finding, ...]:
        """What is to be looked at."""
        return tuple(finding for finding in self.findings if finding.severity == "warning")

    @property
    def groups(self) -> tuple[Group, ...]:
        """The findings by severity and check, in their order."""
        found: dict[tuple[str, str], list[Finding]] = defaultdict(list)
        for finding in self.findings:
            found[finding.severity, finding.check].append(finding)
        return tuple(Group(tuple(findings)) for findings in found.values())

    @property
    def complete(self) -> int:
        """Cases with an image and a label."""
        return sum(bool(case.images) and case.label is not None for case in self.cases)

    def refuse(self, where: str) -> None:
        """Does nothing where there is no error.

        Raises:
            MedsegError: with the number of errors, the first one, and ``where`` all of them are shown.
        """
        if self.errors:
            raise MedsegError(self.account(where))

    def account(self, where: str) -> str:
        """The errors in one sentence."""
        first = self.errors[0]
        named = f"{first.case}{_and(first.others)}: " if first.case is not None else ""
        more = f"; {where}" if len(self.errors) > 1 else ""
        count = f"{plural(len(self.errors), 'error')}{self._broken()}"
        return f"data set {self.name}: {count}: {named}{first.what}; {first.remedy}{more}"

    def _broken(self) -> str:
        """« in 2 of 8 cases»: how many the errors are in, and apart from them the names under which files make none."""
        named = {name for finding in self.errors for name in (finding.case, *finding.others) if name is not None}
        strange = named - {case.name for case in self.cases}
        known = f"{len(named - strange)} of {plural(len(self.cases), 'case')}" if named > strange else ""
        others = f"{len(strange)} more whose files make no case" if known else plural(len(strange), "case")
        found = [known] * bool(known) + [others] * bool(strange)
        return f" in {' and '.join(found)}" if found else ""

    def lines(self) -> Iterator[str]:
        """What is worth a line before training: each kind of warning, without names."""
        for group in self.groups:
            if group.severity == "warning":
                first = group.findings[0]
                count = plural(len(group.findings), "case")
                yield f"{first.what}; {first.remedy}" if first.case is None else f"{group.title}: {count}"

    def label_rows(self) -> list[LabelRow]:
        """Each declared value and each that occurs, the :data:`MOST_VALUES` least ones."""
        labelled = self._labelled()
        voxels, cases = Counter[int](), Counter[int]()
        for values in labelled:
            voxels.update(values.counts)
            cases.update(values.counts.keys())
        names = called(self.labels) if self.labels is not None else {}
        total = max(sum(voxels.values()), 1)
        return [
            LabelRow(value, names.get(value), voxels[value], voxels[value] / total, cases[value])
            for value in sorted({*voxels, *names})
        ]

    def shapes(self) -> list[Spread]:
        """Along each axis."""
        return self._per_axis([list(grid.shape) for grid in self._grids()])

    def spacings(self) -> list[Spread]:
        """Along each axis, in millimetres; none where no file states a unit."""
        return self._per_axis([list(grid.spacing_mm) for grid in self._grids() if grid.unit != "pixel"])

    def kinds(self) -> dict[str, Counter[str]]:
        """How often each type, orientation and number of channels occurs among the images."""
        grids = self._grids()
        turned = [orientation_of(grid.affine, len(grid.shape)) for grid in grids if grid.anatomical]
        types = Counter(grid.dtype for grid in grids)
        channels = Counter(str(case.channels) for case in self.cases if case.channels is not None)
        return {"types": types, "orientations": Counter(turned), "channels": channels}

    def intensities(self) -> list[dict[str, Spread]]:
        """Of each channel, over the images: the least and largest value, and the width from 1st to 99th percentile."""
        rows = [case.values for case in self.cases if case.readable]
        found = []
        for number in range(max(map(len, rows), default=0)):
            own = [row[number] for row in rows if len(row) > number and row[number].low is not None]
            if own:
                found.append(
                    {
                        "low": Spread.of([c.low for c in own if c.low is not None]),
                        "high": Spread.of([c.high for c in own if c.high is not None]),
                        "width": Spread.of([width(c) for c in own]),
                    }
                )
        return found

    def patients(self) -> int:
        """How many there are."""
        return len({case.patient for case in self.cases if not case.held_out})

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "medseg": __version__,
            "name": self.name,
            "layout": self.layout,
            "note": self.note,
            "cases": len(self.cases),
            "complete": self.complete,
            "patients": self.patients(),
            "errors": len(self.errors),
            "warnings": len(self.warnings),
            "shape": [vars(spread) for spread in self.shapes()],
            "spacing_mm": [vars(spread) for spread in self.spacings()],
            **{key: dict(counted) for key, counted in self.kinds().items()},
            "intensities": [{key: vars(spread) for key, spread in row.items()} for row in self.intensities()],
            "labels": [vars(row) for row in self.label_rows()],
            "findings": [finding.to_dict() for finding in self.findings],
        }

    def write(self, folder: Path) -> None:
        """Writes ``check.json`` and ``check.html``, each whole or not at all."""
        from medseg.datasets.checks.page import page_of

        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / JSON, self.to_dict())
        write_text(folder / HTML, page_of(self))

    def _labelled(self) -> list[Values]:
        """Of complete cases: a stray label of another kind may hold more voxels than all others."""
        facts = [case.label for case in self.cases if case.images and case.label is not None]
        return [label.values for label in facts if label.values is not None]

    def _grids(self) -> list[Grid]:
        grids = [case.images[0].grid for case in self.cases if case.images]
        return [grid for grid in grids if grid is not None]

    @staticmethod
    def _per_axis(rows: list[list[Any]]) -> list[Spread]:
        """Of those that have as many axes as the first."""
        return [Spread.of(axis) for axis in zip(*(row for row in rows if len(row) == len(rows[0])), strict=True)]


def _and(names: Sequence[str]) -> str:
    return f" and {names[0]}" + (f" and {len(names) - 1} more" if len(names) > 1 else "") if names else ""
