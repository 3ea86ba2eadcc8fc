"""torchvision's weights in a network of ours: ``network.pretrained``.

What a backbone learned on photographs is a better beginning than noise. The file's kind is recognised from its keys,
each tensor has its place (:mod:`medseg.networks.torchvision_names`), and one line says what was taken, changed, left.

The weights expect photographs as torchvision normalises them: channels red, green, blue, with the mean and deviation of
ImageNet taken out. ``normalize: zscore`` comes near.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from medseg.errors import PackageError
from medseg.networks.kernels import decimated, folded, for_channels, inflated
from medseg.networks.names import listed, parts, shape_of
from medseg.networks.network import Network
from medseg.networks.torchvision_names import (
    FULLY_CONNECTED,
    NORM,
    VGG16_CONVOLUTIONS,
    Pair,
    kind_of,
    kinds_for,
    pairs_of,
    vgg_stages,
)
from medseg.networks.weight_files import read_tensors

KINDS = "vgg16, vgg16_bn, resnet18 to 152, mobilenet_v2, fcn_resnet50/101, deeplabv3_resnet50/101"
COUNTER = "num_batches_tracked"
"""A buffer of batch norm that old files do not have, and that does not matter at inference."""
SCORE = "classifier.4.bias"
"""The last layer of torchvision's heads; it has as many values as there are classes."""
SHOWN = 3
"""Misfits that a message names."""
LISTED = 8
"""Parts that a line names."""


@dataclass(frozen=True)
class Account:
    """What was taken from a file.

    Attributes:
        kind: torchvision's name of the file's network.
        taken: how many tensors.
        notes: what was changed, drawn anew and left out.
    """

    kind: str
    taken: int
    notes: tuple[str, ...]

    def __str__(self) -> str:
        """One line."""
        return "; ".join([f"{self.taken} tensors of torchvision's {self.kind}", *self.notes])


def load_pretrained(network: Network, path: Path) -> Account:
    """Puts a file's weights into a network, in place.

    The backbone must fit as a whole. Input channels are averaged or repeated, 2D kernels inflated for a network of
    three axes, VGG16's fully connected layers reshaped to fc6 and fc7 (decimated where these are smaller), and batch
    norm folded into the convolutions of a network that has none. Heads are taken where they fit; a classifier of other
    classes keeps the weights that it was drawn with.

    Raises:
        PackageError: for a file that is missing, damaged, can run code, or of no kind that is known; for one that has
            no place in this network; and where tensors do not fit, with their names and shapes.
    """
    tensors = read_tensors(path)
    kind = _kind(path, tensors)
    notes = []
    if kind == "vgg16_bn" and not _has_norms(network):
        tensors = _folded_vgg(tensors)
        notes.append("batch norm folded into the convolutions")
    own = network.state_dict()
    pairs = _pairs(path, kind, tensors, network)
    fitted = {pair: _fitted(tensors.get(pair.source), own.get(pair.target), pair, network) for pair in pairs}
    _check_backbone(path, kind, tensors, own, fitted, kinds_for(network))
    whole = all(tensor is not None for pair, tensor in fitted.items() if pair.role == "fc")
    taken = {p: tensor for p, tensor in fitted.items() if tensor is not None and (whole or p.role != "fc")}
    with torch.no_grad():
        for pair, tensor in taken.items():
            own[pair.target].copy_(tensor)
    notes += [*dict.fromkeys(_changes(tensors, taken)), *_rest(tensors, network, pairs, taken)]
    return Account(kind, sum(not pair.target.endswith(COUNTER) for pair in taken), tuple(notes))


def _has_norms(network: Network) -> bool:
    layers = [layer for stage in vgg_stages(network) for layer in network.get_submodule(stage).children()]
    return any(isinstance(layer, nn.BatchNorm2d | nn.BatchNorm3d) for layer in layers)


def _folded_vgg(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``vgg16_bn`` as the ``vgg16`` that answers alike, under the names that it has."""
    result = dict(tensors)
    for n in VGG16_CONVOLUTIONS["vgg16_bn"]:
        norm = [result.pop(f"features.{n + 1}.{part}") for part in NORM]
        weight, bias = (f"features.{n}.{part}" for part in ("weight", "bias"))
        result[weight], result[bias] = folded(result[weight], result[bias], norm)
    return result


def _kind(path: Path, tensors: Mapping[str, Tensor]) -> str:
    kind = kind_of(tensors)
    if kind is None:
        raise PackageError(
            f"{path} is none of torchvision's {KINDS}: its keys are {listed(list(tensors), SHOWN)}; a model of medseg "
            "goes to training.init_from"
        )
    return kind


def _pairs(path: Path, kind: str, tensors: Mapping[str, Tensor], network: Network) -> list[Pair]:
    pairs = pairs_of(kind, tensors, network)
    if not pairs:
        wanted = kinds_for(network)
        takes = f"takes {wanted}" if wanted else "has no backbone of torchvision's: leave network.pretrained out"
        raise PackageError(f"{path} is {kind}, and this network ({type(network).__name__}) {takes}")
    return pairs


def _fitted(tensor: Tensor | None, own: Tensor | None, pair: Pair, network: Network) -> Tensor | None:
    """A tensor as the network has it, or None where it cannot be made so."""
    if tensor is None or own is None:
        return None
    shape = tuple(own.shape)
    if pair.role == "first" and tensor.ndim == 4:
        tensor = for_channels(tensor, network.in_channels)
    elif pair.role == "fc":
        plane = (*shape[:2], *shape[3:]) if len(shape) == 5 else shape
        smaller = decimated(as_convolution(tensor, pair), plane)
        if smaller is None:
            return None
        tensor = smaller
    if tensor.ndim == 4 and len(shape) == 5:
        tensor = inflated(tensor, shape[2], shape[2])
    return tensor if tuple(tensor.shape) == shape else None


def as_convolution(tensor: Tensor, pair: Pair) -> Tensor:
    """(O, I·k·k) → (O, I, k, k): the weight of VGG16's fc6 or fc7; a bias, and what is no such weight, as it is."""
    size = FULLY_CONNECTED[pair.source.rpartition(".")[0]]
    if tensor.ndim != 2 or tensor.shape[1] % size**2:
        return tensor
    return tensor.reshape(len(tensor), -1, size, size)


def _check_backbone(
    path: Path,
    kind: str,
    tensors: Mapping[str, Tensor],
    own: Mapping[str, Tensor],
    fitted: Mapping[Pair, Tensor | None],
    takes: str,
) -> None:
    """Refuses a backbone that is another one, or of another width, naming what does not fit.

    Raises:
        PackageError: with names and shapes.
    """
    wrong = [
        f"{pair.source} is {shape_of(tensors.get(pair.source))} and {pair.target} {shape_of(own.get(pair.target))}"
        for pair, tensor in fitted.items()
        if tensor is None and pair.role in ("first", "layer") and not pair.target.endswith(COUNTER)
    ]
    if not kind.startswith("vgg"):
        reached = {pair.target for pair in fitted}
        bare = [key for key in own if key.startswith("backbone.") and key not in reached and not key.endswith(COUNTER)]
        wrong += [f"{key} is {shape_of(own[key])} and not in the file" for key in bare]
    if wrong:
        raise PackageError(
            f"{path} is {kind}, and {len(wrong)} of its tensors do not fit this network: "
            f"{listed(wrong, SHOWN, '; ')}; it takes {takes}, at network.width 64"
        )


def _changes(tensors: Mapping[str, Tensor], taken: Mapping[Pair, Tensor]) -> Iterator[str]:
    """What had to be done to tensors that were taken, in words."""
    for pair, tensor in taken.items():
        there, here = tensors[pair.source].shape, tensor.shape
        if pair.role == "first" and there[1] != here[1]:
            how = "averaged" if here[1] < there[1] else "repeated"
            yield f"{there[1]} input channels {how} for {here[1]}"
        if pair.source == "classifier.0.weight" and pair.role == "fc":
            there = as_convolution(tensors[pair.source], pair).shape
            yield f"fc6 and fc7 as convolutions{_decimation(there, here)}"
    if any(tensor.ndim == 5 for tensor in taken.values()):
        yield "kernels inflated to three axes"


def _decimation(there: Sequence[int], here: Sequence[int]) -> str:
    if (there[0], there[-1]) == (here[0], here[-1]):
        return ""
    return f", decimated from {there[0]} channels and {there[-1]} voxels an axis to {here[0]} and {here[-1]}"


def _rest(
    tensors: Mapping[str, Tensor], network: Network, pairs: Iterable[Pair], taken: Iterable[Pair]
) -> Iterator[str]:
    """What stays as it was drawn, and what stays in the file."""
    targets, sources = {pair.target for pair in taken}, {pair.source for pair in taken}
    fresh = [key for key, _ in network.named_parameters() if key not in targets]
    left = [key for key in tensors if key not in sources and not key.endswith(COUNTER)]
    if any(pair.source == SCORE and pair.target not in targets for pair in pairs):
        yield f"its classifier has {len(tensors[SCORE])} classes and this network {network.out_channels}"
    if fresh:
        yield f"drawn anew: {listed(parts(fresh, targets), LISTED)}"
    if left:
        yield f"left in the file: {listed(parts(left, sources), LISTED)}"
