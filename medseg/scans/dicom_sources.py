"""What a tree of folders holds to be segmented: which folder is a scan, which file is one of its own."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from medseg.errors import ScanError
from medseg.scans.dicom_folder import look_in
from medseg.scans.dicom_header import Instance, read_instance

Key = tuple[str, ...]
"""Patient, study and series: not every anonymisation leaves series' UIDs apart."""

_KEY = ("PatientID", "StudyInstanceUID", "SeriesInstanceUID")


@dataclass(frozen=True)
class Sources:
    """What the DICOM files directly in a folder are taken for.

    Attributes:
        paths: the folder as one scan, or files as scans of their own.
        series: the series of its images.
        slices: the UIDs of those images that say where they lie, by series.
    """

    paths: list[Path]
    series: set[str] = field(default_factory=set)
    slices: dict[Key, set[str]] = field(default_factory=dict)


def sources_in(folder: Path) -> Sources:
    """What a command takes the DICOM files directly in a folder for: one scan, one a file, or none.

    The images are scans of their own where each is its own series, as radiographs and enhanced images are. What is
    wrong with a damaged file is told when it is its turn.
    """
    found = look_in(folder)
    images, damaged, others = [], list(found.strays), 0
    for path in found.dicom:
        try:
            one = read_instance(path, path.name, ("PatientID", "SOPInstanceUID"))
        except ScanError:
            damaged.append(path)
            continue
        if one.kind is None:
            images.append(one)
        others += one.kind is not None
    series = {one.series for one in images}
    alone = len(images) == 1 and not damaged
    if alone or (len(images) > 1 and len(series) == len(images) and all(series)):
        paths = sorted([*(one.path for one in images), *damaged])
    elif images or (found.strays and not others):
        paths = [folder]
    else:
        paths = sorted(damaged)
    return Sources(paths, series, _slices(images))


def joined(found: Sequence[Path], looked: Mapping[Path, Sources]) -> list[Path]:
    """The sources of a tree, the parts of a series that lies in several folders as one: the folder that holds them all.

    Copies of a series stay scans of their own.

    Args:
        found: every source of the tree.
        looked: the DICOM of each folder of the tree.
    """
    tops = _tops(looked)
    return list(dict.fromkeys(_joined(path, tops, looked) for path in found)) if tops else list(found)


def _joined(path: Path, tops: Mapping[Path, set[str]], looked: Mapping[Path, Sources]) -> Path:
    folder = next((folder for folder in (path, path.parent) if folder in looked), None)
    if folder is None or path not in looked[folder].paths:
        return path
    for top, split in tops.items():
        whole = top not in looked or not looked[top].series
        if folder.is_relative_to(top) and (whole or looked[folder].series <= split):
            return top
    return path


def _tops(looked: Mapping[Path, Sources]) -> dict[Path, set[str]]:
    """The least folders that hold all parts of series that lie in several, the outermost first, and these series."""
    parts: dict[Key, dict[Path, set[str]]] = {}
    for folder, sources in looked.items():
        for key, slices in sources.slices.items():
            parts.setdefault(key, {})[folder] = slices
    tops: dict[Path, set[str]] = {}
    for key, places in parts.items():
        if len(set[str]().union(*places.values())) > max(map(len, places.values())):
            tops.setdefault(Path(os.path.commonpath(places)), set()).add(key[-1])
    return dict(sorted(tops.items(), key=lambda item: len(item[0].parts)))


def _slices(images: Sequence[Instance]) -> dict[Key, set[str]]:
    slices: dict[Key, set[str]] = {}
    for one in images:
        if one.series and one.attributes.words("ImagePositionPatient"):
            key = tuple(one.attributes.word(keyword) for keyword in _KEY)
            slices.setdefault(key, set()).add(one.attributes.word("SOPInstanceUID") or one.path.name)
    return slices
