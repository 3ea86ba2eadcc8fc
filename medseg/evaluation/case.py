"""One case: every metric that is asked for, of every class; prediction and reference are read in blocks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from medseg.datasets.labels import Labels
from medseg.errors import MedsegError
from medseg.evaluation.families import FAMILIES, NUMBERS, Values, calibrate, counted, measure_surfaces
from medseg.evaluation.metrics import MISSING, Counts, Scores, evaluate_pair
from medseg.evaluation.opened import Reference, open_pair
from medseg.evaluation.pair import Lengths, Options, Pair
from medseg.scans.lattice import diagonal
from medseg.scans.scan import Scan, open_scan


@dataclass(frozen=True)
class CaseResult:
    """One case.

    Attributes:
        name: the case's.
        counts: its table of voxels, or None where its prediction is missing.
        values: by label and column; NaN where one is undefined.
        whole: by column, of the case as a whole.
    """

    name: str
    counts: Counts | None
    values: Mapping[str, Values]
    whole: Values

    @property
    def missing(self) -> bool:
        """Whether there was no prediction."""
        return self.counts is None

    @property
    def pixel_error(self) -> float:
        """The share of voxels whose class is wrong; 1 where the prediction is missing."""
        return MISSING.pixel_error if self.counts is None else self.counts.pixel_error

    def scores(self, number: int) -> Scores:
        """The counted metrics of class 1..K."""
        return MISSING if self.counts is None else self.counts.scores(number)


def score_case(
    name: str,
    prediction: Path | None,
    reference: Reference,
    labels: Labels,
    options: Options,
    probabilities: Path | None = None,
) -> CaseResult:
    """Scores one case.

    Args:
        name: the case's.
        prediction: its mask, or None where it is missing.
        reference: its label file, or the case of a data set.
        labels: what the values of both mean.
        options: what to compute.
        probabilities: its probabilities, where calibration is asked for.

    Raises:
        MedsegError: where grids or values don't belong together, or one is too large for what is asked.
    """
    found, expected = open_pair(prediction, reference, labels)
    if found is None:
        return _missing(name, expected, labels, options)
    if labels.regions:
        return _of_regions(name, found, expected, labels, options)
    return _scored(name, found, expected, labels, options, probabilities)


def _scored(
    name: str, found: Scan, expected: Scan, labels: Labels, options: Options, probabilities: Path | None = None
) -> CaseResult:
    pair = Pair(found, expected, labels, options)
    counts, borders = pair.count()
    values: dict[str, Values] = {label: dict(counted(counts, n, pair.lengths)) for n, label in pair.numbered}
    whole = {"case_pixel_error": counts.pixel_error}
    if options.wants("surfaces"):
        measure_surfaces(pair, borders, values)
    for family, add in FAMILIES.items():
        if options.wants(family):
            add(pair, values)
    if options.wants("calibration"):
        if probabilities is None:
            raise MedsegError(f"case {name} has no probabilities: leave out ece and brier, or give their folder")
        calibrate(pair, open_scan(probabilities), values, whole)
    columns = _columns(options, pair.lengths, len(expected.shape))
    kept = {label: {column: values[label][m] for m, column in columns.items()} for label in values}
    return CaseResult(name, counts, kept, whole)


def _of_regions(name: str, found: Scan, expected: Scan, labels: Labels, options: Options) -> CaseResult:
    """Each region against all else, as if it were the one label; the table is of the classes that they are made of."""
    if options.wants("calibration"):
        raise MedsegError("ece and brier need a probability for each class, and these are regions: leave them out")
    alone = {r: _scored(name, found, expected, labels.region(r), options) for r in labels.regions}
    counts = evaluate_pair(found, expected, labels)
    values = {region: result.values[region] for region, result in alone.items()}
    return CaseResult(name, counts, values, {"case_pixel_error": counts.pixel_error})


def _columns(options: Options, lengths: Lengths, axes: int) -> dict[str, str]:
    """Of each value that is asked for, its column."""
    named = {metric.name: metric.column(lengths.unit, axes) for metric in options.metrics}
    return named | {name: name for family, names in NUMBERS.items() if options.wants(family) for name in names}


def _missing(name: str, reference: Scan, labels: Labels, options: Options) -> CaseResult:
    """A case without a prediction scores the worst of everything, whatever the reference holds."""
    lengths = Lengths.of(reference, None)
    axes = len(reference.shape)
    worst = diagonal(reference.shape, lengths.steps)
    values = {m.column(lengths.unit, axes): worst if m.missing is None else m.missing for m in options.metrics}
    return CaseResult(name, None, {label: dict(values) for label in labels.targets}, {"case_pixel_error": 1.0})
