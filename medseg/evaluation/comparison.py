"""Comparing what models scored on the same cases: which differences are there, and which can be claimed.

A contrast is one comparison: two models, one metric, one label. Its differences are the second's scores less the
first's. The claims of all contrasts together are wrong with a chance of at most 5 % where nothing differs (Holm).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from medseg.errors import MedsegError, some
from medseg.evaluation.comparable import (
    check_references,
    check_settings,
    common_cases,
    common_labels,
    common_measures,
)
from medseg.evaluation.paired import ALPHA, RESAMPLES, Paired, differences, holm, paired
from medseg.evaluation.score_table import WHOLE, Measure, ScoreTable

Verdict = Literal["better", "worse", "differs", ""]

MEAN = "mean of labels"
"""In place of a label, where each case's mean over its labels is compared."""


@dataclass(frozen=True)
class Asked:
    """What is to be compared.

    Attributes:
        metrics: names of metrics or columns; None for the usual ones that all have
            (:data:`medseg.evaluation.comparable.PRIMARY`), else all.
        labels: None for all; they must then be the same in all.
        over_labels: compare each case's mean over labels instead of every label.
        all_pairs: compare each with each, instead of each with the first.
        common_cases: where the cases differ, compare those that all have.
        different_references: go on where the references differ.
        seed: of the bootstrap.
        resamples: of the bootstrap.
    """

    metrics: Sequence[str] | None = None
    labels: Sequence[str] | None = None
    over_labels: bool = False
    all_pairs: bool = False
    common_cases: bool = False
    different_references: bool = False
    seed: int = 0
    resamples: int = RESAMPLES


@dataclass(frozen=True, eq=False)
class Contrast:
    """One comparison.

    Attributes:
        first: the name of the one that is compared with.
        second: the name of the one that is compared.
        measure: of the metric; of a signed one, whose best is 0, the magnitudes are compared.
        label: :data:`WHOLE` or :data:`MEAN` where it is about no label.
        cases: the n cases in which both are defined.
        values: (2, n): the first's scores and the second's.
        undefined: how many cases were left out because one of the two is undefined.
        paired: the statistics of second less first.
        p_holm: corrected for all contrasts of the comparison.
    """

    first: str
    second: str
    measure: Measure
    label: str
    cases: tuple[str, ...]
    values: NDArray[np.float64]
    undefined: int
    paired: Paired
    p_holm: float = math.nan

    @property
    def differences(self) -> NDArray[np.float64]:
        """(n,): second less first."""
        return differences(*self.values)

    @property
    def sign(self) -> int:
        """1 where higher is better, -1 where lower is."""
        return 1 if self.measure.better == "higher" else -1

    @property
    def wins(self) -> int:
        """The cases in which the second is better."""
        return self.paired.above if self.sign > 0 else self.paired.below

    @property
    def losses(self) -> int:
        """The cases in which the first is better."""
        return self.paired.below if self.sign > 0 else self.paired.above

    @property
    def rank_biserial(self) -> float:
        """Above 0 where the second is better."""
        return self.sign * self.paired.rank_biserial

    @property
    def dz(self) -> float:
        """Above 0 where the second is better."""
        return self.sign * self.paired.dz

    @property
    def claimed(self) -> bool:
        """Whether a difference is claimed."""
        return self.p_holm <= ALPHA

    @property
    def verdict(self) -> Verdict:
        """What is claimed of the second; «differs» where the ranks and the mean point to different sides."""
        if not self.claimed:
            return ""
        if self.paired.rank_biserial * self.paired.mean <= 0:
            return "differs"
        return "better" if self.rank_biserial > 0 else "worse"

    def differ_most(self, most: int) -> list[tuple[str, float, float]]:
        """The cases of the largest differences with both scores, the largest first; none that are equal."""
        sizes = np.abs(self.differences)
        order = np.argsort(-sizes, kind="stable")[:most]
        return [(self.cases[i], *map(float, self.values[:, i])) for i in order if sizes[i] > 0]


@dataclass(frozen=True, eq=False)
class Comparison:
    """What was compared, and what was found.

    Attributes:
        compared: what each scored; the first is the one that the others are compared with, unless ``asked.all_pairs``.
        cases: those that all have.
        contrasts: by pair, metric and label.
        asked: the options.
        notes: what a reader must know, a sentence each.
    """

    compared: tuple[ScoreTable, ...]
    cases: tuple[str, ...]
    contrasts: tuple[Contrast, ...]
    asked: Asked
    notes: tuple[str, ...]

    @cached_property
    def made(self) -> int:
        """How many comparisons could be made, which the p values are corrected for."""
        return sum(not math.isnan(c.paired.p) for c in self.contrasts)


def compare(compared: Sequence[ScoreTable], asked: Asked | None = None) -> Comparison:
    """Compares what two or more models scored.

    Args:
        compared: of different names.
        asked: the options.

    Raises:
        MedsegError: for fewer than two, a metric or label that one does not have, or scores that cannot be compared:
            other cases, references or settings, or no case that is defined in both.
    """
    asked = asked or Asked()
    if len(compared) < 2:
        raise MedsegError("a comparison needs two or more: only one is given")
    measures, labels = common_measures(compared, asked.metrics), common_labels(compared, asked.labels)
    cases, left_out = common_cases(compared, asked.common_cases)
    pairs = [pair for pair in itertools.combinations(compared, 2) if asked.all_pairs or pair[0] is compared[0]]
    check_settings(pairs, measures, labels)
    notes = [*left_out, *check_references(pairs, cases, labels, asked.different_references)]
    matched = [m for pair in pairs for measure in measures for m in _matched(pair, measure, labels, cases, asked)]
    contrasts = _contrasts(matched, cases, asked)
    if not any(c.paired.n for c in contrasts):
        names = ", ".join(measure.column for measure in measures)
        raise MedsegError(
            f"nothing can be compared: {names} is undefined in one or the other in each of {len(cases)} cases"
        )
    return Comparison(tuple(compared), cases, contrasts, asked, (*notes, *_warnings(compared, cases, contrasts)))


@dataclass(frozen=True, eq=False)
class _Matched:
    """What two scored for one metric and label: values (2, cases), NaN where one is undefined in either."""

    pair: tuple[ScoreTable, ScoreTable]
    measure: Measure
    label: str
    values: NDArray[np.float64]

    @property
    def defined(self) -> NDArray[np.bool_]:
        return np.asarray(np.isfinite(self.values).all(axis=0))


def _matched(
    pair: tuple[ScoreTable, ScoreTable], measure: Measure, labels: Sequence[str], cases: Sequence[str], asked: Asked
) -> list[_Matched]:
    """One for each label, or one for all; one for a metric of whole cases."""
    whole = (measure.column, WHOLE) in pair[0].values
    names = [WHOLE] if whole else list(labels)
    values = [np.array([_values(scores, measure, name, cases) for scores in pair]) for name in names]
    if not whole and asked.over_labels:
        names, values = [MEAN], [_mean(values)]
    return [_Matched(pair, measure, name, table) for name, table in zip(names, values, strict=True)]


def _values(scores: ScoreTable, measure: Measure, label: str, cases: Sequence[str]) -> list[float]:
    """Of each case; of a signed metric, whose best is 0, the magnitudes."""
    found = scores.values.get((measure.column, label), {})
    values = [found.get(case, math.nan) for case in cases]
    return [abs(value) for value in values] if measure.better == "zero" else values


def _mean(tables: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """(2, cases): the mean over labels, of each case those that are defined in both."""
    stacked = np.stack(tables)
    defined = np.isfinite(stacked).all(axis=1, keepdims=True)
    number = defined.sum(axis=0)
    total = np.where(defined, stacked, 0).sum(axis=0)
    return np.where(number > 0, total / np.maximum(number, 1), np.nan)


def _contrasts(matched: Sequence[_Matched], cases: Sequence[str], asked: Asked) -> tuple[Contrast, ...]:
    """The statistics of all, corrected together."""
    values = [m.values[:, m.defined] for m in matched]
    found = paired([differences(*both) for both in values], asked.seed, asked.resamples)
    corrected = holm([one.p for one in found])
    return tuple(
        Contrast(
            m.pair[0].name,
            m.pair[1].name,
            m.measure,
            m.label,
            tuple(case for case, there in zip(cases, m.defined, strict=True) if there),
            both,
            len(cases) - both.shape[1],
            one,
            p,
        )
        for m, both, one, p in zip(matched, values, found, corrected, strict=True)
    )


def _warnings(compared: Sequence[ScoreTable], cases: Sequence[str], contrasts: Sequence[Contrast]) -> Iterator[str]:
    """What a reader must know of the cases and of what they can show."""
    for scores in compared:
        if missing := [case for case in scores.missing if case in cases]:
            yield f"{scores.name} has no prediction of {len(missing)} cases, which are scored worst: {some(missing)}"
        if scores.run is not None:
            step = "" if scores.step is None else f" (step {scores.step})"
            yield f"{scores.name} is a run: its weights{step} were chosen by their Dice on these very cases"
    fewer = [c for c in contrasts if c.undefined]
    if fewer:
        most = max(c.undefined for c in fewer)
        yield f"{len(fewer)} comparisons leave out up to {most} of {len(cases)} cases, undefined in one of the two"
    yield from _powerless(contrasts)


def _powerless(contrasts: Sequence[Contrast]) -> Iterator[str]:
    """Says where no scores whatever could have led to a claim."""
    made = [c for c in contrasts if not math.isnan(c.paired.p)]
    best = min(made, key=lambda c: c.paired.least_p)
    differ = best.wins + best.losses
    least = best.paired.least_p * len(made)
    if best.paired.least_p > ALPHA:
        yield (
            f"no difference can be claimed: of {best.paired.n} cases {differ} differ, and the test needs 6 that do "
            f"(the smallest p that it can reach is {best.paired.least_p:.3g})"
        )
    elif least > ALPHA:
        yield (
            f"no difference can be claimed: {len(made)} comparisons of {differ} cases that differ reach a corrected p "
            f"of {least:.3g} at the least; compare fewer metrics or labels, or more cases"
        )
