"""Which scans a command names, and what each result is called."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from medseg.datasets.cases import natural_key
from medseg.errors import MedsegError, OutputError, ScanError, nearest
from medseg.scans.scan import SUFFIXES, stem_of

FORMATS = {"nii.gz": ".nii.gz", "nii": ".nii", "tif": ".tif", "png": ".png", "zarr": ".ome.zarr"}
"""``--format`` and the suffix that it writes."""
_LIKE_INPUT = {".nii": ".nii", ".hdr": ".nii.gz", ".img": ".nii.gz", ".nii.gz": ".nii.gz", ".zarr": ".ome.zarr"}
_PICTURES = (".png", ".jpg", ".jpeg", ".gif", ".bmp")


def find_sources(inputs: Sequence[Path]) -> list[Path]:
    """Every scan among files and folders, folders searched to any depth.

    Raises:
        ScanError: for a path that does not exist, or a folder without a scan.
        MedsegError: for a data set's root, whose labels are no input.
    """
    sources: list[Path] = []
    for path in inputs:
        if not path.exists():
            beside = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
            raise ScanError(f"{path} does not exist{nearest(path.name, beside)}")
        if path.is_file() or _is_scan(path):
            sources.append(path)
        else:
            sources += _below(path)
    return list(dict.fromkeys(sources))


def name_outputs(sources: Sequence[Path], folder: Path, format: str) -> list[Path]:
    """The output of each source: ``folder/stem.suffix``; sources that share a stem keep their tree below it.

    Raises:
        OutputError: for an unknown format, or where two sources would still share an output.
    """
    if format != "auto" and format not in FORMATS:
        raise OutputError(f"format {format!r} is none of auto, {', '.join(FORMATS)}{nearest(format, FORMATS)}")
    stems = Counter(stem_of(source) for source in sources)
    parents = _common_parent(sources)
    outputs = []
    for source in sources:
        stem = stem_of(source)
        tree = source.absolute().parent.relative_to(parents) if stems[stem] > 1 else Path()
        outputs.append(folder / tree / (stem + _suffix(source, format)))
    twice = [path for path, count in Counter(outputs).items() if count > 1]
    if twice:
        raise OutputError(f"two inputs would both be written to {twice[0]}: give them to two commands")
    return outputs


def _suffix(path: Path, format: str) -> str:
    if format != "auto":
        return FORMATS[format]
    name = path.name.lower()
    for suffix, written in sorted(_LIKE_INPUT.items(), key=lambda pair: -len(pair[0])):
        if name.endswith(suffix):
            return written
    return ".png" if name.endswith(_PICTURES) else ".tif"


def _common_parent(paths: Sequence[Path]) -> Path:
    parents = [path.absolute().parent for path in paths]
    common = parents[0] if parents else Path()
    while not all(parent.is_relative_to(common) for parent in parents):
        common = common.parent
    return common


def _is_scan(path: Path) -> bool:
    return path.name.lower().endswith(tuple(SUFFIXES))


def _below(folder: Path) -> list[Path]:
    if (folder / "images").is_dir() and (folder / "labels").is_dir():
        raise MedsegError(f"{folder} is a data set; its labels are no input: give {folder / 'images'}")
    found = _scans_below(folder)
    if not found:
        raise ScanError(f"{folder} holds no scan that medseg can read ({', '.join(sorted(SUFFIXES))})")
    return found


def _scans_below(folder: Path) -> list[Path]:
    found = []
    for path in sorted(folder.iterdir(), key=lambda p: natural_key(p.name)):
        if path.name.startswith("."):
            continue
        if _is_scan(path):
            found.append(path)
        elif path.is_dir():
            found += _scans_below(path)
    return found
