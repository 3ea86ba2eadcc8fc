"""The folder of a cross-validated run: which folds it has, and which of them are done.

runs/NAME-TIME/
  split.json               the folds, and the test cases
  experiment.yaml          the experiment, resolved
  cross_validation.json    how many folds there are, and how each that is done ended
  fold0/ fold1/ ...        each a run's folder
  validation/              the pooled scores of all cases, and report.html
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from medseg.errors import PackageError, some
from medseg.files import read_json, write_json

RECORD = "cross_validation.json"


@dataclass(frozen=True)
class FoldRuns:
    """A cross-validated run.

    Attributes:
        folder: the run's.
        count: folds in all.
        done: how each that is done ended, by its number: steps, best, reason, seconds.
    """

    folder: Path
    count: int
    done: Mapping[int, Mapping[str, Any]]

    @classmethod
    def read(cls, folder: Path) -> FoldRuns:
        """What a folder's record says.

        Raises:
            PackageError: where there is none, or it is damaged.
        """
        path = folder / RECORD
        content = read_json(path, "the record of a cross-validated run", PackageError)
        try:
            return cls(folder, int(content["folds"]), {int(k): dict(v) for k, v in content["done"].items()})
        except (KeyError, TypeError, ValueError, AttributeError):
            raise PackageError(f"{path} is no record of a cross-validated run: its keys are folds and done") from None

    @staticmethod
    def are_in(folder: Path) -> bool:
        """Whether a folder is a cross-validated run's."""
        return (folder / RECORD).is_file()

    @classmethod
    def clear(cls, folder: Path) -> None:
        """Takes away what a cross-validated run left in a folder that another run is to take, if one did.

        Raises:
            PackageError: where its record is damaged.
        """
        if cls.are_in(folder):
            runs = cls.read(folder)
            for place in map(runs.place, range(runs.count)):
                shutil.rmtree(place, ignore_errors=True)
            (folder / RECORD).unlink()

    def place(self, fold: int) -> Path:
        """A fold's run folder."""
        return self.folder / f"fold{fold}"

    @property
    def left(self) -> list[int]:
        """The folds that are not done."""
        return [fold for fold in range(self.count) if fold not in self.done]

    def write(self) -> None:
        """Puts the record down, whole or not at all."""
        done = {str(fold): dict(how) for fold, how in sorted(self.done.items())}
        write_json(self.folder / RECORD, {"folds": self.count, "done": done})

    def with_done(self, fold: int, **how: Any) -> FoldRuns:
        """The record once a fold is done, which is put down."""
        record = replace(self, done={**self.done, fold: how})
        record.write()
        return record

    def check_done(self) -> None:
        """Refuses a run that is not done.

        Raises:
            PackageError: with the folds that are left.
        """
        if self.left:
            ready = " ".join(f"-m {self.place(fold)}" for fold in sorted(self.done)[:2])
            raise PackageError(
                f"{self.folder} is unfinished: fold {some(map(str, self.left))} of {self.count} is left; go on with "
                f"medseg train --resume {self.folder}"
                + (f", or name the folds that are done: {ready}" if ready else "")
            )


def models_of(paths: Sequence[Path]) -> list[Path]:
    """Each model, the folds of a cross-validated run in its place.

    Raises:
        PackageError: for a cross-validated run that is not done.
    """
    found: list[Path] = []
    for path in paths:
        if FoldRuns.are_in(path):
            runs = FoldRuns.read(path)
            runs.check_done()
            found += [runs.place(fold) for fold in range(runs.count)]
        else:
            found.append(path)
    return found
