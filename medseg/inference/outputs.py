"""Which scans a command names, and what each result is called."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from medseg.datasets.cases import natural_key
from medseg.datasets.layouts.folders import PAIRS
from medseg.errors import MedsegError, OutputError, ScanError, nearest
from medseg.files import absent
from medseg.scans.dicom_folder import files_in
from medseg.scans.dicom_sources import Sources, joined, sources_in
from medseg.scans.scan import READERS, SUFFIXES, open_scan, stem_of, suffix_of

PROBABILITIES = "probabilities"
"""The folder beside the masks that takes probabilities."""
FORMATS = {"nii.gz": ".nii.gz", "nii": ".nii", "tif": ".tif", "png": ".png", "zarr": ".ome.zarr", "dcm": ".dcm"}
"""``--format`` and the suffix that it writes."""
_LIKE_INPUT = {
    ".nii": ".nii",
    **dict.fromkeys((".nii.gz", ".hdr", ".img", ".mha", ".mhd", ".nrrd", ".nhdr"), ".nii.gz"),
    **dict.fromkeys((".zarr", ".ome.zarr"), ".ome.zarr"),
    **dict.fromkeys((".dcm", ".dcm.gz", ".dicom", ".ima"), ".nii.gz"),
    **dict.fromkeys((".png", ".jpg", ".jpeg", ".gif", ".bmp"), ".png"),
}
"""What ``auto`` writes for each suffix; for what has none, which is DICOM, .nii.gz, and for all others .tif."""
STREAMS = (".nii.gz", ".png")
"""Formats that are one compressed stream: it must be read from its beginning, by every program."""
PNG_BYTES = 2
"""The bytes of the largest label that a PNG holds; ``auto`` writes .tif for larger ones."""
LARGEST_STREAM_BYTES = 4 << 30
"""The labels that ``auto`` still writes as such a stream; more go into .ome.zarr."""


def find_sources(inputs: Sequence[Path]) -> list[Path]:
    """Every scan among files and folders, folders searched to any depth; DICOM files in one folder are one scan.

    A DICOM series that lies in several folders is one scan too: the folder that holds them all.

    Raises:
        ScanError: for a path that does not exist, or a folder without a scan.
        MedsegError: for a data set's root, whose labels are no input.
    """
    sources: list[Path] = []
    for path in inputs:
        if not path.exists():
            raise ScanError(absent(path))
        if path.is_file() or _is_scan(path):
            sources.append(path)
        else:
            sources += _below(path)
    return list(dict.fromkeys(sources))


def voxels_of(path: Path) -> int:
    """The voxels of a scan, from its header; 0 for one that cannot be opened, which is told when it is its turn."""
    try:
        return math.prod(open_scan(path).shape)
    except MedsegError:
        return 0


def name_outputs(
    sources: Sequence[Path],
    folder: Path,
    format: str,
    label_bytes: int = 1,
    size_of: Callable[[Path], int] = voxels_of,
    name_of: Callable[[Path], str] | None = None,
) -> list[Path]:
    """The output of each source: ``folder/stem.suffix``; sources that share a stem keep their tree below it.

    Args:
        sources: the scans.
        folder: for the outputs.
        format: one of ``FORMATS``, or «auto»: like the input, but .ome.zarr where the labels are too large for one
            compressed stream (:func:`outgrown` tells which those are).
        label_bytes: of one label.
        size_of: tells a scan's voxels; asked only of those that «auto» would write as a stream.
        name_of: tells what a scan is called; its stem by default.

    Raises:
        OutputError: for an unknown format, or where two sources would still share an output.
    """
    if format != "auto" and format not in FORMATS:
        raise OutputError(f"format {format!r} is none of auto, {', '.join(FORMATS)}{nearest(format, FORMATS)}")
    named = name_of or source_stem
    stems = Counter(named(source) for source in sources)
    parents = _common_parent(sources)
    outputs = []
    for source in sources:
        stem = named(source)
        tree = source.absolute().parent.relative_to(parents) if stems[stem] > 1 else Path()
        outputs.append(folder / tree / (stem + _suffix(source, format, label_bytes, size_of)))
    twice = [path for path, count in Counter(outputs).items() if count > 1]
    if twice:
        raise OutputError(f"two inputs would both be written to {twice[0]}: give them to two commands")
    return outputs


def outgrown(source: Path, output: Path, format: str) -> bool:
    """Whether «auto» left the input's own format because of the size."""
    return format == "auto" and suffix_of(output) == ".ome.zarr" != _like_input(source)


def _like_input(source: Path) -> str:
    """The suffix that «auto» writes for a source of moderate size."""
    suffix = suffix_of(source)
    return _LIKE_INPUT.get(suffix, ".tif") if suffix else ".nii.gz"


def _suffix(path: Path, format: str, label_bytes: int, size_of: Callable[[Path], int]) -> str:
    if format != "auto":
        return FORMATS[format]
    suffix = _like_input(path)
    if suffix == ".png" and label_bytes > PNG_BYTES:
        return ".tif"
    large = suffix in STREAMS and size_of(path) * label_bytes > LARGEST_STREAM_BYTES
    return ".ome.zarr" if large else suffix


def source_stem(source: Path) -> str:
    """A source's name without its suffix; the name of a folder of DICOM files has none, however many dots it has."""
    return stem_of(source) if suffix_of(source) or source.is_file() else source.resolve().name


def _common_parent(paths: Sequence[Path]) -> Path:
    parents = [path.absolute().parent for path in paths]
    common = parents[0] if parents else Path()
    while not all(parent.is_relative_to(common) for parent in parents):
        common = common.parent
    return common


def _is_scan(path: Path) -> bool:
    return path.name.lower().endswith(tuple(SUFFIXES))


def _below(folder: Path) -> list[Path]:
    for images, labels in PAIRS:
        if (folder / images).is_dir() and (folder / labels).is_dir():
            raise MedsegError(f"{folder} is a data set; its labels are no input: give {folder / images}")
    looked: dict[Path, Sources] = {}
    found = joined(_scans_below(folder, looked), looked)
    if not found and files_in(folder):
        return [folder]  # to be told what its DICOM files are
    if not found:
        raise ScanError(f"{folder} holds no scan that medseg can read (DICOM, {', '.join(sorted(SUFFIXES))})")
    return found


def _scans_below(folder: Path, looked: dict[Path, Sources]) -> list[Path]:
    """Every scan below a folder; ``looked`` takes what the DICOM files of each folder are."""
    looked[folder] = sources_in(folder)
    found = list(looked[folder].paths)
    for path in sorted(folder.iterdir(), key=lambda p: natural_key(p.name)):
        if path.name.startswith("."):
            continue
        if _is_scan(path):
            if READERS[suffix_of(path)] != "dicom":
                found.append(path)
        elif path.is_dir():
            found += _scans_below(path, looked)
    return found
