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
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from medseg.datasets.cases import Case, DicomCase, natural_key
from medseg.datasets.check import open_series
from medseg.datasets.labels import BACKGROUND
from medseg.datasets.layouts.dataset import DataSet, Layout, Problem
from medseg.datasets.layouts.description import DATASET, DatasetInfo, own_info, read_content
from medseg.errors import MedsegError, ScanError
from medseg.scans.contents import is_dicom
from medseg.scans.dicom_header import Instance, read_instance
from medseg.scans.dicom_labels import LABEL_CLASSES, Key, Table, kind_of, sets_of
from medseg.scans.dicom_seg import SegFile, own_grid, planes_of
from medseg.scans.dicom_seg_looks import look_of
from medseg.scans.rtstruct import Structures
from medseg.scans.segments import SegmentLook

_IDENTITY = ("SOPInstanceUID", "PatientID")
_Set = tuple[str, ...]


@dataclass
class _Series:
    """The images of one series: where they lie, and whose they are."""

    uid: str
    patient: str
    files: list[Path] = field(default_factory=list)
    instances: set[str] = field(default_factory=set)

    @property
    def image(self) -> Path | None:
        """The file or folder that opens it; None where it lies in several folders."""
        folders = {path.parent for path in self.files}
        if len(folders) != 1:
            return None
        return self.files[0] if len(self.files) == 1 else folders.pop()


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
    series, labels, problems = _index(root)
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
    names = _names([series[uid] for uid in matched], root)
    pairs: list[tuple[_Series, Path, Path]] = []
    for uid, some_labels in matched.items():
        image, wrong = series[uid].image, None
        if image is None:
            wrong = "lie in several folders: put them into one"
        elif len(some_labels) > 1:
            wrong = f"have {len(some_labels)} SEG or RTSTRUCT objects: leave one of them in the tree"
        if image is None or wrong is not None:
            problems.append(Problem(f"{root}: case {names[uid]}: the images of its series {wrong}", names[uid]))
        else:
            pairs.append((series[uid], image, some_labels[0].path))
    info, table = _described(root, pairs)
    cases = [
        Case(names[one.uid], image, label, one.patient, dicom=DicomCase(image, one.uid, table))
        for one, image, label in pairs
    ]
    cases.sort(key=lambda case: natural_key(case.name))
    name = (info.name if info is not None else "") or root.resolve().name
    return DataSet("dicom_tree", root, name, info, tuple(cases), orphans, tuple(problems), ".")


def _index(root: Path) -> tuple[dict[str, _Series], list[_Label], list[Problem]]:
    """Everything in a tree."""
    series: dict[str, _Series] = {}
    labels: list[_Label] = []
    problems: list[Problem] = []
    for path in _files(root):
        try:
            instance = read_instance(path, str(path), _IDENTITY)
            if LABEL_CLASSES.get(instance.attributes.word("SOPClassUID")):
                labels.append(_label(path))
            elif instance.kind is None:
                _put(series, instance)
        except ScanError as error:
            problems.append(Problem(str(error), _relative(path, root)))
    return series, labels, problems


def _put(series: dict[str, _Series], instance: Instance) -> None:
    attributes, uid = instance.attributes, instance.series
    if uid not in series:
        series[uid] = _Series(uid, _patient(instance))
    series[uid].files.append(instance.path)
    series[uid].instances.add(attributes.word("SOPInstanceUID"))


def _patient(instance: Instance) -> str:
    """A digest of the PatientID; of the study's UID where there is none."""
    from medseg.datasets.case_names import digest_patient

    attributes = instance.attributes
    return digest_patient(attributes.word("PatientID") or attributes.word("StudyInstanceUID") or instance.series)


def _label(path: Path) -> _Label:
    if kind_of(path) == "RTSTRUCT":
        found = Structures(path, str(path))
        return _Label(path, frozenset(found.series()), frozenset(found.instances()))
    seg = SegFile(path, str(path))
    items = seg.instance.attributes.items("ReferencedSeriesSequence")
    named = {item.word("SeriesInstanceUID") for item in items}
    images = {image.word("ReferencedSOPInstanceUID") for i in items for image in i.items("ReferencedInstanceSequence")}
    return _Label(path, frozenset(named), frozenset(images | seg.sources))


def _described(root: Path, pairs: Sequence[tuple[_Series, Path, Path]]) -> tuple[DatasetInfo | None, Table]:
    """What the tree's ``dataset.json`` says, else what its labels say; and the value of each set of segments."""
    names: set[str] = set()
    sets: set[_Set] = set()
    looks: dict[str, SegmentLook] = {}
    for one, image, label in pairs:
        own, together, looked = _segments(label, image, one.uid)
        names |= own
        sets |= together
        looks |= {name: look for name, look in looked.items() if name not in looks}
    singles = [(name,) for name in sorted(names, key=natural_key)]
    table: Table = tuple((members, value) for value, members in enumerate([*singles, *sorted(sets)], 1))
    values = {name: [value for members, value in table if name in members] for (name,) in singles}
    labels = {BACKGROUND: [0, *values.pop(BACKGROUND, [])]} | values
    plain = {name: some[0] if len(some) == 1 else some for name, some in labels.items()}
    content = read_content(root)
    if content is not None:
        return own_info(content, root / DATASET), table
    return DatasetInfo(labels=plain, segments=looks) if values else None, table


def _segments(label: Path, image: Path, series: str) -> tuple[set[str], set[_Set], dict[str, SegmentLook]]:
    """The names of a label's segments, the sets of several that occur, and their looks."""
    if kind_of(label) == "RTSTRUCT":
        structures = Structures(label, str(label))
        scan = open_series(image, DicomCase(image, series))
        found = sets_of(structures.planes(scan, by_name=True), scan.shape)
        return set(structures.names.values()), _several(found), {}
    seg = SegFile(label, str(label))
    names = {name for number, name in seg.labels.items() if number != 0}
    together: set[_Set] = set()
    if seg.overlaps:
        grid = own_grid([seg], str(label))
        together = _several(sets_of(planes_of(seg, grid, by_name=True), grid.shape))
    return names, together, {name: look_of(seg, number) for number, name in seg.labels.items() if number != 0}


def _several(sets: Iterable[frozenset[Key]]) -> set[_Set]:
    return {tuple(sorted(map(str, members))) for members in sets if len(members) > 1}


def _names(series: Sequence[_Series], root: Path) -> dict[str, str]:
    """What cases are called in their files: as the file or folder is, where that tells them apart."""
    from medseg.inference.outputs import source_stem

    places = {one.uid: one.image or one.files[0].parent for one in series}
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
    for place, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(place, name)
            if not name.startswith(".") and is_dicom(path):
                yield path


def _kind(path: Path) -> str | None:
    try:
        return kind_of(path)
    except MedsegError:
        return None


LAYOUT = Layout(recognised, read)
