"""What all transforms of the augmentation have in common: a name, a probability, and ranges that are in order."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, field_validator

Probability = Annotated[float, Field(ge=0, le=1)]
Axis = Annotated[int, Field(ge=0, le=2)]
Range = tuple[PositiveFloat, PositiveFloat]


class Spec(BaseModel):
    """One transform as a config names it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    probability: Probability = 0.5

    @field_validator("range", check_fields=False)
    @classmethod
    def _ordered(cls, value: tuple[float, float]) -> tuple[float, float]:
        if value[0] > value[1]:
            raise ValueError("the first number must not be above the second")
        return value

    @property
    def named_axes(self) -> list[int]:
        """The axes that it names, which the samples must have."""
        return []


class ExactSpec(Spec):
    """One that moves voxels, or changes their values: MONAI transforms."""

    def transforms(self, dims: int) -> list[Any]:
        """MONAI dictionary transforms of ``image`` and ``label``."""
        raise NotImplementedError
