"""The model package: a folder with ``weights.safetensors`` and ``model.json``, and nothing that can execute.

``model.json`` names no path, no class and no module: the network's name resolves through the table of networks, the
weights' file has one fixed name, and whatever the file says is validated before it is used.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic import Field as KeyField

from medseg.addresses import local
from medseg.datasets.channels import ChannelFiles
from medseg.datasets.fingerprint import Fingerprint
from medseg.datasets.labels import Labels
from medseg.errors import MedsegError, PackageError
from medseg.files import absent, partial_of, read_json, sha256_of, write_json
from medseg.inference.settings import InferenceSettings
from medseg.postprocessing.settings import Step
from medseg.scans.preprocessing import Preprocessing
from medseg.scans.segments import SegmentLook

if TYPE_CHECKING:
    from torch import Tensor

    from medseg.networks.network import Network

FORMAT = 4
"""The newest format of ``model.json`` that this version reads and the one that it writes."""
WEIGHTS = "weights.safetensors"
MODEL = "model.json"


class ModelCard(BaseModel):
    """The content of ``model.json``."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    format: int = FORMAT
    medseg: str = KeyField(description="the version of medseg that wrote the package")
    network: dict[str, Any] = KeyField(description="what build_network takes")
    activation: Literal["sigmoid", "softmax"]
    labels: dict[str, Any] = KeyField(description="names, values in the files, foreground")
    segments: dict[str, SegmentLook] = KeyField({}, description="codes and colours of labels, for DICOM SEG")
    preprocessing: Preprocessing
    inference: InferenceSettings = KeyField(InferenceSettings(), description="the way through a scan")
    postprocessing: list[Step] = KeyField([], description="what medseg infer does to a mask, in order")
    channel_files: ChannelFiles | None = KeyField(None, description="how the files of one scan are told apart")
    window: list[int] | None = KeyField(None, description="the window that the network was trained on")
    mirrored: list[int] | None = KeyField(
        None, description="the axes of the model's grid along which training images were mirrored; null: not known"
    )
    training: dict[str, Any] = KeyField(
        default_factory=dict, description="what the weights came from: data set and its digest, seed, step, scores"
    )
    fingerprint: Fingerprint | None = KeyField(None, description="what the training images were like")
    weights_sha256: str = ""

    @property
    def label_map(self) -> Labels:
        """The labels as an object."""
        return Labels.from_dict(self.labels)


def write_package(folder: Path, network: Network, card: ModelCard) -> Path:
    """Writes a package whole: beside, then renamed; one that stands there is replaced.

    Returns:
        the folder.
    """
    from safetensors.torch import save_file

    beside = partial_of(folder)
    beside.mkdir(parents=True, exist_ok=True)
    weights = {key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()}
    save_file(weights, beside / WEIGHTS)
    (beside / WEIGHTS).chmod(0o644)  # safetensors writes for the owner alone; a package is there to be shared
    card = card.model_copy(update={"weights_sha256": sha256_of(beside / WEIGHTS)})
    write_json(beside / MODEL, card.model_dump(mode="json"))
    _replace(beside, folder)
    return folder


def find_package(path: Path) -> Path:
    """The package's folder: the path itself, ``model/`` of a run's folder, or what ``models:/NAME@ALIAS`` names.

    Raises:
        PackageError: where there is neither.
        MedsegError: where a registry does not give it.
    """
    path = local(path)
    for folder in (path, path / "model"):
        if (folder / MODEL).is_file():
            return folder
    if not path.exists():
        raise PackageError(f"{absent(path, folders=True)}; a model is a package's folder or a run's")
    if path.is_file():
        raise PackageError(f"{path} is a file; a model is a package folder ({MODEL} and {WEIGHTS}) or a run's folder")
    if folds := [fold.parent.parent.name for fold in sorted(path.glob(f"fold*/model/{MODEL}"))]:
        raise PackageError(f"{path} holds a model for each of {len(folds)} folds: name one, such as {path / folds[0]}")
    raise PackageError(f"{path} is no model package and no run folder: no {MODEL} there or in its model folder")


def read_card(folder: Path) -> ModelCard:
    """The card of a package, validated.

    Raises:
        PackageError: where it is missing, no JSON, from a newer format, or not what a card must be.
    """
    path = folder / MODEL
    content = read_json(path, "a model package's card", PackageError)
    if not isinstance(content, dict):
        raise PackageError(f"{path} holds no JSON object: it is not a model package's card")
    written = content.get("format")
    if isinstance(written, int) and written > FORMAT:
        raise PackageError(f"{path} has format {written} and this medseg reads up to {FORMAT}: install a newer medseg")
    try:
        card = ModelCard.model_validate(content)
        card.label_map  # noqa: B018 - refuses labels that are none
        return card
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise PackageError(f"{path}: {key}: {first['msg']}; the package is damaged or not medseg's") from None
    except (MedsegError, KeyError, TypeError, ValueError) as error:
        raise PackageError(f"{path}: labels: {error}") from None


def read_network(folder: Path, card: ModelCard) -> Network:
    """The card's network with the package's weights, on the CPU, in evaluation mode.

    Raises:
        PackageError: where the weights are missing, damaged, or not the network's.
    """
    import torch

    from medseg.networks import build_network

    path = folder / WEIGHTS
    check_weights(path, card.weights_sha256)
    weights = _read_weights(path)
    try:
        with torch.device("meta"):
            network = build_network(card.network)
    except (MedsegError, TypeError, ValueError) as error:
        raise PackageError(f"{folder / MODEL}: {error}") from None
    check_shapes(path, weights, network)
    network.load_state_dict(weights, assign=True)
    return network.eval()


def check_shapes(path: Path, weights: dict[str, Tensor], network: Network) -> None:
    """Refuses weights that are not the network's, naming the first that differs.

    Raises:
        PackageError: with the tensor's name and both shapes.
    """
    wanted = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    found = {key: tuple(value.shape) for key, value in weights.items()}
    for key in [*wanted, *found]:
        if wanted.get(key) != found.get(key):
            raise PackageError(
                f"{path}: tensor {key} has shape {found.get(key, 'none')} and the network's has "
                f"{wanted.get(key, 'none')}: the weights belong to another network"
            )


def check_weights(path: Path, digest: str) -> None:
    """Refuses a weights' file that is not the one its card was written with.

    Raises:
        PackageError: where it is missing or its SHA-256 differs.
    """
    if not path.is_file():
        raise PackageError(f"{path} is missing: copy the whole package folder")
    if sha256_of(path) != digest:
        raise PackageError(f"{path} is not the file that {MODEL} was written with (SHA-256 differs): copy it again")


def _read_weights(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise PackageError(f"{path} is not readable as safetensors ({error})") from None


def _replace(beside: Path, folder: Path) -> None:
    """Gives ``beside`` the name ``folder``; one that stands there makes room first and is then removed."""
    import shutil

    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    beside.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
