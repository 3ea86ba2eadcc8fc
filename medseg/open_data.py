"""A data set as an experiment sees it: found, checked, divided, and on the model's grid.

PyTorch is loaded for training alone: preparing goes on without it, and starts sooner.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from medseg.data_section import expected_of, find_data, labels_of, learned_labels, told
from medseg.data_split import check_split, split_of
from medseg.datasets.cases import Case, digest, natural_key
from medseg.datasets.check import open_case_label, open_image
from medseg.datasets.checks.finding import Expected
from medseg.datasets.checks.report import Report
from medseg.datasets.checks.run import check_dataset, used_only
from medseg.datasets.fingerprint import Fingerprint
from medseg.datasets.labels import Labels
from medseg.datasets.layouts import DataSet
from medseg.datasets.split import Split
from medseg.experiment import Experiment
from medseg.preparing.fitting import fitted
from medseg.preparing.request import Request, requests_of
from medseg.scans.preprocessing import Preprocessing

if TYPE_CHECKING:
    from medseg.preparing.training_cases import When
    from medseg.training.samples import TrainingCase
    from medseg.training.validation import ValidationCase


@dataclass(frozen=True)
class OpenData:
    """A data set as an experiment sees it.

    Attributes:
        found: as it lies on the disk.
        labels: the config's, else the data set's.
        cases: every labelled case.
        split: theirs.
        preprocessing: fitted to the training scans.
        fingerprint: of the training images.
    """

    found: DataSet
    labels: Labels
    cases: dict[str, Case]
    split: Split
    preprocessing: Preprocessing
    fingerprint: Fingerprint | None = None

    @classmethod
    def open(cls, experiment: Experiment, split: Split | None = None) -> OpenData:
        """Finds, checks and divides the cases; a phantom is made on first use.

        Args:
            experiment: whose data section is meant.
            split: how an earlier start divided the cases; None divides them as the section says.

        Raises:
            MedsegError: for the first file or key that is wrong.
        """
        data = experiment.data
        found = find_data(data)
        data = told(data, found)
        labels = labels_of(data, found.info, found.root)
        cases = found.labelled()
        split = (
            split_of(data, experiment.seed, found, cases, labels)
            if split is None
            else check_split(split, cases, "the run's split.json")
        )
        report = _check(found, expected_of(experiment, labels), split)
        preprocessing = fitted(experiment.preprocessing, _in_order(cases, split.train))
        fingerprint = Fingerprint.of(case for case in report.cases if case.name in set(split.train))
        return cls(found, learned_labels(data, labels), cases, split, preprocessing, fingerprint)

    @property
    def name(self) -> str:
        """The data set's own name, or its folder's."""
        return self.found.name

    @property
    def channels(self) -> int:
        """Channels of the images."""
        return open_image(self.cases[self.split.train[0]]).channels

    @cached_property
    def digest(self) -> str:
        """Of names and contents of the cases that are used."""
        return digest([self.cases[name] for name in (*self.split.train, *self.split.validation)])

    def training(self, cache: int, when: When = "auto") -> list[TrainingCase]:
        """The training cases on the model's grid: in memory as far as ``cache`` bytes go, prepared beyond."""
        from medseg.preparing.training_cases import training_cases

        return training_cases(self.requests(), cache, when)

    def requests(self) -> list[Request]:
        """What is to be prepared of the training cases."""
        return requests_of(_in_order(self.cases, self.split.train), self.preprocessing, self.labels, self.digest)

    def validation(self) -> list[ValidationCase]:
        """The validation cases as their files are."""
        from medseg.training.validation import ValidationCase

        cases = _in_order(self.cases, self.split.validation)
        return [ValidationCase(case.name, open_image(case), open_case_label(case)) for case in cases]


def _in_order(cases: Mapping[str, Case], names: Iterable[str]) -> list[Case]:
    """Cases in the order of their files' names, which no salt changes, so that every user draws the same samples."""
    return sorted((cases[name] for name in names), key=lambda case: natural_key(case.stem or case.name))


def _check(found: DataSet, expected: Expected, split: Split) -> Report:
    """Refuses cases that are not fit, test cases included, since a copy of one must not be trained on; tells the rest.

    Returns:
        what was found.

    Raises:
        MedsegError: with the first error and the number of them.
    """
    parts = split.parts
    used = used_only(found, [name for names in parts.values() for name in names])
    report = check_dataset(used, expected, {"the split": parts})
    report.refuse(f"medseg check {found.path} lists them all")
    for line in report.lines():
        print(f"{found.name}: {line}", file=sys.stderr)
    return report
