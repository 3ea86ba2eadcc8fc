"""A model that is ready to segment, and how it is to be done."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from medseg.addresses import Fetched, fetched
from medseg.datasets.labels import Labels
from medseg.errors import ConfigError
from medseg.geometry import Box
from medseg.inference.budget import Budget
from medseg.inference.decode import Decoder
from medseg.inference.plan import Plan
from medseg.inference.segment import prepare
from medseg.inference.settings import InferenceSettings
from medseg.inference.tta import Turns
from medseg.networks.network import Network
from medseg.package import ModelCard, find_package, read_card, read_network
from medseg.postprocessing.chain import Chain
from medseg.postprocessing.settings import Step
from medseg.scans.dicom_facts import SeriesChoice
from medseg.scans.protocol import Scan

Precision = Literal["uint8", "float16", "float32"]


@dataclass(frozen=True)
class Model:
    """A package, loaded and ready on a device.

    Attributes:
        card: what it says of itself.
        network: with its weights.
        device: where it runs.
        folder: the package on this machine.
        fetched: how it came here, where it was asked for by an address.
    """

    card: ModelCard
    network: Network
    device: torch.device
    folder: Path
    fetched: Fetched | None = None

    @classmethod
    def load(cls, path: Path, device: torch.device) -> Model:
        """From a package folder, a run's folder, or an address such as ``models:/NAME@ALIAS``.

        Raises:
            PackageError: where there is none, or it is damaged, foreign or too new.
            MedsegError: where a registry does not give it.
        """
        found = fetched(path)
        folder = find_package(path if found is None else found.folder)
        card = read_card(folder)
        return cls(card, prepare(read_network(folder, card), device), device, folder, found)

    @property
    def labels(self) -> Labels:
        """What the masks' values mean."""
        return self.card.label_map

    @property
    def members(self) -> tuple[Model, ...]:
        """The models that answer: this one."""
        return (self,)

    @property
    def channels(self) -> int:
        """Channels of the probabilities."""
        return self.network.out_channels

    @property
    def digests(self) -> tuple[str, ...]:
        """Of the weights of each model that answers."""
        return (self.card.weights_sha256,)

    def view(self, scan: Scan, fingerprint: str) -> Scan:
        """What the network sees of a scan; what is measured for it is kept in the cache folder."""
        return self.card.preprocessing.remembered_view(scan, fingerprint)

    @property
    def decoder(self) -> Decoder:
        """How the network's channels become classes."""
        return Decoder(self.card.activation, self.labels.written)


@dataclass(frozen=True)
class Options:
    """How scans are to be segmented.

    Attributes:
        settings: tiles, sliding windows or one pass; None takes the package's.
        window: what the network sees at once where it goes by tiles, one number an axis or one for all; None lets the
            plan decide.
        batch: windows that go through the network together; None lets the plan decide.
        turns: test-time augmentation, or None.
        budget: the memory that may be held; None takes a share of what is free.
        part: the box of the scan's own grid that is wanted; None for all of it.
        probabilities: write these too, stored so, one channel an output channel of the network.
        overwrite: an output that exists is replaced, and what another job left is discarded.
        amp: half precision on a GPU.
        postprocessing: what is done to the mask after the network; None takes the package's, but for a ``part``: what
            is the largest object of a part, or closed within it, may not be so in the scan.
        series: which series of folders of DICOM files are meant.
        strict: scans that are unlike the training images are refused.
        plan: the tiles and batches, where they are known from before; None has them chosen.
    """

    settings: InferenceSettings | None = None
    window: tuple[int, ...] | None = None
    batch: int | None = None
    turns: Turns | None = None
    budget: Budget | None = None
    part: Box | None = None
    probabilities: Precision | None = None
    overwrite: bool = False
    amp: bool = False
    postprocessing: tuple[Step, ...] | None = None
    series: SeriesChoice | None = None
    strict: bool = False
    plan: Plan | None = None


def flipped_axes(model: Model) -> tuple[int, ...]:
    """The axes that flips look along: those along which the training images of every model were mirrored.

    A package that says none, or nothing, is no hindrance: whoever asks for flips knows more than it does.

    Raises:
        ConfigError: where the models of an ensemble share no such axis.
    """
    known = [member.card.mirrored for member in model.members if member.card.mirrored]
    axes = tuple(axis for axis in range(model.network.dims) if all(axis in axes for axes in known))
    if not axes:
        told = ", ".join(dict.fromkeys("+".join(map(str, sorted(axes))) for axes in known))
        raise ConfigError(
            f"the models' training mirrored images along different axes ({told}), and along none in all of them, so "
            "flips would show some what they never learned: leave --tta out"
        )
    return axes


def chain_of(model: Model, options: Options) -> Chain:
    """What is done to a mask after the network.

    Raises:
        ConfigError: for steps that do not suit the model's labels.
    """
    steps = options.postprocessing
    if steps is None:
        steps = () if options.part is not None else tuple(model.card.postprocessing)
    return Chain(steps, model.labels)
