"""A case that is to be prepared, and the key that its arrays are kept under."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from medseg.datasets.cases import Case
from medseg.datasets.check import open_image, open_placed_label
from medseg.datasets.checks.facts import Facts
from medseg.datasets.checks.survey import Item, image_items, label_items, survey
from medseg.datasets.labels import Labels
from medseg.errors import MedsegError
from medseg.files import digest_of
from medseg.scans.preprocessing import Preprocessing
from medseg.scans.scan import Scan

FORMAT = 2
"""Raised when what is written changes, so that older arrays are not taken for it."""


@dataclass(frozen=True)
class Request:
    """A case on a model's grid.

    Attributes:
        case: its files.
        preprocessing: the model's, fitted.
        labels: what the values in the label files mean.
        dataset: the digest of its data set.
        key: a digest of the voxels and grids of its files, of the preprocessing and the labels. A file that is touched,
            moved, renamed or stored otherwise keeps it; a voxel or number that changes makes another.
    """

    case: Case
    preprocessing: Preprocessing
    labels: Labels
    dataset: str
    key: str

    def image(self) -> Scan:
        """What the network sees of the image: (C, \\*grid). A z-score is measured, block by block."""
        return self.preprocessing.view(open_image(self.case))

    def label(self) -> Scan:
        """The label file's values on the same grid: (1, \\*grid)."""
        return self.preprocessing.grid(open_placed_label(self.case, open_image(self.case)), "nearest")

    @property
    def stored_bytes(self) -> int:
        """What the image takes on the disk, about: of a folder, what its list of files does."""
        return sum(path.stat().st_size for path in self.case.images)

    @property
    def nbytes(self) -> int:
        """What both take in memory; only headers are read."""
        grid = self.preprocessing.grid(open_image(self.case))
        dtype = grid.dtype if self.preprocessing.normalize.kind == "none" else np.dtype(np.float32)
        return int(np.prod(grid.shape)) * (grid.channels * dtype.itemsize + self.label().dtype.itemsize)


def requests_of(
    cases: Iterable[Case], preprocessing: Preprocessing, labels: Labels, dataset: str, workers: int = 0
) -> list[Request]:
    """Cases as requests; files whose contents the cache folder does not know are gone through once.

    Raises:
        MedsegError: where a file cannot be read.
    """
    listed = list(cases)
    terms = {"preprocessing": preprocessing.model_dump(mode="json"), "labels": labels.to_dict()}
    contents = contents_of(listed, _items, workers)
    return [
        Request(case, preprocessing, labels, dataset, _key(case, files, terms))
        for case, files in zip(listed, contents, strict=True)
    ]


def contents_of(cases: Sequence[Case], items: Callable[[Case], list[Item]], workers: int = 0) -> list[list[Any]]:
    """What files hold, of each case in turn: roles, digests of voxels, grids; as JSON, and without any name.

    Args:
        cases: which.
        items: which files of each.
        workers: processes, where files have to be gone through; 0 is one for each processor that may be used.

    Raises:
        MedsegError: where a file cannot be read.
    """
    facts = survey((item for case in cases for item in items(case)), workers)
    return [[_content(case, item, facts[item]) for item in items(case)] for case in cases]


def _items(case: Case) -> list[Item]:
    return [*image_items(case), *label_items(case)]


def _content(case: Case, item: Item, found: Facts) -> list[Any]:
    if found.grid is None or found.error:
        raise MedsegError(f"case {case.name}: its {item.role} cannot be read: {found.error}")
    return [item.role, found.voxels, vars(found.grid), case.resample_channels]


def _key(case: Case, files: list[Any], terms: Mapping[str, Any]) -> str:
    border = None if case.border is None else vars(case.border)
    return digest_of({"format": FORMAT, "files": files, "border": border, **terms})
