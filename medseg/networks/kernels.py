"""Weights of one network for another of the same layers: other input channels, a third axis, fewer of fc6's taps.

Legend: O output channels, I input channels, C those that are wanted, k voxels of a kernel along an axis, d axes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def for_channels(weight: Tensor, channels: int) -> Tensor:
    """(O, I, \\*k) → (O, C, \\*k): the first layer's weights for images of C channels.

    Fewer channels each get the mean of all; of more, the I are repeated in turn. Either is scaled so that one picture
    in all C channels gives what it gave in all I: a grey image answers as its RGB copy did.
    """
    known = weight.shape[1]
    if channels < known:
        return weight.mean(dim=1, keepdim=True).repeat(1, channels, *[1] * (weight.ndim - 2)) * (known / channels)
    source = torch.arange(channels) % known
    copies = torch.bincount(source, minlength=known)[source]
    return weight[:, source] / copies.reshape(1, -1, *[1] * (weight.ndim - 2))


def inflated(weight: Tensor, depth: int, taps: float) -> Tensor:
    """(O, I, k, k) → (O, I, depth, k, k): a 2D kernel repeated along a new first axis (Carreira and Zisserman 2017).

    Section 2.4: divided so that a volume that is the same in every plane answers, away from its border, as one plane
    does in 2D.

    Args:
        weight: of a convolution or a transposed one.
        depth: voxels along the new axis.
        taps: how many of them meet in one output voxel: depth, of a transposed convolution depth / stride.
    """
    return weight.unsqueeze(2).repeat(1, 1, depth, 1, 1) / taps


def taps_of(layer: nn.Conv3d | nn.ConvTranspose3d) -> float:
    """How many planes of a layer's kernel meet in one output voxel."""
    return layer.kernel_size[0] / (layer.stride[0] if isinstance(layer, nn.ConvTranspose3d) else 1)


def decimated(weight: Tensor, shape: Sequence[int]) -> Tensor | None:
    """(O, I, \\*k) → ``shape``: every so many channels and voxels, the first and last voxels being kept.

    How DeepLab makes 3x3 and 1024 channels of VGG16's 7x7 and 4096 (Chen et al. 2015, section 3.2, «simple
    decimation»: every third voxel, every fourth channel). ``None`` where sizes do not divide.
    """
    if weight.ndim != len(shape):
        return None
    for axis, (n, wanted) in enumerate(zip(weight.shape, shape, strict=True)):
        if n == wanted:
            continue
        places = _every(n, wanted) if axis < 2 else _between(n, wanted)
        if places is None:
            return None
        weight = weight.index_select(axis, torch.tensor(places))
    return weight


def _every(n: int, wanted: int) -> range | None:
    """Places 0, s, 2s …, ``wanted`` of n channels."""
    return None if n % wanted else range(0, n, n // wanted)


def _between(n: int, wanted: int) -> range | None:
    """Places 0, s, 2s … n - 1, ``wanted`` of n voxels; of one, the middle."""
    if wanted == 1:
        return range(n // 2, n // 2 + 1) if n % 2 else None
    return None if wanted > n or (n - 1) % (wanted - 1) else range(0, n, (n - 1) // (wanted - 1))


def folded(weight: Tensor, bias: Tensor, norm: Sequence[Tensor], eps: float = 1e-5) -> tuple[Tensor, Tensor]:
    """A convolution's weight (O, I, \\*k) and bias (O) that answer as with the batch norm behind it, at inference.

    Args:
        weight: of the convolution.
        bias: of the convolution.
        norm: the batch norm's weight, bias, running mean and running variance, (O) each.
        eps: the batch norm's.
    """
    gain, shift, mean, variance = norm
    scale = gain / torch.sqrt(variance + eps)
    return weight * scale.reshape(-1, *[1] * (weight.ndim - 1)), (bias - mean) * scale + shift
