"""Two folders whose files match by stem.

root/
  dataset.json        optional: DatasetInfo
  images/  a.tif  b.tif            or imagesTr/
  labels/  a.tif  b.tif            or labelsTr/; a.nii.gz and a.ome.zarr are both «a»
"""

from __future__ import annotations

from pathlib import Path

from medseg.datasets.cases import IMAGES, LABELS, find_scans
from medseg.datasets.layouts.dataset import SHOWN, DataSet, Layout, joined
from medseg.datasets.layouts.description import DATASET, own_info, read_content
from medseg.errors import MedsegError, nearest

PAIRS = ((IMAGES, LABELS), ("imagesTr", "labelsTr"))
"""The folders of images and of labels that are known."""


def recognised(root: Path) -> str | None:
    """Why: it has a folder of images."""
    return next((f"it has {images}/" for images, _ in PAIRS if (root / images).is_dir()), None)


def read(root: Path) -> DataSet:
    """The data set.

    Raises:
        MedsegError: where a folder is missing or holds no scan, two files share a stem, or ``dataset.json`` names a
            case that is not there.
        ConfigError: where ``dataset.json`` is not what it must be.
    """
    images_name, labels_name = folders_of(root)
    content = read_content(root)
    info = own_info(content, root / DATASET) if content is not None else None
    images = scans_in(root / images_name)
    labels = find_scans(root / labels_name) if (root / labels_name).is_dir() else {}
    patients = info.patients if info is not None else {}
    for name in patients:
        if name not in images:
            raise MedsegError(f"{root}: patients names the case {name!r}, which is not there{nearest(name, images)}")
    cases, orphans = joined({name: [path] for name, path in images.items()}, labels, patients)
    return DataSet(
        "folders",
        root,
        (info.name if info else "") or root.resolve().name,
        info,
        cases,
        orphans,
        labels_folder=labels_name,
    )


def folders_of(root: Path) -> tuple[str, str]:
    """The names of the folders of images and of labels.

    Raises:
        MedsegError: where there is none of images.
    """
    for images, labels in PAIRS:
        if (root / images).is_dir():
            return images, labels
    there = ", ".join(sorted(p.name for p in root.iterdir() if p.is_dir())[:SHOWN]) or "no folder"
    raise MedsegError(f"{root} has no folder {IMAGES}/ (it holds {there}): a data set has {IMAGES}/ and {LABELS}/")


def scans_in(folder: Path) -> dict[str, Path]:
    """The scans in a folder by stem, at least one.

    Raises:
        MedsegError: where there is none.
    """
    found = find_scans(folder)
    if not found:
        there = ", ".join(sorted(p.name for p in folder.iterdir())[:SHOWN]) or "nothing"
        raise MedsegError(f"{folder} holds no scan that medseg can read (it holds {there})")
    return found


LAYOUT = Layout(recognised, read)
