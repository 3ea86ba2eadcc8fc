"""The series in a folder, and the one that is meant.

Files are told by what they hold, never by their names. Messages name the folder as it was given, and a file by its
place in the order of names: names of files hold names of patients more often than not.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from medseg.errors import ScanError
from medseg.scans.contents import is_dicom
from medseg.scans.dicom_facts import SeriesChoice
from medseg.scans.dicom_frames import Frame
from medseg.scans.dicom_header import Instance, read_instance


@dataclass(frozen=True)
class Series:
    """One series of a folder, for a list that a user chooses from. Its description is a free text: never log it.

    Attributes:
        uid: what ``--series`` takes.
        modality: CT, MR ...
        number: the series' number, or «».
        slices: how many images it has.
        size: (rows, columns), or «mixed».
        thickness_mm: of a slice, or «».
        description: as the scanner's operator wrote it.
    """

    uid: str
    modality: str
    number: str
    slices: int
    size: str
    thickness_mm: str
    description: str


class SeriesError(ScanError):
    """Several series, where one is wanted, or none that is.

    Attributes:
        series: those of the folder.
    """

    def __init__(self, message: str, series: tuple[Series, ...]) -> None:
        super().__init__(message)
        self.series = series


def files_in(folder: Path) -> list[Path]:
    """The DICOM files directly in a folder, in the order of their names; hidden ones are left out."""
    return [path for path in _sorted(folder) if path.is_file() and is_dicom(path)]


def files_below(folder: Path) -> list[Path]:
    """The DICOM files directly in a folder or, where there are none, at any depth below it."""
    direct = files_in(folder)
    return direct or [path for below in _folders_below(folder) for path in files_in(below)]


def sources_in(folder: Path) -> list[Path]:
    """What a command takes the DICOM files directly in a folder for: one scan, one a file, or none.

    The images are scans of their own where each is its own series, as radiographs and enhanced images are. What is
    wrong with a damaged file is told when it is its turn.
    """
    instances, damaged = [], []
    for path in files_in(folder):
        try:
            instances.append(read_instance(path, path.name))
        except ScanError:
            damaged.append(path)
    images = [one for one in instances if one.kind is None]
    series = {one.series for one in images}
    alone = len(images) == 1 and not damaged
    if alone or (len(images) > 1 and len(series) == len(images) and all(series)):
        return sorted([*(one.path for one in images), *damaged])
    return [folder] if images else damaged


def read_folder(folder: Path, name: str, choice: SeriesChoice) -> list[Frame]:
    """All slices of the one series that is meant, in the order of files.

    Raises:
        SeriesError: where several series are left, or none.
        ScanError: where the folder holds no image, or a file is damaged.
    """
    files = files_below(folder)
    if not files:
        raise ScanError(f"{name}: is a folder, and no Zarr (no zarr.json, .zgroup or .zarray), and holds no DICOM file")
    instances = [read_instance(path, f"{name}: file {n} of {len(files)}") for n, path in enumerate(files, 1)]
    chosen = choose(name, instances, choice)
    return [frame for one in chosen for frame in one.frames() if choice.holds(frame.facts)]


def choose(name: str, instances: Sequence[Instance], choice: SeriesChoice) -> list[Instance]:
    """The files of the series that is meant.

    Raises:
        SeriesError: where several are left, or none.
        ScanError: where none of them is an image.
    """
    images = [one for one in instances if one.kind is None]
    if not images:
        raise ScanError(f"{name}: {_no_images(instances)}")
    if choice.uid is not None:
        left = [one for one in images if one.series == choice.uid]
    else:
        left = images
    left = [one for one in left if any(map(choice.holds, one.facts))]
    found = {one.series for one in left}
    if len(found) == 1:
        return left
    listed = list_series(left or images)
    if not found:
        given = {"--series": choice.uid, "--series-filter": choice.conditions}
        options = " and ".join(option for option, value in given.items() if value)
        raise SeriesError(
            f"{name}: none of its {len(listed)} DICOM series fits {options}; medseg info lists them", listed
        )
    more = "narrow --series-filter" if choice.conditions else "--series-filter 'KEY=VALUE, ...'"
    raise SeriesError(
        f"{name}: holds {len(found)} DICOM series; choose one by --series UID or {more} (medseg info lists them)",
        listed,
    )


def list_series(instances: Sequence[Instance]) -> tuple[Series, ...]:
    """The series of these files, by number."""
    groups: dict[str, list[Instance]] = {}
    for one in instances:
        groups.setdefault(one.series, []).append(one)
    listed = [_summary(uid, members) for uid, members in groups.items()]
    return tuple(sorted(listed, key=lambda s: (not s.number.isdigit(), s.number.zfill(12), s.uid)))


def _summary(uid: str, members: Sequence[Instance]) -> Series:
    facts = [fact for one in members for fact in one.facts]

    def common(*keys: str) -> str:
        values = {" x ".join(v for key in keys for v in fact.get(key, ())) for fact in facts}
        return values.pop() if len(values) == 1 else "mixed"

    return Series(
        uid,
        common("Modality"),
        common("SeriesNumber"),
        len(facts),
        common("Rows", "Columns"),
        common("SliceThickness"),
        common("SeriesDescription"),
    )


def _no_images(instances: Sequence[Instance]) -> str:
    kinds = {one.kind: 0 for one in instances}
    for one in instances:
        kinds[one.kind] += 1
    if len(instances) == 1:
        return f"is no image but {instances[0].kind}"
    return "holds no image but " + ", ".join(f"{count} x {kind}" for kind, count in kinds.items())


def _folders_below(folder: Path) -> Iterator[Path]:
    for place, folders, _ in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if Path(place) != folder:
            yield Path(place)


def _sorted(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
