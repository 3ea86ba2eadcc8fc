"""The DICOM files directly in a folder, and those that are called so and are none.

Files are told by what they hold. Only where that is nothing their names count: a copy that was interrupted leaves files
that are empty or overwritten, and a volume without its last slices is a volume still.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from medseg.errors import ScanError
from medseg.scans.contents import is_dicom, kind_of
from medseg.scans.formats import READERS, suffix_of

ENDING = re.compile(r"\.[a-z][a-z0-9]*")
"""What may tell one kind of file from another; the numbers at the end of a UID don't."""

SHOWN = 3
"""How many files a message tells."""


@dataclass
class Files:
    """Files in the order of their names.

    Attributes:
        dicom: those that begin as DICOM files do.
        strays: those that are called so and don't.
    """

    dicom: list[Path] = field(default_factory=list)
    strays: list[Path] = field(default_factory=list)

    def add(self, other: Files) -> None:
        """Adds those of another folder."""
        self.dicom += other.dicom
        self.strays += other.strays

    def check(self, name: str) -> None:
        """Raises ScanError where there are strays."""
        if self.strays:
            raise ScanError(f"{name}: {self.complaint()}")

    def complaint(self) -> str:
        """What is said of the strays: how many, and their places in the order of names, since names are private."""
        count, one = len(self.strays), len(self.strays) == 1
        order = sorted([*self.dicom, *self.strays])
        told = ", ".join(f"file {order.index(path) + 1} ({_state(path)})" for path in self.strays[:SHOWN])
        return (
            f"{count} of its {len(order)} files that should be DICOM {'is' if one else 'are'} not: {told}"
            f"{' ...' if count > SHOWN else ''} in the order of names; fetch {'it' if one else 'them'} again, or take "
            "out of the folder what is no slice"
        )


def look_in(folder: Path) -> Files:
    """The files directly in a folder; hidden ones are left out.

    Strays are files with a suffix of DICOM, and those whose names end as the folder's DICOM files do unless they hold
    a text or another format.
    """
    return sort_out(path for path in sorted(folder.iterdir()) if not path.name.startswith("."))


def sort_out(paths: Iterable[Path]) -> Files:
    """Those of one folder's files that are DICOM, and the strays."""
    there = [path for path in paths if path.is_file() or (path.is_symlink() and not path.exists())]
    found = [path for path in there if is_dicom(path)]
    endings = {_ending(path) for path in found}
    return Files(found, [path for path in there if path not in set(found) and _is_stray(path, endings)])


def files_in(folder: Path) -> list[Path]:
    """The DICOM files directly in a folder, in the order of their names; hidden ones are left out."""
    return look_in(folder).dicom


def folders_below(folder: Path) -> Iterator[Path]:
    """Every folder below one, links followed, in the order of their names; hidden ones are left out."""
    seen = {os.path.realpath(folder)}
    for place, folders, _ in os.walk(folder, followlinks=True):
        kept = {name: os.path.realpath(Path(place, name)) for name in sorted(folders) if not name.startswith(".")}
        folders[:] = [name for name, real in kept.items() if real not in seen]
        seen.update(kept.values())
        if Path(place) != folder:
            yield Path(place)


def _is_stray(path: Path, endings: set[str]) -> bool:
    reader = READERS.get(suffix_of(path))
    if reader is None and _ending(path) in endings:
        return _kind(path) is None
    return reader == "dicom"


def _ending(path: Path) -> str:
    """What tells a file's kind in its name, «» where nothing does."""
    suffix = path.suffix.lower()
    return suffix if ENDING.fullmatch(suffix) else ""


def _kind(path: Path) -> str | None:
    try:
        with open(path, "rb") as file:
            return kind_of(file.read(540))
    except OSError:
        return None


def _state(path: Path) -> str:
    try:
        size = path.stat().st_size
    except OSError:
        return "a link to nothing"
    return f"{size} bytes" + (f", {kind}" if (kind := _kind(path)) else "")
