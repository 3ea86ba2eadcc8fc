"""What the cache folder holds, by kind, and how it is emptied.

Everything that is listed can be made again. What is not known here is left alone.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from medseg.errors import ConfigError, MedsegError, nearest
from medseg.files import read_json
from medseg.preparing.record import RECORD, Record, sizes_of
from medseg.preparing.write import LOCKS, turn
from medseg.scans.cache_folder import cache_folder
from medseg.scans.sink import as_output_error, remove

UNITS = {"h": 3600, "d": 86400, "w": 7 * 86400}
"""Seconds of an hour, a day, a week."""


@dataclass(frozen=True)
class Entry:
    """One thing that is kept.

    Attributes:
        kind: one of :data:`KINDS`.
        path: its file or folder.
        nbytes: what it takes.
        used: when it was last used, in seconds since 1970.
        dataset: the digest of its data set, where it has one.
        key: of a prepared case.
    """

    kind: str
    path: Path
    nbytes: int
    used: float
    dataset: str = ""
    key: str = ""


@dataclass(frozen=True)
class Row:
    """The entries of one kind and data set together."""

    kind: str
    dataset: str
    entries: int
    nbytes: int
    used: float


def entries(kind: str | None = None) -> list[Entry]:
    """All that the cache folder holds, or all of one kind.

    Raises:
        ConfigError: for an unknown kind.
        MedsegError: where the folder is not the user's.
    """
    if kind is not None and kind not in KINDS:
        raise ConfigError(f"--kind {kind} is unknown{nearest(kind, KINDS)}; the kinds are {', '.join(KINDS)}")
    folder = cache_folder()
    return [entry for name, find in KINDS.items() if kind in (None, name) for entry in find(folder)]


def rows(listed: Iterable[Entry]) -> list[Row]:
    """Entries by kind and data set, in the order of :data:`KINDS`, those used last first."""
    groups: dict[tuple[str, str], list[Entry]] = {}
    for entry in listed:
        groups.setdefault((entry.kind, entry.dataset), []).append(entry)
    summed = [
        Row(kind, dataset, len(some), sum(e.nbytes for e in some), max(e.used for e in some))
        for (kind, dataset), some in groups.items()
    ]
    return sorted(summed, key=lambda row: (list(KINDS).index(row.kind), -row.used))


def clear(listed: Iterable[Entry]) -> tuple[list[Entry], list[Entry]]:
    """Removes entries; returns those that are gone, and those that were left since a process is writing them.

    Raises:
        OutputError: where the system refuses.
    """
    gone: list[Entry] = []
    left: list[Entry] = []
    for entry in listed:
        with as_output_error(entry.path):
            (gone if _removed(entry) else left).append(entry)
    return gone, left


def older_than(listed: Iterable[Entry], age: str) -> list[Entry]:
    """The entries that were not used for so long.

    Args:
        listed: of these.
        age: such as 12h, 30d or 2w.

    Raises:
        ConfigError: where the age is none.
    """
    found = re.fullmatch(r"(\d+)([hdw])", age.strip())
    if found is None:
        raise ConfigError(f"--older-than {age!r} is no time: give hours, days or weeks, such as 12h, 30d or 2w")
    before = time.time() - int(found[1]) * UNITS[found[2]]
    return [entry for entry in listed if entry.used < before]


def _removed(entry: Entry) -> bool:
    if not entry.key:
        remove(entry.path)
        return True
    with turn(entry.key, wait=False) as mine:
        if mine:
            # The record first: a case without one is never taken for whole.
            entry.path.joinpath(RECORD).unlink(missing_ok=True)
            remove(entry.path)
            entry.path.parent.joinpath(LOCKS, entry.key).unlink(missing_ok=True)
        return mine


def _prepared(folder: Path) -> Iterator[Entry]:
    """Whole cases and what a killed process has left of one."""
    for path in _within(folder / "prepared"):
        if path.is_dir() and path.name != LOCKS:
            key = path.name.removeprefix(".").removesuffix(".partial")
            yield Entry("prepared", path, _bytes(path), _used(path), _dataset(path), key)


def _dataset(path: Path) -> str:
    try:
        return Record.from_dict(read_json(path / RECORD, "its record")).dataset
    except MedsegError:
        return ""


def _used(path: Path) -> float:
    record = path / RECORD
    return (record if record.exists() else path).stat().st_mtime


def _of(kind: str, place: str, pattern: str) -> Callable[[Path], Iterator[Entry]]:
    """How the files or folders of a kind are found: reading one counts as using it."""

    def find(folder: Path) -> Iterator[Entry]:
        for path in _within(folder / place):
            if path.match(pattern):
                status = path.stat()
                yield Entry(kind, path, _bytes(path), max(status.st_mtime, status.st_atime))

    return find


KINDS: dict[str, Callable[[Path], Iterator[Entry]]] = {
    "prepared": _prepared,
    "facts": _of("facts", "checks", "*.json"),
    "statistics": _of("statistics", "statistics", "*.json"),
    "indices": _of("indices", ".", "*.gzidx"),
    "copies": _of("copies", ".", "*.zarr"),
    "weights": _of("weights", ".", "weights-*"),
}
"""What is kept: cases on a model's grid, what checks found in files, scans' means and deviations, restart points of
gzip streams, copies of compressed streams, pretrained weights."""


def _within(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _bytes(path: Path) -> int:
    return sum(size for _, size in sizes_of(path)) if path.is_dir() else path.stat().st_size
