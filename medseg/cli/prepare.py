"""``medseg prepare``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Optional

import typer


def prepare(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="The experiment's YAML.")],
    overrides: Annotated[
        Optional[list[str]], typer.Argument(metavar="[KEY=VALUE]...", help="Keys laid over it: data.root=FOLDER")
    ] = None,
    workers: Annotated[int, typer.Option(min=0, help="Processes; 0 is one for each processor that may be used.")] = 0,
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare what is there with its checksums; damaged cases are made anew.")
    ] = False,
) -> None:
    """Put the training cases on the model's grid once, so that training reads the chunks of its patches."""
    from medseg.experiment import Experiment
    from medseg.open_data import OpenData
    from medseg.preparing.progress import PreparingBar
    from medseg.preparing.record import prepared_folder
    from medseg.preparing.run import account
    from medseg.preparing.run import prepare as prepare_cases

    requests = OpenData.open(Experiment.load(config, list(overrides or ()))).requests()
    with PreparingBar() as bar:
        done = prepare_cases(requests, workers, bar, verify)
    print(account(done), file=sys.stderr)
    print(f"prepared: {prepared_folder()}")
