"""What a config says about training; the loop reads it, the experiment holds it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    ValidationInfo,
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
    init_from: Path | None = Field(
        None, description="a run's folder, a model package or models:/NAME@ALIAS, whose weights the network begins with"
    )
    freeze: list[str] = Field(
        [], description="parts of the network, or single parameters, that are not trained: [backbone.layer1, score]"
    )
    batch: PositiveInt = 2
    max_steps: PositiveInt | None = Field(
        None, description=f"stop after so many steps; {DEFAULT_STEPS} where no minutes are given either"
    )
    max_minutes: PositiveFloat | None = Field(None, description="stop after so much time, validation included")
    optimizer: Literal["adamw", "adam", "sgd"] = Field(
        "adamw", description="adamw decays weights apart from the gradient, adam and sgd with it"
    )
    momentum: float = Field(0.9, ge=0, lt=1, description="of sgd; nnU-Net has 0.99")
    nesterov: bool = Field(False, description="sgd looks ahead by its momentum")
    learning_rate: PositiveFloat = 1e-3
    rate_factors: dict[str, NonNegativeFloat] = Field(
        {}, description="part of the network: how many times the learning rate it has, as {classifier: 10}"
    )
    weight_decay: NonNegativeFloat = 1e-4
    schedule: Literal["poly", "cosine", "step", "constant"] = Field(
        "poly", description="how the learning rate falls with the progress of the training, from 0 to 1"
    )
    warmup_steps: int = Field(50, ge=0)
    poly_power: NonNegativeFloat = Field(0.9, description="of poly: learning rate x (1 - progress) ^ power")
    step_at: list[float] = Field([0.5, 0.75], description="of step: the progress at which the learning rate falls")
    step_factor: float = Field(0.1, gt=0, lt=1, description="of step: what is left of the learning rate each time")
    auxiliary_weights: list[NonNegativeFloat] | None = Field(
        None, description="what the losses of the network's auxiliary outputs count; null takes the network's own"
    )
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
    prepare: Literal["auto", "always", "never"] = Field(
        "auto",
        description="cases put on the model's grid once and kept in the cache folder: those beyond cache_mib, all, or "
        "none; the result does not depend on it",
    )

    @field_validator("precision", mode="before")
    @classmethod
    def _as_text(cls, value: Any) -> Any:
        return str(value) if isinstance(value, int) else value

    @field_validator("step_at")
    @classmethod
    def _within(cls, value: list[float]) -> list[float]:
        if not all(0 < at < 1 for at in value) or sorted(set(value)) != value:
            raise ValueError("numbers between 0 and 1 are expected, in rising order")
        return value

    @field_validator("nesterov")
    @classmethod
    def _of_sgd(cls, value: bool, info: ValidationInfo) -> bool:
        if value and (info.data.get("optimizer") != "sgd" or not info.data.get("momentum")):
            raise ValueError("it needs optimizer: sgd, with a momentum above 0")
        return value

    @model_validator(mode="before")
    @classmethod
    def _bounded(cls, values: Any) -> Any:
        bounds = ("max_steps", "max_minutes")
        if isinstance(values, Mapping) and all(values.get(key) is None for key in bounds):
            return {**values, "max_steps": DEFAULT_STEPS}
        return values
