"""Data sets as they lie on the disk become cases, each layout in a file of its own.

| layout | what it is |
|---|---|
| ``manifest`` | a CSV or JSON table of cases |
| ``nnunet`` | nnU-Net's raw format: a file a channel, ``CASE_0000.nii.gz`` |
| ``msd`` | the Medical Segmentation Decathlon's ``dataset.json`` |
| ``bids`` | BIDS: ``sub-01/anat/sub-01_T1w.nii.gz``, and labels in ``derivatives/`` |
| ``folders`` | ``images/`` and ``labels/``, or ``imagesTr/`` and ``labelsTr/``, matched by stem |
| ``dicom_tree`` | DICOM studies: image series with the SEG or RTSTRUCT that refers to each |

No file of a data set may lie out of its root (a manifest's folder), links followed. Nothing is opened here but tables
and JSON, DICOM headers, and the headers of one case of BIDS.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from medseg.datasets.cases import Case
from medseg.datasets.layouts import bids, dicom_tree, folders, manifest, msd, nnunet
from medseg.datasets.layouts.dataset import DataSet, Layout, Problem
from medseg.datasets.layouts.describe import read_dataset
from medseg.datasets.layouts.description import DATASET, DatasetInfo
from medseg.errors import ConfigError, MedsegError, nearest

__all__ = ["DATASET", "LAYOUTS", "DataSet", "DatasetInfo", "Problem", "find_cases", "open_dataset", "read_dataset"]

LAYOUTS: dict[str, Layout] = {
    "manifest": manifest.LAYOUT,
    "nnunet": nnunet.LAYOUT,
    "msd": msd.LAYOUT,
    "bids": bids.LAYOUT,
    "folders": folders.LAYOUT,
    "dicom_tree": dicom_tree.LAYOUT,
}
"""Every layout that is known, in the order in which they are tried."""
_FILES = ("manifest", "bids")
"""Those whose root may be a file."""


def open_dataset(root: Path, layout: str | None = None) -> DataSet:
    """The data set at a root, whatever its layout; what is wrong with single cases is noted in it, and raised by
    :meth:`~medseg.datasets.layouts.dataset.DataSet.labelled`.

    Args:
        root: its folder, a manifest, or a label of a BIDS data set.
        layout: one of :data:`LAYOUTS`; by default the first that recognises the root.

    Raises:
        ConfigError: for an unknown layout, or a description that is damaged.
        MedsegError: where there is no data set, or a file of it leads out of the root.
    """
    if layout is not None and layout not in LAYOUTS:
        raise ConfigError(
            f"data.layout is {layout!r}{nearest(layout, LAYOUTS)}; it must be one of {', '.join(LAYOUTS)}"
        )
    if not root.exists() or (root.is_file() and layout not in (None, *_FILES)):
        raise MedsegError(f"{root} is no folder: give a data set's folder, with images/ and labels/ in it")
    if layout is not None:
        return LAYOUTS[layout].read(root)
    name, why = recognise(root)
    return replace(LAYOUTS[name].read(root), why=why)


def recognise(root: Path) -> tuple[str, str]:
    """The name of a root's layout, and why it is taken for that.

    Raises:
        MedsegError: where it is a file that is no table.
    """
    for name, layout in LAYOUTS.items():
        why = layout.recognised(root)
        if why is not None:
            return name, why
    if root.is_file():
        raise MedsegError(f"{root} is no data set: give a folder, or a manifest ({', '.join(manifest.SUFFIXES)})")
    return "folders", ""  # reading it says what is missing


def find_cases(root: Path) -> list[Case]:
    """The cases of a complete data set, in natural order (2 before 10).

    Raises:
        MedsegError: as :func:`open_dataset`, or where a file has no counterpart.
    """
    return list(open_dataset(root).labelled().values())
