"""Doing again what a report says was done, and holding the result against what there was.

Each scan goes through the recorded tile, batch, threads and options into a scratch folder. The same inputs, package,
options and device give the same digest; where it differs, the masks are compared voxel by voxel.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from medseg.addresses import fetched
from medseg.datasets.case_names import MAP
from medseg.datasets.checks.digest import Digest
from medseg.datasets.checks.facts import Facts, facts_of, image_facts
from medseg.errors import MedsegError, PackageError, some
from medseg.files import digest_of
from medseg.inference.audit import REPORT, AuditReport, Package, Row, Start, hardware_of, read_report
from medseg.inference.infer import Job, Say, probabilities_path
from medseg.inference.ledger import bytes_digest
from medseg.inference.mask_difference import Difference, difference
from medseg.inference.model import Model, chain_of
from medseg.inference.source import Source
from medseg.package import find_package
from medseg.private import conceal
from medseg.scans.dicom_facts import SeriesChoice
from medseg.scans.dicom_header import read_instance
from medseg.scans.dicom_series import files_below
from medseg.versions import commit_of, versions


@dataclass(frozen=True)
class Verdict:
    """What doing a scan again has shown.

    Attributes:
        input: its name in the report.
        output: its mask's path in the report.
        same: whether everything is as it was: the scan, the mask that is there, and the mask that was made now.
        changed: clauses about what is not.
        difference: between the mask that is there and the new one; None where they are the same, or one is not there.
        digest: of the new mask.
        seconds: that doing it again took.
    """

    input: str
    output: str
    same: bool
    changed: tuple[str, ...] = ()
    difference: Difference | None = None
    digest: Digest | None = None
    seconds: float = 0.0


@dataclass(frozen=True)
class Place:
    """Where the files of a report are looked for.

    Attributes:
        report: the report's file.
        root: the folder that its scans were moved to, or None.
    """

    report: Path
    root: Path | None = None

    @cached_property
    def names(self) -> dict[str, Path]:
        """Of scans that are called by digests, their files, as the map beside the report says."""
        path = self.report.parent / MAP
        if not path.is_file():
            return {}
        with path.open(encoding="utf-8", newline="") as file:
            return {row[0]: Path(row[1]) for row in csv.reader(file) if len(row) == 2}

    def input(self, row: Row) -> Path | None:
        """A row's scan, None where it is not found; one that is called by a digest is called so here too."""
        name, *below = Path(row.input).parts
        if name not in self.names:
            return _found(Path(row.input), self.root)
        found = _found(Path(self.names[name], *below), self.root)
        if found is not None:
            conceal(found, row.input)
        return found

    def output(self, row: Row) -> Path | None:
        """A row's mask, where it was or beside the report."""
        return _found(Path(row.output), None) or _found(Path(row.output), self.report.parent)


def _found(path: Path, root: Path | None) -> Path | None:
    """A path as it is written or, under a root, with as many of its last parts as exist there."""
    if root is None:
        return path if path.exists() else None
    parts = path.parts[1:] if path.is_absolute() else path.parts
    below = (Path(root, *parts[n:]) for n in range(len(parts)))
    return next((place for place in below if place.exists()), None)


@dataclass(frozen=True)
class Verification:
    """A report that is to be verified: its scans and packages are found before anything is computed.

    Attributes:
        place: where files are looked for.
        report: what was recorded.
        inputs: of each scan that was done, where it is now.
        packages: of each start, where its packages are now.
    """

    place: Place
    report: AuditReport
    inputs: dict[str, Path]
    packages: dict[str, list[Path]]

    @classmethod
    def open(cls, path: Path, root: Path | None = None, models: Sequence[Path] = ()) -> Verification:
        """Of a report, or of the folder that holds one.

        Args:
            path: the report.
            root: the folder that the scans were moved to; None where they are still in their places.
            models: the packages, where they were moved.

        Raises:
            MedsegError: where the report is damaged or too new, holds nothing that was done, or files are gone.
        """
        report = read_report(path)
        place = Place(path / REPORT if path.is_dir() else path, root)
        rows = [row for row in report.scans if row.plan is not None and row.start in report.starts]
        if not rows:
            raise MedsegError(f"{place.report} tells of no scan that was segmented: there is nothing to verify")
        found = {row.output: place.input(row) for row in rows}
        lacking = [row.input for row in rows if found[row.output] is None]
        if lacking:
            raise MedsegError(
                f"{len(lacking)} of the {len(rows)} scans of {place.report} are not "
                f"{'where it says' if root is None else f'below {root}'} ({some(lacking)}): "
                "--root FOLDER says where they are now"
            )
        starts = {row.start: report.starts[row.start] for row in rows if row.start is not None}
        packages = {id: _packages(start, models) for id, start in starts.items()}
        return cls(place, report, {output: path for output, path in found.items() if path is not None}, packages)

    @property
    def rows(self) -> list[Row]:
        """Of scans that were segmented."""
        return [row for row in self.report.scans if row.output in self.inputs]

    def changes(self, id: str, model: Model) -> list[str]:
        """What is another one now than at a start, whatever came of it."""
        start, commit = self.report.starts[id], commit_of()
        now = {**versions(), "commit": "" if commit is None else commit.id[:12]}
        then = {**start.versions, "commit": (start.commit or "")[:12]}
        names = [name for name in {**then, **now} if then.get(name) != now.get(name)]
        found = [f"{name} {then.get(name) or 'none'} -> {now.get(name) or 'none'}" for name in names]
        found += ["the code differed from its commit"] * start.dirty
        if (here := f"{model.device} {hardware_of(model.device)}") != (there := f"{start.device} {start.hardware}"):
            found.append(f"device {there} -> {here}")
        return found + self.model_changes(id, model)

    def model_changes(self, id: str, model: Model) -> list[str]:
        """Of these, what is of the package."""
        then, now = self.report.starts[id].models, [Package.of(one) for one in model.members]
        others = {
            "weights are others": [one.weights_sha256 for one in then] != [one.weights_sha256 for one in now],
            "model.json is another": [one.card_sha256 for one in then] != [one.card_sha256 for one in now],
        }
        return [f"the model's {what}" for what, is_so in others.items() if is_so]

    def verify(self, row: Row, model: Model, scratch: Path, say: Say | None = None) -> Verdict:
        """Does one scan again.

        Args:
            row: the scan's.
            model: the package of its start.
            scratch: the folder for the new mask.
            say: takes lines worth knowing.

        Raises:
            MedsegError: where the scan cannot be read or segmented any more.
        """
        if row.plan is None or row.start is None:
            raise MedsegError(f"{row.input} was not segmented")
        asked = self.report.starts[row.start].options
        path = self.inputs[row.output]
        options = replace(asked.options(row.plan), series=series_of(path, asked.series_sha256, asked.series_filter))
        source = Source.open(path, model, options)
        made = scratch / Path(row.output).name
        result = Job(source, made, model, options).run(None, say)
        scan, mask = Digest.of(image_facts(source.scan)), facts_of(made, "label")
        changed = [*_scan_changes(row, scan), *self.model_changes(row.start, model), *self._kept_changes(row)]
        if not _same_mask(row, mask, made):
            changed.append("another mask comes of it")
        if not _same_probabilities(row, probabilities_path(made)):
            changed.append("other probabilities come of it")
        there = self.place.output(row)
        labels = chain_of(model, options).written or model.labels
        found = difference(there, made, labels) if changed and there is not None and not mask.error else None
        return Verdict(row.input, row.output, not changed, tuple(changed), found, Digest.of(mask), result.seconds)

    def _kept_changes(self, row: Row) -> Iterator[str]:
        """Whether the mask that was written is still there, and still that."""
        there = self.place.output(row)
        if there is not None and not _same_mask(row, facts_of(there, "label"), there):
            yield "the mask that is there is not the one that was written"


def _same_mask(row: Row, facts: Facts, path: Path) -> bool:
    if row.output_digest is not None:
        return Digest.of(facts) == row.output_digest
    return path.is_file() and bytes_digest(path) == row.output_bytes


def _same_probabilities(row: Row, path: Path) -> bool:
    if row.probabilities_digest is not None:
        return Digest.of(facts_of(path, "image")) == row.probabilities_digest
    return row.probabilities_bytes is None or bytes_digest(path) == row.probabilities_bytes


def _scan_changes(row: Row, now: Digest | None) -> Iterator[str]:
    then = row.input_digest
    if then is None or now is None:
        return
    if then.voxels != now.voxels:
        yield "the scan's voxels are others"
    if then.grid != now.grid:
        yield "the scan lies elsewhere: its affine is another"


def _packages(start: Start, models: Sequence[Path]) -> list[Path]:
    """Where a start's packages are.

    Raises:
        MedsegError: where one is gone, or there are more or less of them.
    """
    if models and len(models) != len(start.models):
        raise MedsegError(f"{len(models)} models are given and {len(start.models)} were used: give -m for each of them")
    if models:
        return [find_package(model) for model in models]
    return [_package(package) for package in start.models]


def _package(package: Package) -> Path:
    """Where a package is now; of one from a registry the very version, whatever its alias has come to mean."""
    try:
        found = None if package.version is None else fetched(Path(package.version), package.digest)
        return find_package(Path(package.path) if found is None else found.folder)
    except MedsegError as error:
        gone = package.version is None and isinstance(error, PackageError)
        why = "is gone" if gone else f"cannot be fetched: {error}"
        raise MedsegError(
            f"the model {package.path} {why} (weights {package.weights_sha256[:12]}); -m MODEL says where it is now"
        ) from None


def series_of(path: Path, digest: str | None, conditions: str | None) -> SeriesChoice | None:
    """The series that was chosen: by its UID's digest, which is all that a report keeps of it.

    Raises:
        MedsegError: where the folder holds no such series any more.
    """
    if digest is None and conditions is None:
        return None
    choice = SeriesChoice.parse(None, conditions)
    if digest is None:
        return choice
    files = [read_instance(file, str(path)) for file in (files_below(path) if path.is_dir() else [path])]
    uid = next((one.series for one in files if digest_of(one.series) == digest), None)
    if uid is None:
        raise MedsegError(f"{path} holds the series no more that was chosen with --series")
    return SeriesChoice(uid, choice.conditions)
