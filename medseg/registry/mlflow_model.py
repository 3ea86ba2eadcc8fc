"""A package as an MLflow model: a folder that MLflow loads and serves through medseg, and that holds no pickle.

MLmodel                     flavour python_function, loader_module medseg.registry.pyfunc, the signature
data/model/                 the package: weights.safetensors, model.json
requirements.txt            medseg and what it needs, pinned (conda.yaml, python_env.yaml: the same for others)
input_example.json          an array that the model takes (serving_input_example.json: as a request)
"""

from __future__ import annotations

import os
import re
import shutil
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

import medseg
from medseg.files import partial_of
from medseg.package import MODEL, WEIGHTS, ModelCard, read_card
from medseg.postprocessing.chain import Chain
from medseg.quiet import quiet_mlflow

if TYPE_CHECKING:
    from mlflow.models import ModelSignature
    from numpy.typing import NDArray

    from medseg.networks.network import Network

LOADER = "medseg.registry.pyfunc"
PACKAGE = "data/model"
"""Where the package is in the MLflow model."""
EXAMPLE_SIDE = 16
"""Voxels along each axis of the input example: requests are JSON, and medseg mirrors what is smaller than a window."""
SPACING, AFFINE = "spacing_mm", "affine"
"""The parameters of a prediction."""


def write_mlflow_model(package: Path, folder: Path) -> Path:
    """Writes a package as an MLflow model.

    Args:
        package: a model package.
        folder: for the MLflow model; it must not exist.

    Returns:
        the folder.

    Raises:
        PackageError: for a package that cannot be read.
    """
    quiet_mlflow()
    os.environ["MLFLOW_UV_AUTO_DETECT"] = "false"  # it would copy the current folder's project into the model
    from mlflow import pyfunc

    card = read_card(package)
    network = skeleton(card)
    with TemporaryDirectory(dir=folder.parent) as made:
        copy = Path(made) / Path(PACKAGE).name
        copy.mkdir()
        for name in (MODEL, WEIGHTS):
            shutil.copyfile(package / name, copy / name)
        beside = partial_of(folder)
        shutil.rmtree(beside, ignore_errors=True)
        pyfunc.save_model(
            beside,
            loader_module=LOADER,
            data_path=str(copy),
            signature=signature_of(card, network),
            input_example=(example_of(network), {SPACING: [1.0] * network.dims}),
            pip_requirements=requirements(),
            metadata={"medseg": medseg.__version__, "weights_sha256": card.weights_sha256},
            model_config={"device": "auto"},
        )
    beside.rename(folder)
    return folder


def skeleton(card: ModelCard) -> Network:
    """The card's network without its weights: axes, channels and footprint."""
    import torch

    from medseg.networks import build_network

    with torch.device("meta"):
        return build_network(card.network)


def signature_of(card: ModelCard, network: Network) -> ModelSignature:
    """(N, C, \\*n) float32 → (N, \\*n) labels, with the voxels' size or their affine as parameters."""
    from mlflow.models import ModelSignature
    from mlflow.types import DataType, ParamSchema, ParamSpec, Schema, TensorSpec

    free: tuple[int, ...] = (-1,) * network.dims
    labels = card.label_map
    dtype = Chain(tuple(card.postprocessing), labels).dtype(labels.dtype)
    return ModelSignature(
        inputs=Schema([TensorSpec(np.dtype(np.float32), (-1, network.in_channels, *free))]),
        outputs=Schema([TensorSpec(dtype, (-1, *free))]),
        params=ParamSchema([ParamSpec(name, DataType.double, [], (-1,)) for name in (SPACING, AFFINE)]),
    )


def example_of(network: Network) -> NDArray[np.float32]:
    """(1, C, \\*16) noise: what goes in, with no patient's data."""
    shape = (1, network.in_channels, *(EXAMPLE_SIDE,) * network.dims)
    return np.random.default_rng(0).integers(0, 256, shape).astype(np.float32)


def requirements() -> list[str]:
    """medseg and what it needs, each pinned to the version that is installed here."""
    return [f"medseg=={medseg.__version__}", *sorted(_pinned(metadata.requires("medseg") or []))]


def _pinned(wanted: list[str]) -> list[str]:
    """The requirements without an extra, as ``name==version``; a build's mark (+cpu) is no version of an index."""
    names = [re.match(r"[\w.\-]+", requirement) for requirement in wanted if "extra ==" not in requirement]
    return [f"{name[0]}=={_public(metadata.version(name[0]))}" for name in names if name is not None]


def _public(version: Any) -> str:
    return str(version).partition("+")[0]
