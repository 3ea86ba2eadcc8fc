"""All folds of an experiment, one after the other, and what they say together.

Each fold is a run of its own, in a folder of its own (:mod:`medseg.fold_runs`), with the weights that it would have if
it were trained alone. At the end every case has been predicted by the one model that did not learn from it, and all of
them are scored as one set.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from medseg.data_section import find_data, labels_of, told
from medseg.data_split import folds_of
from medseg.datasets.case_names import files_by_case, write_map
from medseg.datasets.split import SPLIT, Folds, read_folds
from medseg.evaluation.made_by import VALIDATION
from medseg.evaluation.report import JSON, Spread
from medseg.experiment import CONFIG, Experiment
from medseg.files import write_json, write_text
from medseg.fold_runs import FoldRuns
from medseg.held_out import HeldOut
from medseg.inference.model import Model
from medseg.package import find_package, read_card
from medseg.study import prepare_folder as prepare_run
from medseg.study import start_run, train
from medseg.tracking.describe import describe, question_of
from medseg.tracking.review import Review, review
from medseg.tracking.run import Run


@dataclass(frozen=True)
class CrossValidated:
    """A cross-validation that is done.

    Attributes:
        runs: the folds' runs.
        pooled: what all cases scored together.
    """

    runs: FoldRuns
    pooled: Review

    def lines(self) -> list[str]:
        """For people: each fold, then all cases together."""
        found = [
            f"fold {fold}: {how['steps']} steps in {how['seconds']:.0f} s (stopped: {how['reason']}); best validation "
            f"Dice {how['best']:.4f}"
            for fold, how in sorted(self.runs.done.items())
        ]
        number = f"all {len(self.pooled.report.cases)} cases"
        summary = self.pooled.report.summary()
        return found + [f"{number}, {label}: Dice {_told(columns['dice'])}" for label, columns in summary.items()]


def _told(spread: Spread) -> str:
    return f"{spread.mean:.4f} (SD {spread.sd:.4f}, median {spread.median:.4f})"


def cross_validate(experiment: Experiment, folder: Path, device: torch.device, resume: bool = False) -> CrossValidated:
    """Trains all folds in a run's folder and pools what they predict.

    Args:
        experiment: what is trained; its ``data.fold`` does not count.
        folder: the run's; see :func:`prepare_folder`.
        device: where networks run.
        resume: go on with the fold at which an earlier start stopped, with the folds that it had.

    Raises:
        MedsegError: for data, keys or a checkpoint that are wrong.
        KeyboardInterrupt: on Ctrl-C; the folder can be resumed.
    """
    experiment, name, targets, folds = _opened(experiment, folder, resume)
    runs = FoldRuns.read(folder) if resume and FoldRuns.are_in(folder) else FoldRuns(folder, len(folds.folds), {})
    runs.write()
    tags = {"medseg.kind": "cross-validation", "device": str(device), "fold": "all"}
    with start_run(experiment, question_of(name, targets), folder, resume, tags) as run:
        for fold in runs.left:
            print(f"fold {fold} of {runs.count}: {len(folds.folds[fold])} cases are held out", file=sys.stderr)
            runs = _train_fold(experiment, runs, folds, fold, device, run)
        _complete(experiment, runs, folds, device)
        about = {
            "data set": name,
            "network": experiment.network.name,
            "folds": f"{' + '.join(str(len(names)) for names in folds.folds)} cases",
            "each case": "predicted by the model that did not learn from it",
            "best validation Dice of each fold": ", ".join(f"{runs.done[n]['best']:.4f}" for n in sorted(runs.done)),
        }
        held_out = HeldOut.of(folder)
        done = CrossValidated(runs, held_out.write(held_out.score(), folder / VALIDATION, folder.name, about))
        _log(run, done, about)
    return done


def prepare_folder(folder: Path, overwrite: bool) -> None:
    """Makes the folder of a cross-validated run; one that is replaced leaves no model behind.

    Raises:
        OutputError: where it holds a run already and is not to be overwritten.
    """
    prepare_run(folder, overwrite)
    shutil.rmtree(folder / "model", ignore_errors=True)


def _opened(experiment: Experiment, folder: Path, resume: bool) -> tuple[Experiment, str, list[str], Folds]:
    """The experiment as the folder keeps it, the data set's name, what is segmented, and the folds, written down."""
    found = find_data(experiment.data)
    data = told(experiment.data, found).model_copy(update={"fold": None})
    labels = labels_of(data, found.info, found.root)
    if resume and (folder / SPLIT).is_file():
        folds = read_folds(folder / SPLIT)
    else:
        folds = folds_of(data, experiment.seed, found, found.labelled(), labels)
    experiment = experiment.model_copy(update={"data": data})
    write_text(folder / CONFIG, experiment.to_yaml())
    write_json(folder / SPLIT, folds.to_dict())
    write_map(folder, files_by_case(found))
    return experiment, found.name, list(labels.targets), folds


def _train_fold(
    experiment: Experiment, runs: FoldRuns, folds: Folds, fold: int, device: torch.device, parent: Run
) -> FoldRuns:
    """Trains one fold, or goes on with it."""
    place = runs.place(fold)
    begun = (place / "last.ckpt").is_file()
    place.mkdir(exist_ok=True)
    data = experiment.data.model_copy(update={"fold": fold})
    own = experiment.model_copy(update={"data": data})
    _, fitted = train(own, place, device, begun, split=folds.split(fold), parent=parent.name)
    how = {"steps": fitted.steps, "best": fitted.best, "reason": fitted.reason, "seconds": fitted.seconds}
    return runs.with_done(fold, **how)


def _complete(experiment: Experiment, runs: FoldRuns, folds: Folds, device: torch.device) -> None:
    """Has each fold's model predict its cases where that was not done, as where no review was asked for."""
    lacking = [fold for fold in range(runs.count) if not (runs.place(fold) / VALIDATION / JSON).is_file()]
    if not lacking:
        return
    cases = {case.name: case for case in find_data(experiment.data).cases}
    for fold in lacking:
        place = runs.place(fold)
        review(Model.load(place, device), [cases[name] for name in folds.folds[fold]], place, place.name, {})


def _log(run: Run, done: CrossValidated, about: Mapping[str, str]) -> None:
    """Logs the pooled scores as a single run logs its own, and a table of the folds."""
    folds = sorted(done.runs.done.items())
    training = read_card(find_package(done.runs.place(0))).training
    run.dataset(training["dataset"], training["dataset_digest"], training["dataset"])
    run.table("folds", [{"fold": fold, **how} for fold, how in folds])
    places = done.pooled.log(run)
    run.description(describe(done.pooled.report, about, places, done.pooled.page.name))
