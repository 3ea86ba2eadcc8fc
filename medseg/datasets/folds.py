"""Folds of a cross-validation: whole patients, each class in every fold, and little moved when patients are added.

Every patient has a home: the fold that a digest of the seed and the patient's name points to, whatever other patients
there are. From there patients are moved or exchanged, one after the other in the order of their digests, as long as
that lowers

    1. excess      by how much folds differ in size beyond the cases of the largest patient
    2. wanting     folds without a patient, and folds that lack a class which as many patients as there are folds have
    3. imbalance   how far each fold is from its share of the cases, of the cases with each class, and of how large the
                   class is there: squares of what exceeds :data:`TOLERANCE`, plus 1 for each patient not at home

in this order. What is evened is what iterative stratification evens (Sechidis, Tsoumakas and Vlahavas, «On the
stratification of multi-label data», ECML PKDD 2011, section 3); patients are not dealt out as there, since one more
would deal many others elsewhere. At the end no single move lowers anything, so sizes differ by the cases of
the largest patient at most: of two folds that differ by more, one's patient would move to the other.

Legend: P patients, and K empty ones, one a fold, with which an exchange is a move; F features; C classes; n others.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medseg.datasets.cases import natural_key
from medseg.errors import ConfigError

LEAST_FOLDS = 2
TOLERANCE = 0.1
"""A fold is even where it is this part from its share, and within one case in any case."""
LEAST_GAIN = 1e-6
MOST_OTHERS = 400
"""With so many patients at most each is compared, those who follow in the order: all of most data sets."""

Sizes = Mapping[str, float]
"""By class, how large it is in a case, in any unit; classes that it does not have may be missing."""


@dataclass(frozen=True)
class Member:
    """A case that is to be put into a fold.

    Attributes:
        name: the case's.
        patient: whom it belongs to.
        sizes: of the classes in it.
    """

    name: str
    patient: str
    sizes: Sizes


def make_folds(members: Iterable[Member], count: int, seed: int = 0) -> tuple[tuple[str, ...], ...]:
    """Divides cases into folds; the result does not depend on their order.

    Args:
        members: the cases.
        count: of folds, at least 2.
        seed: of the patients' homes.

    Returns:
        the names of each fold's cases, in natural order.

    Raises:
        ConfigError: for fewer than two folds, or more folds than patients.
    """
    cases = sorted(members, key=lambda case: case.name)
    patients = sorted({case.patient for case in cases}, key=lambda patient: _digest(seed, patient))
    if count < LEAST_FOLDS:
        raise ConfigError(f"folds: {count} is too few: a cross-validation has {LEAST_FOLDS} or more")
    if len(patients) < count:
        raise ConfigError(
            f"folds: {len(patients)} patients ({len(cases)} cases) do not fill {count} folds, since a patient's cases "
            f"stay together: give {len(patients)} folds or fewer, or more patients"
        )
    homes = np.array([int.from_bytes(_digest(seed, patient)[-8:]) % count for patient in patients])
    fold_of = dict(zip(patients, _Search(cases, patients, homes, count).run().tolist(), strict=True))
    return tuple(
        tuple(sorted((c.name for c in cases if fold_of[c.patient] == fold), key=natural_key)) for fold in range(count)
    )


def _digest(seed: int, patient: str) -> bytes:
    return hashlib.sha256(f"{seed}\0{patient}".encode()).digest()


class _Search:
    """The search for better folds. The last K rows of each table are those of the empty patients, who stay.

    Args:
        cases: of all patients.
        patients: in the order in which they are looked at.
        homes: (P,) their folds to begin with.
        count: K.
    """

    def __init__(self, cases: Sequence[Member], patients: Sequence[str], homes: NDArray[np.int64], count: int) -> None:
        self.homes, self.count = homes, count
        self.folds = np.concatenate([homes, np.arange(count)])
        place = {patient: number for number, patient in enumerate(patients)}
        owner = np.array([place[case.patient] for case in cases])
        presence, spread = _described(cases)
        columns = np.column_stack([np.ones(len(cases)), presence, spread])
        self.features = _summed(columns, owner, len(patients) + count)  # (P + K, F)
        self.cases = self.features[:, 0]
        by_class = self.features[:, 1 : 1 + presence.shape[1]] > 0
        self.has = np.column_stack([self.cases > 0, by_class[:, by_class.sum(0) >= count]]).astype(float)  # (P + K, C)
        # To lack everybody counts for more than to lack all classes, in the two folds of an exchange.
        self.weights = np.array([2.0 * self.has.shape[1], *[1.0] * (self.has.shape[1] - 1)])
        share = columns.sum(0) / count
        known = np.concatenate([[len(cases)], presence.sum(0), presence.sum(0)]) / count
        self.share, self.slack = share, np.maximum(TOLERANCE * known, 1.0)
        self.totals, self.counts = (_summed(table, self.folds, count) for table in (self.features, self.has))

    def run(self) -> NDArray[np.int64]:
        """(P,) the fold of each patient."""
        while sum(self._improve(patient) for patient in range(len(self.homes))):
            pass
        return self.folds[: len(self.homes)]

    @property
    def even(self) -> bool:
        """Whether nothing is left but to take patients home."""
        lacking = bool((self.counts == 0).any()) or bool(self._beyond(self.totals[None, :, 0]).any())
        return not lacking and not self._uneven(self.totals).any()

    def _improve(self, patient: int) -> bool:
        """Takes the best move or exchange of a patient, if there is one that helps."""
        here = int(self.folds[patient])
        if here == self.homes[patient] and self.even:
            return False
        others = self._others(patient)
        keys = (self._imbalance(patient, others), self._wanting(patient, others), self._excess(patient, others))
        best = int(np.lexsort(keys)[0])
        if [float(key[best]) for key in reversed(keys)] >= [0.0, 0.0, -LEAST_GAIN]:
            return False
        self._exchange(patient, int(others[best]))
        return True

    def _others(self, patient: int) -> NDArray[np.int64]:
        """(n,) who may be exchanged: of the other folds' patients those who follow, and the empty ones."""
        people = len(self.homes)
        following = (patient + np.arange(1, min(people, MOST_OTHERS + 1))) % people
        others = np.concatenate([following, np.arange(people, people + self.count)])
        return others[self.folds[others] != self.folds[patient]]

    def _exchange(self, patient: int, other: int) -> None:
        here, there = self.folds[patient], self.folds[other]
        for totals, table in ((self.totals, self.features), (self.counts, self.has)):
            moved = table[patient] - table[other]
            totals[here] -= moved
            totals[there] += moved
        if other < len(self.homes):
            self.folds[other] = here
        self.folds[patient] = there

    def _excess(self, patient: int, others: NDArray) -> NDArray[np.float64]:
        """(n,) the change of the excess with each exchange."""
        sizes, moved = self.totals[:, 0], self.cases[patient] - self.cases[others]
        after = np.repeat(sizes[None], len(others), 0)
        after[:, self.folds[patient]] -= moved
        after[np.arange(len(others)), self.folds[others]] += moved
        return self._beyond(after) - self._beyond(sizes[None])

    def _beyond(self, sizes: NDArray) -> NDArray[np.float64]:
        """(n, K) cases in each fold → (n,) what pairs of folds differ by beyond the largest patient."""
        differences = np.abs(sizes[:, :, None] - sizes[:, None, :])
        return np.asarray(np.maximum(differences - self.cases.max(), 0).sum((1, 2)))

    def _wanting(self, patient: int, others: NDArray) -> NDArray[np.float64]:
        """(n,) the change of what folds lack with each exchange."""
        here, there = self.counts[self.folds[patient]], self.counts[self.folds[others]]
        moved = self.has[patient] - self.has[others]
        change = 0.0 + (here == moved) - (here == 0) + (there == -moved) - (there == 0)
        return np.asarray(change @ self.weights)

    def _imbalance(self, patient: int, others: NDArray) -> NDArray[np.float64]:
        """(n,) the change of the squares, and of how many are not at home, with each exchange."""
        here, there = self.folds[patient], self.folds[others]
        mine, theirs = self.totals[here], self.totals[there]
        moved = self.features[patient] - self.features[others]
        squares = self._uneven(mine - moved) - self._uneven(mine) + self._uneven(theirs + moved) - self._uneven(theirs)
        homes = np.concatenate([self.homes, np.full(self.count, -1)])
        leaving = int(self.homes[patient] == here) + (homes[others] == there)
        returning = (self.homes[patient] == there).astype(int) + (homes[others] == here)
        return np.asarray(squares + leaving - returning)

    def _uneven(self, totals: NDArray) -> NDArray[np.float64]:
        """(*, F) of folds → (*) squares of what is beyond the tolerance."""
        return np.asarray((np.maximum(np.abs(totals - self.share) - self.slack, 0) ** 2).sum(-1))


def _summed(values: NDArray, groups: NDArray, count: int) -> NDArray[np.float64]:
    """(rows, *) → (count, *) sums of the rows of each group."""
    total = np.zeros((count, *values.shape[1:]))
    np.add.at(total, groups, values)
    return total


def _described(cases: Sequence[Member]) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """(cases, C) whether each class is there, and how large beside its other cases: the logarithm, standardised."""
    classes = sorted({name for case in cases for name, size in case.sizes.items() if size > 0})
    presence = np.array([[case.sizes.get(name, 0) > 0 for name in classes] for case in cases], bool)
    spread = np.zeros((len(cases), len(classes)))
    for column, name in enumerate(classes):
        there = presence[:, column]
        logarithms = np.array([math.log(case.sizes[name]) for case in cases if case.sizes.get(name, 0) > 0])
        deviation = float(logarithms.std())
        if deviation > LEAST_GAIN:
            spread[there, column] = (logarithms - logarithms.mean()) / deviation
    return presence.reshape(len(cases), len(classes)), spread
