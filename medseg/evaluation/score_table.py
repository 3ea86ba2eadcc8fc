"""What one model scored, case by case: what comparisons are made of, wherever it was kept.

A column is a metric with its unit, such as ``hd95_mm``; the label of columns about a case as a whole is :data:`WHOLE`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medseg.datasets.checks.digest import Digest
from medseg.errors import MedsegError
from medseg.evaluation.catalogue import METRICS, Better
from medseg.files import digest_of, read_json

WHOLE = ""
"""In place of a label, where a value is about a case as a whole."""
_WHOLE_CASE = "case_"
_LOWER = ("loss",)


@dataclass(frozen=True)
class Measure:
    """What a column holds.

    Attributes:
        column: its name, with the unit.
        metric: the name without.
        better: which way is good.
    """

    column: str
    metric: str
    better: Better


@dataclass(frozen=True)
class ScoreTable:
    """What one model scored.

    Attributes:
        name: what tables call it.
        cases: in the order of their file.
        measures: by column.
        values: by column and label, of each case; only finite ones.
        missing: the cases without a prediction, which are scored worst.
        references: by case, the voxels that the reference gives each label, where they are known.
        reference_digests: by case, of the reference, where they are known; of older reports the voxels' alone.
        settings: of the evaluation, where they are known.
        dataset: the digest of the data set, where it is known.
        digest: of the scores.
        run: where MLflow keeps the run that they are of: its id; None for an evaluation's report.
        step: of the run, at which they were scored.
    """

    name: str
    cases: tuple[str, ...]
    measures: Mapping[str, Measure]
    values: Mapping[tuple[str, str], Mapping[str, float]]
    missing: tuple[str, ...] = ()
    references: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    reference_digests: Mapping[str, Digest] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    dataset: str | None = None
    digest: str = ""
    run: str | None = None
    step: int | None = None

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels, in the order of their file."""
        return tuple(dict.fromkeys(label for _, label in self.values if label != WHOLE))

    def columns(self, metric: str) -> tuple[str, ...]:
        """The columns that a metric's or a column's name stands for."""
        return tuple(m.column for m in self.measures.values() if metric in (m.column, m.metric))


def read_report(path: Path, name: str) -> ScoreTable:
    """The scores that ``medseg evaluate`` wrote.

    Args:
        path: its ``metrics.json``.
        name: what to call them.

    Raises:
        MedsegError: where the file is missing or not what it must be.
    """
    content = read_json(path, "what medseg evaluate writes")
    try:
        return _scores_of(content, name)
    except (KeyError, TypeError, AttributeError, ValueError) as problem:
        raise MedsegError(
            f"{path} is no report of this medseg's evaluate ({type(problem).__name__}: {problem}): run medseg evaluate "
            "again"
        ) from None


def _scores_of(content: Mapping[str, Any], name: str) -> ScoreTable:
    cases = {case["case"]: case for case in content["cases"]}
    if not all(isinstance(name, str) for name in cases):
        raise TypeError("a case's name is no text")
    labels = list(dict.fromkeys(label for case in cases.values() for label in case["labels"]))
    measures = {
        column: Measure(column, about["metric"], about["better"]) for column, about in content["columns"].items()
    }
    values = {
        (column, label): _finite({case: row["labels"][label].get(column) for case, row in cases.items()})
        for label in labels
        for column in measures
    }
    whole = {column: _whole(column) for column in _whole_columns(cases.values())}
    values |= {(column, WHOLE): _finite({c: row.get(column) for c, row in cases.items()}) for column in whole}
    references = {
        case: {label: int(row["labels"][label]["reference_voxels"]) for label in labels}
        for case, row in cases.items()
        if not row["missing"]
    }
    missing = tuple(case for case, row in cases.items() if row["missing"])
    digests = {case: _digest(row["reference_digest"]) for case, row in cases.items() if row.get("reference_digest")}
    about = {"missing": missing, "references": references, "settings": content["settings"]}
    about["reference_digests"] = digests
    return ScoreTable(name, tuple(cases), measures | whole, values, digest=digest_of(content), **about)


def _digest(content: Any) -> Digest:
    return Digest.model_validate(content if isinstance(content, Mapping) else {"voxels": content, "grid": ""})


def _whole_columns(cases: Iterable[Mapping[str, Any]]) -> dict[str, None]:
    return dict.fromkeys(key for case in cases for key in case if key.startswith(_WHOLE_CASE))


def _whole(column: str) -> Measure:
    return Measure(column, column, METRICS[column.removeprefix(_WHOLE_CASE)].better)


def scores_of_rows(rows: Iterable[Mapping[str, Any]], name: str, **about: Any) -> ScoreTable:
    """The scores of a table with one row a case, whose columns are called ``metric/label`` or ``loss``.

    Args:
        rows: with the case's name as ``case``; columns of no known metric are left out.
        name: what to call them.
        about: the other attributes.
    """
    table = {str(row["case"]): row for row in rows}
    keys = dict.fromkeys(key for row in table.values() for key in row)
    measures: dict[str, Measure] = {}
    values: dict[tuple[str, str], Mapping[str, float]] = {}
    for key in keys:
        column, _, label = key.partition("/")
        metric = column if column in METRICS else column.rpartition("_")[0]
        if metric in METRICS and label:
            measures[column] = Measure(column, metric, METRICS[metric].better)
        elif key in _LOWER:
            measures[column] = Measure(column, column, "lower")
        else:
            continue
        values[column, label] = _finite({case: row.get(key) for case, row in table.items()})
    content = {"/".join(key): dict(of) for key, of in values.items()}
    return ScoreTable(name, tuple(table), measures, values, digest=digest_of(content), **about)


def _finite(values: Mapping[str, float | None]) -> dict[str, float]:
    return {case: float(value) for case, value in values.items() if value is not None and math.isfinite(value)}
