"""Which tiles of a job are done, so that a killed job goes on where it was.

A journal is a text file: one JSON line with the terms of the job, then one line for each group of tiles that reached
the sink. A line that a kill cut short is no line. What a job may change between two starts without changing a byte
of its result is not in the terms; what it must keep (tile, grouping into batches, threads: convolutions round
differently for others) is, and is taken up again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any


@dataclass(frozen=True)
class Terms:
    """What a job was started with.

    Attributes:
        digest: of everything that decides the result: weights, scan, preprocessing, labels, output.
        core: the tiling's core.
        batch: tiles that go through the network together.
        threads: of the CPU, 0 where the network runs elsewhere.
    """

    digest: str
    core: tuple[int, ...]
    batch: int
    threads: int


class Journal:
    """The record of one job; use it as a context manager.

    Args:
        path: the journal's file; it is created with the terms where there is none for them.
        terms: the job's. :meth:`terms_of` tells those of an earlier start.
    """

    def __init__(self, path: Path, terms: Terms) -> None:
        self.path = path
        self.terms = terms
        resumed = self.terms_of(path) == terms
        self.done: frozenset[int] = frozenset(_tiles(path)) if resumed else frozenset()
        self._file = path.open("r+" if resumed else "w", encoding="utf-8")
        if resumed:
            self._file.seek(_whole_lines(path))
            self._file.truncate()
        else:
            self._append(asdict(terms))

    @staticmethod
    def terms_of(path: Path) -> Terms | None:
        """The terms that a journal was begun with; None where there is no journal."""
        lines = _lines(path)
        if not lines:
            return None
        try:
            terms = json.loads(lines[0])
            return Terms(terms["digest"], tuple(terms["core"]), terms["batch"], terms["threads"])
        except (ValueError, KeyError, TypeError):
            return None

    def record(self, tiles: Iterable[int]) -> None:
        """Notes tiles that the sink holds for good; call it after ``sink.flush()``."""
        self._append(sorted(tiles))

    def remove(self) -> None:
        """Ends the journal of a job that is complete."""
        self._file.close()
        self.path.unlink(missing_ok=True)

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def _append(self, content: Any) -> None:
        self._file.write(json.dumps(content) + "\n")
        self._file.flush()


def fingerprint(path: Path) -> str:
    """A digest of a file's or folder's names, sizes and times, without reading the voxels."""
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    digest = hashlib.sha256()
    for file in files:
        status = os.stat(file)
        name = file.relative_to(path).as_posix()
        digest.update(f"{name}:{status.st_size}:{status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _lines(path: Path) -> list[bytes]:
    try:
        return [line for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
    except FileNotFoundError:
        return []


def _whole_lines(path: Path) -> int:
    return sum(map(len, _lines(path)))


def _tiles(path: Path) -> Iterable[int]:
    for line in _lines(path)[1:]:
        yield from json.loads(line)
