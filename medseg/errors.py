"""What a user can mend, said in one sentence.

Every floor raises :class:`MedsegError` or one of its children for a mistake that is the user's: a
missing file, two grids that do not match, a tile that the network cannot take. The command line turns
it into one line that begins ``error:`` and exit code 2; anything else that is raised is a defect.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from medseg.private import public

MAX_LENGTH = 500
"""The longest message, in characters; a longer one is cut in its middle."""


class MedsegError(Exception):
    """The base of every error that is a user's to mend: what is wrong, where, and what to do."""

    def __init__(self, message: str) -> None:
        super().__init__(shorten(" ".join(public(message).split())))


class ScanError(MedsegError):
    """A file that cannot be read or written as a scan."""


class GridError(MedsegError):
    """Grids, channels or axes that do not belong together."""


class TileError(MedsegError):
    """A window, core or tile that the network cannot take."""


class ConfigError(MedsegError):
    """A key, value or file of an experiment."""


class TrainingError(MedsegError):
    """A training that cannot go on: its weights are no numbers any more, or who reads its samples is gone."""


class PackageError(MedsegError):
    """A model package or checkpoint that is missing, foreign, damaged or too new."""


class OutputError(MedsegError):
    """An output that exists already or cannot be written."""


def shorten(message: str, limit: int = MAX_LENGTH) -> str:
    """The message itself, or its two ends around an ellipsis where it is longer than ``limit``."""
    if len(message) <= limit:
        return message
    head = (limit - 3) * 2 // 3
    return message[:head] + "..." + message[len(message) - (limit - 3 - head) :]


def nearest(word: str, allowed: Iterable[str]) -> str:
    """«; did you mean X?» where one of ``allowed`` resembles ``word``, else nothing."""
    matches = difflib.get_close_matches(word, list(allowed), n=1, cutoff=0.5)
    return f"; did you mean {matches[0]!r}?" if matches else ""


def some(names: Iterable[str], shown: int = 3) -> str:
    """The first names, and how many more there are."""
    listed = list(names)
    more = f" and {len(listed) - shown} more" if len(listed) > shown else ""
    return ", ".join(listed[:shown]) + more
