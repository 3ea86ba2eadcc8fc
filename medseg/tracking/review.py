"""What a run leaves of its best model: masks of the validation cases, their scores, and pictures of how it fails.

RUN/validation/
  NAME.nii.gz ...                masks, as medseg infer writes them
  inference.json                 what their values mean
  metrics.csv  metrics.json      as medseg evaluate writes them
  report.html                    all of it to look at
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medseg.datasets.case_names import mask_stem
from medseg.datasets.cases import Case
from medseg.datasets.check import open_case_label, open_image, open_label
from medseg.evaluation.case import score_case
from medseg.evaluation.evaluate import INFERENCE, Wanted, reference_digests, settings_of
from medseg.evaluation.made_by import VALIDATION
from medseg.evaluation.report import CSV, JSON, Report
from medseg.files import fingerprint, partial_of, write_json
from medseg.scans.scan import suffix_of
from medseg.tracking.applied import REFERENCES
from medseg.tracking.charts import confusion_chart, curves_chart, read_curves, strips_chart
from medseg.tracking.html.display import CaseScans
from medseg.tracking.html.page import NAME, Page
from medseg.tracking.html.ranking import column_of
from medseg.tracking.html.sections import MOST_LABELS, confusion_of
from medseg.tracking.html.shown import ShownCase, show_cases
from medseg.tracking.planes import case_picture

if TYPE_CHECKING:
    from PIL.Image import Image

    from medseg.inference.model import Model
    from medseg.tracking.run import Run

LEARNING = "Learning curves"
DISTANCE = "hd95"


@dataclass(frozen=True)
class Review:
    """What was found.

    Attributes:
        folder: where it lies.
        report: the scores.
        shown: the cases that can be looked at.
        curves: the learning curves, or None.
    """

    folder: Path
    report: Report
    shown: Sequence[ShownCase]
    curves: Image | None

    @property
    def page(self) -> Path:
        """``report.html``."""
        return self.folder / NAME

    def pictures(self) -> dict[str, Image]:
        """By name: charts, and the worst, the median and the best case."""
        report, counts = self.report, confusion_of(self.report)
        found = {} if self.curves is None else {"charts/curves": self.curves}
        columns = [column_of(report), *(c for c in report.averaged if c.startswith(DISTANCE))]
        found |= {f"charts/{column}": strips_chart(report, column) for column in columns}
        if counts is not None and report.labels.classes <= MOST_LABELS:
            found["charts/confusion"] = confusion_chart(counts, ("background", *report.labels.foreground))
        ignored = report.labels.classes + 1
        told = {case.ranked.notable: case for case in self.shown if case.ranked.notable is not None}
        return found | {f"cases/{word}": case_picture(case, ignored) for word, case in told.items()}

    def log(self, run: Run) -> dict[str, str]:
        """Logs it: means of every metric as ``best/...``, tables, pictures, and the page.

        Returns:
            the pictures' places among the run's artifacts, by name.
        """
        run.results({f"best/{column}": value for column, value in self.report.mean().items()})
        run.tags({REFERENCES: self.report.references_digest})
        run.table("cases", self.report.rows())
        places = {name: run.picture(picture, name) for name, picture in self.pictures().items()}
        for name in (CSV, JSON):
            run.artifact(self.folder / name, VALIDATION)
        run.artifact(self.page)
        return {name: place for name, place in places.items() if place is not None}


def review(model: Model, cases: Sequence[Case], run_folder: Path, title: str, about: Mapping[str, str]) -> Review:
    """Segments cases with a model as medseg infer does, scores them, and writes all of it into the run's folder.

    Args:
        model: the best one.
        cases: with labels.
        run_folder: takes ``validation/``, whole or not at all; its ``metrics.csv`` gives the learning curves.
        title: of the page.
        about: words and what they are, for the page's head.

    Raises:
        MedsegError: where a case cannot be read or segmented, or a mask not be written.
    """
    folder = run_folder / VALIDATION
    beside = partial_of(folder)
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    masks = {case.name: _segment(model, case, beside) for case in cases}
    write_json(beside / INFERENCE, {"labels": model.labels.to_dict()})
    report = _score(model, cases, masks)
    report.write(beside)
    opened = {case.name: case for case in cases}

    def open_case(name: str) -> CaseScans:
        case = opened[name]
        return CaseScans(name, open_case_label(case), open_label(masks[name]), open_image(case))

    shown = show_cases(report, open_case)
    rows = run_folder / CSV
    curves = curves_chart(read_curves(rows)) if rows.is_file() else None
    Page(report, shown, title, about, [] if curves is None else [(LEARNING, curves)]).write(beside / NAME)
    shutil.rmtree(folder, ignore_errors=True)
    beside.replace(folder)
    return Review(folder, report, shown, curves)


def _segment(model: Model, case: Case, folder: Path) -> Path:
    """Writes a case's mask; its path."""
    from medseg.inference.infer import Job
    from medseg.inference.model import Options
    from medseg.inference.outputs import name_outputs
    from medseg.inference.source import Source, files_of

    scan = open_image(case)
    found = fingerprint(*files_of(scan, case.image))
    source = Source(case.image, found, scan, model.card.preprocessing.remembered_view(scan, found))
    suffix = suffix_of(name_outputs([case.image], folder, "auto", model.labels.dtype.itemsize)[0])
    path = folder / f"{mask_stem(case.name)}{suffix}"
    Job(source, path, model, Options(overwrite=True)).run()
    return path


def _score(model: Model, cases: Sequence[Case], masks: Mapping[str, Path]) -> Report:
    wanted = Wanted()
    options = wanted.options(model.labels, False)
    results = tuple(score_case(case.name, masks[case.name], case, model.labels, options) for case in cases)
    settings: dict[str, Any] = settings_of(wanted, options)
    return Report(model.labels, results, (), settings, reference_digests({case.name: case for case in cases}))
