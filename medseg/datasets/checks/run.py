"""All checks of a data set."""

from __future__ import annotations

import filecmp
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from medseg.datasets.case_names import by_case, named_as
from medseg.datasets.cases import Case, DicomCase, find_scans, is_there, natural_key
from medseg.datasets.checks import duplicates, headers, outliers, pairs, places, splits, values
from medseg.datasets.checks.facts import Facts, Role
from medseg.datasets.checks.finding import CHECKS, CaseFacts, Expected, Finding
from medseg.datasets.checks.report import Report
from medseg.datasets.checks.splits import Parts
from medseg.datasets.checks.survey import Item, Watch, survey
from medseg.datasets.layouts import DataSet, Problem
from medseg.scans.scan import stem_of

HELD_OUT = "imagesTs"
"""The folder of test images, in the layouts that have one."""


def check_dataset(
    found: DataSet,
    expected: Expected | None = None,
    parts: Mapping[str, Parts] | None = None,
    *,
    workers: int = 0,
    watch: Watch | None = None,
    fresh: bool = False,
) -> Report:
    """Goes through every file of a data set once, block by block, and says what is wrong.

    Args:
        found: the data set.
        expected: what the cases are held against.
        parts: splits, by where each is written down.
        workers: processes; 0 is one for each processor that this process may use.
        watch: takes how many files are done, and how many there are.
        fresh: whether to read anew what the cache folder knows of files that have not changed.
    """
    expected = expected or Expected()
    told = {
        where: {part: named_as(names, found) for part, names in split.items()} for where, split in (parts or {}).items()
    }
    files = {case.name: case for case in sorted(_files(found), key=lambda case: natural_key(case.name))}
    facts = survey((item for case in files.values() for item in case.items), workers, watch, fresh)
    cases = [case.known(facts) for case in files.values()]
    findings = [*_of_layout(found), *(_located(found, f) for f in _all(cases, expected, told, files))]
    ordered = tuple(sorted(findings, key=_order))
    return Report(found.name, found.layout, tuple(cases), ordered, expected.labels, found.note)


def used_only(found: DataSet, names: Iterable[str]) -> DataSet:
    """A data set's cases of these names alone, without whatever else is wrong with it."""
    wanted = set(names)
    return replace(found, cases=tuple(case for case in found.cases if case.name in wanted), orphans={}, problems=())


@dataclass(frozen=True)
class _Files:
    """The files of a case, of a label without an image, or of a test image."""

    name: str
    patient: str
    images: tuple[Path, ...]
    label: Path | None
    case: Case | None = None
    held_out: bool = False

    @property
    def items(self) -> list[Item]:
        label = [Item(self.label, "label", self.dicom)] if self.label is not None else []
        return [*(Item(path, "image", self.dicom) for path in self.images), *label]

    @property
    def dicom(self) -> DicomCase | None:
        return None if self.case is None else self.case.dicom

    def known(self, facts: Mapping[Item, Facts]) -> CaseFacts:
        images = tuple(facts[Item(path, "image", self.dicom)] for path in self.images)
        label = facts[Item(self.label, "label", self.dicom)] if self.label is not None else None
        fold = self.case.fold if self.case is not None else None
        resample = self.case is not None and self.case.resample_channels
        return CaseFacts(self.name, self.patient, images, label, fold, resample, self.held_out)

    def of(self, role: Role) -> list[Path]:
        return [item.path for item in self.items if item.role == role]


def _files(found: DataSet) -> Iterator[_Files]:
    for case in found.cases:
        patient = case.name if case.patient == case.stem else case.patient
        yield _Files(case.name, patient, case.images, case.label, case)
    for name, label in found.orphans.items():
        yield _Files(name, name, (), label)
    yield from _held_out(found)


def _held_out(found: DataSet) -> Iterator[_Files]:
    """Test images beside the training images; a set that uses single cases alone has none."""
    folder = found.root / HELD_OUT
    if found.layout == "manifest" or not folder.is_dir():
        return
    scans = find_scans(folder)
    rule = found.channel_files
    names = {path: name for name, path in by_case(scans, how=found.case_names).items()}
    for first in rule.firsts(names) if rule is not None else names:
        name = f"{HELD_OUT}/{names[first] if names[first] != stem_of(first) else first.name}"
        yield _Files(name, name, rule.files(first) if rule is not None else (first,), None, held_out=True)


def _of_layout(found: DataSet) -> Iterator[Finding]:
    """What the layout itself noted, but for files that are missing, which is noted of each file."""
    missing = {case.name for case in found.cases if not all(is_there(path) for path in _paths(case))}
    remedy = "mend the files" if found.table is None else "mend the files or the table"
    for problem in found.problems:
        if problem.case not in missing:
            yield Finding("layout", "error", _nameless(problem), remedy, problem.case)


def _nameless(problem: Problem) -> str:
    """What a problem is, without the case whose it is and what comes before it."""
    before, named, what = problem.text.partition(f"case {problem.case}: ")
    return what if named and problem.case is not None else before


def _located(found: DataSet, finding: Finding) -> Finding:
    """Where no case has a label since their folder is called otherwise: with the folders that are there."""
    folder = found.root / found.labels_folder
    if finding.check != "no_label" or finding.case is not None or folder.is_dir():
        return finding
    there = ", ".join(sorted(path.name for path in found.root.iterdir() if path.is_dir()))
    what = f"{finding.what}: there is no folder {found.labels_folder}/ (the folders are {there})"
    remedy = f"rename the folder of labels to {found.labels_folder}/, or list images and labels in a manifest"
    return replace(finding, what=what, remedy=remedy)


def _paths(case: Case) -> Sequence[Path]:
    return [*case.images, *([case.label] if case.label is not None else [])]


def _all(
    cases: Sequence[CaseFacts], expected: Expected, parts: Mapping[str, Parts], files: Mapping[str, _Files]
) -> Iterator[Finding]:
    def same_bytes(one: str, other: str, role: Role) -> bool:
        pairs_of = zip(files[one].of(role), files[other].of(role), strict=True)
        return all(a.is_file() and b.is_file() and filecmp.cmp(a, b, shallow=False) for a, b in pairs_of)

    yield from pairs.find(cases)
    yield from places.find(cases, expected)
    yield from headers.find(cases)
    yield from values.find(cases, expected)
    yield from duplicates.find(cases, same_bytes)
    yield from outliers.find(cases, expected)
    yield from splits.find([case for case in cases if not case.held_out], parts)


def _order(finding: Finding) -> tuple[bool, int, tuple[tuple[int, int, str], ...]]:
    """Errors first, check by check, in the natural order of the cases."""
    return finding.severity != "error", list(CHECKS).index(finding.check), natural_key(finding.case or "")
