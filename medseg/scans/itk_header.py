"""What the headers of MetaImage and NRRD say alike: one block of values in one file, and how it lies in the world.

World coordinates are LPS millimetres unless a header says otherwise, as ITK and every program built on it takes them,
so that a mask lies over its scan there too; medseg's affine is RAS+. Whether the file says how the patient lies
(``anatomical``) is another matter: it does where it states directions in a patient's space.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from medseg.errors import ScanError
from medseg.scans.header import Header
from medseg.scans.raw import RawArray

HEADER_BYTES = 1 << 20
"""The longest header that is looked for."""

LPS = (-1.0, -1.0, 1.0)
"""Signs that turn LPS coordinates to RAS+."""


@dataclass(frozen=True)
class Stored:
    """What a header says of its voxels.

    Attributes:
        header: the scan's properties.
        roles: the letters of the stored axes, slowest first: «ZYX», «ZYXC», «CZYX».
        layout: the values as an array of those axes, at their offset in the file, or in the stream once inflated.
        data: the file that holds them.
        stream: where a compressed stream begins in that file.
        compression: «zlib», «gzip», «bzip2», or «» for none.
    """

    header: Header
    roles: str
    layout: RawArray
    data: Path
    stream: int = 0
    compression: str = ""


@dataclass(frozen=True)
class Text:
    """The fields of a header and the bytes after it."""

    name: str
    fields: dict[str, str]
    end: int

    def numbers(self, field: str, count: int) -> list[float]:
        """The numbers of a field.

        Raises:
            ScanError: where there are not ``count`` of them.
        """
        words = self.fields.get(field.replace(" ", "").lower(), "").split()
        try:
            found = [float(word) for word in words]
        except ValueError:
            found = []
        if len(found) != count or len(words) != count:
            raise ScanError(f"{self.name}: its «{field}» is not {count} number(s); mend the header")
        return found

    def integers(self, field: str, count: int) -> list[int]:
        """The integers of a field; raises as :meth:`numbers`."""
        found = self.numbers(field, count)
        if any(not n.is_integer() for n in found):
            raise ScanError(f"{self.name}: its «{field}» is not {count} integer(s); mend the header")
        return [int(n) for n in found]

    def number(self, field: str, default: int) -> int:
        """The one integer of a field that may be left out."""
        return self.integers(field, 1)[0] if field.replace(" ", "").lower() in self.fields else default


def beside(path: Path, name: str, stated: str) -> Path:
    """The data file that a header names, which lies in the header's folder or below.

    Raises:
        ScanError: where it lies elsewhere, is one of several, or is missing.
    """
    place = PurePosixPath(stated)
    if "%" in stated or re.match(r"list\b", stated, re.IGNORECASE):
        raise ScanError(f"{name}: its voxels lie in several files; store them in one")
    if place.is_absolute() or ".." in place.parts:
        raise ScanError(f"{name}: its data file lies outside its folder; put both into one folder")
    data = path.parent / place
    if not data.is_file():
        raise ScanError(f"{name}: its data file {place.name} is missing; it belongs beside the header")
    return data


def affine_of(
    columns: NDArray[np.float64], origin: NDArray[np.float64], signs: tuple[float, ...]
) -> NDArray[np.float64]:
    """The 4 x 4 affine from one column of world millimetres for each axis (2 or 3 worlds, 2 or 3 axes).

    Args:
        columns: (worlds, axes).
        origin: (worlds,).
        signs: what each world axis is multiplied by to be RAS+.
    """
    worlds, axes = columns.shape
    affine = np.eye(4)
    affine[:worlds, :axes] = columns
    affine[:worlds, 3] = origin
    affine[:3] *= np.array(signs)[:, None]
    if axes == 2:
        normal = np.cross(affine[:3, 0], affine[:3, 1])
        affine[:3, 2] = normal / (np.linalg.norm(normal) or 1.0)
    return affine
