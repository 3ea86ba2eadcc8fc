"""Delivering what runs have kept for a store that did not take it while they ran."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from medseg.errors import MedsegError
from medseg.tracking.courier import Courier
from medseg.tracking.history import History
from medseg.tracking.spool import Spool, spools_under
from medseg.tracking.store import Store, Unreachable, reason_of


@dataclass(frozen=True)
class Synced:
    """What became of one run.

    Attributes:
        folder: the run's.
        store: where it was to go, as it may be shown.
        run_id: its id there; None where it has none.
        values: params, tags and points that were delivered now.
        files: files and folders that were delivered now.
        notes: that the store had the run no more, what it refuses, and files that are gone.
        why: why some of it still waits; empty where nothing does.
    """

    folder: Path
    store: str
    run_id: str | None
    values: int = 0
    files: int = 0
    notes: tuple[str, ...] = ()
    why: str = ""


def sync(folders: Sequence[Path], store: str | None = None) -> Iterator[Synced]:
    """Delivers what the runs in folders, at any depth, have kept; a second time nothing is left to deliver.

    Each store is asked for its runs: one that has a run no more, since it was made anew, gets all of it once more.
    A run that nobody is working on and that never ended was killed, and is shown so.

    Args:
        folders: runs' folders, or folders of these.
        store: where all of it goes; None for the store that each run was begun with.

    Raises:
        MedsegError: for a folder that is missing or keeps no run, or a store of no kind that is known.
    """
    silent: dict[str, Unreachable] = {}
    for spool in _spools(folders):
        place = Store.resolve(store or spool.begin["store"])
        try:
            if place.shown in silent:
                raise silent[place.shown]
            yield _deliver(spool, place)
        except Unreachable as problem:
            silent[place.shown] = problem
            yield Synced(spool.run_folder, place.shown, None, why=str(problem))
        except MedsegError as problem:
            yield Synced(spool.run_folder, place.shown, None, why=str(problem))


def _spools(folders: Sequence[Path]) -> list[Spool]:
    found: dict[Path, Spool] = {}
    for folder in folders:
        if not folder.is_dir():
            raise MedsegError(f"{folder} is no folder: give a run's folder, or one with runs in it")
        spools = spools_under(folder)
        if not spools:
            raise MedsegError(f"{folder} keeps no run: its folder, or one within it, would hold tracking/log.jsonl")
        found |= {spool.run_folder.resolve(): spool for spool in spools}
    return sorted(found.values(), key=lambda spool: spool.begin.get("parent") is not None)


def _deliver(spool: Spool, store: Store) -> Synced:
    courier = Courier(spool, store)
    with spool.held():
        _end(spool)
        courier.place()
        why = ""
        try:
            courier.values()
            courier.files()
        except Exception as problem:  # whatever MLflow raises: the next run is tried in any case
            why = f"the tracking store {store.shown} stopped taking it ({reason_of(problem)})"
    notes = (
        *(["the store had the run no more, so all of it is delivered anew"] if courier.anew else []),
        *(f"refused: {what}" for what in courier.refused),
        *(f"gone: {name}" for name in courier.gone),
    )
    return Synced(spool.run_folder, store.shown, courier.run_id, **courier.sent, notes=notes, why=why)


def _end(spool: Spool) -> None:
    """Says of a run that was killed that it was, when its log ends."""
    if History.of(spool).status is None:
        last = max(record["time"] for record, _ in spool.records())
        spool.append("status", time=last, status="KILLED")
