"""Which cases to look at: the worst, those in the middle, and the best."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice

from medseg.evaluation.case import CaseResult
from medseg.evaluation.catalogue import METRICS
from medseg.evaluation.report import Report, Spread

FIRST = "dice"
"""By which cases are ranked, where it was computed; else by the first column."""


@dataclass(frozen=True)
class Ranked:
    """A case in the order from worst to best.

    Attributes:
        name: the case's.
        place: from 0, the worst.
        of: how many are ranked.
        score: the mean over the labels; NaN where it is undefined.
    """

    name: str
    place: int
    of: int
    score: float

    @property
    def notable(self) -> str | None:
        """«worst», «median» or «best», of which one case can be several and is the first; None for the others."""
        return {self.of - 1: "best", (self.of - 1) // 2: "median", 0: "worst"}.get(self.place)

    @property
    def word(self) -> str:
        """«worst», «median», «best», or the place in words."""
        return self.notable or f"{self.place + 1} of {self.of} from the worst"


def column_of(report: Report) -> str:
    """The column that cases are ranked by."""
    return FIRST if FIRST in report.averaged else report.averaged[0]


def ranked(report: Report) -> list[Ranked]:
    """Every case, the worst first: those without a prediction, then by the mean over labels; ties by name's order."""
    column = column_of(report)
    scores = [
        (case, Spread.of(label.get(column, math.nan) for label in case.values.values()).mean) for case in report.cases
    ]
    scores.sort(key=lambda pair: _goodness(pair[0], pair[1], column))
    return [Ranked(case.name, place, len(scores), score) for place, (case, score) in enumerate(scores)]


def chosen(cases: list[Ranked], count: int) -> list[Ranked]:
    """At most so many, the worst first: of nine the four worst, three around the median, and the two best."""
    places = dict.fromkeys(islice(_wanted(len(cases)), count))
    return [cases[place] for place in sorted(places)]


def _wanted(number: int) -> Iterator[int]:
    """Every place once, those to look at first in front."""
    middle = (number - 1) // 2
    near = ((2 * k, 2 * k + 1, number - 1 - k, middle - k, middle + k) for k in range(number))
    order = dict.fromkeys([0, number - 1, middle, *chain.from_iterable(near)])
    return (place for place in order if 0 <= place < number)


def _goodness(case: CaseResult, score: float, column: str) -> tuple[int, float]:
    if case.missing:
        return 0, 0.0
    if math.isnan(score):
        return 2, 0.0
    metric = column if column in METRICS else column.rpartition("_")[0]
    better = METRICS[metric].better
    return 1, {"higher": score, "lower": -score, "zero": -abs(score)}[better]
