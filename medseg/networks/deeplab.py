"""DeepLab v1 (LargeFOV; Chen et al., ICLR 2015) and v2 (Chen et al., PAMI 2018), before batch norm in the head.

    window ── stage, pool ── stage, pool ── stage, pool ── stage, pool ── conv5, pool ── head ── K, 1/8 ──→ window
               w, 1/2         2w, 1/4        4w, 1/8        8w, 1/8        8w, 1/8                 resized
                                                                           rate 2
    v1's head     3x3, rate 12, 16w ── 1x1, 16w ── score
    v2's, ASPP    the same with rates 6, 12, 18, 24 beside each other; their scores are summed

Logits are resized to the window's own size, which any window has. Tiling is exact where resizing keeps the voxels'
distances: with corners aligned, as in the papers, for n ≡ 1 (mod 8) (their 321), without for n ≡ 0 (mod 8).

Legend: N batch, C input channels, K output channels, w width (64), n voxels along one axis.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from medseg.errors import ConfigError
from medseg.geometry import Field
from medseg.networks.blocks import initialise, join, resize
from medseg.networks.headed import ResizedNetwork
from medseg.networks.network import (
    AVERAGE_POOLING,
    CHANNEL_DROPOUT,
    CONVOLUTION,
    MAX_POOLING,
    check_choice,
    check_counts,
    check_dropout,
    check_flags,
    check_lists,
    check_sizes,
    follow,
)
from medseg.networks.resnet import ResNet
from medseg.networks.vgg import VGG16Stages

Backbone = Literal["vgg16", "resnet50", "resnet101"]
RATES = (6, 12, 18, 24)
"""ASPP-L's dilations (Chen et al. 2018, section 4.1.2)."""


class DeepLabV1(ResizedNetwork):
    """DeepLab-LargeFOV (section 3.2 and table 2 of the 2015 paper): 20.5 million parameters.

    VGG16 at stride 8, fc6 a dilated 3^dims convolution of 1024 channels, fc7 another 1024. As in the authors' release,
    poolings are 3^dims, and a 3^dims average follows the last.

    Where we differ, and why: the paper up-samples by 8; we resize to the window's own size, so that sizes that 8 does
    not divide go in. Poolings round up as in Caffe where corners are aligned, and down where not, as tiling needs it
    (for n ≡ 1 (mod 8) there is nothing to round). Dropout takes whole channels. The CRF is post-processing. 2D or 3D.

    Args:
        in_channels: C.
        out_channels: K.
        dims: 2 or 3.
        rate: dilation of fc6, 12 in the paper.
        dropout: probability of each channel after fc6 and fc7.
        align_corners: how logits are resized; the authors' release aligns them.
        width: channels of the first stage, 64 in the paper; fc6 and fc7 have 16 times as many.

    Raises:
        ConfigError: for a value that no network can be built from.
    """

    paper = "Chen et al. 2015, arXiv:1412.7062"

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 21,
        dims: int = 2,
        rate: int = 12,
        dropout: float = 0.5,
        align_corners: bool = True,
        width: int = 64,
    ) -> None:
        super().__init__(dims, in_channels, out_channels, align_corners)
        check_sizes(dims, in_channels=in_channels, out_channels=out_channels, width=width)
        check_counts(rate=rate)
        check_dropout(dropout=dropout)
        check_flags(align_corners=align_corners)
        self.backbone = VGG16AtStride8(dims, in_channels, width, align_corners)
        self.backbone.append(Average(dims))
        self.head = Branch(dims, 8 * width, 16 * width, out_channels, rate, dropout)

    def scores(self, x: Tensor, auxiliary: bool) -> list[Tensor]:
        """(N, C, \\*n) → (N, K, \\*⌈n / 8⌉)."""
        return [self.head(self.backbone(x)[-1])]

    def trace_scores(self, field: Field, axis: int) -> Field:
        """One axis through the same layers as :meth:`scores`."""
        return follow(self.head, self.backbone.trace(field, axis)[-1], axis)


class DeepLabV2(ResizedNetwork):
    """Atrous spatial pyramid pooling (section 3.2 and figure 7 of the 2018 paper): DeepLab-ASPP-L.

    On VGG16 each branch is v1's head; on a ResNet it is one dilated 3^dims convolution to the scores.

    Multi-scale inputs (section 4.1.2): the network looks at the window in each of ``scales`` with the same weights, the
    scores are resized to the first scale's, and the largest counts. A window that is resized meets other voxels in
    every tile, so that the footprint is exact for one scale only.

    Where we differ, and why: as in :class:`DeepLabV1`. A ResNet's strides are in its 3^dims convolutions (see
    :class:`ResNet`), so that the first unit after one that was taken away is dilated half as much as the release's.

    Args:
        in_channels: C.
        out_channels: K.
        dims: 2 or 3.
        backbone: the paper's ResNet-101 or VGG16; ResNet-50.
        rates: the branches' dilations.
        scales: of the input, the first being 1; (1, 0.75, 0.5) in the paper.
        dropout: probability of each channel after fc6 and fc7, for VGG16 alone (a ResNet's branches have none).
        align_corners: how windows and logits are resized; the authors' release aligns them.
        width: channels of the backbone's first convolution, 64; everything scales with it.

    Raises:
        ConfigError: for a value that no network can be built from.
    """

    paper = "Chen et al. 2018, arXiv:1606.00915"

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 21,
        dims: int = 2,
        backbone: Backbone = "resnet101",
        rates: Sequence[int] = RATES,
        scales: Sequence[float] = (1.0,),
        dropout: float = 0.5,
        align_corners: bool = True,
        width: int = 64,
    ) -> None:
        super().__init__(dims, in_channels, out_channels, align_corners)
        check_sizes(dims, in_channels=in_channels, out_channels=out_channels, width=width)
        check_choice(Backbone, backbone=backbone)
        check_dropout(dropout=dropout)
        check_flags(align_corners=align_corners)
        check_lists(rates=rates)
        _check_scales(scales)
        self.scales = tuple(scales)
        self.auxiliary_weights = (1.0,) * len(scales) if len(scales) > 1 else ()
        self.backbone: VGG16AtStride8 | ResNet
        branches: list[nn.Module]
        if backbone == "vgg16":
            self.backbone = VGG16AtStride8(dims, in_channels, width, align_corners)
            branches = [Branch(dims, 8 * width, 16 * width, out_channels, rate, dropout) for rate in rates]
        else:
            self.backbone = ResNet(backbone, dims, in_channels, width, output_stride=8)
            channels = self.backbone.channels[-1]
            branches = [CONVOLUTION[dims](channels, out_channels, 3, padding=rate, dilation=rate) for rate in rates]
            for branch in branches:
                _initialise_score(branch)
        self.head = Summed(branches)

    def scores(self, x: Tensor, auxiliary: bool) -> list[Tensor]:
        """(N, C, \\*n) → the largest of all scales' scores, and where ``auxiliary`` each scale's own."""
        scores = []
        for scale in self.scales:
            window = [_scaled(n, scale, self.align_corners) for n in x.shape[2:]]
            features = self.backbone(resize(x, window, self.align_corners))
            scores.append(self.head(features[-1]))
        fused = scores[0]
        for score in scores[1:]:
            fused = torch.maximum(fused, resize(score, fused.shape[2:], self.align_corners))
        return [fused, *scores] if auxiliary and len(scores) > 1 else [fused]

    def trace_scores(self, field: Field, axis: int) -> Field:
        """One axis through the backbone and the branches."""
        return follow(self.head, self.backbone.trace(field, axis)[-1], axis)

    def trace(self, field: Field, axis: int) -> Field:
        """One axis through the same layers as :meth:`forward`; a smaller scale sees as much farther."""
        out = super().trace(field, axis)
        if len(self.scales) == 1:
            return out
        least = min(self.scales)
        return replace(out, first=math.floor(out.first / least), last=math.ceil(out.last / least)).over_window()


class Average(nn.Module):
    """The average over 3^dims voxels, zeros around the window counting as such: (N, A, \\*n) → (N, A, \\*n)."""

    def __init__(self, dims: int) -> None:
        super().__init__()
        self.around = (1, 1) * dims
        self.pool = AVERAGE_POOLING[dims](3, stride=1, padding=1)
        self.padded = AVERAGE_POOLING[dims](3, stride=1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, A, \\*n) → (N, A, \\*n)."""
        # torch's own padding needs no copy, but its pooling in 3D takes no window smaller than the kernel.
        out: Tensor = self.pool(x) if min(x.shape[2:]) >= 3 else self.padded(functional.pad(x, self.around))
        return out

    def trace(self, field: Field, axis: int) -> Field:
        """One axis through the pooling."""
        return follow(self.pool, field, axis)


class Branch(nn.Sequential):
    """fc6, fc7 and the score as convolutions, the first one dilated: (N, A, \\*n) → (N, K, \\*n)."""

    def __init__(self, dims: int, inputs: int, inner: int, outputs: int, rate: int, dropout: float) -> None:
        score = CONVOLUTION[dims](inner, outputs, 1)
        super().__init__(
            CONVOLUTION[dims](inputs, inner, 3, padding=rate, dilation=rate),
            nn.ReLU(inplace=True),
            CHANNEL_DROPOUT[dims](dropout),
            CONVOLUTION[dims](inner, inner, 1),
            nn.ReLU(inplace=True),
            CHANNEL_DROPOUT[dims](dropout),
            score,
        )
        self.apply(initialise)
        _initialise_score(score)


class Summed(nn.ModuleList):
    """Branches whose scores are summed: (N, A, \\*n) → (N, K, \\*n)."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, A, \\*n) → (N, K, \\*n)."""
        first, *others = self
        out: Tensor = first(x)
        for branch in others:
            out = out + branch(x)
        return out

    def trace(self, field: Field, axis: int) -> Field:
        """One axis through the branches."""
        return join([follow(branch, field, axis) for branch in self])


class VGG16AtStride8(nn.Sequential):
    """VGG16 up to its last pooling: 3^dims poolings, the last two without their stride, conv5 dilated instead."""

    def __init__(self, dims: int, in_channels: int, width: int, round_up: bool) -> None:
        super().__init__()
        for level, stage in enumerate(VGG16Stages(dims, in_channels, width, rates=(1, 1, 1, 1, 2))):
            stride = 2 if level < 3 else 1
            self.extend([stage, MAX_POOLING[dims](3, stride=stride, padding=1, ceil_mode=round_up)])
        self.apply(initialise)

    def forward(self, x: Tensor) -> list[Tensor]:
        """(N, C, \\*n) → one feature, (N, 8w, \\*⌈n / 8⌉)."""
        for layer in self:
            x = layer(x)
        return [x]

    def trace(self, field: Field, axis: int) -> list[Field]:
        """One axis through the same layers."""
        for layer in self:
            field = follow(layer, field, axis)
        return [field]


def _initialise_score(layer: nn.Module) -> None:
    """Gaussian weights of deviation 0.01, biases zero, as in the authors' release."""
    weight, bias = layer.parameters()
    nn.init.normal_(weight, std=0.01)
    nn.init.zeros_(bias)


def _scaled(n: int, scale: float, align_corners: bool) -> int:
    """A window's voxels at a scale; with corners aligned its distances are scaled: 321 → 241, 161."""
    size = math.floor((n - 1) * scale) + 1 if align_corners else math.floor(n * scale + 0.5)
    return max(size, 1)


def _check_scales(scales: Sequence[float]) -> None:
    listed = isinstance(scales, Sequence) and not isinstance(scales, str) and len(scales) > 0
    numbers = listed and all(type(scale) in (int, float) and 0 < scale <= 4 for scale in scales)
    if not numbers or scales[0] != 1:
        raise ConfigError(f"network.scales is {scales!r}: it must be a list of numbers up to 4 that begins with 1")
