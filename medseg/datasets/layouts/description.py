"""``dataset.json``: what a data set says of itself where a config is silent."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

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

from medseg.datasets.cases import check_inside
from medseg.datasets.declared import declared
from medseg.datasets.labels import Labels
from medseg.errors import ConfigError, MedsegError, nearest
from medseg.files import read_json
from medseg.scans.segments import SegmentLook
from medseg.scans.units import MILLIMETRES

DATASET = "dataset.json"
FORMAT = 1
"""The newest format of ``dataset.json`` that this version reads and the one that it writes."""


class DatasetInfo(BaseModel):
    """What a data set says of itself: the content of medseg's own ``dataset.json``, or what another's means."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: StrictInt = FORMAT
    name: str = ""
    description: str = ""
    dims: Literal[2, 3] | None = None
    channels: Annotated[StrictInt, Field(ge=1)] = 1
    channel_names: list[str] | None = None
    labels: dict[str, StrictInt | list[StrictInt]] = Field(
        description="the value of each label, or several: merged into one, or regions where labels share some"
    )
    regions_class_order: list[StrictInt] | None = Field(
        None, description="the value that is written for each region, in their order; later ones cover earlier ones"
    )
    foreground: list[str] | None = Field(None, description="the labels that are classes; all but background by default")
    instances: StrictBool = False
    ignore: list[str] | None = Field(None, description="labels that don't count; the one called ignore by default")
    spacing: list[PositiveFloat] | None = Field(None, description="between voxels, along the files' own axes, in unit")
    unit: Literal["mm", "um", "nm", "pixel"] = "mm"
    segments: dict[str, SegmentLook] = Field(
        default_factory=dict, description="what labels are in a DICOM SEG: a code and a colour for each"
    )
    patients: dict[str, str] = Field(
        default_factory=dict, description="the patient of each case; its own name by default"
    )

    @model_validator(mode="after")
    def _consistent(self) -> DatasetInfo:
        if self.spacing is not None and self.dims is not None and len(self.spacing) != self.dims:
            raise ValueError(f"spacing has {len(self.spacing)} numbers and dims is {self.dims}")
        try:
            self.label_map  # noqa: B018 - refuses labels that are none
        except MedsegError as error:
            raise ValueError(str(error)) from None
        return self

    @property
    def label_map(self) -> Labels:
        """The labels as an object."""
        return declared(self.labels, self.foreground or (), self.instances, self.ignore or (), self.regions_class_order)

    @property
    def spacing_mm(self) -> tuple[float, ...] | None:
        """The spacing in millimetres; None where none is stated."""
        if self.spacing is None or self.unit == "pixel":
            return None
        return tuple(s * MILLIMETRES[self.unit] for s in self.spacing)


def read_content(root: Path) -> dict[str, Any] | None:
    """What ``dataset.json`` holds, whoever wrote it; None where there is none.

    Raises:
        ConfigError: where it is no JSON object.
        MedsegError: where it is a link that leads out of the root.
    """
    path = root / DATASET
    if not path.exists():
        return None
    check_inside(path, root)
    content = read_json(path, "a data set's description", ConfigError)
    if not isinstance(content, dict):
        raise ConfigError(f"{path} holds no JSON object: it must describe a data set, at least its dims and labels")
    return content


def own_info(content: dict[str, Any], path: Path) -> DatasetInfo:
    """medseg's own description.

    Raises:
        ConfigError: where it is from a newer format, or has a key or value that is not allowed.
    """
    written = content.get("format", FORMAT)
    if isinstance(written, int) and written > FORMAT:
        raise ConfigError(f"{path} has format {written} and this medseg reads up to {FORMAT}: install a newer medseg")
    return validated(content, path)


def validated(content: dict[str, Any], path: Path) -> DatasetInfo:
    """Content as a description.

    Raises:
        ConfigError: with the file, and the first key that is wrong.
    """
    try:
        return DatasetInfo.model_validate(content)
    except ValidationError as error:
        raise ConfigError(f"{path}: {_first_problem(error)}") from None


def _first_problem(error: ValidationError) -> str:
    problems = error.errors()
    first = next((p for p in problems if p["type"] == "extra_forbidden"), problems[0])
    key = ".".join(str(part) for part in first["loc"] if part not in ("int", "list[int]"))
    if first["type"] == "extra_forbidden":
        allowed = ", ".join(DatasetInfo.model_fields)
        return f"unknown key {key!r}{nearest(key, DatasetInfo.model_fields)} (allowed: {allowed})"
    if first["type"] == "missing":
        return f"key {key!r} is missing"
    message = first["msg"].removeprefix("Value error, ")
    return f"{key}: {message}" if key else message
