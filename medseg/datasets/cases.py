"""A folder with ``images/`` and ``labels/`` as cases, and the ``dataset.json`` that describes it.

    root/
      dataset.json        optional: DatasetInfo
      images/  a.tif  b.tif
      labels/  a.tif  b.tif      matched by stem: a.nii.gz and a.ome.zarr are both «a»

``dataset.json`` names no file, and a link that leads out of the root is refused: a data set cannot make
medseg read elsewhere.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    StrictBool,
    StrictInt,
    ValidationError,
    model_validator,
)

from medseg.datasets.labels import Labels
from medseg.errors import ConfigError, MedsegError, nearest
from medseg.files import read_json
from medseg.scans.scan import stem_of, suffix_of
from medseg.scans.units import MILLIMETRES

DATASET = "dataset.json"
IMAGES = "images"
LABELS = "labels"
FORMAT = 1
"""The newest format of ``dataset.json`` that this version reads and the one that it writes."""
_SHOWN = 5
_PIECE = 1 << 20


@dataclass(frozen=True)
class Case:
    """One image and its label.

    Attributes:
        name: the stem that both files share.
        image: the image's path.
        label: the label's path, or None where the data set has none for it.
        patient: whom it belongs to; a patient's cases stay in one part of a split.
    """

    name: str
    image: Path
    label: Path | None
    patient: str


class DatasetInfo(BaseModel):
    """The content of ``dataset.json``: what a data set says of itself where a config is silent."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: StrictInt = FORMAT
    name: str = ""
    description: str = ""
    dims: Literal[2, 3]
    channels: Annotated[StrictInt, Field(ge=1)] = 1
    labels: dict[str, StrictInt]
    foreground: list[str] | None = Field(None, description="the labels that are classes; all but background by default")
    instances: StrictBool = False
    spacing: list[PositiveFloat] | None = Field(None, description="between voxels, along the files' own axes, in unit")
    unit: Literal["mm", "um", "nm", "pixel"] = "mm"
    patients: dict[str, str] = Field(
        default_factory=dict, description="the patient of each case; its own name by default"
    )

    @model_validator(mode="after")
    def _consistent(self) -> DatasetInfo:
        if self.spacing is not None and len(self.spacing) != self.dims:
            raise ValueError(f"spacing has {len(self.spacing)} numbers and dims is {self.dims}")
        try:
            self.label_map  # noqa: B018 - refuses labels that are none
        except MedsegError as error:
            raise ValueError(str(error)) from None
        return self

    @property
    def label_map(self) -> Labels:
        """The labels as an object."""
        return Labels(self.labels, tuple(self.foreground or ()), self.instances)

    @property
    def spacing_mm(self) -> tuple[float, ...] | None:
        """The spacing in millimetres; None where none is stated."""
        if self.spacing is None or self.unit == "pixel":
            return None
        return tuple(s * MILLIMETRES[self.unit] for s in self.spacing)


def read_dataset(root: Path) -> DatasetInfo | None:
    """The ``dataset.json`` of a data set; None where it has none.

    Raises:
        ConfigError: where it is no JSON, from a newer format, or has a key or value that is not allowed.
    """
    path = root / DATASET
    if not path.exists():
        return None
    _inside(path, root)
    content = read_json(path, "a data set's description", ConfigError)
    if not isinstance(content, dict):
        raise ConfigError(f"{path} holds no JSON object: it must describe a data set, at least its dims and labels")
    written = content.get("format", FORMAT)
    if isinstance(written, int) and written > FORMAT:
        raise ConfigError(f"{path} has format {written} and this medseg reads up to {FORMAT}: install a newer medseg")
    try:
        return DatasetInfo.model_validate(content)
    except ValidationError as error:
        raise ConfigError(f"{path}: {_first_problem(error)}") from None


def find_cases(root: Path, *, labelled: bool = True, patients: Mapping[str, str] | None = None) -> list[Case]:
    """The cases of a data set, in natural order (2 before 10).

    Args:
        root: the folder that holds ``images/`` and ``labels/``.
        labelled: whether every image must have a label.
        patients: the patient of each case, by name; a case that is not there is its own.

    Raises:
        MedsegError: where a folder is missing or holds no scan, two files share a stem, a file has no
            counterpart, or a link leads out of the root.
    """
    if not root.is_dir():
        raise MedsegError(f"{root} is no folder: give a data set's folder, with {IMAGES}/ and {LABELS}/ in it")
    images = _scans_in(root / IMAGES, root)
    labels = _scans_in(root / LABELS, root) if labelled or (root / LABELS).is_dir() else {}
    if labelled:
        _check_counterparts("image", root / IMAGES, images, "label", labels)
    _check_counterparts("label", root / LABELS, labels, "image", images)
    owners = patients or {}
    for name in owners:
        if name not in images:
            raise MedsegError(f"{root}: patients names the case {name!r}, which is not there{nearest(name, images)}")
    return [Case(name, image, labels.get(name), owners.get(name, name)) for name, image in images.items()]


def find_scans(folder: Path) -> dict[str, Path]:
    """The scans directly in a folder by stem, in natural order; hidden files and those of no known suffix are
    left out.

    Raises:
        MedsegError: where two share a stem.
    """
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir(), key=lambda p: natural_key(p.name)):
        if path.name.startswith(".") or not suffix_of(path) or _belongs_to_header(path):
            continue
        stem = stem_of(path)
        if stem in found:
            raise MedsegError(
                f"{folder} holds {found[stem].name} and {path.name}, two files of one stem: keep one of them"
            )
        found[stem] = path
    return dict(sorted(found.items(), key=lambda item: natural_key(item[0])))


def natural_key(name: str) -> tuple[tuple[int, int, str], ...]:
    """Sorts numbers within names by their value: a2 before a10. Ties fall to the name itself."""
    parts = re.findall(r"[0-9]+|[^0-9]+", name)
    return (*((0, int(p), "") if p.isascii() and p.isdigit() else (1, 0, p) for p in parts), (-1, 0, name))


def digest(cases: Iterable[Case]) -> str:
    """The SHA-256 of names and contents of cases, whatever their order and wherever they lie; read in pieces."""
    total = hashlib.sha256()
    for case in sorted(cases, key=lambda c: c.name):
        for kind, path in ((IMAGES, case.image), (LABELS, case.label)):
            total.update(f"{kind}/{case.name}\0".encode())
            if path is not None:
                _add_content(total, path)
    return total.hexdigest()


def _belongs_to_header(path: Path) -> bool:
    """Whether this is the second half of a NIfTI pair, which its header opens."""
    return path.suffix.lower() == ".img" and path.with_suffix(".hdr").exists()


def _add_content(total: hashlib._Hash, path: Path) -> None:
    for file in [path] if path.is_file() else sorted(_files_below(path)):
        relative = "" if file == path else file.relative_to(path).as_posix()
        total.update(f"{relative}\0{file.stat().st_size}\0".encode())
        with file.open("rb") as stream:
            while piece := stream.read(_PIECE):
                total.update(piece)


def _files_below(folder: Path) -> Iterator[Path]:
    for place, _, names in os.walk(folder):
        yield from (Path(place, name) for name in names)


def _scans_in(folder: Path, root: Path) -> dict[str, Path]:
    if not folder.is_dir():
        there = ", ".join(sorted(p.name for p in root.iterdir() if p.is_dir())[:_SHOWN]) or "no folder"
        raise MedsegError(
            f"{root} has no folder {folder.name}/ (it holds {there}): a data set has {IMAGES}/ and {LABELS}/"
        )
    found = find_scans(folder)
    if not found:
        there = ", ".join(sorted(p.name for p in folder.iterdir())[:_SHOWN]) or "nothing"
        raise MedsegError(f"{folder} holds no scan that medseg can read (it holds {there})")
    for path in found.values():
        _inside(path, root)
    return found


def _inside(path: Path, root: Path) -> None:
    if path.is_symlink() or path.parent.is_symlink():
        target = path.resolve()
        if not target.is_relative_to(root.resolve()):
            raise MedsegError(f"{path} leads out of the data set, to {target}: copy the file into {root}")


def _check_counterparts(
    what: str, folder: Path, these: Mapping[str, Path], other: str, those: Mapping[str, Path]
) -> None:
    alone = [name for name in these if name not in those]
    if not alone:
        return
    listed = ", ".join(these[name].name for name in alone[:_SHOWN]) + (" ..." if len(alone) > _SHOWN else "")
    free = [name for name in those if name not in these] or list(those)
    hint = nearest(alone[0], free)
    raise MedsegError(
        f"{folder}: {len(alone)} of {len(these)} {what}s have no {other} of the same stem: {listed}{hint}; "
        f"add the {other}s or take the {what}s out"
    )


def _first_problem(error: ValidationError) -> str:
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        allowed = ", ".join(DatasetInfo.model_fields)
        return f"unknown key {key!r}{nearest(key, DatasetInfo.model_fields)} (allowed: {allowed})"
    if first["type"] == "missing":
        return f"key {key!r} is missing"
    message = first["msg"].removeprefix("Value error, ")
    return f"{key}: {message}" if key else message
