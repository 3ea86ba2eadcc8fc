"""What a config says about training; the loop reads it, the experiment holds it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

DEFAULT_STEPS = 1000


class TrainingSettings(BaseModel):
    """How the weights are found."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    window: list[PositiveInt] | None = Field(
        None, description="what the network sees of a sample, as inference counts tiles; null picks one that it takes"
    )
    batch: PositiveInt = 2
    max_steps: PositiveInt | None = Field(
        None, description=f"stop after so many steps; {DEFAULT_STEPS} where no minutes are given either"
    )
    max_minutes: PositiveFloat | None = Field(None, description="stop after so much time, validation included")
    learning_rate: PositiveFloat = 1e-3
    weight_decay: NonNegativeFloat = 1e-4
    warmup_steps: int = Field(50, ge=0)
    poly_power: NonNegativeFloat = Field(0.9, description="learning rate x (1 - progress) ^ power; 0 keeps it constant")
    gradient_clip: PositiveFloat | None = Field(1.0, description="largest norm of the gradient; null clips nothing")
    ema: float | None = Field(
        0.99, gt=0, lt=1, description="decay of the weights' moving average, which is validated and kept; null: none"
    )
    foreground_oversampling: float = Field(0.33, ge=0, le=1, description="share of samples centred on foreground")
    validations: PositiveInt = Field(10, description="how often whole scans are segmented, evenly over the run")
    patience: PositiveInt | None = Field(
        None, description="stop after so many validations without a better Dice; null never does"
    )
    precision: Literal["auto", "32", "bf16", "16"] = Field(
        "auto", description="auto: bf16 or 16 on a GPU that has them, else 32"
    )
    workers: int = Field(1, ge=0, description="processes that read samples; the result does not depend on it")
    cache_mib: NonNegativeFloat = Field(1024, description="scans are kept in memory up to this, read from disk beyond")

    @field_validator("precision", mode="before")
    @classmethod
    def _as_text(cls, value: Any) -> Any:
        return str(value) if isinstance(value, int) else value

    @model_validator(mode="before")
    @classmethod
    def _bounded(cls, values: Any) -> Any:
        bounds = ("max_steps", "max_minutes")
        if isinstance(values, Mapping) and all(values.get(key) is None for key in bounds):
            return {**values, "max_steps": DEFAULT_STEPS}
        return values
