"""The result of an evaluation: rows, their summary, and the forms in which they are shown and kept.

Legend: a row is one class of one case.
"""

from __future__ import annotations

import csv
import io
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medseg.datasets.labels import Labels
from medseg.evaluation.metrics import METRICS, MISSING, Counts, Scores
from medseg.files import write_json, write_text

if TYPE_CHECKING:
    from rich.table import Table

CSV = "metrics.csv"
JSON = "metrics.json"
COLUMNS = ("case", "label", *METRICS, "reference_voxels", "predicted_voxels", "case_pixel_error", "missing")


@dataclass(frozen=True)
class CaseResult:
    """One case: its counts, or None where its prediction is missing."""

    name: str
    counts: Counts | None

    @property
    def missing(self) -> bool:
        """Whether there was no prediction."""
        return self.counts is None

    @property
    def pixel_error(self) -> float:
        """The share of voxels whose class is wrong; 1 where the prediction is missing."""
        return MISSING.pixel_error if self.counts is None else self.counts.pixel_error

    def scores(self, number: int) -> Scores:
        """The metrics of class 1..K."""
        return MISSING if self.counts is None else self.counts.scores(number)


@dataclass(frozen=True)
class Spread:
    """What one metric does over the cases in which it is defined; NaN where it is not (the SD needs two cases)."""

    mean: float
    median: float
    sd: float
    count: int

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        """Of all values that are not NaN; the SD is that of a sample (n - 1)."""
        known = [value for value in values if not math.isnan(value)]
        if not known:
            return cls(math.nan, math.nan, math.nan, 0)
        sd = statistics.stdev(known) if len(known) > 1 else math.nan
        return cls(statistics.fmean(known), statistics.median(known), sd, len(known))


@dataclass(frozen=True)
class Report:
    """How well a set of predictions agrees with its references.

    Attributes:
        labels: the classes.
        cases: in natural order of their names.
        extra: names of predictions without a reference, which are left out.
    """

    labels: Labels
    cases: tuple[CaseResult, ...]
    extra: tuple[str, ...] = ()

    @property
    def missing(self) -> tuple[str, ...]:
        """Names of references without a prediction, which score 0."""
        return tuple(case.name for case in self.cases if case.missing)

    def summary(self) -> dict[str, dict[str, Spread]]:
        """Per label and metric, over the cases."""
        return {
            name: {metric: Spread.of(getattr(case.scores(number), metric) for case in self.cases) for metric in METRICS}
            for number, name in enumerate(self.labels.foreground, 1)
        }

    def mean(self) -> dict[str, float]:
        """Per metric, the mean over labels of their means; and the mean share of wrong voxels, ``case_pixel_error``."""
        summary = self.summary()
        means = {metric: Spread.of(label[metric].mean for label in summary.values()).mean for metric in METRICS}
        return means | {"case_pixel_error": Spread.of(case.pixel_error for case in self.cases).mean}

    def to_dict(self) -> dict[str, Any]:
        """As JSON; what is undefined is null."""
        summary = {
            name: {
                metric: {key: _json(value) for key, value in vars(spread).items()} for metric, spread in label.items()
            }
            for name, label in self.summary().items()
        }
        return {
            "labels": self.labels.to_dict(),
            "mean": {metric: _json(value) for metric, value in self.mean().items()},
            "summary": summary,
            "cases": [self._case(case) for case in self.cases],
            "missing": list(self.missing),
            "extra": list(self.extra),
        }

    def rows(self) -> list[dict[str, Any]]:
        """One for each class of each case, with the columns of ``metrics.csv``."""
        return [
            {"case": case.name, "label": name}
            | self._class(case, number)
            | {"case_pixel_error": _json(case.pixel_error), "missing": case.missing}
            for case in self.cases
            for number, name in enumerate(self.labels.foreground, 1)
        ]

    def write(self, folder: Path) -> None:
        """Writes ``metrics.csv`` and ``metrics.json``, each whole or not at all."""
        folder.mkdir(parents=True, exist_ok=True)
        text = io.StringIO()
        table = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        table.writeheader()
        table.writerows(row | {"missing": int(row["missing"])} for row in self.rows())
        write_text(folder / CSV, text.getvalue())
        write_json(folder / JSON, self.to_dict())

    def table(self) -> Table:
        """The summary for the terminal: mean, median and SD of each label."""
        from rich.table import Table

        table = Table(title=self._title(), title_justify="left", caption=self._caption(), caption_justify="left")
        table.add_column("label")
        table.add_column("")
        for metric in METRICS:
            table.add_column(metric.replace("_", " "), justify="right")
        for name, label in self.summary().items():
            for shown, statistic in ((name, "mean"), ("", "median"), ("", "sd")):
                values = (getattr(label[metric], statistic) for metric in METRICS)
                table.add_row(shown, statistic, *map(_number, values), end_section=statistic == "sd")
        means = self.mean()
        table.add_row("all", "mean", *(_number(means[metric]) for metric in METRICS), style="bold")
        return table

    def _case(self, case: CaseResult) -> dict[str, Any]:
        numbered = enumerate(self.labels.foreground, 1)
        return {
            "case": case.name,
            "missing": case.missing,
            "pixel_error": _json(case.pixel_error),
            "labels": {name: self._class(case, number) for number, name in numbered},
        }

    @staticmethod
    def _class(case: CaseResult, number: int) -> dict[str, Any]:
        counts = case.counts
        return {metric: _json(getattr(case.scores(number), metric)) for metric in METRICS} | {
            "reference_voxels": None if counts is None else counts.reference_voxels(number),
            "predicted_voxels": None if counts is None else counts.predicted_voxels(number),
        }

    def _title(self) -> str:
        number = len(self.cases)
        return f"{number} case{'' if number == 1 else 's'}"

    def _caption(self) -> str | None:
        missing = f"{len(self.missing)} without a prediction, scored 0: {_some(self.missing)}" if self.missing else ""
        extra = f"{len(self.extra)} without a reference, left out: {_some(self.extra)}" if self.extra else ""
        return "\n".join(filter(None, (missing, extra))) or None


def _some(names: Sequence[str], shown: int = 5) -> str:
    return ", ".join(names[:shown]) + (" ..." if len(names) > shown else "")


def _json(value: float) -> float | None:
    return None if math.isnan(value) else value


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4f}"
