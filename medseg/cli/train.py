"""``medseg train`` and ``medseg schema``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Optional

import typer

from medseg.errors import MedsegError


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
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
) -> None:
    """Train an experiment; the last line printed is the model's folder."""
    from medseg.experiment import Experiment

    keys = list(overrides or ())
    if config is not None and "=" in str(config) and not config.exists():
        config, keys = None, [str(config), *keys]
    if resume is not None:
        folder = _resumed(resume, output)
        config = config or folder / "experiment.yaml"
    elif config is None:
        raise MedsegError("no CONFIG is given: write medseg train configs/unet_valid.yaml, or --resume FOLDER")
    experiment = Experiment.load(config, keys)

    from medseg.inference.device import find_device
    from medseg.study import prepare_folder
    from medseg.study import train as train_study

    if resume is None:
        folder = output or _new_folder(experiment.name)
        prepare_folder(folder, overwrite)
    package, fitted = train_study(experiment, folder, find_device(device), resume is not None)
    account = f"{fitted.steps} steps in {fitted.seconds:.0f} s (stopped: {fitted.reason})"
    print(f"{account}; best validation Dice {fitted.best:.4f}", file=sys.stderr)
    print(f"model: {package}")


def schema() -> None:
    """Print the JSON Schema of experiments, for editors."""
    import json

    from medseg.experiment import Experiment

    print(json.dumps(Experiment.json_schema(), indent=2))


def _resumed(resume: Path, output: Path | None) -> Path:
    if output is not None and output.resolve() != resume.resolve():
        raise MedsegError(f"--resume {resume} and -o {output} name two folders: a resumed run stays in its own")
    if not (resume / "experiment.yaml").is_file():
        raise MedsegError(f"{resume} holds no experiment.yaml: it is no run's folder, so there is nothing to resume")
    return resume


def _new_folder(name: str) -> Path:
    from datetime import datetime

    return Path("runs") / f"{name}-{datetime.now():%Y%m%d-%H%M%S}"
