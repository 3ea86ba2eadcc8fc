"""Which tiles of a job are done, so that a killed job goes on where it was.

A journal is a text file: one JSON line with the terms of the job, then one line for each group of tiles that reached
the sink. A line that a kill cut short is no line. What a job may change between two starts without changing a byte
of its result is not in the terms; what it must keep (tile, grouping into batches, threads: convolutions round
differently for others) is, and is taken up again.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any

from medseg.errors import OutputError
from medseg.files import write_text
from medseg.scans.sink import as_output_error

COMPLETE = "complete"


@dataclass(frozen=True)
class Terms:
    """What a job was started with.

    Attributes:
        digest: of everything that decides the result: weights, scan, preprocessing, labels, output.
        plan: what a restart must keep, ready for JSON: tile, grouping into batches, threads, statistics of the scan.
        parts: digests of what ``digest`` is made of, by name, so that a refusal can say which differs.
    """

    digest: str
    plan: dict[str, Any]
    parts: dict[str, str] = field(default_factory=dict)


class Journal:
    """The record of one job; use it as a context manager.

    Lines are appended whole, so that several processes may record in one journal.

    Args:
        path: the journal's file; it is created with the terms where there is none for them.
        terms: the job's. :meth:`terms_of` tells those of an earlier start.
    """

    def __init__(self, path: Path, terms: Terms) -> None:
        self.path = path
        self.terms = terms
        with as_output_error(path):
            if self.terms_of(path) == terms:
                os.truncate(path, _whole_lines(path))
            else:
                write_text(path, _line(asdict(terms)))
        self.done: frozenset[int] = frozenset(_tiles(path))
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | getattr(os, "O_CLOEXEC", 0))

    @classmethod
    def joined(cls, path: Path) -> Journal:
        """The journal of a job that another process has begun and holds.

        Raises:
            OutputError: where there is none.
        """
        terms = cls.terms_of(path)
        if terms is None:
            raise OutputError(f"{path} is gone: the job was ended or removed by another process")
        journal = cls.__new__(cls)
        journal.path, journal.terms, journal.done = path, terms, frozenset(_tiles(path))
        journal._fd = os.open(path, os.O_WRONLY | os.O_APPEND | getattr(os, "O_CLOEXEC", 0))
        return journal

    @staticmethod
    def terms_of(path: Path) -> Terms | None:
        """The terms that a journal was begun with; None where there is no journal."""
        first = next(_lines(path), b"")
        try:
            terms = json.loads(first)
            return Terms(terms["digest"], dict(terms["plan"]), dict(terms["parts"]))
        except (ValueError, KeyError, TypeError):
            return None

    @staticmethod
    def count(path: Path) -> int:
        """How many tiles a journal holds."""
        return sum(1 for _ in _tiles(path))

    def record(self, tiles: Iterable[int]) -> None:
        """Notes tiles that the sink holds for good; call it after ``sink.flush()``."""
        self._append(sorted(tiles))

    def complete(self) -> None:
        """Notes that nothing is left but to give the output its final name."""
        self._append(COMPLETE)

    @staticmethod
    def is_complete(path: Path) -> bool:
        """Whether a journal says so."""
        return any(line == _line(COMPLETE).encode() for line in _lines(path))

    def remove(self) -> None:
        """Ends the journal of a job that is complete."""
        self.path.unlink(missing_ok=True)

    def close(self) -> None:
        """Leaves the journal as it is."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _append(self, content: Any) -> None:
        line = _line(content).encode()
        with as_output_error(self.path):
            if os.write(self._fd, line) != len(line):
                raise OSError(errno.ENOSPC, "No space left on device")

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def journal_of(output: Path) -> Path:
    """Where the journal of a mask is while it grows."""
    return output.with_name(f".{output.name}.journal")


def _line(content: Any) -> str:
    return json.dumps(content) + "\n"


def _lines(path: Path) -> Iterator[bytes]:
    """The whole lines of a file that may not be there."""
    try:
        with path.open("rb") as file:
            yield from (line for line in file if line.endswith(b"\n"))
    except FileNotFoundError:
        return


def _whole_lines(path: Path) -> int:
    return sum(map(len, _lines(path)))


def _tiles(path: Path) -> Iterator[int]:
    for line in islice(_lines(path), 1, None):
        with contextlib.suppress(ValueError):  # of a process that was killed while it wrote, beside others that went on
            content = json.loads(line)
            yield from content if isinstance(content, list) else ()
