"""``medseg sync``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

if TYPE_CHECKING:
    from medseg.tracking.sync import Synced

SOME_WAIT = 3


def sync(
    folders: Annotated[
        list[Path], typer.Argument(metavar="RUN_OR_DIR...", help="Runs' folders, or folders with runs in them.")
    ],
    store: Annotated[
        Optional[str], typer.Option(help="MLflow's store, where it is not the one that the run was begun with.")
    ] = None,
) -> None:
    """Bring to MLflow what runs have kept while it did not answer; what it has already is not doubled."""
    from medseg.tracking.sync import sync as sync_runs

    found = []
    for one in sync_runs(folders, store):
        found.append(one)
        _tell(one)
    waiting = sum(bool(one.why) for one in found)
    if waiting:
        print(f"{waiting} of {len(found)} runs wait for another medseg sync", file=sys.stderr)
        raise typer.Exit(SOME_WAIT)


def _tell(one: Synced) -> None:
    sent = f"{one.values} values and {one.files} files" if one.values or one.files else "nothing left to deliver"
    if one.values or one.files or not one.why:
        print(f"{one.folder}: {sent}, run {one.run_id} of {one.store}")
    for line in (*one.notes, *([f"waits: {one.why}"] if one.why else [])):
        print(f"{one.folder}: {line}", file=sys.stderr)
