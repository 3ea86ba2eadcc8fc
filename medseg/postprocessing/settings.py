"""The steps after the network as a config names them, in order: ``postprocessing: [{name: keep_largest}, ...]``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)

from medseg.datasets.labels import Labels
from medseg.errors import ConfigError, nearest

Connectivity = Annotated[int, Field(ge=1, le=3)]


class Spec(BaseModel):
    """One step."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    labels: list[str] | None = Field(None, description="the labels that it looks at; null takes all of the foreground")


class OfObjects(Spec):
    """A step that looks at connected objects."""

    connectivity: Connectivity | None = Field(
        None, description="along how many axes at once neighbours may be apart; null: all, so that corners touch"
    )
    joined: bool = Field(False, description="labels that touch are one object, as a tumour and its organ")


class RemoveSmall(OfObjects):
    """Objects below a size become background (scikit-image's ``remove_small_objects``)."""

    name: Literal["remove_small"] = "remove_small"
    min_voxels: PositiveInt | None = Field(None, description="the least voxels of an object that stays")
    min_mm2: PositiveFloat | None = Field(None, description="the same in square millimetres, for scans of two axes")
    min_mm3: PositiveFloat | None = Field(None, description="the same in cubic millimetres, for scans of three axes")

    @model_validator(mode="after")
    def _one_size(self) -> RemoveSmall:
        if sum(size is not None for size in (self.min_voxels, self.min_mm2, self.min_mm3)) != 1:
            raise ValueError("remove_small needs one of min_voxels, min_mm2 and min_mm3")
        return self


class KeepLargest(OfObjects):
    """Of each label only the largest object stays (MONAI's ``KeepLargestConnectedComponent``)."""

    name: Literal["keep_largest"] = "keep_largest"
    count: PositiveInt = Field(1, description="how many of the largest stay, such as 2 for lungs")


class FillHoles(Spec):
    """Background that a label encloses becomes that label (SciPy's ``binary_fill_holes``); other labels stay."""

    name: Literal["fill_holes"] = "fill_holes"
    connectivity: Connectivity | None = Field(
        None, description="of what lies in the hole; null: 1, so that it does not leak through corners"
    )
    max_voxels: PositiveInt | None = Field(None, description="the most voxels of a hole that is filled; null: any")
    max_mm2: PositiveFloat | None = Field(None, description="the same in square millimetres, for scans of two axes")
    max_mm3: PositiveFloat | None = Field(None, description="the same in cubic millimetres, for scans of three axes")

    @model_validator(mode="after")
    def _one_size(self) -> FillHoles:
        if sum(size is not None for size in (self.max_voxels, self.max_mm2, self.max_mm3)) > 1:
            raise ValueError("fill_holes takes one of max_voxels, max_mm2 and max_mm3")
        return self


class Instances(OfObjects):
    """Each object gets a number of its own from 1, uint32; the last step."""

    name: Literal["instances"] = "instances"


STEPS: dict[str, type[Spec]] = {
    "remove_small": RemoveSmall,
    "keep_largest": KeepLargest,
    "fill_holes": FillHoles,
    "instances": Instances,
}
"""Every step that a config can name."""


def _known(spec: Any) -> Any:
    """Refuses a step whose name or argument is none, with the nearest that is one."""
    if isinstance(spec, Spec):
        return spec
    if not isinstance(spec, Mapping):
        raise ValueError("a step is a mapping that names itself, such as {name: keep_largest}")
    name = spec.get("name")
    if not isinstance(name, str) or name not in STEPS:
        raise ValueError(f"name {name!r} is no step{nearest(str(name), STEPS)}; steps are {', '.join(STEPS)}")
    allowed = STEPS[name].model_fields
    for argument in spec:
        if argument not in allowed:
            takes = ", ".join(field for field in allowed if field != "name")
            raise ValueError(f"{name} has no argument {argument!r}{nearest(str(argument), allowed)}; it takes {takes}")
    return spec


Step = Annotated[
    Annotated[RemoveSmall | KeepLargest | FillHoles | Instances, Field(discriminator="name")], BeforeValidator(_known)
]
"""A step of a config; unknown names and arguments are refused with the nearest."""


class PostprocessingFile(BaseModel):
    """The content of a file of steps."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    postprocessing: list[Step]


def parse_steps(content: Any, where: str) -> tuple[Step, ...]:
    """The steps of a list, e.g. ``[{"name": "remove_small", "min_voxels": 50}, {"name": "keep_largest"}]``.

    Args:
        content: names of :data:`STEPS` and their arguments.
        where: what messages call the list.

    Raises:
        ConfigError: for an unknown name or argument, or a value that is not allowed.
    """
    try:
        steps = PostprocessingFile.model_validate({"postprocessing": content}).postprocessing
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"] if part not in STEPS)
        raise ConfigError(f"{where}: {place}: {first['msg'].removeprefix('Value error, ')}") from None
    return tuple(steps)


def read_steps(path: Path) -> tuple[Step, ...]:
    """The steps of a YAML file: a list, or what stands under the key ``postprocessing`` as in a config.

    Raises:
        ConfigError: where it is missing, no YAML, or holds no steps.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist: give a YAML file with postprocessing: [...], or none") from None
    except (OSError, UnicodeDecodeError, RecursionError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} cannot be read as YAML: {error}") from None
    if isinstance(content, dict):
        if "postprocessing" not in content:
            raise ConfigError(f"{path} has no key postprocessing, and is no list of steps")
        content = content["postprocessing"]
    return parse_steps(content, str(path))


def check_steps(steps: Sequence[Step], labels: Labels | None, dims: int | None = None) -> None:
    """Refuses steps that do not suit the labels or each other.

    Args:
        steps: in their order.
        labels: what the mask's values are called; None where nobody says, and labels are numbers then.
        dims: the scan's axes, where they are known.

    Raises:
        ConfigError: for an unknown label, more connectivity than axes, a size in the other's unit, or a step after
            ``instances``.
    """
    for index, step in enumerate(steps):
        key = f"postprocessing.{index} ({step.name})"
        if isinstance(step, Instances) and index < len(steps) - 1:
            raise ConfigError(f"{key}: instances is the last step, since numbers are no labels any more; move it there")
        _check_labels(key, step.labels, labels)
        if dims is not None:
            _check_axes(key, step, dims)


def _check_labels(key: str, names: Iterable[str] | None, labels: Labels | None) -> None:
    for name in names or ():
        if labels is None and not name.lstrip("-").isdigit():
            raise ConfigError(
                f"{key}: label {name!r}: nothing beside the masks says what their values mean; name a value, such as 1"
            )
        if labels is not None and name not in labels.foreground:
            known = ", ".join(labels.foreground)
            raise ConfigError(f"{key}: {name!r} is none of the labels {known}{nearest(name, labels.foreground)}")


def _check_axes(key: str, step: Step, dims: int) -> None:
    if step.connectivity is not None and step.connectivity > dims:
        raise ConfigError(f"{key}: connectivity {step.connectivity} is above the {dims} axes of the scan")
    wrong = 5 - dims
    given = step.model_dump()
    for size in (f"min_mm{wrong}", f"max_mm{wrong}"):
        if given.get(size) is not None:
            raise ConfigError(f"{key}: {size} is for scans of {wrong} axes and this one has {dims}: use mm{dims}")
