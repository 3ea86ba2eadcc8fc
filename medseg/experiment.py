"""The whole experiment as YAML, typed: the only reader of config.

A config is read with ``yaml.safe_load``, overridden by ``key.sub=value`` from the command line, and validated with
every unknown key refused. What is wrong is said with its file, line and key. Paths are relative to the folder that
the command runs in.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError

from medseg.errors import ConfigError
from medseg.inference.settings import InferenceSettings
from medseg.scans.preprocessing import Preprocessing
from medseg.training.settings import TrainingSettings
from medseg.yaml_source import YamlSource


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PhantomData(_Section):
    """Synthetic data, made at ``data.root`` on first use."""

    kind: Literal["cells2d", "organs3d"]
    cases: PositiveInt = 12
    size: list[PositiveInt] = Field(description="voxels along each axis, or one number for all")
    seed: int = 0


class Data(_Section):
    """Labelled images: a folder with images/ and labels/ whose files match by stem."""

    root: Path | None = Field(None, description="the folder; relative to where the command runs")
    phantom: PhantomData | None = Field(None, description="make this phantom at root where there is none yet")
    labels: dict[str, int] | None = Field(
        None, description="label name: value in the files; null takes the data set's own dataset.json"
    )
    foreground: list[str] | None = Field(
        None, description="the labels to segment, in the order of the classes; null takes all but the background"
    )
    instances: bool | None = Field(
        None, description="label files number their objects; every non-zero one is foreground"
    )
    train: list[str] | None = Field(None, description="names of the training cases; null takes what is left")
    validation: float | list[str] = Field(0.2, description="a fraction of the cases, drawn by the seed, or their names")
    test: float | list[str] = Field(0.0, description="cases kept away from training and validation")


class Loss(BaseModel):
    """The loss by name, and its arguments."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: Literal["dice_bce", "dice_ce", "weighted_ce"] = "dice_bce"


class NetworkSpec(BaseModel):
    """The network by name, and its arguments (``medseg networks NAME`` lists them)."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str
    dims: Literal[2, 3] = 2


class Tracking(_Section):
    """Where the run is written down."""

    uri: str | None = Field(
        None, description="MLflow's store; null takes MLFLOW_TRACKING_URI, else sqlite:///mlflow.db"
    )
    experiment: str | None = Field(None, description="MLflow's experiment; null takes the config's name")
    pictures: int = Field(4, ge=0, description="validation cases whose overlay is kept over time")


class Experiment(_Section):
    """One experiment: a data set, a network, and how the one is trained on the other."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=100)
    description: str = ""
    seed: int = Field(0, ge=0)
    data: Data
    preprocessing: Preprocessing = Preprocessing()
    network: NetworkSpec
    loss: Loss = Loss()
    augmentation: list[dict[str, Any]] = Field(
        [{"name": "flip"}], description="transforms of the training samples, in order; each names itself"
    )
    training: TrainingSettings = TrainingSettings()
    inference: InferenceSettings = InferenceSettings()
    tracking: Tracking = Tracking()

    @classmethod
    def load(cls, path: str | Path, overrides: Iterable[str] = ()) -> Experiment:
        """The experiment of a YAML file, with ``key.sub=value`` laid over it.

        Raises:
            ConfigError: with file, line and key of the first thing that is wrong, and what is allowed there.
        """
        source = YamlSource.read(Path(path))
        for override in overrides:
            source.override(override)
        try:
            return cls.model_validate(source.content)
        except ValidationError as error:
            raise ConfigError(source.explain(error, cls)) from None

    def to_yaml(self) -> str:
        """The experiment as YAML that loads to the same experiment."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)

    @staticmethod
    def json_schema() -> dict[str, Any]:
        """The JSON Schema for editors, with the networks' names and arguments."""
        from medseg.networks import NETWORKS, arguments_of

        schema = Experiment.model_json_schema()
        network = schema["$defs"]["NetworkSpec"]
        network["properties"]["name"]["enum"] = list(NETWORKS)
        for name in NETWORKS:
            for key, default in arguments_of(name).items():
                example = list(default) if isinstance(default, tuple) else default
                network["properties"].setdefault(key, {"title": key, "examples": [example]})
        return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
