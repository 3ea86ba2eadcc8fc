"""``medseg train`` and ``medseg schema``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from medseg.cli.case_names import CASE_NAMES, CaseNames
from medseg.errors import MedsegError
from medseg.files import absent

if TYPE_CHECKING:
    from medseg.experiment import Experiment


def train(
    config: Annotated[Optional[Path], typer.Argument(metavar="CONFIG", help="The experiment's YAML.")] = None,
    overrides: Annotated[
        Optional[list[str]], typer.Argument(metavar="[KEY=VALUE]...", help="Keys laid over it: training.max_steps=500")
    ] = None,
    output: Annotated[
        Optional[Path], typer.Option("-o", "--output", help="The run's folder; runs/NAME-TIME if not given.")
    ] = None,
    resume: Annotated[Optional[Path], typer.Option(help="Go on with the run in this folder.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a run that the folder holds.")] = False,
    case_names: Annotated[Optional[CaseNames], typer.Option(help=CASE_NAMES)] = None,
    fold: Annotated[
        Optional[str],
        typer.Option(metavar="K|all", help="Hold out fold K, from 0, and train on the others; or all folds in turn."),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
) -> None:
    """Train an experiment; the last line printed is the model's folder, or that of all folds."""
    from medseg.experiment import Experiment

    keys = list(overrides or ())
    if config is not None and "=" in str(config) and not config.exists():
        config, keys = None, [str(config), *keys]
    if resume is not None:
        resume = _resumed(resume, output)
        config = config or resume / "experiment.yaml"
    elif config is None:
        raise MedsegError("no CONFIG is given: write medseg train configs/unet_valid.yaml, or --resume FOLDER")
    if case_names is not None:
        keys.append(f"data.case_names={case_names.value}")
    every = _every(fold, resume)
    if fold is not None and not every:
        keys.append(f"data.fold={fold}")
    experiment = Experiment.load(config, keys)
    folder = resume or output or _new_folder(experiment.name)
    train_what = _train_folds if every else _train
    train_what(experiment, folder, device, resume, overwrite)


def _train(experiment: Experiment, folder: Path, device: str, resume: Path | None, overwrite: bool) -> None:
    from medseg.inference.device import find_device
    from medseg.study import prepare_folder
    from medseg.study import train as train_study

    if resume is None:
        prepare_folder(folder, overwrite)
    package, fitted = train_study(experiment, folder, find_device(device), resume is not None)
    account = f"{fitted.steps} steps in {fitted.seconds:.0f} s (stopped: {fitted.reason})"
    print(f"{account}; best validation Dice {fitted.best:.4f}", file=sys.stderr)
    print(f"model: {package}")


def _train_folds(experiment: Experiment, folder: Path, device: str, resume: Path | None, overwrite: bool) -> None:
    from medseg.cross_validation import cross_validate, prepare_folder
    from medseg.inference.device import find_device

    if resume is None:
        prepare_folder(folder, overwrite)
    done = cross_validate(experiment, folder, find_device(device), resume is not None)
    print("\n".join(done.lines()), file=sys.stderr)
    print(f"report: {done.pooled.page}", file=sys.stderr)
    print(f"models: {folder}")


def _every(fold: str | None, resume: Path | None) -> bool:
    """Whether all folds are meant: it is said, or the run that is gone on with has all of them.

    Raises:
        MedsegError: for a word that is no fold, or another than the run's.
    """
    from medseg.fold_runs import FoldRuns

    if fold is not None and fold != "all" and not fold.isdigit():
        raise MedsegError(f"--fold {fold}: give the number of a fold, from 0, or all")
    if resume is None:
        return fold == "all"
    if fold is not None and FoldRuns.are_in(resume) != (fold == "all"):
        raise MedsegError(f"--fold {fold} is not what {resume} was begun with: leave --fold out to go on with it")
    return FoldRuns.are_in(resume)


def schema() -> None:
    """Print the JSON Schema of experiments, for editors."""
    import json

    from medseg.experiment import Experiment

    print(json.dumps(Experiment.json_schema(), indent=2))


def _resumed(resume: Path, output: Path | None) -> Path:
    if output is not None and output.resolve() != resume.resolve():
        raise MedsegError(f"--resume {resume} and -o {output} name two folders: a resumed run stays in its own")
    if not resume.exists():
        raise MedsegError(absent(resume, folders=True))
    if not (resume / "experiment.yaml").is_file():
        raise MedsegError(f"{resume} holds no experiment.yaml: it is no run's folder, so there is nothing to resume")
    return resume


def _new_folder(name: str) -> Path:
    from datetime import datetime

    return Path("runs") / f"{name}-{datetime.now():%Y%m%d-%H%M%S}"
