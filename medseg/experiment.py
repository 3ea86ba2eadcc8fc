"""The whole experiment as YAML, typed: the only reader of config.

A config is read with ``yaml.safe_load``, overridden by ``key.sub=value`` from the command line, and validated with
every unknown key refused. What is wrong is said with its file, line and key. Paths are relative to the folder that
the command runs in.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, ValidationError, field_validator

from medseg.errors import ConfigError
from medseg.inference.settings import InferenceSettings
from medseg.postprocessing.settings import Step
from medseg.scans.preprocessing import Preprocessing
from medseg.scans.segments import SegmentLook
from medseg.training.settings import TrainingSettings
from medseg.yaml_source import YamlSource

CONFIG = "experiment.yaml"
"""What a run's folder calls its experiment, resolved."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PhantomData(_Section):
    """Synthetic data, made at ``data.root`` on first use."""

    kind: Literal["cells2d", "organs3d"]
    cases: PositiveInt = 12
    size: list[PositiveInt] = Field(description="voxels along each axis, or one number for all")
    seed: int = 0


class BorderData(_Section):
    """A class of its own for the border of objects that label files number, so that touching ones are told apart."""

    width: PositiveInt | list[NonNegativeInt] = Field(
        description="voxels of an object that are border, along each axis of the label files or one number for all"
    )
    name: str = Field("border", min_length=1, description="what the class is called")


class Data(_Section):
    """Labelled images, in any of the layouts that are known."""

    root: Path | None = Field(
        None, description="the data set's folder, or a manifest (CSV or JSON); relative to where the command runs"
    )
    layout: Literal["manifest", "nnunet", "msd", "bids", "folders", "dicom_tree"] | None = Field(
        None, description="how the files lie; null takes what is recognised, and says what"
    )
    phantom: PhantomData | None = Field(None, description="make this phantom at root where there is none yet")
    labels: dict[str, int | list[int]] | None = Field(
        None,
        description="label name: value in the files, or a list of values: one label, written as the first, or regions "
        "where labels share values; null takes the data set's own dataset.json",
    )
    regions_class_order: list[int] | None = Field(
        None, description="the value that is written for each region, later ones over earlier ones; as in nnU-Net"
    )
    foreground: list[str] | None = Field(
        None, description="the labels to segment, in the order of the classes; null takes all but the background"
    )
    instances: bool | None = Field(
        None, description="label files number their objects; every non-zero one is foreground"
    )
    border: BorderData | None = Field(
        None, description="with instances: learn background, object and border as three classes"
    )
    ignore: list[str] | None = Field(
        None, description="labels whose voxels are neither learned from nor scored; null takes the one called ignore"
    )
    segments: dict[str, SegmentLook] | None = Field(
        None,
        description="what labels are in a DICOM SEG, by name: liver: {code: SCT 10200004 Liver, color: '#dd8265'}; "
        "null takes what the data set says",
    )
    resample_channels: bool = Field(
        False, description="channels in files of their own, on other grids, are resampled to the first one's"
    )
    case_names: Literal["stem", "digest"] = Field(
        "stem", description="what cases are called: their files' stems (DICOM: digests), or digests all of them"
    )
    exclude: list[str] = Field([], description="names of cases that are left out")
    train: list[str] | None = Field(None, description="names of the training cases; null takes what is left")
    validation: float | list[str] = Field(0.2, description="a fraction of the cases, drawn by the seed, or their names")
    test: float | list[str] = Field(0.0, description="cases kept away from training and validation")
    folds: int | None = Field(
        None, ge=2, description="of a cross-validation: so many are drawn; null takes the data set's own, else draws 5"
    )
    fold: int | None = Field(
        None, ge=0, description="the fold that is held out and validated on, from 0; medseg train --fold sets it"
    )
    split: Path | None = Field(
        None, description="a split.json that says which cases are trained and validated on, or what the folds are"
    )


class Loss(BaseModel):
    """The loss by name, and its arguments."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: Literal[
        "dice_bce",
        "dice_ce",
        "dice_focal",
        "ce",
        "bce",
        "weighted_ce",
        "focal",
        "ohem",
        "generalized_dice",
        "tversky",
        "boundary",
    ] = "dice_bce"


class WebFile(_Section):
    """A file behind a URL, and the digest that it must have."""

    url: str
    sha256: str = Field(description="64 digits in hex, of the whole file")

    @field_validator("url")
    @classmethod
    def _https(cls, value: str) -> str:
        if not value.startswith("https://"):
            raise ValueError("only https:// is fetched; a file on disk is given as pretrained: FILE")
        return value

    @field_validator("sha256")
    @classmethod
    def _digest(cls, value: str) -> str:
        if not re.fullmatch("[0-9a-fA-F]{64}", value):
            raise ValueError("a SHA-256 digest has 64 digits in hex (what sha256sum prints)")
        return value.lower()


class NetworkSpec(BaseModel):
    """The network by name, and its arguments (``medseg networks NAME`` lists them)."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str
    dims: Literal[2, 3] = 2
    pretrained: WebFile | Path | None = Field(
        None, description="torchvision's weights to begin with: a file, or {url: https://..., sha256: ...}"
    )

    @field_validator("pretrained", mode="before")
    @classmethod
    def _file_or_url(cls, value: Any) -> Any:
        if isinstance(value, str) and "://" in value:
            raise ValueError("a URL goes with its digest: {url: https://..., sha256: ...}")
        if value is not None and not isinstance(value, str | Path | WebFile | Mapping):
            raise ValueError("a file is expected, or {url: https://..., sha256: ...}")
        return value

    @property
    def arguments(self) -> dict[str, Any]:
        """Name and arguments, as ``build_network`` takes them."""
        return self.model_dump(exclude={"pretrained"})


class Tracking(_Section):
    """Where the run is written down."""

    uri: str | None = Field(
        None, description="MLflow's store; null takes MLFLOW_TRACKING_URI, else sqlite:///mlflow.db"
    )
    experiment: str | None = Field(
        None, description="MLflow's experiment; null takes the data set's and its labels' names"
    )
    pictures: int = Field(4, ge=0, description="validation cases whose overlay is kept over time")
    review: bool = Field(
        True, description="at the end the best model's masks of the validation cases, all scores, and report.html"
    )


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
    postprocessing: list[Step] = Field([], description="what medseg infer does to a mask after the network, in order")
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
        """The JSON Schema for editors, with the networks' names, and their and the losses' arguments."""
        from medseg import networks
        from medseg.training import losses

        schema = Experiment.model_json_schema()
        network, loss = (schema["$defs"][name]["properties"] for name in ("NetworkSpec", "Loss"))
        network["name"]["enum"] = list(networks.NETWORKS)
        for name in networks.NETWORKS:
            _add_arguments(network, networks.arguments_of(name))
        for name in losses.LOSSES:
            _add_arguments(loss, losses.arguments_of(name))
        return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _add_arguments(properties: dict[str, Any], arguments: Mapping[str, Any]) -> None:
    """Puts arguments, with their defaults as examples, among a schema's properties."""
    for key, default in arguments.items():
        example = list(default) if isinstance(default, tuple) else default
        properties.setdefault(key, {"title": key, "examples": [example]})
