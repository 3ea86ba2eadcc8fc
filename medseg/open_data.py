"""A data set as an experiment sees it: found, checked, divided, and on the model's grid."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import cached_property

from medseg.data_section import expected_of, find_data, labels_of
from medseg.datasets.cases import Case, digest
from medseg.datasets.check import open_image, open_label
from medseg.datasets.checks.finding import Expected
from medseg.datasets.checks.run import check_dataset, used_only
from medseg.datasets.labels import Labels
from medseg.datasets.layouts import DataSet
from medseg.datasets.split import Split, make_split
from medseg.errors import ConfigError
from medseg.experiment import Experiment
from medseg.scans.preprocessing import Preprocessing
from medseg.scans.scan import Scan
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
    """

    found: DataSet
    labels: Labels
    cases: dict[str, Case]
    split: Split
    preprocessing: Preprocessing

    @classmethod
    def open(cls, experiment: Experiment) -> OpenData:
        """Finds, checks and divides the cases; a phantom is made on first use.

        Raises:
            MedsegError: for the first file or key that is wrong.
        """
        data = experiment.data
        found = find_data(data)
        labels = labels_of(data, found.info, found.root)
        cases = found.labelled()
        split = make_split(
            cases.values(), validation=data.validation, test=data.test, train=data.train, seed=experiment.seed
        )
        _check(found, expected_of(experiment, labels), split)
        training = [experiment.preprocessing.grid(open_image(cases[n])) for n in split.train]
        normalize = experiment.preprocessing.normalize.fitted(training)
        fitted = experiment.preprocessing.model_copy(update={"normalize": normalize})
        return cls(found, labels, cases, split, fitted)

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

    def training(self, cache: int) -> list[TrainingCase]:
        """The training cases on the model's grid, in memory as far as ``cache`` bytes go."""
        opened = []
        for name in self.split.train:
            case = TrainingCase(
                name, self.preprocessing.view(self._image(name)), self.preprocessing.grid(self._label(name), "nearest")
            )
            if case.nbytes <= cache:
                cache -= case.nbytes
                case = case.cached()
            opened.append(case)
        return opened

    def validation(self) -> list[ValidationCase]:
        """The validation cases as their files are."""
        return [ValidationCase(n, self._image(n), self._label(n)) for n in self.split.validation]

    def _image(self, name: str) -> Scan:
        return open_image(self.cases[name])

    def _label(self, name: str) -> Scan:
        label = self.cases[name].label
        if label is None:
            raise ConfigError(f"case {name} has no label in {self.found.root}")
        return open_label(label)


def _check(found: DataSet, expected: Expected, split: Split) -> None:
    """Refuses cases that are not fit, test cases included, since a copy of one must not be trained on; tells the rest.

    Raises:
        MedsegError: with the first error and the number of them.
    """
    parts = split.to_dict()
    used = used_only(found, [name for names in parts.values() for name in names])
    report = check_dataset(used, expected, {"the split": parts})
    report.refuse(f"medseg check {found.path} lists them all")
    for line in report.lines():
        print(f"{found.name}: {line}", file=sys.stderr)
