"""The result of an evaluation: rows, their summary, and the forms in which they are shown and kept.

Legend: a row is one class of one case; a column is a metric with its unit, such as ``hd95_mm``.
"""

from __future__ import annotations

import csv
import io
import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medseg.datasets.checks.digest import Digest
from medseg.datasets.labels import Labels
from medseg.evaluation.case import CaseResult
from medseg.evaluation.catalogue import METRICS
from medseg.evaluation.families import NUMBERS
from medseg.files import digest_of, write_json, write_text

if TYPE_CHECKING:
    from rich.table import Table

CSV = "metrics.csv"
JSON = "metrics.json"
NOT_AVERAGED = {name for names in NUMBERS.values() for name in names}


@dataclass(frozen=True)
class Spread:
    """What one metric does over the cases in which it is defined; NaN where it is not (the SD needs two cases)."""

    mean: float
    median: float
    sd: float
    q1: float
    q3: float
    count: int

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        """Of all values that are not NaN; the SD is that of a sample (n - 1), quartiles are linear between values."""
        known = [value for value in values if not math.isnan(value)]
        if not known:
            return cls(math.nan, math.nan, math.nan, math.nan, math.nan, 0)
        several = len(known) > 1
        sd = statistics.stdev(known) if several else math.nan
        q1, median, q3 = statistics.quantiles(known, method="inclusive") if several else known * 3
        return cls(statistics.fmean(known), median, sd, q1, q3, len(known))


@dataclass(frozen=True)
class Report:
    """How well a set of predictions agrees with its references.

    Attributes:
        labels: the classes.
        cases: in natural order of their names.
        extra: names of predictions without a reference, which are left out.
        settings: what was asked for: metrics, tolerances, how objects match; as JSON.
        references: by case, the digest of the reference, as far as they are known.
        trained_on: by case, whether a model that predicted it was trained on it; of those cases of which it is known.
    """

    labels: Labels
    cases: tuple[CaseResult, ...]
    extra: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    references: Mapping[str, Digest] = field(default_factory=dict)
    trained_on: Mapping[str, bool] = field(default_factory=dict)

    @property
    def references_digest(self) -> str:
        """One digest of all references: two evaluations share it where all of these are the same."""
        return digest_of({name: digest.model_dump() for name, digest in self.references.items()})

    @property
    def missing(self) -> tuple[str, ...]:
        """Names of references without a prediction, which score the worst of everything."""
        return tuple(case.name for case in self.cases if case.missing)

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """The metrics' columns, averaged or not."""
        return tuple(dict.fromkeys(c for case in self.cases for label in case.values.values() for c in label))

    @cached_property
    def averaged(self) -> tuple[str, ...]:
        """The columns that are averaged over cases."""
        return tuple(column for column in self.columns if column not in NOT_AVERAGED)

    @cached_property
    def whole(self) -> tuple[str, ...]:
        """The columns of cases as a whole."""
        return tuple(dict.fromkeys(column for case in self.cases for column in case.whole))

    def summary(self) -> dict[str, dict[str, Spread]]:
        """Per label and column, over the cases."""
        return {
            name: {
                column: Spread.of(case.values[name].get(column, math.nan) for case in self.cases)
                for column in self.averaged
            }
            for name in self.labels.targets
        }

    def mean(self) -> dict[str, float]:
        """Per column, the mean over labels of their means; and of columns of whole cases (``case_pixel_error``)."""
        summary = self.summary()
        means = {column: Spread.of(label[column].mean for label in summary.values()).mean for column in self.averaged}
        return means | {
            column: Spread.of(case.whole.get(column, math.nan) for case in self.cases).mean for column in self.whole
        }

    def to_dict(self) -> dict[str, Any]:
        """As JSON; what is undefined is null."""
        summary = {
            name: {column: _jsons(vars(spread)) for column, spread in label.items()}
            for name, label in self.summary().items()
        }
        return {
            "labels": self.labels.to_dict(),
            "settings": dict(self.settings),
            "columns": {column: {"metric": _metric(column), "better": _better(column)} for column in self.averaged},
            "mean": _jsons(self.mean()),
            "summary": summary,
            "cases": [self._case(case) for case in self.cases],
            "missing": list(self.missing),
            "extra": list(self.extra),
        }

    def rows(self) -> list[dict[str, Any]]:
        """One for each class of each case, with the columns of ``metrics.csv``."""
        return [
            {"case": case.name, "label": name}
            | self._class(case, name)
            | {column: _json(case.whole.get(column, math.nan)) for column in self.whole}
            | {"missing": case.missing}
            | self._trained(case)
            for case in self.cases
            for name in self.labels.targets
        ]

    def write(self, folder: Path) -> None:
        """Writes ``metrics.csv`` and ``metrics.json``, each whole or not at all."""
        folder.mkdir(parents=True, exist_ok=True)
        rows = self.rows()
        text = io.StringIO()
        table = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows({key: int(v) if isinstance(v, bool) else v for key, v in row.items()} for row in rows)
        write_text(folder / CSV, text.getvalue())
        write_json(folder / JSON, self.to_dict())

    def table(self) -> Table:
        """The summary for the terminal."""
        from medseg.evaluation.table import table_of

        return table_of(self)

    def _case(self, case: CaseResult) -> dict[str, Any]:
        digest = self.references.get(case.name)
        return {
            "case": case.name,
            "missing": case.missing,
            **self._trained(case),
            "reference_digest": None if digest is None else digest.model_dump(),
            "pixel_error": _json(case.pixel_error),
            **_jsons(case.whole),
            "labels": {name: self._class(case, name) for name in self.labels.targets},
        }

    def _trained(self, case: CaseResult) -> dict[str, bool | None]:
        """Whether a model was trained on a case; empty where that is known of none."""
        return {"trained_on": self.trained_on.get(case.name)} if self.trained_on else {}

    def _class(self, case: CaseResult, name: str) -> dict[str, Any]:
        values, counts, classes = case.values[name], case.counts, self.labels.targets[name]
        return {column: _json(values.get(column, math.nan)) for column in self.columns} | {
            "reference_voxels": None if counts is None else counts.reference_voxels(*classes),
            "predicted_voxels": None if counts is None else counts.predicted_voxels(*classes),
        }


def _metric(column: str) -> str:
    """The metric of a column, whose name may end with a unit."""
    return column if column in METRICS else column.rpartition("_")[0]


def _better(column: str) -> str:
    return METRICS[_metric(column)].better


def _json(value: float) -> float | None:
    return None if math.isnan(value) else value


def _jsons(values: Mapping[str, float]) -> dict[str, float | None]:
    return {key: _json(value) for key, value in values.items()}
