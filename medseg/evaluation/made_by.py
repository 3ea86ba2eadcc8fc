"""Which models made masks, and of which scans, as far as what lies beside the masks says.

``medseg infer`` leaves ``report.json`` with its masks, and ``case_map.csv`` where scans are called by digests; a run
keeps the masks of its validation cases beside its model. What is missing or damaged there says nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from medseg.datasets.case_names import read_map
from medseg.datasets.checks.digest import Digest
from medseg.errors import MedsegError
from medseg.files import read_json
from medseg.package import MODEL, read_card

REPORT = "report.json"
VALIDATION = "validation"
"""The folder of a run, beside its model, that takes the masks of its validation cases."""


@dataclass(frozen=True)
class Made:
    """How a mask was made.

    Attributes:
        packages: the folders of the models, all of which are still there as they were.
        scan: where the scan was; None where that is not said.
        voxels: the digest of its voxels, «» where it was not taken.
    """

    packages: tuple[Path, ...]
    scan: Path | None = None
    voxels: str = ""


def made_by(masks: Mapping[str, Path]) -> dict[str, Made]:
    """How masks were made, by case; of those masks of which that is known.

    Args:
        masks: by case.
    """
    folders = {folder: _folder(folder) for folder in {path.parent for path in masks.values()}}
    found = {name: folders[path.parent].get(path.name) for name, path in masks.items()}
    validated = {name: _validated(path.parent) for name, path in masks.items() if found[name] is None}
    return {name: made for name, one in found.items() if (made := one or validated.get(name)) is not None}


class _Content(BaseModel):
    """A part of a report: what counts here of :class:`medseg.inference.audit.AuditReport`, which needs PyTorch."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class _Package(_Content):
    path: str
    weights_sha256: str


class _Start(_Content):
    models: list[_Package]


class _Row(_Content):
    input: str
    output: str
    start: str | None = None
    input_digest: Digest | None = None


class _Report(_Content):
    starts: dict[str, _Start] = {}
    scans: list[_Row] = []


def _folder(folder: Path) -> dict[str, Made]:
    """What a folder's report says, by the names of the masks' files."""
    report, files = _read(folder)
    starts = {id: _packages(start) for id, start in report.starts.items()}
    found = {}
    for row in report.scans:
        packages = starts.get(row.start or "")
        if packages:
            voxels = "" if row.input_digest is None else row.input_digest.voxels
            found[Path(row.output).name] = Made(packages, files.get(row.input) or Path(row.input), voxels)
    return found


def _read(folder: Path) -> tuple[_Report, dict[str, Path]]:
    """A folder's report, and which files its scans are."""
    try:
        content = read_json(folder / REPORT, "the report of medseg infer")
        return _Report.model_validate(content), read_map(folder)
    except (MedsegError, ValidationError):
        return _Report(), {}


def _packages(start: _Start) -> tuple[Path, ...]:
    """The packages of a start; none where one is gone, or holds other weights now."""
    found = tuple(Path(model.path) for model in start.models)
    same = all(_weights(place) == model.weights_sha256 for place, model in zip(found, start.models, strict=True))
    return found if same else ()


def _weights(package: Path) -> str | None:
    """The digest of a package's weights; None where it is gone."""
    try:
        return read_card(package).weights_sha256
    except MedsegError:
        return None


def _validated(folder: Path) -> Made | None:
    """Of the masks of a run's validation cases: by the model beside their folder."""
    package = folder.parent / "model"
    return Made((package,)) if folder.name == VALIDATION and (package / MODEL).is_file() else None
