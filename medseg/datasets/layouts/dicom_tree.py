"""A tree of DICOM studies: every image series that a SEG or RTSTRUCT refers to is a case.

    STUDIES/                      files are told by what they hold, wherever they lie
      any/folder/*.dcm            a series of images
      any/other.dcm               SEG or RTSTRUCT, whose references say which series it is of

Labels are called as the segments and regions of interest are, and their values are 1, 2, ... in the order of the names.
Where some overlap, as far as their voxels say, each set of segments that occurs has a value of its own and labels are
regions. Codes and colours of SEGs go along. Patients are told apart by PatientID, which is digested at once.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from medseg.datasets.cases import Case, DicomCase, natural_key
from medseg.datasets.check import open_series
from medseg.datasets.labels import BACKGROUND
from medseg.datasets.layouts.dataset import DataSet, Layout, Problem
from medseg.datasets.layouts.description import DATASET, DatasetInfo, own_info, read_content
from medseg.errors import MedsegError, ScanError
from medseg.scans.dicom_folder import Files, sort_out
from medseg.scans.dicom_header import Instance, read_instance
from medseg.scans.dicom_labels import LABEL_CLASSES, Key, Table, kind_of, sets_of
from medseg.scans.dicom_seg import SegFile, own_grid, planes_of
from medseg.scans.dicom_seg_looks import look_of
from medseg.scans.protocol import Scan
from medseg.scans.rtstruct import Structures
from medseg.scans.segments import SegmentLook

_IDENTITY = ("SOPInstanceUID", "PatientID")
Together = tuple[str, ...]
"""Segments that overlap, by their names in order."""


@dataclass
class _Series:
    """The images of one series: where they lie, and whose they are; patients and studies are counted by hashes."""

    uid: str
    patient: str
    files: list[Path] = field(default_factory=list)
    instances: set[str] = field(default_factory=set)
    patients: set[int] = field(default_factory=set)
    studies: set[int] = field(default_factory=set)

    @property
    def folders(self) -> set[Path]:
        return {path.parent for path in self.files}

    def image(self, others: Iterable[_Series]) -> Path | None:
        """The file or folder that opens it: where it lies in several folders, the least one that holds them all.

        None where that holds images of other series too.
        """
        if len(self.files) == 1:
            return self.files[0]
        top = Path(os.path.commonpath(self.folders))
        beside = (path for other in others if other is not self for path in other.files)
        if len(self.folders) > 1 and (top in self.folders or any(path.is_relative_to(top) for path in beside)):
            return None
        return top


@dataclass(frozen=True)
class _Label:
    """A SEG or RTSTRUCT: the series and the images that it refers to."""

    path: Path
    series: frozenset[str]
    instances: frozenset[str]

    def of(self, series: Iterable[_Series]) -> list[_Series]:
        """The series that it is of."""
        listed = list(series)
        named = [one for one in listed if one.uid in self.series]
        return named or [one for one in listed if one.instances & self.instances]

    def lacking(self, series: _Series) -> int:
        """How many of the images that it refers to its series lacks; 0 where it refers to none of those there are.

        A label of several series does not say which of them an image is of.
        """
        if len(self.series) > 1 or not self.instances & series.instances:
            return 0
        return len(self.instances - series.instances)


def recognised(root: Path) -> str | None:
    """Why: it holds a SEG or RTSTRUCT."""
    if not root.is_dir():
        return None
    kinds = (_kind(path) for path in _files(root))
    return next((f"it holds a DICOM {kind}" for kind in kinds if kind), None)


def read(root: Path) -> DataSet:
    """The data set; headers are read, and the voxels of labels that may overlap.

    Raises:
        MedsegError: where a label cannot be read.
        ConfigError: where ``dataset.json`` is not what it must be.
    """
    series, labels, strays, problems = _index(root)
    images = {uid: one.image(series.values()) for uid, one in series.items()}
    matched: dict[str, list[_Label]] = {}
    orphans: dict[str, Path] = {}
    for label in labels:
        owners = label.of(series.values())
        if not owners:
            orphans[_relative(label.path, root)] = label.path
        for owner in owners[:1] if len(owners) == 1 else ():
            matched.setdefault(owner.uid, []).append(label)
        if len(owners) > 1:
            text = f"{label.path} refers to {len(owners)} series of the tree: take the others, or it, out of {root}"
            problems.append(Problem(text, _relative(label.path, root)))
    names = _names([series[uid] for uid in matched], images, root)
    pairs: list[tuple[_Series, Path, Path]] = []
    for uid, some_labels in matched.items():
        one, image = series[uid], images[uid]
        wrong = _wrong(one, image, some_labels)
        stray = sorted(one.folders & strays.keys())
        if stray:
            problems.append(Problem(strays[stray[0]], names[uid]))
        elif image is None or wrong is not None:
            problems.append(Problem(f"{root}: case {names[uid]}: the images of its series {wrong}", names[uid]))
        else:
            pairs.append((one, image, some_labels[0].path))
    told = {folder for uid in matched for folder in series[uid].folders}
    problems += [Problem(text, _relative(folder, root)) for folder, text in strays.items() if folder not in told]
    info, table = _described(root, pairs)
    cases = [
        Case(names[one.uid], image, label, one.patient, dicom=DicomCase(image, one.uid, table))
        for one, image, label in pairs
    ]
    cases.sort(key=lambda case: natural_key(case.name))
    name = (info.name if info is not None else "") or root.resolve().name
    return DataSet("dicom_tree", root, name, info, tuple(cases), orphans, tuple(problems), ".")


def _wrong(one: _Series, image: Path | None, labels: Sequence[_Label]) -> str | None:
    """What keeps a series from being a case, as the end of a sentence."""
    lacking = labels[0].lacking(one)
    if len(one.patients) > 1 or 1 < len(one.studies) < len(one.files):
        return "are of several patients or studies: put each into a tree of its own"
    if image is None:
        return "lie in several folders beside others: put them into one"
    if len(labels) > 1:
        return f"have {len(labels)} SEG or RTSTRUCT objects: leave one of them in the tree"
    if lacking:
        return f"lack {lacking} of the {len(labels[0].instances)} that its label refers to: fetch them"
    return None


def _index(root: Path) -> tuple[dict[str, _Series], list[_Label], dict[Path, str], list[Problem]]:
    """Everything in a tree; for each folder with files that should be DICOM and are not, what is said of these."""
    series: dict[str, _Series] = {}
    labels: list[_Label] = []
    strays: dict[Path, str] = {}
    problems: list[Problem] = []
    for files in _folders(root):
        for path in files.dicom:
            try:
                instance = read_instance(path, str(path), _IDENTITY)
                if LABEL_CLASSES.get(instance.attributes.word("SOPClassUID")):
                    labels.append(_label(path))
                elif instance.kind is None:
                    _put(series, instance)
            except ScanError as error:
                problems.append(Problem(str(error), _relative(path, root)))
        if files.strays:
            folder = files.strays[0].parent
            strays[folder] = f"{folder}: {files.complaint()}"
    return series, labels, strays, problems


def _put(series: dict[str, _Series], instance: Instance) -> None:
    attributes, uid = instance.attributes, instance.series
    if uid not in series:
        series[uid] = _Series(uid, _patient(instance))
    series[uid].files.append(instance.path)
    series[uid].instances.add(attributes.word("SOPInstanceUID"))
    series[uid].patients.add(hash(attributes.word("PatientID")))
    series[uid].studies.add(hash(attributes.word("StudyInstanceUID")))


def _patient(instance: Instance) -> str:
    """A digest of the PatientID; of the study's UID where there is none."""
    from medseg.datasets.case_names import digest_patient

    attributes = instance.attributes
    return digest_patient(attributes.word("PatientID") or attributes.word("StudyInstanceUID") or instance.series)


def _label(path: Path) -> _Label:
    if kind_of(path) == "RTSTRUCT":
        found = Structures(path, str(path))
        return _Label(path, frozenset(found.series()), frozenset(found.instances() - {""}))
    seg = SegFile(path, str(path))
    items = seg.instance.attributes.items("ReferencedSeriesSequence")
    named = {item.word("SeriesInstanceUID") for item in items}
    images = {image.word("ReferencedSOPInstanceUID") for i in items for image in i.items("ReferencedInstanceSequence")}
    return _Label(path, frozenset(named), frozenset((images | seg.sources) - {""}))


def _described(root: Path, pairs: Sequence[tuple[_Series, Path, Path]]) -> tuple[DatasetInfo | None, Table]:
    """What the tree's ``dataset.json`` says, else what its labels say; and the value of each set of segments."""
    names: set[str] = set()
    sets: set[Together] = set()
    looks: dict[str, SegmentLook] = {}
    for one, image, label in pairs:
        own, together, looked = segments_in(label, partial(open_series, image, DicomCase(image, one.uid)))
        names |= own
        sets |= together
        looks |= {name: look for name, look in looked.items() if name not in looks}
    labels, table = valued(names, sets)
    content = read_content(root)
    if content is not None:
        return own_info(content, root / DATASET), table
    return DatasetInfo(labels=labels, segments=looks) if len(labels) > 1 else None, table


def valued(names: Collection[str], sets: Collection[Together]) -> tuple[dict[str, int | list[int]], Table]:
    """The values of labels called as segments are, and of each set of segments: 1, 2, ... in the order of the names.

    Args:
        names: of all segments.
        sets: those of several that overlap somewhere.
    """
    singles = [(name,) for name in sorted(names, key=natural_key)]
    table: Table = tuple((members, value) for value, members in enumerate([*singles, *sorted(sets)], 1))
    values = {name: [value for members, value in table if name in members] for (name,) in singles}
    labels = {BACKGROUND: [0, *values.pop(BACKGROUND, [])]} | values
    return {name: some[0] if len(some) == 1 else some for name, some in labels.items()}, table


def numbered_segments(label: Path) -> dict[int, str]:
    """The names of a SEG's or RTSTRUCT's segments by their numbers.

    Raises:
        ScanError: where it is damaged.
    """
    if kind_of(label) == "RTSTRUCT":
        return Structures(label, str(label)).names
    return {number: name for number, name in SegFile(label, str(label)).labels.items() if number != 0}


def segments_in(label: Path, like: Callable[[], Scan | None]) -> tuple[set[str], set[Together], dict[str, SegmentLook]]:
    """The names of a label's segments, the sets of several that occur, and their looks.

    Args:
        label: a SEG or RTSTRUCT.
        like: opens the scan on whose grid an RTSTRUCT is drawn; None for none, and no sets are found.

    Raises:
        ScanError: where the label is damaged, or lies not on the grid.
    """
    if kind_of(label) == "RTSTRUCT":
        structures, scan = Structures(label, str(label)), like()
        found = set() if scan is None else sets_of(structures.planes(scan, by_name=True), scan.shape)
        return set(structures.names.values()), _several(found), {}
    seg = SegFile(label, str(label))
    names = {name for number, name in seg.labels.items() if number != 0}
    together: set[Together] = set()
    if seg.overlaps:
        grid = own_grid([seg], str(label))
        together = _several(sets_of(planes_of(seg, grid, by_name=True), grid.shape))
    return names, together, {name: look_of(seg, number) for number, name in seg.labels.items() if number != 0}


def _several(sets: Iterable[frozenset[Key]]) -> set[Together]:
    return {tuple(sorted(map(str, members))) for members in sets if len(members) > 1}


def _names(series: Sequence[_Series], images: Mapping[str, Path | None], root: Path) -> dict[str, str]:
    """What cases are called in their files: as the file or folder is, where that tells them apart."""
    from medseg.inference.outputs import source_stem

    places = {one.uid: images[one.uid] or one.files[0].parent for one in series}
    stems = {uid: source_stem(place) for uid, place in places.items()}
    names = {}
    for uid, place in places.items():
        name = stems[uid]
        if list(stems.values()).count(name) > 1:
            name = _relative(place, root)
        names[uid] = name if list(places.values()).count(place) == 1 else f"{name}/{uid}"
    return names


def _relative(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()


def _files(root: Path) -> Iterator[Path]:
    """The DICOM files of a tree, in the order of their names; hidden ones are left out."""
    for files in _folders(root):
        yield from files.dicom


def _folders(root: Path) -> Iterator[Files]:
    """The files of each folder of a tree."""
    for place, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield sort_out(Path(place, name) for name in sorted(names) if not name.startswith("."))


def _kind(path: Path) -> str | None:
    try:
        return kind_of(path)
    except MedsegError:
        return None


LAYOUT = Layout(recognised, read)
