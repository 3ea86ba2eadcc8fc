"""All that a run logs, on disk in order, before any of it goes to a store.

RUN/tracking/
  log.jsonl        one record a line, appended; the first says which run it is
  files/           pictures, tables and texts that are nowhere else
  delivered.json   by store: its run, and how far the log was delivered
  lock             held by the process that logs or delivers

A record has a ``kind`` (:mod:`medseg.tracking.courier` says what becomes of each) and a ``time`` in milliseconds since
1970. A line that a kill has torn is cut off when the run goes on, and left out when it is read.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from medseg.errors import MedsegError
from medseg.files import read_json, write_json

FOLDER = "tracking"
LOG = "log.jsonl"
FILES = "files"
DELIVERED = "delivered.json"
LOCK = "lock"

Record = dict[str, Any]


class Busy(MedsegError):
    """A run that another process logs or delivers just now."""


@dataclass(frozen=True)
class Delivered:
    """How far a store has got.

    Attributes:
        run_id: the store's name of the run; None where it has none yet.
        values: bytes of the log whose params, tags and metrics it has.
        files: bytes of the log whose files it has.
        parent: whether it knows the run that this one is a part of.
    """

    run_id: str | None = None
    values: int = 0
    files: int = 0
    parent: bool = False


class Spool:
    """What one run logs.

    Attributes:
        run_folder: the run's own folder.
        folder: what is kept of the run for its stores, within it.
    """

    def __init__(self, run_folder: Path) -> None:
        self.run_folder = run_folder
        self.folder = run_folder / FOLDER
        self.log = self.folder / LOG
        self._appended: int | None = None

    @property
    def exists(self) -> bool:
        """Whether a run has begun here."""
        return next(self.records(), None) is not None

    @property
    def begin(self) -> Record:
        """The first record: which run this is.

        Raises:
            MedsegError: where there is none.
        """
        first = next(self.records(), None)
        if first is None or first[0].get("kind") != "begin":
            raise MedsegError(f"{self.log} does not begin with a run: it is no log of medseg train, infer or evaluate")
        return first[0]

    @property
    def size(self) -> int:
        """Bytes of the log, up to the end of its last whole line."""
        content = self.log.read_bytes() if self.log.exists() else b""
        return content.rfind(b"\n") + 1

    def records(self, start: int = 0) -> Iterator[tuple[Record, int]]:
        """The records from a byte of the log on, each with the byte after it; a damaged line is left out."""
        if not self.log.exists():
            return
        with self.log.open("rb") as file:
            file.seek(start)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                start += len(line)
                with contextlib.suppress(ValueError):
                    yield json.loads(line), start

    def append(self, kind: str, **content: Any) -> None:
        """Adds a record, which outlives this process from here on.

        Raises:
            OSError: where it cannot be written.
        """
        record = {"kind": kind, "time": int(time.time() * 1000), **content}
        line = json.dumps(record, ensure_ascii=False, separators=(",", ":")) + "\n"
        os.write(self._descriptor(), line.encode("utf-8", "replace"))

    def own(self, path: str) -> Path:
        """Where a file of the spool's own lies, by its place among the run's artifacts."""
        place = self.folder / FILES / path
        place.parent.mkdir(parents=True, exist_ok=True)
        return place

    def source_of(self, path: Path) -> str:
        """How the log names a file: by its place within the run's folder, into which others are copied first."""
        inside = path.resolve()
        root = self.run_folder.resolve()
        if inside.is_relative_to(root):
            return inside.relative_to(root).as_posix()
        copy = self.own(f"copies/{path.name}")
        (shutil.copytree if path.is_dir() else shutil.copyfile)(path, copy)
        return copy.resolve().relative_to(root).as_posix()

    def delivered(self, store: str) -> Delivered:
        """How far a store has got, by its address."""
        return Delivered(**self._stores().get(store, {}))

    def note(self, store: str, **changes: Any) -> Delivered:
        """Keeps how far a store has got."""
        now = replace(self.delivered(store), **changes)
        write_json(self.folder / DELIVERED, {"stores": {**self._stores(), store: asdict(now)}})
        return now

    @contextmanager
    def held(self) -> Iterator[None]:
        """Holds the spool for this process; the system lets go of it with the process, whatever that left running.

        Raises:
            Busy: where another process logs or delivers it.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            self._lock(descriptor)
            yield
        finally:
            os.close(descriptor)
            self.close()

    def _lock(self, descriptor: int) -> None:
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # a record lock: forked workers don't share it
        except OSError:
            raise Busy(
                f"{self.run_folder} is being logged or delivered by another medseg process: wait for it to end"
            ) from None

    def close(self) -> None:
        """Closes the log."""
        if self._appended is not None:
            os.close(self._appended)
            self._appended = None

    def _descriptor(self) -> int:
        if self._appended is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            if self.log.exists():
                os.truncate(self.log, self.size)
            self._appended = os.open(self.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
        return self._appended

    def _stores(self) -> Mapping[str, Any]:
        place = self.folder / DELIVERED
        return dict(read_json(place, "how far the run was delivered")["stores"]) if place.exists() else {}


def spools_under(folder: Path) -> list[Spool]:
    """The runs that are kept in a folder, at any depth, those that others are a part of first."""
    found = [Spool(log.parents[1]) for log in sorted(folder.rglob(f"{FOLDER}/{LOG}"))]
    return sorted((spool for spool in found if spool.exists), key=lambda spool: spool.begin.get("parent") is not None)
