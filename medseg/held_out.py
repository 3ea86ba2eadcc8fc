"""What a run predicted of cases that it did not learn from: its validation cases, or those of all its folds, pooled."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from medseg.data_section import find_data, labels_of, learned_labels
from medseg.datasets.case_names import mask_stem
from medseg.datasets.cases import Case, find_scans, natural_key
from medseg.datasets.check import open_case_label, open_image, open_label
from medseg.datasets.labels import Labels
from medseg.datasets.split import SPLIT, read_folds, read_split
from medseg.errors import MedsegError, some
from medseg.evaluation.evaluate import INFERENCE, Wanted, find_probabilities, score_all, scored_labels, write_report
from medseg.evaluation.made_by import VALIDATION
from medseg.evaluation.report import Report
from medseg.experiment import CONFIG, Experiment
from medseg.files import absent, write_json
from medseg.fold_runs import FoldRuns
from medseg.learned_from import mark_trained, trained_cases
from medseg.scans.sink import as_output_error
from medseg.tracking.html.display import CaseScans
from medseg.tracking.html.page import NAME, Page
from medseg.tracking.html.shown import show_cases
from medseg.tracking.review import Review


@dataclass(frozen=True)
class HeldOut:
    """Cases with the masks that models predicted which did not learn from them.

    Attributes:
        run: the run's folder.
        cases: that were to be predicted.
        masks: as far as there are any, by case.
        labels: what their values mean.
    """

    run: Path
    cases: Mapping[str, Case]
    masks: Mapping[str, Path]
    labels: Labels

    @classmethod
    def of(cls, run: Path) -> HeldOut:
        """Of a run's folder, a cross-validated run's too.

        Raises:
            MedsegError: where it is none, holds no masks, holds a case twice, or its data set is not there.
        """
        if not (run / CONFIG).is_file():
            raise MedsegError(f"{run} holds no {CONFIG}: it is no run's folder, so give --predictions and --references")
        data = Experiment.load(run / CONFIG).data
        found = find_data(data)
        cases = {case.name: case for case in found.cases}
        wanted = _wanted(run)
        gone = [name for name in wanted if name not in cases]
        if gone:
            raise MedsegError(f"{run}: {len(gone)} of its {len(wanted)} cases are not in {found.path}: {some(gone)}")
        masks = masks_in(places_of(run))
        labels = learned_labels(data, labels_of(data, found.info, found.root))
        by_stem = {mask_stem(name): name for name in wanted}
        known = {by_stem[stem]: path for stem, path in masks.items() if stem in by_stem}
        return cls(run, {name: cases[name] for name in wanted}, known, labels)

    @property
    def missing(self) -> list[str]:
        """The cases without a mask."""
        return [name for name in self.cases if name not in self.masks]

    def score(self, wanted: Wanted | None = None, predicted_only: bool = False) -> Report:
        """Scores all of them; cases without a mask are said.

        Args:
            wanted: what to compute.
            predicted_only: whether cases without a mask are left out; otherwise they score the worst.

        Raises:
            MedsegError: where an option is wrong, or probabilities are asked for and there are none.
        """
        wanted = wanted or Wanted()
        cases = {name: case for name, case in self.cases.items() if name in self.masks or not predicted_only}
        if self.missing:
            lacking = f"{len(self.missing)} of {len(self.cases)} cases have no mask"
            print(f"{self.run}: {lacking}: {some(self.missing)}", file=sys.stderr)
        labels, numbered = scored_labels(self.labels, cases, wanted.instances)
        options, shares = wanted.options(labels, numbered), {}
        if options.wants("calibration"):
            shares = find_probabilities(places_of(self.run), self.masks, cases, wanted)
        return mark_trained(score_all(self.masks, cases, labels, wanted, options, shares), self.masks)

    def write(self, report: Report, folder: Path, title: str, about: Mapping[str, str]) -> Review:
        """Writes the report, and a page of it.

        Args:
            report: of :meth:`score`.
            folder: takes ``metrics.csv``, ``metrics.json``, ``inference.json`` and ``report.html``.
            title: of the page.
            about: words and what they are, for the page's head.

        Raises:
            MedsegError: where a case cannot be read, or the folder not be written.
        """
        shown = show_cases(report, self.open_case)
        write_report(report, folder, self.cases)
        with as_output_error(folder):
            write_json(folder / INFERENCE, {"labels": self.labels.to_dict()})
            Page(report, shown, title, {**about, **trained_cases(report)}).write(folder / NAME)
        return Review(folder, report, shown, None)

    def open_case(self, name: str) -> CaseScans:
        """A case's scans, for a page.

        Raises:
            MedsegError: where one cannot be read.
        """
        case, mask = self.cases[name], self.masks.get(name)
        return CaseScans(name, open_case_label(case), None if mask is None else open_label(mask), open_image(case))


def places_of(run: Path) -> list[Path]:
    """Where a run keeps the masks of its validation cases: a folder, or one a fold.

    Raises:
        MedsegError: where there is none.
    """
    if not run.exists():
        raise MedsegError(f"{absent(run, folders=True)}; give a run's folder, or --predictions and --references")
    runs = FoldRuns.read(run) if FoldRuns.are_in(run) else None
    places = [run / VALIDATION] if runs is None else [runs.place(fold) / VALIDATION for fold in range(runs.count)]
    there = [place for place in places if place.is_dir()]
    if not there:
        raise MedsegError(
            f"{run} holds no masks of validation cases: they are written at the end of a training, where "
            "tracking.review is true"
        )
    return there


def masks_in(folders: list[Path]) -> dict[str, Path]:
    """The masks of folders by stem.

    Raises:
        MedsegError: where a case is predicted twice.
    """
    found: dict[str, Path] = {}
    for folder in folders:
        for stem, path in find_scans(folder).items():
            if stem in found:
                raise MedsegError(f"the case {stem} is predicted twice, in {found[stem].parent} and {folder}: keep one")
            found[stem] = path
    return found


def _wanted(run: Path) -> list[str]:
    """The cases that a run was to predict."""
    if FoldRuns.are_in(run):
        return sorted((name for names in read_folds(run / SPLIT).folds for name in names), key=natural_key)
    return list(read_split(run / SPLIT).validation)
