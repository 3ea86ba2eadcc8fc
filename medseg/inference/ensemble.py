"""Several models as one: the mean of their probabilities, tile by tile, in one pass through the scan.

The networks look at the same window, one after the other, and their logits lie side by side; blending, test-time
augmentation and tiles treat each network's channels as they treat a single one's. Only where probabilities are made of
them does the mean come in (:class:`~medseg.inference.decode.Decoder`), so that the ensemble of models is, voxel by
voxel, the mean of what each would have written alone. All models' weights are held, and nothing that grows with the
scan.

Where footprints differ, a window is as large as the widest halo asks for, tiles are apart by a common step, and every
network gets the part of the window that its own tile would have read:

    window         |<-- H -->|<------- core ------->|<-- H -->|
    network m        |<- h ->|<------- core ------->|<- h ->|e|        e: what makes its window an admissible one

Where intensities are normalised by what was measured on each model's own training scans, as in the folds of a
cross-validation, the view holds the image once for each way, channel upon channel, and each network sees its own.

Legend: M models, N batch, C channels of the image, D ways to normalise them, K output channels.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from medseg.datasets.fingerprint import Fingerprint
from medseg.errors import PackageError, TileError
from medseg.files import digest_of
from medseg.geometry import Box, Field, Footprint
from medseg.inference.decode import Decoder
from medseg.inference.model import Model
from medseg.inference.settings import InferenceSettings
from medseg.networks.network import Network
from medseg.package import ModelCard
from medseg.scans.gridmap import GridMap
from medseg.scans.header import Header, HeaderScan
from medseg.scans.preprocessing import Normalization, Preprocessing
from medseg.scans.protocol import Scan
from medseg.scans.views import Normalized, Rescale, check_finite


@dataclass(frozen=True)
class Ensemble(Model):
    """Models that answer together; it does what a :class:`~medseg.inference.model.Model` does.

    Make it by :meth:`of`.
    """

    parts: tuple[Model, ...] = ()

    @classmethod
    def of(cls, models: Sequence[Model]) -> Ensemble:
        """The ensemble of models, in their order.

        Raises:
            PackageError: where they don't belong together, with what differs and in which of them.
        """
        first = models[0]
        for other in models[1:]:
            _check_same(first, other)
        ways = _ways(models)
        networks = [model.network for model in models]
        together = Together(networks, [ways.index(model.card.preprocessing.normalize) for model in models])
        return cls(_card(models, together), together.eval(), first.device, first.folder, parts=tuple(models))

    @property
    def members(self) -> tuple[Model, ...]:
        """Each model."""
        return self.parts

    @property
    def decoder(self) -> Decoder:
        """How the networks' channels become classes."""
        return replace(super().decoder, members=len(self.parts))

    @property
    def channels(self) -> int:
        """Channels of the probabilities."""
        return self.parts[0].channels

    @property
    def digests(self) -> tuple[str, ...]:
        """Of each model's weights."""
        return tuple(digest for model in self.parts for digest in model.digests)

    def view(self, scan: Scan, fingerprint: str) -> Scan:
        """What the networks see of a scan, with (D * C) channels."""
        own = self.card.preprocessing
        ways = [own.model_copy(update={"normalize": way}) for way in _ways(self.parts)]
        if len(ways) == 1:
            return own.remembered_view(scan, fingerprint)
        return NormalizedTogether(own.grid(scan), [_rescale(way, scan, fingerprint) for way in ways])


class Together(Network):
    """Networks that look at one window, and whose logits lie side by side.

    Args:
        networks: of the same axes and channels.
        ways: for each network, which of the D blocks of C channels it sees; all the first where nothing is said.
    """

    paper = "Ensemble"

    def __init__(self, networks: Sequence[Network], ways: Sequence[int] | None = None) -> None:
        first = networks[0]
        self.ways = tuple(ways or [0] * len(networks))
        channels = first.in_channels * (max(self.ways) + 1)
        super().__init__(first.dims, channels, first.out_channels * len(networks))
        self.networks = nn.ModuleList(networks)
        different = len({network.fields for network in networks}) > 1
        self.cropped = different and any(field.trim for network in networks for field in network.fields)

    @cached_property
    def parts(self) -> tuple[Network, ...]:
        """The networks."""
        return tuple(network for network in self.networks if isinstance(network, Network))

    def trace(self, field: Field, axis: int) -> Field:
        """One axis through all networks: the least field that has room for each one's."""
        return common_field([network.fields[axis] for network in self.parts])

    def forward(self, x: Tensor) -> Tensor:
        """(N, D * C, \\*window) → (N, M * K, \\*out): the networks' logits, or their cores where outputs differ."""
        if not self._take(x.shape[2:]):
            return self.core(x)
        return torch.cat([network(seen) for network, seen in zip(self.parts, self._seen(x), strict=True)], 1)

    def core(self, x: Tensor) -> Tensor:
        """(N, D * C, \\*window) → (N, M * K, \\*core): each network's core of its own part of the window.

        Raises:
            TileError: where the window is not admissible.
        """
        core = self.footprint.core_shape(x.shape[2:])
        pairs = zip(self.parts, self._seen(x), strict=True)
        return torch.cat([_core_of(network, seen, self.footprint, core) for network, seen in pairs], 1)

    def check_window(self, window: Sequence[int]) -> None:
        """Refuses a window that one of the networks cannot take.

        Raises:
            TileError: with the sizes that would do.
        """
        if self.cropped:
            super().check_window(window)
        for network in () if self.cropped else self.parts:
            network.check_window(window)

    def _take(self, window: Sequence[int]) -> bool:
        """Whether every network takes the whole of a window, and answers for as much of it."""
        try:
            for network in self.parts:
                network.check_window(window)
        except TileError:
            return False
        return not self.cropped

    def _seen(self, x: Tensor) -> Iterable[Tensor]:
        """What each network sees of the channels."""
        channels = self.parts[0].in_channels
        return (x[:, way * channels : (way + 1) * channels] for way in self.ways)


def common_field(fields: Sequence[Field]) -> Field:
    """One axis of several networks as one: a halo, step and offset with which each one's own window has room.

    A window n of the common step's leaves the core c = n - 2 * halo; network m reads its least admissible window for
    it, which is e_m voxels longer than c + 2 * halo_m and must end with the window at the latest.
    """
    if len(set(fields)) == 1:
        return fields[0]
    step = math.lcm(*(field.step for field in fields))
    halo, rest = min((max(f.halo + _spare(f, rest) for f in fields), rest) for rest in range(step))
    offset, exact = (2 * halo + rest) % step, all(field.exact for field in fields)
    if any(field.trim for field in fields):
        return Field(trim=2 * halo, last=2 * halo, step=step, offset=offset, exact=exact)
    return Field(first=-halo, last=halo, step=step, offset=offset, padded=True, exact=exact)


def _spare(field: Field, rest: int) -> int:
    """How much longer than its core and halos a network's window is for cores c ≡ ``rest`` (mod the common step)."""
    return (field.offset - rest - 2 * field.halo) % field.step


def _core_of(network: Network, x: Tensor, outer: Footprint, core: Sequence[int]) -> Tensor:
    window = network.footprint.input_shape(core)
    for axis, n in enumerate(window):
        x = x.narrow(axis + 2, outer.halo[axis] - network.footprint.halo[axis], n)
    answered = network.core(x)
    return answered[(slice(None), slice(None), *Box.of(core).slices)]


class NormalizedTogether(HeaderScan):
    """A scan whose channels are rescaled in several ways, one upon the other; float32.

    Args:
        source: the scan, (C, \\*n).
        rescales: for its channels, D of them; None leaves them as they are.
    """

    def __init__(self, source: Scan, rescales: Sequence[Rescale | None]) -> None:
        self.source = source
        self.rescales = tuple(rescales)
        self.grid = GridMap.same(len(source.shape))
        about = (np.dtype(np.float32), source.axes, source.affine, source.unit, source.anatomical)
        super().__init__(Header(source.name, source.shape, source.channels * len(self.rescales), *about))

    def _read(self, box: Box) -> NDArray[Any]:
        voxels = self.source.read(box)
        check_finite(self.source, box, voxels)
        ways = [voxels.astype(np.float32) if way is None else way(voxels) for way in self.rescales]
        return np.concatenate(ways)


def _rescale(preprocessing: Preprocessing, scan: Scan, fingerprint: str) -> Rescale | None:
    view = preprocessing.remembered_view(scan, fingerprint)
    return view.rescale if isinstance(view, Normalized) else None


def _ways(models: Sequence[Model]) -> list[Normalization]:
    """How intensities are normalised, each way once."""
    ways: list[Normalization] = []
    for model in models:
        if model.card.preprocessing.normalize not in ways:
            ways.append(model.card.preprocessing.normalize)
    return ways


def _check_same(first: Model, other: Model) -> None:
    """Refuses two models that do not answer the same question of the same images."""
    a, b = first.card, other.card
    for what, ours, theirs in (
        ("labels", _labels_told(a), _labels_told(b)),
        ("activations", a.activation, b.activation),
        ("channels", first.network.in_channels, other.network.in_channels),
        ("axes", first.network.dims, other.network.dims),
        ("output channels", first.network.out_channels, other.network.out_channels),
        ("orientations", a.preprocessing.orientation, b.preprocessing.orientation),
        ("spacings", a.preprocessing.spacing_mm, b.preprocessing.spacing_mm),
        ("kinds of normalization", a.preprocessing.normalize.kind, b.preprocessing.normalize.kind),
        ("channel files", a.channel_files, b.channel_files),
    ):
        if ours != theirs:
            raise PackageError(
                f"{first.folder} and {other.folder} cannot answer together: their {what} differ ({ours} and {theirs}); "
                "give models of one task"
            )


def _labels_told(card: ModelCard) -> str:
    labels = card.label_map
    regions = f", regions {', '.join(labels.regions)}" if labels.regions else ""
    return ", ".join(f"{name}: {labels.values[name]}" for name in labels.foreground) + regions


def _card(models: Sequence[Model], network: Together) -> ModelCard:
    """What the ensemble says of itself: the first model's word where all agree."""
    cards = [model.card for model in models]
    first = cards[0]
    same = {key: all(getattr(card, key) == getattr(first, key) for card in cards) for key in _SHARED}
    return first.model_copy(
        update={
            "inference": first.inference if same["inference"] else InferenceSettings(),
            "postprocessing": first.postprocessing if same["postprocessing"] else [],
            "window": _window(cards, network),
            "fingerprint": _fingerprint(cards),
            "training": {"ensemble": [card.training for card in cards]},
            "weights_sha256": digest_of([card.model_dump(mode="json") for card in cards]),
        }
    )


def _fingerprint(cards: Sequence[ModelCard]) -> Fingerprint | None:
    """What any of the models has seen; None where one does not say."""
    known = [card.fingerprint for card in cards if card.fingerprint is not None]
    return Fingerprint.joined(known) if len(known) == len(cards) else None


_SHARED = ("inference", "postprocessing")


def _window(cards: Sequence[ModelCard], network: Together) -> list[int] | None:
    """The first training window that every network can take."""
    for card in cards:
        try:
            if card.window is not None:
                network.check_window(card.window)
                return card.window
        except TileError:
            continue
    return None


def load_models(paths: Sequence[Path], device: torch.device) -> Model:
    """The model of one package, or the ensemble of several.

    Raises:
        PackageError: where one is none, or they don't belong together.
    """
    models = [Model.load(path, device) for path in paths]
    return models[0] if len(models) == 1 else Ensemble.of(models)
