"""Which of the cases that are scored a model learned from: their scores say little of others.

A case is known by the place or the name of its file, and then by its voxels, where both are here to be compared.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import IntEnum
from functools import cached_property
from pathlib import Path

from medseg.data_section import data_root
from medseg.datasets.case_names import digest_name, is_digest, mask_stem, named
from medseg.datasets.cases import Case
from medseg.datasets.checks.digest import Digest
from medseg.datasets.checks.survey import Item, image_items, label_items, survey
from medseg.datasets.layouts import open_dataset
from medseg.datasets.split import SPLIT, read_split
from medseg.errors import MedsegError, some
from medseg.evaluation.made_by import Made, made_by
from medseg.evaluation.report import Report
from medseg.experiment import CONFIG, Experiment
from medseg.package import find_package, read_card
from medseg.scans.scan import stem_of


def mark_trained(report: Report, masks: Mapping[str, Path]) -> Report:
    """A report that knows which of its cases the models were trained on that predicted them; they are told in a line.

    Args:
        report: the scores.
        masks: by case.
    """
    made = made_by(masks)
    learned = {package: learned_by(package) for one in made.values() for package in one.packages}
    found: dict[str, Match] = {}
    for name, one in made.items():
        models = [learned[package] for package in one.packages]
        if all(models):
            runs = (run for model in models for run in model)
            found[name] = max(run.match(name, one, report.references.get(name)) for run in runs)
    line = _told(found, len(report.cases), several=any(len(one.packages) > 1 for one in made.values()))
    if line:
        print(line, file=sys.stderr)
    return replace(report, trained_on={name: match is not Match.other for name, match in found.items()})


def trained_cases(report: Report) -> dict[str, str]:
    """For a page's head: the cases that a model was trained on, if there are any."""
    names = [name for name, trained in report.trained_on.items() if trained]
    return {"trained on": f"{len(names)} of these {len(report.cases)} cases: {some(names, 10)}"} if names else {}


def _told(found: Mapping[str, Match], cases: int, several: bool) -> str:
    names = [name for name, match in found.items() if match is not Match.other]
    if not names:
        return ""
    model = "one of these models" if several else "this model"
    unsure = sum(found[name] is Match.called for name in names)
    how = f" ({unsure} by name alone: the files are not here to compare)" if unsure else ""
    return f"{len(names)} of {cases} cases were trained on by {model}: {some(names)}{how}"


class Match(IntEnum):
    """Whether a case is one of those that a model learned from: no, by its name alone, or by its voxels."""

    other = 0
    called = 1
    same = 2


@dataclass(frozen=True)
class Learned:
    """What a run learned from.

    Attributes:
        run: its folder.
        names: of its training cases.
    """

    run: Path
    names: tuple[str, ...]

    def match(self, name: str, made: Made, reference: Digest | None) -> Match:
        """Whether a case is one of them.

        Args:
            name: the case's.
            made: how its mask was made. Where that says no scan, the data set is not looked at for the name alone.
            reference: the digest of its reference.
        """
        own = None if made.scan is None else self._places.get(made.scan.resolve())
        own = own or _among(name, {mask_stem(one): one for one in self.names})
        if own is None and made.scan is not None:
            own = _among(name, {stem_of(case.image): one for one, case in self._cases.items() if not is_digest(one)})
        return Match.other if own is None else _match(self._cases.get(own), made, reference)

    @cached_property
    def _cases(self) -> dict[str, Case]:
        """The training cases by name; none where the data set is not here. No phantom is made for it."""
        try:
            data = Experiment.load(self.run / CONFIG).data.model_copy(update={"phantom": None})
            found = named(open_dataset(data_root(data), data.layout), data.case_names)
        except MedsegError:
            return {}
        wanted = set(self.names)
        return {case.name: case for case in found.cases if case.name in wanted}

    @cached_property
    def _places(self) -> dict[Path, str]:
        """Their names by the first files of their images."""
        return {case.image.resolve(): name for name, case in self._cases.items()}


def learned_by(package: Path) -> list[Learned]:
    """What a model package learned from: in its run, in the one whose weights that began with, and so on.

    Returns:
        as far as the runs' folders are here; nothing where the package lies in none.
    """
    found: list[Learned] = []
    place: Path | None = package
    while place is not None and all(place.parent != one.run for one in found):
        try:
            found.append(Learned(place.parent, read_split(place.parent / SPLIT).train))
            place = _began_with(place)
        except (MedsegError, KeyError, TypeError):
            break
    return found


def _began_with(package: Path) -> Path | None:
    """The package whose weights a run began with; None where there is none, or it is another by now.

    Raises:
        MedsegError: where it is gone, or a file of the run is.
    """
    began = read_card(package).training.get("init_from")
    path = Experiment.load(package.parent / CONFIG).training.init_from if began else None
    if began is None or path is None or not path.exists():
        return None
    found = find_package(path)
    return found if read_card(found).weights_sha256 == began["sha256"] else None


def _among(name: str, known: Mapping[str, str]) -> str | None:
    """What a name stands for, where either it or those that are known may be digests."""
    if name in known:
        return known[name]
    if is_digest(name):
        return next((own for other, own in known.items() if not is_digest(other) and digest_name(other) == name), None)
    return known.get(digest_name(name)) if any(map(is_digest, known)) else None


def _match(case: Case | None, made: Made, reference: Digest | None) -> Match:
    """Whether a scan is a case's: by its voxels, else by its reference's; by name where nothing can be compared."""
    if case is None:
        return Match.called
    images = image_items(case)
    wanted: dict[Item, str] = {images[0]: made.voxels} if len(images) == 1 and made.voxels else {}
    if not wanted and reference is not None:
        wanted = dict.fromkeys(label_items(case), reference.voxels)
    for item, facts in survey(wanted, workers=1).items():
        if facts.voxels:
            return Match.same if facts.voxels == wanted[item] else Match.other
    return Match.called
