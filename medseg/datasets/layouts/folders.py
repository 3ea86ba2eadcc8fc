"""Two folders whose files match by stem.

root/
  dataset.json        optional: DatasetInfo
  images/  a.tif  b.tif            or image/, imgs/, img/, imagesTr/
  labels/  a.tif  b.tif            or masks/, label/, mask/, labelsTr/; a.nii.gz and a.ome.zarr are both «a»;
                                   or a_mask.tif, b_mask.tif: one ending that all have (:mod:`.endings`)
"""

from __future__ import annotations

from pathlib import Path

from medseg.datasets.cases import IMAGES, LABELS, find_scans
from medseg.datasets.layouts.dataset import SHOWN, DataSet, Layout, joined
from medseg.datasets.layouts.description import DATASET, own_info, read_content
from medseg.datasets.layouts.endings import endings_of
from medseg.errors import MedsegError, nearest

OF_IMAGES = {
    IMAGES: (LABELS, "masks"),
    "imagesTr": ("labelsTr",),
    "image": ("label", "mask", LABELS, "masks"),
    "imgs": ("masks", LABELS),
    "img": ("mask", "masks", "label", LABELS),
}
"""The folders of images that are known, and what the folder of their labels may be called."""
PAIRS = tuple((images, name) for images, labels in OF_IMAGES.items() for name in labels)
"""Each folder of images with each of its labels, in the order in which they are looked for."""


def recognised(root: Path) -> str | None:
    """Why: it has a folder of images, and one of labels where that is there too."""
    for images, labels in OF_IMAGES.items():
        if (root / images).is_dir():
            there = [name for name in labels if (root / name).is_dir()]
            rest = f"; {', '.join(f'{name}/' for name in there[1:])} is left alone" if there[1:] else ""
            return f"it has {' and '.join(f'{name}/' for name in (images, *there[:1]))}{rest}"
    return None


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
    endings = endings_of(images, labels)
    if endings is not None:
        labels = {endings.image_of(stem): path for stem, path in labels.items()}
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
        note="" if endings is None else str(endings),
    )


def folders_of(root: Path) -> tuple[str, str]:
    """The names of the folders of images and of labels.

    Raises:
        MedsegError: where there is none of images.
    """
    for images, labels in OF_IMAGES.items():
        if (root / images).is_dir():
            return images, next((name for name in labels if (root / name).is_dir()), labels[0])
    folders = sorted(path for path in root.iterdir() if path.is_dir())
    there = ", ".join(path.name for path in folders[:SHOWN]) or "no folder"
    below = next((f"; {path} has: take that folder" for path in folders if recognised(path) is not None), "")
    raise MedsegError(
        f"{root} has no folder {IMAGES}/ (it holds {there}): a data set has {IMAGES}/ and {LABELS}/, or a table of its "
        f"files{below}"
    )


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
