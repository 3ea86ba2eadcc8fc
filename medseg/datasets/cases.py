"""Cases: an image, its label, and whose they are; and the files of a folder by their stems."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from medseg.datasets.labels import Border
from medseg.errors import MedsegError
from medseg.scans.dicom_labels import Table
from medseg.scans.scan import stem_of, suffix_of

IMAGES = "images"
LABELS = "labels"
_PIECE = 1 << 20


@dataclass(frozen=True)
class DicomCase:
    """What tells a case's DICOM objects from others beside them, and how its label is read.

    Attributes:
        image: the file or folder that its series lies in.
        series: the series' UID.
        table: the value of each set of segments of the label; see :mod:`medseg.scans.dicom_labels`.
    """

    image: Path
    series: str
    table: Table = ()


@dataclass(frozen=True)
class Case:
    """One image and its label.

    Attributes:
        name: what it is called; no two cases of a data set share a name.
        image: the image's path; where its channels lie in several files, the first one's.
        label: the label's path, or None where the data set has none for it.
        patient: whom it belongs to; a patient's cases stay in one part of a split.
        further: the files of the other channels, in their order.
        fold: the fold that the data set puts it in, or None.
        resample_channels: whether further channels on other grids are resampled to the first one's.
        stem: what its files call it, where its name is a digest of that; never told.
        dicom: of a case in a tree of DICOM studies.
        border: what is drawn around the instances that its label numbers; None for nothing.
    """

    name: str
    image: Path
    label: Path | None
    patient: str
    further: tuple[Path, ...] = ()
    fold: str | None = None
    resample_channels: bool = False
    stem: str = ""
    dicom: DicomCase | None = None
    border: Border | None = None

    @property
    def images(self) -> tuple[Path, ...]:
        """All files of the image, in the order of the channels."""
        return (self.image, *self.further)


def find_scans(folder: Path) -> dict[str, Path]:
    """The scans directly in a folder by stem, in natural order; hidden files and those of no known suffix are
    left out.

    Raises:
        MedsegError: where two share a stem.
    """
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir(), key=lambda p: natural_key(p.name)):
        if path.name.startswith(".") or not suffix_of(path) or _belongs_to_header(path):
            continue
        stem = stem_of(path)
        if stem in found:
            raise MedsegError(
                f"{folder} holds {found[stem].name} and {path.name}, two files of one stem: keep one of them"
            )
        found[stem] = path
    return dict(sorted(found.items(), key=lambda item: natural_key(item[0])))


def natural_key(name: str) -> tuple[tuple[int, int, str], ...]:
    """Sorts numbers within names by their value: a2 before a10. Ties fall to the name itself."""
    parts = re.findall(r"[0-9]+|[^0-9]+", name)
    return (*((0, int(p), "") if p.isascii() and p.isdigit() else (1, 0, p) for p in parts), (-1, 0, name))


def check_inside(path: Path, root: Path) -> None:
    """Refuses a file that lies out of a data set's folder, links followed: data must not make medseg read elsewhere.

    Raises:
        MedsegError: saying where it leads.
    """
    try:
        target = path.resolve()
    except (OSError, ValueError, RuntimeError):  # a loop of links, a name that no system takes
        raise MedsegError(f"{str(path)!r} in the data set {root} leads nowhere: mend the path or the link") from None
    if not target.is_relative_to(root.resolve()):
        raise MedsegError(f"{path} leads out of the data set, to {target}: copy the file into {root}")


def is_there(path: Path) -> bool:
    """Whether a path, of any length and content, is that of a file or folder."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def digest(cases: Iterable[Case]) -> str:
    """The SHA-256 of names and contents of cases, whatever their order and wherever they lie; read in pieces."""
    total = hashlib.sha256()
    for case in sorted(cases, key=lambda c: c.stem or c.name):
        files = [(IMAGES, case.image), *((IMAGES, path) for path in case.further), (LABELS, case.label)]
        for kind, path in files:
            total.update(f"{kind}/{case.stem or case.name}\0".encode())
            if path is not None:
                _add_content(total, path)
    return total.hexdigest()


def _belongs_to_header(path: Path) -> bool:
    """Whether this is the second half of a NIfTI pair, which its header opens."""
    return path.suffix.lower() == ".img" and path.with_suffix(".hdr").exists()


def _add_content(total: hashlib._Hash, path: Path) -> None:
    for file in [path] if path.is_file() else sorted(_files_below(path)):
        relative = "" if file == path else file.relative_to(path).as_posix()
        total.update(f"{relative}\0{file.stat().st_size}\0".encode())
        with file.open("rb") as stream:
            while piece := stream.read(_PIECE):
                total.update(piece)


def _files_below(folder: Path) -> Iterator[Path]:
    for place, _, names in os.walk(folder):
        yield from (Path(place, name) for name in names)
