"""The series in a folder, and the one that is meant.

Files are told by what they hold, never by their names. Messages name the folder as it was given, and a file by its
place in the order of names: names of files hold names of patients more often than not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from medseg.errors import ScanError
from medseg.scans.dicom_facts import SeriesChoice
from medseg.scans.dicom_folder import Files, folders_below, look_in
from medseg.scans.dicom_frames import Frame
from medseg.scans.dicom_header import Instance, read_instance

OWNER = ("PatientID", "StudyInstanceUID", "SOPInstanceUID")
"""What is read of the files of a folder, beside all else, to be compared and forgotten."""


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


def files_below(folder: Path) -> list[Path]:
    """The DICOM files directly in a folder and, where none of these is an image, at any depth below it."""
    return look_below(folder).dicom


def look_below(folder: Path) -> Files:
    """Those files, and what is called as they are."""
    files = look_in(folder)
    if not any(map(_may_be_image, files.dicom)):
        for below in folders_below(folder):
            files.add(look_in(below))
    return files


def read_folder(folder: Path, name: str, choice: SeriesChoice) -> list[Frame]:
    """All slices of the one series that is meant, in the order of files.

    Slices of a series that has some directly in the folder and others below are taken together.

    Raises:
        SeriesError: where several series are left, or none.
        ScanError: where the folder holds no image, a file is damaged or empty, or the series is of several patients.
    """
    files = look_below(folder)
    if not files.dicom:
        files.check(name)
        raise ScanError(f"{name}: is a folder, and no Zarr (no zarr.json, .zgroup or .zarray), and holds no DICOM file")
    order = {path: n for n, path in enumerate(sorted([*files.dicom, *files.strays]), 1)}
    instances = [read_instance(path, f"{name}: file {order[path]} of {len(order)}", OWNER) for path in files.dicom]
    if not any(one.kind is None for one in instances):
        files.check(name)
    chosen = choose(name, [*instances, *_rest_below(folder, name, instances)], choice)
    files.check(name)
    _check_owner(name, chosen)
    return [frame for one in chosen for frame in one.frames() if choice.holds(frame.facts)]


def _rest_below(folder: Path, name: str, direct: Sequence[Instance]) -> list[Instance]:
    """Images in folders below that are of a series that lies directly in the folder, copies left out."""
    series = {one.series for one in direct if one.kind is None and one.path.parent == folder} - {""}
    if not series:
        return []
    there = {one.attributes.word("SOPInstanceUID") for one in direct} - {""}
    rest = []
    for path in (path for below in folders_below(folder) for path in look_in(below).dicom):
        try:
            one = read_instance(path, f"{name}: a file in a folder below it", OWNER)
        except ScanError:
            continue
        if one.kind is None and one.series in series and one.attributes.word("SOPInstanceUID") not in there:
            rest.append(one)
    return rest


def _may_be_image(path: Path) -> bool:
    try:
        return read_instance(path, path.name).kind is None
    except ScanError:
        return True


def _check_owner(name: str, images: Sequence[Instance]) -> None:
    """Refuses images of one series that are of several patients or studies; counts are all that is told of these.

    Studies of one image each tell nothing: some writers draw a new UID for every file.
    """
    for keyword, what in (("PatientID", "patients"), ("StudyInstanceUID", "studies")):
        count = len({one.attributes.word(keyword) for one in images})
        if count > 1 and (keyword == "PatientID" or count < len(images)):
            raise ScanError(
                f"{name}: the {len(images)} images of its series are of {count} {what} (their {keyword} differs): they "
                "are no volume; put each into a folder of its own"
            )


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
    parts = {uid: {one.path.parent for one in left if one.series == uid} for uid in found}
    split = sum(len(places) > 1 for places in parts.values())
    spread = f", {split} of them in several folders" if split else ""
    more = "narrow --series-filter" if choice.conditions else "--series-filter 'KEY=VALUE, ...'"
    raise SeriesError(
        f"{name}: holds {len(found)} DICOM series{spread}; choose one by --series UID or {more} "
        "(medseg info lists them)",
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
