"""Which cases a plan leaves out, and why: those that ``medseg check`` finds errors in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from medseg.datasets.checks.finding import Expected, Finding
from medseg.datasets.checks.report import Report
from medseg.datasets.checks.run import check_dataset
from medseg.datasets.layouts import DataSet
from medseg.errors import MedsegError

MOST = 0.2
"""Of the cases, what is left out without being asked for: where more are broken, something is wrong with the set."""
COPIES = ("duplicate_image", "duplicate_label", "duplicate_case")
"""What is found of several cases, of which one may be gone for another reason."""
Check = Callable[[DataSet], Report]


@dataclass(frozen=True)
class Sound:
    """A data set without its broken cases.

    Attributes:
        found: what is left.
        left_out: why each other case is not: names in natural order.
        report: of what is left.
    """

    found: DataSet
    left_out: dict[str, str]
    report: Report


def sound(found: DataSet, check: Check, however_many: bool = False) -> Sound:
    """Leaves out the cases that have errors; of copies the first stays where they are whole copies, else none.

    Args:
        found: the data set.
        check: all checks of one.
        however_many: whether more than :data:`MOST` of the cases may go.

    Raises:
        MedsegError: for an error of the set as a whole, where nothing is left, or too many would go.
    """
    report = check(found)
    cases = len(report.cases)
    broken: dict[str, str] = {}
    for copies in (False, True):
        broken |= {name: why for name, why in _broken(report, copies).items() if name in _names(found)}
        if broken:
            report = check(found.without(broken))
    report.refuse(f"medseg check {found.path} lists them all")
    left = found.without(broken)
    if not any(case.label is not None for case in left.cases):
        raise MedsegError(f"data set {found.path}: all {cases} cases have errors; medseg check lists them")
    if len(broken) > MOST * cases and not however_many:
        raise MedsegError(
            f"data set {found.path}: {len(broken)} of {cases} cases have errors, more than {MOST:.0%}: medseg check "
            "shows them; mend them, or leave them all out with --exclude-broken"
        )
    order = [case.name for case in check(found).cases if case.name in broken]
    return Sound(left, {name: broken[name] for name in order}, report)


def checking(expected: Expected, workers: int, watch: Callable[[int, int], None] | None) -> Check:
    """All checks, against what is expected."""
    return lambda found: check_dataset(found, expected, workers=workers, watch=watch)


def _names(found: DataSet) -> set[str]:
    problems = {problem.case for problem in found.problems if problem.case}
    return {case.name for case in found.cases} | {*found.orphans} | problems


def _broken(report: Report, copies: bool) -> dict[str, str]:
    """Each case that has an error of these kinds, and what it is."""
    why: dict[str, str] = {}
    for finding in report.errors:
        if finding.case is not None and (finding.check in COPIES) == copies:
            for name in _to_leave_out(finding):
                why.setdefault(name, finding.what)
    return why


def _to_leave_out(finding: Finding) -> tuple[str, ...]:
    if finding.check == "duplicate_case":
        return finding.others
    return (finding.case or "", *finding.others)
